//! What nodes say to each other about commands.

use rove_protocol::ids::PartitionId;
use serde::{Deserialize, Serialize};

use crate::command::Envelope;

/// Commands on their way to the leader of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The partition they are for.
    pub partition: PartitionId,
    /// The term in which the receiver leads, as far as the sender knows; in any other it takes nothing.
    pub term: u64,
    /// Commands with a number below this that have not arrived will not: the sender has no use for them any more.
    pub oldest: u64,
    /// The number of the first command among those that the sender sent to this leader in this term. It counts them from where its
    /// present start begins: above everything it sent before it started.
    pub first: u64,
    /// The commands, numbered from there. None of them: a question which number is due.
    pub envelopes: Vec<Envelope>,
}

/// A leader's answer to a [`Forward`] that did not begin where it was due, or that was only a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAck {
    /// The partition.
    pub partition: PartitionId,
    /// The term in which it leads.
    pub term: u64,
    /// The number that is due next.
    pub next: u64,
}
