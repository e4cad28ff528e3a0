//! What can go wrong for an app.

use rove_protocol::error::Violation;
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::TransportError;

/// Why a call failed. A lost connection is not among them: calls that only need the store work offline, the others
/// wait for the connection up to their time limit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The server's answer to a request, with its code from the registry.
    #[error("{message} ({code})")]
    Server {
        /// The code.
        code: ErrorCode,
        /// Its words, or what was asked.
        message: String,
        /// When to try again, in milliseconds; 0: no advice.
        retry_after_ms: u32,
    },
    /// As many posts are queued as may be; nothing was queued.
    #[error("{limit} posts are queued already")]
    OutboxFull {
        /// How many there may be.
        limit: usize,
    },
    /// Longer than the server takes.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How many bytes there may be.
        limit: usize,
    },
    /// An argument that is never right.
    #[error("{0}")]
    InvalidArgument(String),
    /// No such conversation or account in the store or at the server.
    #[error("{0} is not known")]
    NotFound(String),
    /// Not an address of a server.
    #[error("not an address of a server: {0}")]
    Address(String),
    /// Nobody has signed up or logged in with this store.
    #[error("nobody is logged in with this store")]
    NotLoggedIn,
    /// Somebody has: another account needs another store.
    #[error("somebody is logged in with this store already")]
    AlreadyLoggedIn,
    /// Another process has the store open.
    #[error("another process uses the store")]
    StoreLocked,
    /// The store was written by a newer version.
    #[error("the store has version {found}, this client knows up to {known}")]
    StoreVersion {
        /// What the store says.
        found: i64,
        /// What this client writes.
        known: i64,
    },
    /// The disk or the database failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// The server's certificate is not trusted, or its keys are not the pinned ones.
    #[error("the server is not trusted: {0}")]
    Tls(String),
    /// No connection, or one that was lost while a request was unanswered.
    #[error("no connection: {0}")]
    Transport(TransportError),
    /// No answer in time.
    #[error("no answer in time to {0}")]
    Timeout(&'static str),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Violation(Violation),
    /// The client was closed, by the app or for good by the server (see [`crate::ConnectionState::Closed`]).
    #[error("the client is closed ({0})")]
    Closed(ErrorCode),
    /// The socket could not be bound or handed over.
    #[error("the socket failed: {0}")]
    Socket(String),
}

impl Error {
    /// The registry's number for it, for logs, bindings and scripts.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Server { code, .. } | Self::Closed(code) => *code,
            Self::OutboxFull { .. } => ErrorCode::OutboxFull,
            Self::TooLong { .. } => ErrorCode::BodyTooLarge,
            Self::InvalidArgument(_) | Self::Address(_) => ErrorCode::InvalidArgument,
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::NotLoggedIn | Self::Tls(_) => ErrorCode::Unauthenticated,
            Self::AlreadyLoggedIn => ErrorCode::Forbidden,
            Self::StoreLocked => ErrorCode::Busy,
            Self::StoreVersion { .. } => ErrorCode::Unsupported,
            Self::Store(_) => ErrorCode::Internal,
            Self::Transport(error) => transport_code(error),
            Self::Timeout(_) => ErrorCode::Timeout,
            Self::Violation(violation) => violation.code(),
            Self::Socket(_) => ErrorCode::Unavailable,
        }
    }
}

/// What a lost transport says in the registry's words.
pub(crate) fn transport_code(error: &TransportError) -> ErrorCode {
    match error {
        TransportError::Reset(code) | TransportError::Stopped(code) | TransportError::Closed { code, .. } => *code,
        TransportError::Lost(_) | TransportError::EarlyDataRejected => ErrorCode::Unavailable,
    }
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
