//! The devices of an account.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use rove_core::directory::{DirectoryCommand, DirectoryOutcome};
use rove_protocol::ids::DeviceId;
use rove_protocol::registry::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::accounts::{read, unexpected};
use super::api::Api;
use super::error::{ApiError, ErrorBody};
use super::extract::Bearer;

/// The devices of an account that are signed in.
#[derive(Serialize, ToSchema)]
pub(super) struct Devices {
    devices: Vec<ListedDevice>,
}

/// One device.
#[derive(Serialize, ToSchema)]
pub(super) struct ListedDevice {
    /// Its id.
    #[schema(value_type = u64)]
    device: DeviceId,
    /// What it is called; may be empty.
    name: String,
    /// When it signed in, in milliseconds of the Unix epoch.
    created_ms: u64,
    /// Whether it is the one that asks.
    current: bool,
}

/// Lists the account's devices.
#[utoipa::path(get, path = "/v1/devices", tag = "devices", security(("bearer" = [])),
    responses((status = 200, body = Devices), (status = 401, body = ErrorBody)))]
pub(super) async fn list(State(api): State<Api>, Bearer(actor): Bearer) -> Result<Json<Devices>, ApiError> {
    let rows = read(&api, move |directory| directory.devices_of(actor.account)).await?;
    let devices = rows.into_iter().map(|row| ListedDevice {
        device: row.id,
        name: row.name,
        created_ms: row.created_ms,
        current: row.id == actor.device,
    });
    Ok(Json(Devices { devices: devices.collect() }))
}

/// Revokes a device of the account. When this returns, nobody takes anything from it any more.
#[utoipa::path(delete, path = "/v1/devices/{id}", tag = "devices", security(("bearer" = [])),
    params(("id" = u64, Path, description = "The device")),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Bearer(actor): Bearer,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    // What is not a number names no device either.
    let device = id.parse().map_err(|_| unexpected(DirectoryOutcome::Failed(ErrorCode::NotFound)))?;
    match api.node().propose_directory(&DirectoryCommand::RevokeDevice { actor, device }).await? {
        DirectoryOutcome::Gated { .. } | DirectoryOutcome::Done => Ok(StatusCode::NO_CONTENT),
        other => Err(unexpected(other)),
    }
}
