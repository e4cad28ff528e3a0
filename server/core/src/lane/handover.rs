//! Handing leadership over to another node, because somebody asks for it: an operator, or a node that is about to leave.

use rove_protocol::ids::NodeId;

use super::Lane;
use crate::replica::node_of;

/// Entries that the heir may lack at most. It is sent them first, and meanwhile nothing is proposed: this many are gone in a few
/// milliseconds.
const MAX_LAG: u64 = 1_024;

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// Another node leads, or nobody is known to.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// It leads already.
    #[error("node {0} leads already")]
    Leads(NodeId),
    /// No replica of that node votes.
    #[error("node {0} has no replica that votes")]
    NotVoter(NodeId),
    /// It would have to be sent too much first, or does not answer.
    #[error("node {node} is not caught up: it has {has} of {needed}, or does not answer")]
    Behind {
        /// Which.
        node: NodeId,
        /// The last index that it is known to have.
        has: u64,
        /// The last index of the log.
        needed: u64,
    },
}

impl Lane {
    /// Asks node `to` to take over as leader. It has when [`Lane::leadership`] says so; if it has not within an election time-out,
    /// this node leads on. Nothing is lost meanwhile: commands wait in their queues.
    ///
    /// # Errors
    /// [`HandoverError`]; then nothing has happened.
    pub fn hand_over(&mut self, to: NodeId) -> Result<(), HandoverError> {
        if !self.leads() {
            return Err(HandoverError::NotLeader { leader: self.leadership().map(|leadership| leadership.node) });
        }
        if to == self.node {
            return Err(HandoverError::Leads(to));
        }
        let heir = self.replica.voters().into_iter().find(|voter| node_of(*voter) == to);
        let heir = heir.ok_or(HandoverError::NotVoter(to))?;
        let needed = self.replica.status().last;
        let (has, answers) = self.replica.progress_of(heir);
        if !answers || has.saturating_add(MAX_LAG) < needed {
            return Err(HandoverError::Behind { node: to, has, needed });
        }
        if self.replica.transfer_leadership(heir) { Ok(()) } else { Err(HandoverError::NotLeader { leader: None }) }
    }
}
