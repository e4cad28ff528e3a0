//! Signing up, in, and out; new tokens.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use rove_core::directory::{AccountRow, Digest, DirectoryCommand, DirectoryError, DirectoryOutcome, Handle, NewDevice};
use rove_protocol::ids::{AccountId, DeviceId};
use rove_protocol::limits;
use rove_protocol::registry::ErrorCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::{Api, Peer, now_ms};
use super::error::{ApiError, ErrorBody};
use super::extract::{Bearer, Body, IdempotencyKey};
use super::secrets::{DeviceSecrets, Tokens, digest_of};

/// A new account.
#[derive(Deserialize, ToSchema)]
pub(super) struct SignUp {
    /// 1 to 64 bytes without `@`, `:`, white space and invisible characters; unique without regard to case.
    #[schema(example = "alice")]
    handle: String,
    /// 8 to 256 bytes.
    #[schema(example = "correct horse battery")]
    password: String,
    /// The name to show, at most 256 bytes.
    #[serde(default)]
    name: String,
    /// What the device is called in the list of devices, at most 256 bytes.
    #[serde(default)]
    device_name: String,
}

/// An account from a new device.
#[derive(Deserialize, ToSchema)]
pub(super) struct LogIn {
    /// The account's handle, in any case.
    #[schema(example = "alice")]
    handle: String,
    /// Its password.
    #[schema(example = "correct horse battery")]
    password: String,
    /// What the device is called in the list of devices, at most 256 bytes.
    #[serde(default)]
    device_name: String,
}

/// A device that is signed in. None of the secrets is shown again.
#[derive(Serialize, ToSchema)]
pub(super) struct SignedIn {
    /// The account's id.
    #[schema(value_type = u64)]
    account: AccountId,
    /// The device's id.
    #[schema(value_type = u64)]
    device: DeviceId,
    /// For `Hello` in `rove/1`: 32 bytes in base64url. Good until the device is revoked.
    device_secret: String,
    /// For this API, as a bearer token.
    access_token: String,
    /// How long it is good, in seconds.
    access_expires_in_s: u64,
    /// For new tokens, once.
    refresh_token: String,
}

/// A refresh token to exchange.
#[derive(Deserialize, ToSchema)]
pub(super) struct Refresh {
    /// The newest one received.
    refresh_token: String,
}

/// New tokens.
#[derive(Serialize, ToSchema)]
pub(super) struct Refreshed {
    /// For this API, as a bearer token.
    access_token: String,
    /// How long it is good, in seconds.
    access_expires_in_s: u64,
    /// For the next tokens, once.
    refresh_token: String,
}

