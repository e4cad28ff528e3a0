//! The edge: what clients connect to.
//!
//! One UDP port speaks `rove/1` and `h3`; the ALPN of a connection decides. A connection is first counted
//! (`admission`), then shaken hands with, then becomes a session (`session`) or is handed to the HTTP router. A session may
//! begin before the handshake is complete (`early`), and then does little until it is.
//!
//! ```text
//! session ── control stream, requests, datagrams: one task
//!    ├── conversation stream: a task each; a cursor in the log ─┐
//!    ├── inbox stream: a task; a dirty set ─────────────────────┼── hub ◀── the state writer publishes
//!    └── fetch stream: a task each; reads the store             ┘
//! ```
//!
//! Nothing here is queued for a client beyond what its streams have room for, every task belongs to its session's set, and
//! every session to the edge's tracker: [`Edge::drained`] returns when all are gone.

mod admission;
mod control;
mod conversation;
mod datagrams;
mod early;
mod entitlement;
mod entry;
mod fetch;
mod frames;
mod hub;
mod identity;
mod inbox;
mod session;
mod stats;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quinn::crypto::rustls::HandshakeData;
use rove_core::conversation::read;
use rove_core::discovery::NodeState;
use rove_protocol::ids::{AccountId, PartitionId};
use rove_protocol::limits;
use rove_protocol::message::Alternative;
use rove_protocol::registry::{ALPN, ErrorCode};
use rove_protocol::wire::List;
use rove_quic::SessionStore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::leaving::{Leaving, Wave};
use crate::node::Node;
use crate::nodes::Nodes;
use admission::{Admission, Full, Place};
use stats::Counted;

pub use hub::{Hub, HubConfig, PresencePeers};
pub use identity::EndpointSecret;
pub use stats::EdgeStats;

/// The ALPN name of HTTP/3.
const H3: &[u8] = b"h3";
/// Other nodes that a client is told of at most: more than it tries before it begins again.
const MAX_ALTERNATIVES: usize = 8;
/// How long each half of a handshake may take: several retransmissions on a bad path. Who stalls it holds a place until
/// then.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often the other nodes are told that this one is there, and by what to know that they have heard all of it: what was lost
/// is missed for so long, and it is one small message.
const DIGEST_EVERY: Duration = Duration::from_secs(1);
/// How long changes gather before the other nodes are told: nobody notices it, and a crowd that comes at once is few messages.
const NEWS_GATHER: Duration = Duration::from_millis(50);
/// How long the last packets of a closed endpoint are given to leave.
const LINGER: Duration = Duration::from_secs(1);

/// How the edge behaves.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Connections there may be.
    pub max_connections: usize,
    /// Connections one address (or one /64 of IPv6) may have. Carriers put thousands of people behind one.
    pub max_per_address: usize,
    /// Unfinished handshakes above which clients have to prove their address first (Retry, S2).
    pub retry_above: usize,
    /// How long all sessions together are given to go elsewhere when the node stops.
    pub drain: Duration,
    /// The nodes of the cluster, of which clients are told; `None`: of none, and this one hands its sessions over only when it stops.
    pub nodes: Option<Arc<Nodes>>,
    /// What outlives a restart; `None`: nothing does, and clients of an earlier life wait for their heartbeats to fail.
    pub secret: Option<EndpointSecret>,
    /// The TLS sessions that the TLS configuration keeps, to count by.
    pub sessions: Option<Arc<SessionStore>>,
}

impl Default for EdgeConfig {
    /// 100,000 connections are some 4 GB; an address has a tenth of that; at a thousand handshakes a second and 100 ms each,
    /// 256 unfinished ones are more than a busy hour has.
    fn default() -> Self {
        Self {
            max_connections: 100_000,
            max_per_address: 10_000,
            retry_above: 256,
            drain: Duration::from_secs(5),
            nodes: None,
            secret: None,
            sessions: None,
        }
    }
}

/// What all connections share.
pub(crate) struct Shared {
    config: EdgeConfig,
    hub: Arc<Hub>,
    node: Node,
    http: axum::Router,
    leaving: Arc<Leaving>,
    /// The node stops.
    shutdown: CancellationToken,
}

