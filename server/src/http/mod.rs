//! The stateless HTTP API: accounts, devices, discovery, health, metrics.
//!
//! One [`router`] serves three transports: HTTP/1.1 and HTTP/2 over TLS on TCP ([`serve_tcp`]) and HTTP/3 on the chat's UDP port
//! ([`serve_h3`], to which the edge hands connections that speak `h3`). A handler holds nothing between requests: what it
//! knows is in the directory, which every node has.
//!
//! Secrets (D: accounts) are drawn, and passwords hashed, here; what goes on to the directory are digests. The order in a
//! handler is always the same: limits on attempts, then the shape of the request, then hashing, then the log.

mod accounts;
mod api;
mod devices;
mod error;
mod extract;
mod h3;
mod metrics;
pub mod openapi;
mod operation;
mod password;
mod rate_limit;
mod secrets;
mod tcp;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::StatusCode;
use rove_protocol::registry::ErrorCode;

pub use api::{Api, ApiConfig};
pub use error::ApiError;
pub use h3::serve_h3;
pub use password::HashLimits;
pub use secrets::Lifetimes;
pub use tcp::serve_tcp;

/// Largest body of a request, in bytes: the largest there is has a handle, a password and two names, 1 KiB in all.
pub const BODY: usize = 16 * 1024;
/// Largest set of header fields of a request, in bytes (S20).
pub const FIELDS: u32 = 16 * 1024;
/// A request is answered within this time, or not at all: the queue of hashes is ten seconds long, and a proxy's patience
/// usually sixty.
const DEADLINE: Duration = Duration::from_secs(30);

/// The API as a service.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/sign-up", post(accounts::sign_up))
        .route("/v1/log-in", post(accounts::log_in))
        .route("/v1/refresh", post(accounts::refresh))
        .route("/v1/log-out", post(accounts::log_out))
        .route("/v1/devices", get(devices::list))
        .route("/v1/devices/{id}", delete(devices::revoke))
        .route("/v1/discovery", get(operation::discovery))
        .route("/healthz", get(operation::healthz))
        .route("/readyz", get(operation::readyz))
        .route("/metrics", get(operation::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .method_not_allowed_fallback(|| async { ApiError::new(ErrorCode::Unsupported, "not with this method") })
        .fallback(|| async { ApiError::new(ErrorCode::NotFound, "there is nothing here; see /openapi.json") })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(api.clone(), admit))
        .with_state(api)
}

/// Bounds how many requests there are and how long each takes, and counts them.
async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = match api.0.requests.clone().try_acquire_owned() {
        Err(_) => ApiError::new(ErrorCode::Busy, "too many requests are under way; try again").into_response(),
        Ok(_permit) => tokio::time::timeout(DEADLINE, next.run(request))
            .await
            .unwrap_or_else(|_| ApiError::new(ErrorCode::Timeout, "the request took too long").into_response()),
    };
    api.0.metrics.count(route, response.status(), began.elapsed());
    // Only our own faults are worth a line; a client's are counted.
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::warn!(took_ms = began.elapsed().as_millis(), "a request was answered with 500");
    }
    response
}