/// Makes an account and signs its first device in.
#[utoipa::path(post, path = "/v1/sign-up", tag = "accounts", request_body = SignUp,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat the same sign-up, for a day")),
    responses((status = 201, body = SignedIn), (status = 400, body = ErrorBody), (status = 409, description = "The handle is taken", body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn sign_up(
    State(api): State<Api>,
    Peer(from): Peer,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<SignUp>,
) -> Result<(StatusCode, Json<SignedIn>), ApiError> {
    api.0.limits.sign_up(from, now_ms())?;
    let handle = Handle::parse(&request.handle).map_err(|error| ApiError::invalid(format!("handle: {error}")))?;
    new_password(&request.password)?;
    short("name", &request.name)?;
    short("device_name", &request.device_name)?;
    // Spares the hash when the answer is known; the log has the last word.
    if key.is_none() && account_by_handle(&api, &handle).await?.is_some() {
        return Err(name_taken());
    }
    let password_hash = api.0.passwords.hash(request.password.clone()).await?;
    let secrets = DeviceSecrets::draw()?;
    let lifetimes = api.0.config.lifetimes;
    let command = DirectoryCommand::SignUp {
        handle: handle.clone(),
        name: request.name,
        password_hash,
        device: NewDevice { name: request.device_name, credentials: secrets.credentials(lifetimes) },
        idempotency: idempotency("sign-up", &handle, key),
    };
    let mut outcome = api.node().propose_directory(&command).await?;
    if let DirectoryOutcome::Repeated { account, device } = outcome {
        let verified = repeated(&api, account, request.password).await?;
        let credentials = secrets.credentials(lifetimes);
        let reissue = DirectoryCommand::Reissue { account, device, verified, credentials };
        outcome = api.node().propose_directory(&reissue).await?;
    }
    let signed_in = signed_in(&api, outcome, &secrets)?;
    Ok((StatusCode::CREATED, Json(signed_in)))
}

/// Signs a new device in.
#[utoipa::path(post, path = "/v1/log-in", tag = "accounts", request_body = LogIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat the same device, for a day")),
    responses((status = 200, body = SignedIn), (status = 400, body = ErrorBody),
        (status = 401, description = "Not this handle with this password", body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn log_in(
    State(api): State<Api>,
    Peer(from): Peer,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<LogIn>,
) -> Result<Json<SignedIn>, ApiError> {
    if request.password.len() > limits::PASSWORD {
        return Err(ApiError::invalid(format!("password: at most {} bytes", limits::PASSWORD)));
    }
    short("device_name", &request.device_name)?;
    // What cannot be a handle is nobody's: the same work and the same answer as for an unknown one.
    let handle = Handle::parse(&request.handle).ok();
    let aim = handle.as_ref().map_or("", Handle::key);
    api.0.limits.attempt(from, aim, now_ms())?;
    // For every handle, known or not: the answer may not come sooner for one of them (S22), and a stale "no" not at all (D11).
    api.node().catch_up_directory().await?;
    let account = match &handle {
        Some(handle) => account_by_handle(&api, handle).await?,
        None => None,
    };
    let stored = account.as_ref().map(|account| account.password_hash.clone());
    let right = api.0.passwords.verify(request.password, stored).await?;
    let (Some(account), Some(handle), true) = (account, handle, right) else {
        return Err(ApiError::wrong_password());
    };
    api.0.limits.right(from, handle.key(), now_ms());
    let secrets = DeviceSecrets::draw()?;
    let command = DirectoryCommand::AddDevice {
        account: account.id,
        verified: account.password_hash,
        device: NewDevice { name: request.device_name, credentials: secrets.credentials(api.0.config.lifetimes) },
        idempotency: idempotency("log-in", &handle, key),
    };
    let outcome = api.node().propose_directory(&command).await?;
    Ok(Json(signed_in(&api, outcome, &secrets)?))
}

/// Exchanges a refresh token for new tokens.
///
/// A refresh token is good once. For a minute, and while the tokens it gave are unused, it may be shown again, as a
/// reply can be lost; otherwise a second use ends all tokens of that sign-in.
#[utoipa::path(post, path = "/v1/refresh", tag = "accounts", request_body = Refresh,
    responses((status = 200, body = Refreshed), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn refresh(
    State(api): State<Api>,
    Peer(from): Peer,
    Body(request): Body<Refresh>,
) -> Result<Json<Refreshed>, ApiError> {
    api.0.limits.refresh(from, now_ms())?;
    let presented = digest_of(&request.refresh_token).ok_or_else(refresh_refused)?;
    // Made-up tokens do not become entries of the log.
    let absent = |found: &Result<Option<_>, DirectoryError>| matches!(found, Ok(None));
    let known = api.node().read_directory_surely(absent, move |directory| directory.refresh_token(&presented)).await?;
    if known.map_err(|error| ApiError::internal(&error))?.is_none() {
        return Err(refresh_refused());
    }
    let tokens = Tokens::draw()?;
    let lifetimes = api.0.config.lifetimes;
    let command = DirectoryCommand::RotateRefresh {
        presented,
        access: tokens.new_access(lifetimes),
        refresh: tokens.new_refresh(lifetimes),
    };
    match api.node().propose_directory(&command).await? {
        DirectoryOutcome::Refreshed { .. } => Ok(Json(Refreshed {
            access_token: tokens.access.text(),
            access_expires_in_s: lifetimes.access_ms / 1_000,
            refresh_token: tokens.refresh.text(),
        })),
        DirectoryOutcome::Failed(ErrorCode::Unauthenticated) => Err(refresh_refused()),
        other => Err(unexpected(other)),
    }
}

/// Revokes the device that asks: its sessions end, its secret and tokens are of no use any more.
#[utoipa::path(post, path = "/v1/log-out", tag = "accounts", security(("bearer" = [])),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn log_out(State(api): State<Api>, Bearer(actor): Bearer) -> Result<StatusCode, ApiError> {
    let command = DirectoryCommand::RevokeDevice { actor, device: actor.device };
    match api.node().propose_directory(&command).await? {
        DirectoryOutcome::Gated { .. } | DirectoryOutcome::Done => Ok(StatusCode::NO_CONTENT),
        other => Err(unexpected(other)),
    }
}

fn name_taken() -> ApiError {
    ApiError::new(ErrorCode::NameTaken, "the handle is taken")
}

fn refresh_refused() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "the refresh token is not good (any more); log in")
}

/// What an outcome that is not a success becomes.
pub(super) fn unexpected(outcome: DirectoryOutcome) -> ApiError {
    match outcome {
        DirectoryOutcome::Failed(ErrorCode::NameTaken) => name_taken(),
        DirectoryOutcome::Failed(ErrorCode::Unauthenticated) => ApiError::unauthenticated(),
        DirectoryOutcome::Failed(ErrorCode::Revoked) => {
            ApiError::new(ErrorCode::Revoked, "the device was revoked or the account is suspended")
        }
        DirectoryOutcome::Failed(ErrorCode::NotFound) => ApiError::new(ErrorCode::NotFound, "there is no such device"),
        DirectoryOutcome::Failed(ErrorCode::LimitExceeded) => {
            ApiError::new(ErrorCode::LimitExceeded, "the account has as many devices as it may; revoke one first")
        }
        other => ApiError::internal(&format!("unexpected outcome of the directory: {other:?}")),
    }
}

fn new_password(password: &str) -> Result<(), ApiError> {
    if (limits::PASSWORD_MIN..=limits::PASSWORD).contains(&password.len()) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("password: {} to {} bytes", limits::PASSWORD_MIN, limits::PASSWORD)))
}

