//! Errors as HTTP says them: a status, and a body with the registry's code.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use rove_protocol::registry::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::node::CallError;

/// A request that was not done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    retry_after_ms: u64,
    status: StatusCode,
}

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    pub(super) error: ErrorDetail,
}

/// Why a request was not done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorDetail {
    /// The name of the code, as in `spec/registry.toml`.
    #[schema(example = "NameTaken")]
    pub(super) code: String,
    /// Its number.
    #[schema(example = 36)]
    pub(super) number: u32,
    /// For a developer to read; may change.
    pub(super) message: String,
    /// When to try again, in milliseconds; 0: no advice.
    pub(super) retry_after_ms: u64,
}

/// How long to wait when the server is busy: a second spreads a crowd, and nobody notices more than that.
const BUSY_RETRY_MS: u64 = 1_000;

impl ApiError {
    /// An error with the status that belongs to its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retry_after_ms = match code {
            ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::GoingAway | ErrorCode::Timeout => BUSY_RETRY_MS,
            _ => 0,
        };
        Self { code, message: message.into(), retry_after_ms, status: status(code) }
    }

    /// A field with a value that is never right.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// The one answer to a wrong handle, a wrong password, and both.
    pub fn wrong_password() -> Self {
        Self::new(ErrorCode::Unauthenticated, "no account has this handle and this password")
    }

    /// No token, or one that is of no use (any more).
    pub fn unauthenticated() -> Self {
        Self::new(ErrorCode::Unauthenticated, "a valid bearer token is needed; refresh or log in")
    }

    /// Too often.
    pub fn rate_limited(retry_after_ms: u64) -> Self {
        Self { retry_after_ms, ..Self::new(ErrorCode::RateLimited, "too many attempts; wait before the next") }
    }

    /// Something of ours failed: the log has it, the client does not.
    pub fn internal(what: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %what, "a request failed on our side");
        Self::new(ErrorCode::Internal, "the server failed; try again later")
    }

    /// With another status than the code's usual one.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Why.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let message = match error {
            CallError::Unknown => "the outcome is not known; ask again, with the same idempotency key",
            _ => "this server cannot take it now; try again",
        };
        Self::new(error.code(), message)
    }
}

/// The status of each code that HTTP answers with. Codes that only `rove/1` has are the server's fault here.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Malformed | ErrorCode::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::Revoked => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::NameTaken | ErrorCode::LimitExceeded => StatusCode::CONFLICT,
        ErrorCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::GoingAway | ErrorCode::Timeout | ErrorCode::Behind => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = ErrorDetail {
            code: self.code.to_string(),
            number: self.code.0,
            message: self.message,
            retry_after_ms: self.retry_after_ms,
        };
        let mut response = (self.status, Json(ErrorBody { error: detail })).into_response();
        let headers = response.headers_mut();
        if self.retry_after_ms > 0 {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_ms.div_ceil(1_000)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_its_code_and_when_to_come_back() {
        let response = ApiError::rate_limited(1_500).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(ApiError::unauthenticated().into_response().headers()[header::WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn what_a_client_can_do_nothing_about_is_a_5xx_and_the_rest_is_not() {
        for code in [ErrorCode::Internal, ErrorCode::Busy, ErrorCode::Unavailable, ErrorCode::GoingAway] {
            assert!(status(code).is_server_error(), "{code}");
        }
        for code in [ErrorCode::NameTaken, ErrorCode::InvalidArgument, ErrorCode::NotFound, ErrorCode::Revoked] {
            assert!(status(code).is_client_error(), "{code}");
        }
    }
}
