//! The OpenAPI document, made from the handlers.

use axum::response::{IntoResponse, Response};
use http::header;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::error::{ApiError, ErrorBody, ErrorDetail};
use super::{accounts, devices, operation};

#[derive(OpenApi)]
#[openapi(
    info(title = "Rove HTTP API", description = "Accounts, devices and operation. Conversations are rove/1 over QUIC."),
    paths(
        accounts::sign_up,
        accounts::log_in,
        accounts::refresh,
        accounts::log_out,
        devices::list,
        devices::revoke,
        operation::discovery,
        operation::healthz,
        operation::readyz,
        operation::metrics
    ),
    components(schemas(
        accounts::SignUp,
        accounts::LogIn,
        accounts::SignedIn,
        accounts::Refresh,
        accounts::Refreshed,
        devices::Devices,
        devices::ListedDevice,
        operation::Discovery,
        operation::DiscoveredNode,
        ErrorBody,
        ErrorDetail
    )),
    modifiers(&Bearer)
)]
struct Document;

/// Declares the bearer token.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An access token")).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The document as JSON.
///
/// # Errors
/// It cannot be written as JSON.
pub fn document() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json()
}

pub(super) async fn openapi() -> Result<Response, ApiError> {
    let text = document().map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
