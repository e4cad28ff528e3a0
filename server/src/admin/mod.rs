//! What the operator of this machine asks a running node: over a Unix socket in the data directory, which only its owner may use.
//!
//! It is the HTTP API's protocol with JSON, so that `curl --unix-socket` does too; `rove-server cluster` is what people use. Who may open
//! the socket may read the data anyway, so nobody is asked for a password.

pub mod client;
mod server;
pub mod status;

use serde::{Deserialize, Serialize};

pub use server::{AdminServer, start};

/// The socket in the data directory.
pub const SOCKET: &str = "admin.sock";

/// Body of `POST /v1/transfer-leader`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferLeader {
    /// Which partition.
    pub partition: u16,
    /// Which node is to lead it.
    pub node: u64,
}

/// Body of `POST /v1/drain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Whether to take it back instead.
    #[serde(default)]
    pub undo: bool,
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, and what to do.
    pub error: String,
}
