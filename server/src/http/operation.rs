//! What operators, load balancers and clients that look for a node ask.

use std::borrow::Cow;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
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
    /// Whether it answers the other nodes and is ready.
    healthy: bool,
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
    let known = &api.0.nodes;
    let nodes = known.ranked(&looking.region).into_iter().map(|node| DiscoveredNode {
        node: node.node,
        address: node.address,
        region: node.region,
        load: node.load_permille,
        healthy: node.healthy,
        draining: node.draining,
    });
    Json(Discovery { nodes: nodes.collect(), pins: known.about().pins.clone() })
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node serves: it has replayed its log, reaches a leader of every partition, and is not draining.
#[utoipa::path(get, path = "/readyz", tag = "operation",
    responses((status = 200, body = String), (status = 503, body = String)))]
pub(super) async fn readyz(State(api): State<Api>) -> (StatusCode, Cow<'static, str>) {
    let not = StatusCode::SERVICE_UNAVAILABLE;
    let unreachable = api.node().unreachable();
    if api.0.nodes.leaving().is_draining() {
        (not, "draining\n".into())
    } else if !api.node().has_caught_up() {
        (not, "starting\n".into())
    } else if api.node().is_disk_low() {
        (not, "the disk is almost full: posts are refused\n".into())
    } else if unreachable.is_empty() {
        (StatusCode::OK, "ready\n".into())
    } else {
        let partitions: Vec<_> = unreachable.iter().map(ToString::to_string).collect();
        (not, format!("no leader can be reached of partitions {}\n", partitions.join(", ")).into())
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
