//! The leader's side: which forwarded commands are new.

use std::collections::BTreeMap;

use rove_protocol::ids::NodeId;

use super::message::{Forward, ForwardAck};
use crate::command::Envelope;

/// What a leader has taken from each node in its term.
#[derive(Debug, Default)]
pub struct Intake {
    term: u64,
    /// The number due next, by node; 1 for a node that has sent nothing.
    due: BTreeMap<NodeId, u64>,
}

impl Intake {
    /// This replica leads from now on, in `term`. Nothing has been taken in it.
    pub fn lead(&mut self, term: u64) {
        if term != self.term {
            self.term = term;
            self.due.clear();
        }
    }

    /// What is new in `forward`, and what to answer. The caller makes sure that it leads in the term given to [`Intake::lead`], and
    /// that the node is one of the cluster's.
    ///
    /// `room` is how many commands there is room for: what does not fit is as if it had been lost on the way.
    pub fn take(&mut self, from: NodeId, forward: Forward, room: usize) -> (Vec<Envelope>, Option<ForwardAck>) {
        if forward.term != self.term {
            // The sender learns of the other term as everybody does.
            return (Vec::new(), None);
        }
        let due = self.due.entry(from).or_insert(1);
        *due = forward.oldest.max(*due);
        let question = forward.envelopes.is_empty();
        let gap = forward.first > *due;
        let mut envelopes = Vec::new();
        if !gap {
            let repeated = usize::try_from(*due - forward.first).unwrap_or(usize::MAX);
            envelopes = forward.envelopes.into_iter().skip(repeated).take(room).collect();
            *due += envelopes.len() as u64;
        }
        let answer =
            (gap || question).then_some(ForwardAck { partition: forward.partition, term: forward.term, next: *due });
        (envelopes, answer)
    }
}
