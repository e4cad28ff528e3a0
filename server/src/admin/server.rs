//! The node's end of the socket.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::status::Status;
use super::{Drain, Failure, SOCKET, TransferLeader};
use crate::leaving::{DrainProgress, Drainer};
use crate::membership::Roster;
use crate::membership::change::{Change, ChangeRefused};
use crate::nodes::{Nodes, TransferError};

/// What handlers hold.
#[derive(Clone)]
struct Admin {
    nodes: Arc<Nodes>,
    drainer: Arc<Drainer>,
    roster: Option<Arc<Roster>>,
}

/// The socket, served.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Serves the socket in `data_dir`.
///
/// # Errors
/// The system's: the path is too long for a socket, say.
pub fn start(
    data_dir: &Path,
    nodes: Arc<Nodes>,
    drainer: Arc<Drainer>,
    roster: Option<Arc<Roster>>,
) -> io::Result<AdminServer> {
    let path = data_dir.join(SOCKET);
    let listener = bind(&path)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let router = router(Admin { nodes, drainer, roster });
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the admin socket failed");
        }
    });
    Ok(AdminServer { path, task, stop })
}

/// Nobody else may use it, at no moment: it gets its name when it is closed to others.
fn bind(path: &Path) -> io::Result<UnixListener> {
    // Of an earlier life; the lock of the data directory says that nobody else serves it.
    let new = path.with_extension("new");
    for old in [&new, path] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

impl AdminServer {
    /// Answers what is under way, and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        // A request that does not end must not hold up the node.
        let abort = self.task.abort_handle();
        if tokio::time::timeout(std::time::Duration::from_secs(1), self.task).await.is_err() {
            abort.abort();
        }
        // What is left over is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/transfer-leader", post(transfer_leader))
        .route("/v1/drain", get(progress).post(drain))
        .route("/v1/members", get(members).post(change_members))
        .fallback(|| async {
            failure(StatusCode::NOT_FOUND, "this node does not know that; is it of another version?")
        })
        .with_state(admin)
}

fn failure(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(Failure { error: error.into() })).into_response()
}

async fn status(State(admin): State<Admin>) -> Json<Status> {
    let members = admin.roster.as_ref().map(|roster| roster.status(admin.nodes.node()));
    Json(Status::new(&admin.nodes, admin.drainer.progress(), members))
}

async fn transfer_leader(State(admin): State<Admin>, Json(body): Json<TransferLeader>) -> Response {
    match admin.nodes.hand_over(PartitionId(body.partition), NodeId(body.node)).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            let status = match error {
                TransferError::UnknownPartition(_) | TransferError::UnknownNode { .. } => StatusCode::NOT_FOUND,
                TransferError::NoLeader(_) | TransferError::Refused(_) => StatusCode::CONFLICT,
            };
            failure(status, error.to_string())
        }
    }
}

async fn progress(State(admin): State<Admin>) -> Json<DrainProgress> {
    Json(admin.drainer.progress())
}

async fn drain(State(admin): State<Admin>, Json(body): Json<Drain>) -> Response {
    if body.undo {
        admin.drainer.undo();
    } else if let Err(error) = admin.drainer.begin() {
        return failure(StatusCode::CONFLICT, error.to_string());
    }
    Json(admin.drainer.progress()).into_response()
}

async fn members(State(admin): State<Admin>) -> Response {
    match &admin.roster {
        Some(roster) => Json(roster.status(admin.nodes.node())).into_response(),
        None => failure(StatusCode::CONFLICT, ChangeRefused::Alone.to_string()),
    }
}

async fn change_members(State(admin): State<Admin>, Json(change): Json<Change>) -> Response {
    let changed = match &admin.roster {
        Some(roster) => roster.change(&change, &admin.nodes).await,
        None => Err(ChangeRefused::Alone),
    };
    match changed {
        Ok(status) => Json(status).into_response(),
        Err(error) => {
            let status = match error {
                ChangeRefused::Directory(_) => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::CONFLICT,
            };
            failure(status, error.to_string())
        }
    }
}
