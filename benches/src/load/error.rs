//! Why a measurement did not come about.

use rove_protocol::error::{DecodeError, Violation};
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::{ReadError, TransportError};

/// Why a measurement did not come about.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file, a process or a socket failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The server did not start, or ended in the middle.
    #[error("the server: {0}")]
    Server(String),
    /// Signing an account up failed.
    #[error("sign-up: {0}")]
    SignUp(String),
    /// The connection could not be made.
    #[error("connecting: {0}")]
    Connect(String),
    /// A connection or a stream gave out.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The server sent what it must not.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The server refused what must succeed.
    #[error("{what} was refused: {code}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        code: ErrorCode,
    },
    /// A stream ended before it was to.
    #[error("{0} ended early")]
    Ended(&'static str),
    /// The server does not have what it acknowledged.
    #[error("LOST: {0}")]
    Lost(String),
    /// The measurement has nothing in it.
    #[error("nothing was measured: {0}")]
    Nothing(&'static str),
}

impl LoadError {
    /// Whether a new connection, here or on another node, may do better: nodes die, and those that live are busy with that.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Transport(_) | Self::Ended(_) => true,
            Self::Refused { code, .. } => matches!(
                *code,
                ErrorCode::Internal
                    | ErrorCode::Timeout
                    | ErrorCode::GoingAway
                    | ErrorCode::Busy
                    | ErrorCode::Unavailable
                    | ErrorCode::Behind
                    | ErrorCode::RateLimited
            ),
            Self::Io { .. }
            | Self::Server(_)
            | Self::SignUp(_)
            | Self::Violation(_)
            | Self::Lost(_)
            | Self::Nothing(_) => false,
        }
    }
}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Transport(error) => error.into(),
            ReadError::Violation(error) => error.into(),
        }
    }
}

impl From<DecodeError> for LoadError {
    fn from(error: DecodeError) -> Self {
        Violation::from(error).into()
    }
}

/// For `map_err`: an I/O error with what was being done.
pub fn io(what: &'static str) -> impl Fn(std::io::Error) -> LoadError {
    move |error| LoadError::Io { what, error }
}
