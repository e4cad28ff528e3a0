//! Reads that see everything acknowledged before them (raft's `ReadIndex`, in its safe form: the leader asks a majority whether it
//! still leads; no clock is believed).

use raft::eraftpb::{Message, MessageType};

use super::Replica;
use crate::replica::config::GroupMember;
use crate::replica::error::{MessageError, StepError};
use crate::replica::message::{READ_CONTEXT, read_context};

/// Reads a leader has not answered, of its own and of its followers. Lanes put all reads of a round into one question, so each
/// replica has a few at most; those of a leader that cannot reach a majority would gather without end. What is beyond is dropped, as
/// the network might, and asked again.
const MAX_PENDING: usize = 256;

impl Replica {
    /// Asks how far a read must have applied to see everything that was acknowledged before now. The answer comes in
    /// [`Outputs::reads`](super::Outputs::reads).
    ///
    /// It may never come: without a leader, with one that has committed nothing in its term yet, or when a message is lost, the
    /// question is dropped without a word. Ask again after a few ticks, under another `context`: one that no replica of the group has
    /// ever used, not even before a restart, as an answer to the earlier question would be too old for the later.
    pub fn read_index(&mut self, context: u64) {
        if self.raw.raft.pending_read_count() >= MAX_PENDING {
            return;
        }
        let mut bytes = Vec::with_capacity(READ_CONTEXT);
        bytes.extend(self.config.id.to_be_bytes());
        bytes.extend(context.to_be_bytes());
        self.raw.read_index(bytes);
    }

    /// A peer's question, of which [`read_context`] is checked. Whether raft may see it.
    pub(super) fn admits_read(&self, message: &Message) -> Result<bool, StepError> {
        if self.raw.raft.prs().get(message.from).is_none() {
            return Err(MessageError::UnknownPeer.into());
        }
        // A follower would pass it on in the asker's name, which the next would refuse.
        Ok(self.leads() && self.raw.raft.pending_read_count() < MAX_PENDING)
    }

    /// What raft has answered, for this replica's questions.
    pub(super) fn answered_reads(&self, states: Vec<raft::ReadState>) -> Vec<(u64, u64)> {
        let mine = |state: raft::ReadState| {
            let (member, context) = split(&state.request_ctx)?;
            (member == self.config.id).then_some((context, state.index))
        };
        states.into_iter().filter_map(mine).collect()
    }
}

/// Whose question it is, and its name.
fn split(context: &[u8]) -> Option<(GroupMember, u64)> {
    let (member, name) = context.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*member), u64::from_be_bytes(name.try_into().ok()?)))
}

/// Whether a peer's message about a read has the one shape there is: the asker is who it says, an answer is for `me`.
pub(in crate::replica) fn check(message: &Message, me: GroupMember) -> Result<(), MessageError> {
    let asks = message.get_msg_type() == MessageType::MsgReadIndex;
    let asker = if asks { message.from } else { me };
    match read_context(message).and_then(split) {
        // A question of a later term would unseat the leader.
        Some((member, _)) if member == asker && (message.term == 0) == asks => Ok(()),
        _ => Err(MessageError::Context),
    }
}
