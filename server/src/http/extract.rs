//! Bodies, tokens and keys out of requests; whatever is wrong with them is answered in the API's own words.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use rove_core::command::Actor;
use rove_core::directory::{AccountState, DirectoryError};
use rove_protocol::registry::ErrorCode;
use serde::de::DeserializeOwned;

use super::api::{Api, now_ms};
use super::error::ApiError;
use super::secrets::digest_of;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refused(&rejection)),
        }
    }
}

fn refused(rejection: &JsonRejection) -> ApiError {
    match rejection {
        JsonRejection::JsonDataError(error) => ApiError::invalid(error.body_text()),
        JsonRejection::MissingJsonContentType(_) => {
            ApiError::new(ErrorCode::Unsupported, "the body must be JSON: send content-type: application/json")
                .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        }
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(ErrorCode::BodyTooLarge, format!("a body has at most {} bytes", super::BODY))
        }
        other => ApiError::new(ErrorCode::Malformed, other.body_text()),
    }
}

/// Whoever holds the bearer token of the request.
pub(super) struct Bearer(pub(super) Actor);

impl FromRequestParts<Api> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers).and_then(digest_of).ok_or_else(ApiError::unauthenticated)?;
        let absent = |found: &Result<Option<_>, DirectoryError>| matches!(found, Ok(None));
        let found = api
            .node()
            .read_directory_surely(absent, move |directory| {
                let Some(token) = directory.access_token(&token)? else { return Ok(None) };
                Ok(directory.account(token.account)?.map(|account| (token, account.state)))
            })
            .await?
            .map_err(|error| ApiError::internal(&error))?;
        // A revoked device has no tokens left; a suspended account keeps them for when it is restored.
        match found {
            Some((token, state)) if token.expires_ms > now_ms() => match state {
                AccountState::Active => Ok(Self(Actor { account: token.account, device: token.device })),
                AccountState::Suspended => Err(ApiError::new(ErrorCode::Revoked, "the account is suspended")),
            },
            _ => Err(ApiError::unauthenticated()),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The `Idempotency-Key` header.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

/// Longest key: a UUID takes 36, and everybody has his own scheme.
const KEY: usize = 128;

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let bad = || ApiError::invalid(format!("an Idempotency-Key is 1 to {KEY} visible ASCII characters"));
        let key = value.to_str().map_err(|_| bad())?;
        if key.is_empty() || key.len() > KEY {
            return Err(bad());
        }
        Ok(Self(Some(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        let with = |value: &'static str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(bearer(&with("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&with("bearer  abc ")), Some("abc"));
        for bad in ["Basic abc", "Bearer", ""] {
            assert_eq!(bearer(&with(bad)), None, "{bad:?}");
        }
    }
}
