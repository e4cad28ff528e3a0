//! What every handler holds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;
use tokio::sync::Semaphore;

use super::error::ApiError;
use super::metrics::Metrics;
use super::password::{HashLimits, Passwords};
use super::rate_limit::{RateLimits, TooOften};
use super::secrets::Lifetimes;
use crate::node::Node;
use crate::nodes::Nodes;

/// Requests under way, over all connections. Each may hold a body of [`super::BODY`] and a hash in the queue.
const REQUESTS: usize = 1_024;

/// How the API behaves.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Whether limits on attempts hold.
    pub rate_limits: bool,
    /// How much password hashing there may be at once.
    pub hashes: HashLimits,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
}

/// What every handler holds. Cheap to clone.
#[derive(Clone)]
pub struct Api(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) node: Node,
    pub(super) config: ApiConfig,
    pub(super) passwords: Passwords,
    pub(super) limits: RateLimits,
    pub(super) metrics: Metrics,
    pub(super) nodes: Arc<Nodes>,
    pub(super) requests: Arc<Semaphore>,
}

impl Api {
    /// The API of the node that sees these `nodes`. While that drains it is not ready.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(nodes: Arc<Nodes>, config: ApiConfig) -> Result<Self, ApiError> {
        Ok(Self(Arc::new(Inner {
            passwords: Passwords::new(config.hashes)?,
            limits: RateLimits::new(config.rate_limits),
            metrics: Metrics::new(nodes.clone()),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            node: nodes.node().clone(),
            config,
            nodes,
        })))
    }

    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }
}

impl From<TooOften> for ApiError {
    fn from(TooOften(wait_ms): TooOften) -> Self {
        Self::rate_limited(wait_ms)
    }
}

/// Now, in milliseconds of the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where a request comes from: whoever serves the connection says so with [`ConnectInfo`].
pub(super) struct Peer(pub(super) IpAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        // Without a connection there is no address: all of them share one.
        Ok(Self(peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())))
    }
}
