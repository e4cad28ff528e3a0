//! What operators, load balancers and clients that look for a node ask.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use rove_core::discovery::{NodeState, rank};
use rove_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::Api;
use super::error::ApiError;

/// Where to connect.
#[derive(Serialize, ToSchema)]
pub(super) struct Discovery {
    /// Nodes, the one to try first at the front.
    nodes: Vec<DiscoveredNode>,
    /// What may be pinned: base64url of the SHA-256 of a SubjectPublicKeyInfo.
    pins: Vec<String>,
}

/// One node.
#[derive(Serialize, ToSchema)]
pub(super) struct DiscoveredNode {
    /// Its id.
    #[schema(value_type = u64)]
    node: NodeId,
    /// `host:port` of its QUIC endpoint.
    address: String,
    /// Where it stands; may be empty.
    region: String,
    /// Sessions it has, in thousandths of those it takes.
    load: u16,
    /// Whether it is about to leave.
    draining: bool,
}

/// Who looks for a node.
#[derive(Deserialize)]
pub(super) struct Looking {
    /// The client's region, if it knows it.
    #[serde(default)]
    region: String,
}

/// Lists the nodes, best first.
#[utoipa::path(get, path = "/v1/discovery", tag = "operation",
    params(("region" = Option<String>, Query, description = "Where the client is")), responses((status = 200, body = Discovery)))]
pub(super) async fn discovery(State(api): State<Api>, Query(looking): Query<Looking>) -> Json<Discovery> {
    let config = &api.0.config;
    let sessions = api.0.sessions.sessions.load(Ordering::Relaxed);
    let load = sessions.saturating_mul(1_000) / config.full_sessions.max(1);
    let here = NodeState {
        node: api.node().id(),
        address: config.address.clone(),
        region: config.region.clone(),
        healthy: api.node().is_ready(),
        draining: api.0.draining.is_cancelled(),
        load_permille: u16::try_from(load).unwrap_or(u16::MAX),
    };
    let nodes = rank(vec![here], &looking.region).into_iter().map(|node| DiscoveredNode {
        node: node.node,
        address: node.address,
        region: node.region,
        load: node.load_permille,
        draining: node.draining,
    });
    Json(Discovery { nodes: nodes.collect(), pins: config.pins.clone() })
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node serves: it has replayed its log, leads or follows, and is not draining.
#[utoipa::path(get, path = "/readyz", tag = "operation",
    responses((status = 200, body = String), (status = 503, body = String)))]
pub(super) async fn readyz(State(api): State<Api>) -> (StatusCode, &'static str) {
    if api.0.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if api.node().is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

/// Figures for Prometheus, in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, ApiError> {
    let hashing = api.0.passwords.load(api.0.config.hashes);
    let text = api.0.metrics.encode(hashing).map_err(|error| ApiError::internal(&error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
