//! The operator's end of the socket: one request on one connection.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Failure, SOCKET};

/// How long a node may take: it may have to ask another one, which has 5 s.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer: the status of 257 partitions on nine nodes, with room.
const ANSWER: usize = 4 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens.
    #[error(
        "no node runs with data directory {dir}: start it with `rove-server serve`, or name the configuration of one that runs with \
         --config"
    )]
    NotRunning {
        /// Where it would be.
        dir: PathBuf,
    },
    /// The socket may not be opened.
    #[error("{path}: permission denied; run this as the user that runs the node")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The connection failed.
    #[error("the node does not answer: {0}")]
    Io(String),
    /// The node says no.
    #[error("{0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the node's answer is not understood ({0}); is it of another version?")]
    Strange(String),
}

/// Asks the node of `data_dir`. `T` is `()` for an answer without a body.
///
/// # Errors
/// [`AdminError`].
pub async fn ask<T: DeserializeOwned>(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<T, AdminError> {
    tokio::time::timeout(TIMEOUT, once(data_dir, method, path, body))
        .await
        .unwrap_or_else(|_| Err(AdminError::Io(format!("nothing within {} s", TIMEOUT.as_secs()))))
}

async fn once<T: DeserializeOwned>(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<T, AdminError> {
    let socket = data_dir.join(SOCKET);
    let stream = UnixStream::connect(&socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AdminError::NotRunning { dir: data_dir.to_owned() }
        }
        io::ErrorKind::PermissionDenied => AdminError::Denied { path: socket.clone() },
        _ => AdminError::Io(error.to_string()),
    })?;
    let failed = |error: hyper::Error| AdminError::Io(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let bytes = match body {
        Some(body) => serde_json::to_vec(body).map_err(|error| AdminError::Io(error.to_string()))?,
        None => Vec::new(),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .map_err(|error| AdminError::Io(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        let body = body.map_err(|error| AdminError::Io(error.to_string()))?.to_bytes();
        Ok((status, body))
    };
    let (status, body) = tokio::select! {
        exchanged = exchange => exchanged?,
        // It ends after the exchange, unless it fails.
        Err(error) = connection => return Err(failed(error)),
    };
    if !status.is_success() {
        let failure = serde_json::from_slice::<Failure>(&body);
        return Err(failure
            .map_or_else(|_| AdminError::Strange(status.to_string()), |failure| AdminError::Refused(failure.error)));
    }
    let body = if body.is_empty() { Bytes::from_static(b"null") } else { body };
    serde_json::from_slice(&body).map_err(|error| AdminError::Strange(error.to_string()))
}
