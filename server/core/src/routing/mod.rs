//! How a command gets from the node it was proposed on into the log of its partition: exactly once, in order, whoever leads.
//!
//! Raft would forward proposals itself, and lose them without a word when leadership moves. Here the node that proposes keeps each
//! command in a [`Router`] until it sees it applied, and numbers what it sends to a leader; the leader's [`Intake`] takes a number
//! only when it is due. Three rules make it exact, without a time-out:
//!
//! 1. A [`Forward`] is for one term. A leader takes it only while it leads in that very term.
//! 2. Within a term, numbers are taken densely (go back N): repeats are skipped, a gap is answered with what is due.
//! 3. Terms never go back along a log. So once an entry of a later term is applied here, what was sent in an earlier term and was not
//!    applied can never be: it is sent again, in the same order.
//!
//! The answer does not travel back: every command is answered on its own node when that node applies it.

mod intake;
mod message;
mod router;
#[cfg(test)]
mod tests;

pub use intake::Intake;
pub use message::{Forward, ForwardAck};
pub use router::{Leadership, Router};