impl Shared {
    fn stats(&self) -> &Arc<EdgeStats> {
        self.hub.stats()
    }

    /// Where clients may go instead, best first.
    fn alternatives(&self) -> List<Alternative> {
        let others = self.config.nodes.iter().flat_map(|nodes| nodes.others());
        let alternative = |node: NodeState| Alternative { address: node.address, region: node.region };
        others.take(MAX_ALTERNATIVES).map(alternative).collect()
    }

    /// The queue of sessions that are asked to go, now and when there is another.
    fn wave(&self) -> watch::Receiver<Option<Wave>> {
        self.leaving.wave()
    }
}

/// The running edge.
pub struct Edge {
    endpoint: quinn::Endpoint,
    tasks: TaskTracker,
    shared: Arc<Shared>,
}

impl Edge {
    /// Serves `socket` until `shutdown`. The hub is the sink that the node was started with; `server_config` should come from
    /// [`rove_quic::server_config`], with the ALPN names `rove/1` and `h3`.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn start(
        config: EdgeConfig,
        hub: Arc<Hub>,
        node: Node,
        server_config: quinn::ServerConfig,
        socket: std::net::UdpSocket,
        http: axum::Router,
        shutdown: CancellationToken,
    ) -> std::io::Result<Self> {
        let endpoint = quinn::Endpoint::new(
            config.secret.as_ref().map_or_else(quinn::EndpointConfig::default, EndpointSecret::endpoint_config),
            Some(server_config),
            socket,
            Arc::new(quinn::TokioRuntime),
        )?;
        if let Some(sessions) = &config.sessions {
            hub.stats().count_sessions(sessions.clone());
        }
        attach(&hub, &node);
        let admission = Arc::new(Admission::new(config.max_connections, config.max_per_address));
        let leaving = config.nodes.as_ref().map(|nodes| nodes.leaving().clone()).unwrap_or_default();
        let shared = Arc::new(Shared { config, hub, node, http, leaving, shutdown });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(endpoint.clone(), shared.clone(), admission, tasks.clone()));
        tasks.spawn(leases(shared.clone()));
        tasks.spawn(tell_peers(shared.clone()));
        Ok(Self { endpoint, tasks, shared })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<EdgeStats> {
        self.shared.stats()
    }

    /// Returns when every connection is gone, after `shutdown`: clients are told to go elsewhere one after the other, and
    /// those that are left are cut off after [`EdgeConfig::drain`].
    pub async fn drained(self) {
        self.shared.shutdown.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.endpoint.close(quinn::VarInt::from_u32(ErrorCode::GoingAway.0), b"the node has left");
        // What does not leave by then is lost like any other packet.
        let _ = tokio::time::timeout(LINGER, self.endpoint.wait_idle()).await;
    }
}

/// Gives the hub the store, and where the partitions stand: nobody was connected before, so everything there is has been
/// told to everybody.
fn attach(hub: &Hub, node: &Node) {
    for partition in (1..=node.partitions()).map(PartitionId) {
        if let Ok(Some(row)) = read::partition(node.state(), partition) {
            hub.raise(partition, hub::last_id(row.last_hi));
        }
    }
    let store = node.clone();
    let shards = node.shards().clone();
    hub.attach(
        shards,
        Box::new(move |partition, conversation| {
            let members = read::members(store.state(), partition, conversation, AccountId(0), limits::MEMBERS as usize);
            match members {
                Ok(members) => Some(members.into_iter().map(|(account, row)| (account, row.role)).collect()),
                Err(error) => {
                    tracing::error!(%error, "members cannot be read");
                    None
                }
            }
        }),
    );
}

/// Accepts connections until shutdown.
async fn accept(endpoint: quinn::Endpoint, shared: Arc<Shared>, admission: Arc<Admission>, tasks: TaskTracker) {
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(incoming, &shared, &admission, &tasks),
                None => return,
            },
            () = shared.shutdown.cancelled() => break,
        }
    }
    // New clients are refused at once, and try another node; those that are here go one after the other.
    endpoint.set_server_config(None);
    let sessions = shared.stats().sessions.load(std::sync::atomic::Ordering::Relaxed);
    shared.leaving.ask_to_stop(shared.config.drain, sessions);
}

