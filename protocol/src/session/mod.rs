//! Which frame is legal when, at both ends.
//!
//! One machine for each stream and end: [`server`] judges what clients send, [`client`] what servers send. A machine
//! is told of every frame that arrives and of what its own side has sent as far as that decides what may come back; it
//! returns the frame, or the [`Violation`](crate::error::Violation) the connection is closed with. It does no I/O, has
//! no clock and holds a bounded amount of state: the numbers of what is unanswered, and a cursor.
//!
//! Our own side's mistakes are another type, [`Misuse`]: they are never the peer's fault and never close a connection.

pub mod client;
mod deadline;
mod early;
mod outstanding;
pub mod server;

pub use deadline::{FrameDeadline, HelloDeadline};
pub use early::{EarlyGate, acts_early};

/// What our own side must not send now. Nothing has been sent, and the machine is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// As many as the server allows are unanswered: wait for an answer.
    #[error("{limit} {what} are unanswered already")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The number names something that is unanswered.
    #[error("{0} names something that is unanswered")]
    Duplicate(u64),
    /// The session or the stream is not that far, or over.
    #[error("not {0}")]
    OutOfState(&'static str),
}