fn short(field: &str, text: &str) -> Result<(), ApiError> {
    if text.len() > limits::TITLE {
        return Err(ApiError::invalid(format!("{field}: at most {} bytes", limits::TITLE)));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::invalid(format!("{field}: no control characters")));
    }
    Ok(())
}

/// A key belongs to what was asked of which account: another account's cannot be found with it.
fn idempotency(method: &str, handle: &Handle, key: Option<String>) -> Option<Digest> {
    key.map(|key| Digest::of_parts(&[method.as_bytes(), handle.key().as_bytes(), key.as_bytes()]))
}

/// Whether a repeated sign-up comes from whoever made the account: only its password tells. Returns the hash it was
/// verified against.
async fn repeated(api: &Api, account: AccountId, password: String) -> Result<String, ApiError> {
    let account = read(api, move |directory| directory.account(account)).await?;
    let stored = account.map(|account| account.password_hash);
    if api.0.passwords.verify(password, stored.clone()).await? {
        Ok(stored.unwrap_or_default())
    } else {
        Err(ApiError::invalid("the Idempotency-Key was used for another sign-up"))
    }
}

async fn account_by_handle(api: &Api, handle: &Handle) -> Result<Option<AccountRow>, ApiError> {
    let key = handle.key().to_owned();
    read(api, move |directory| directory.account_by_handle(&key)).await
}

/// A read of the directory.
pub(super) async fn read<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(&dyn rove_core::directory::DirectoryRead) -> Result<T, DirectoryError> + Send + 'static,
) -> Result<T, ApiError> {
    api.node().read_directory(work).await?.map_err(|error| ApiError::internal(&error))
}

fn signed_in(api: &Api, outcome: DirectoryOutcome, secrets: &DeviceSecrets) -> Result<SignedIn, ApiError> {
    match outcome {
        DirectoryOutcome::SignedIn { account, device } => Ok(SignedIn {
            account,
            device,
            device_secret: secrets.secret.text(),
            access_token: secrets.tokens.access.text(),
            access_expires_in_s: api.0.config.lifetimes.access_ms / 1_000,
            refresh_token: secrets.tokens.refresh.text(),
        }),
        DirectoryOutcome::Failed(ErrorCode::Unauthenticated) => Err(ApiError::wrong_password()),
        other => Err(unexpected(other)),
    }
}