/// Takes a connection, or not.
fn admit(incoming: quinn::Incoming, shared: &Arc<Shared>, admission: &Arc<Admission>, tasks: &TaskTracker) {
    let stats = shared.stats();
    let handshakes = stats.handshakes.load(std::sync::atomic::Ordering::Relaxed);
    if handshakes >= shared.config.retry_above && !incoming.remote_address_validated() && incoming.may_retry() {
        EdgeStats::add(&stats.retried, 1);
        // It may retry: it cannot fail.
        let _ = incoming.retry();
        return;
    }
    match admission.enter(incoming.remote_address().ip()) {
        Ok(place) => {
            EdgeStats::add(&stats.accepted, 1);
            tasks.spawn(Box::pin(connection(incoming, shared.clone(), place)));
        }
        Err(full) => {
            let counter = match full {
                Full::Total => &stats.refused_total,
                Full::Address => &stats.refused_per_address,
            };
            EdgeStats::add(counter, 1);
            incoming.refuse();
        }
    }
}

/// One connection, from the handshake to its end: what it begins with, and what comes of that. Each is boxed, so that it is gone when it is
/// over, and nothing of it is kept for as long as the session lives.
fn connection(incoming: quinn::Incoming, shared: Arc<Shared>, place: Place) -> impl Future<Output = ()> + Send {
    let counted = Counted::new(shared.stats(), |stats| &stats.connections);
    let greeted = Box::pin(greeted(incoming, shared));
    async move {
        let _held = (place, counted);
        if let Some(serving) = greeted.await {
            serving.await;
        }
    }
}

/// The handshake, as far as it must be complete; what serves the connection from then on.
async fn greeted(incoming: quinn::Incoming, shared: Arc<Shared>) -> Option<BoxFuture<'static, ()>> {
    let handshaking = Counted::new(shared.stats(), |stats| &stats.handshakes);
    let (protocol, connecting) = greeting(incoming).await?;
    match protocol.as_deref() {
        Some(ALPN) => {
            let begun = early::begin(connecting, handshaking, HANDSHAKE).await?;
            Some(Box::pin(session::run(shared, begun)))
        }
        Some(H3) => {
            // Requests may change something: none is looked at before the handshake is complete.
            let connection = tokio::time::timeout(HANDSHAKE, connecting).await.ok()?.ok()?;
            drop(handshaking);
            connection.set_receive_window(quinn::VarInt::from_u32(rove_quic::config::SERVER_WINDOW));
            Some(Box::pin(crate::http::serve_h3(connection, shared.http.clone(), shared.shutdown.clone())))
        }
        // TLS agreed on no protocol of ours; a client that offers none gets here.
        _ => {
            let connection = tokio::time::timeout(HANDSHAKE, connecting).await.ok()?.ok()?;
            connection.close(quinn::VarInt::from_u32(ErrorCode::Unsupported.0), b"rove/1 or h3");
            None
        }
    }
}

/// Reads the client's first TLS message, for a bounded time: which protocol it speaks.
async fn greeting(incoming: quinn::Incoming) -> Option<(Option<Vec<u8>>, quinn::Connecting)> {
    let mut connecting = incoming.accept().ok()?;
    let data = tokio::time::timeout(HANDSHAKE, connecting.handshake_data()).await.ok()?.ok()?;
    let protocol = data.downcast::<HandshakeData>().ok()?.protocol;
    Some((protocol, connecting))
}

/// Ends leases of presence as they run out.
async fn leases(shared: Arc<Shared>) {
    loop {
        let next = shared.hub.expire_leases();
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = shared.shutdown.cancelled() => return,
        }
    }
}

/// Tells the other nodes who comes and goes here.
async fn tell_peers(shared: Arc<Shared>) {
    let mut digest = tokio::time::interval(DIGEST_EVERY);
    digest.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let telling = async {
        loop {
            tokio::select! {
                _ = digest.tick() => shared.hub.tell_peers(true),
                () = shared.hub.presence_news() => {
                    tokio::time::sleep(NEWS_GATHER).await;
                    shared.hub.tell_peers(false);
                }
            }
        }
    };
    tokio::select! {
        () = telling => {}
        () = shared.shutdown.cancelled() => {}
    }
}
