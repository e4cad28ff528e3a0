//! What replicas say to each other.

use std::fmt;

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, EntryType, Message, MessageType};

use super::config::GroupMember;
use super::driver::reads;
use super::error::MessageError;

/// Largest encoded message: one of entries, with one entry more than its limit (a batch is at most as large as the limit), and
/// room for the headers. Checked before the bytes are parsed.
pub(super) const MAX_ENCODED: usize = 3 * 1024 * 1024;

/// Bytes of a read's context: who asks, and under which name.
pub(super) const READ_CONTEXT: usize = 16;

/// Largest context of a message: a read's, which heartbeats carry to and fro, or what a candidate that was asked to take over says.
const MAX_CONTEXT: usize = 16;

/// One message from a replica to a peer of its group.
#[derive(Clone, PartialEq)]
pub struct PeerMessage(pub(super) Message);

impl PeerMessage {
    /// Who sends it.
    pub fn from(&self) -> GroupMember {
        self.0.from
    }

    /// Whom it is for.
    pub fn to(&self) -> GroupMember {
        self.0.to
    }

    /// Whether it carries entries: these may wait behind heartbeats and votes.
    pub fn carries_entries(&self) -> bool {
        !self.0.entries.is_empty()
    }

    /// Whether it is a heartbeat, and no read waits for it.
    pub(crate) fn is_heartbeat(&self) -> bool {
        self.0.get_msg_type() == MessageType::MsgHeartbeat && self.0.context.is_empty()
    }

    /// Whether it answers a heartbeat, and no read waits for it.
    pub(crate) fn is_sign_of_life(&self) -> bool {
        self.0.get_msg_type() == MessageType::MsgHeartbeatResponse && self.0.context.is_empty()
    }

    /// Its term and the index up to which it says that the sender's log is as the leader's; nothing if it does not say that.
    pub(crate) fn accepts(&self) -> Option<(u64, u64)> {
        let accepts = self.0.get_msg_type() == MessageType::MsgAppendResponse && !self.0.reject;
        accepts.then_some((self.0.term, self.0.index))
    }

    /// The last index of the snapshot that it is about; nothing if it is about none.
    pub fn snapshot_index(&self) -> Option<u64> {
        let is_snapshot = self.0.get_msg_type() == MessageType::MsgSnapshot;
        is_snapshot.then(|| self.0.get_snapshot().get_metadata().index)
    }

    /// The bytes on the way between nodes.
    ///
    /// # Errors
    /// [`MessageError::TooLarge`] if it could not be read back.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let bytes = self.0.write_to_bytes().map_err(|error| MessageError::Malformed(error.to_string()))?;
        if bytes.len() > MAX_ENCODED { Err(MessageError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads what [`PeerMessage::encode`] wrote.
    ///
    /// # Errors
    /// [`MessageError::TooLarge`], [`MessageError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_ENCODED {
            return Err(MessageError::TooLarge(bytes.len()));
        }
        let message = Message::parse_from_bytes(bytes).map_err(|error| MessageError::Malformed(error.to_string()))?;
        Ok(Self(message))
    }

    /// What can be told without knowing the log.
    pub(super) fn check(&self, me: GroupMember) -> Result<(), MessageError> {
        let message = &self.0;
        if message.to != me {
            return Err(MessageError::NotForUs { to: message.to });
        }
        if message.context.len() > MAX_CONTEXT {
            return Err(MessageError::Context);
        }
        if matches!(message.get_msg_type(), MessageType::MsgReadIndex | MessageType::MsgReadIndexResp) {
            return reads::check(message, me);
        }
        // Proposals are not forwarded inside raft, snapshots travel on their own.
        if !matches!(
            message.get_msg_type(),
            MessageType::MsgAppend
                | MessageType::MsgAppendResponse
                | MessageType::MsgRequestVote
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgRequestPreVote
                | MessageType::MsgRequestPreVoteResponse
                | MessageType::MsgHeartbeat
                | MessageType::MsgHeartbeatResponse
                | MessageType::MsgTimeoutNow
        ) {
            return Err(MessageError::Kind);
        }
        // Raft takes what has no term for its own.
        if message.term == 0 {
            return Err(MessageError::NoTerm);
        }
        let mut due = message.index;
        let mut term = message.log_term;
        for entry in &message.entries {
            due = due.checked_add(1).ok_or(MessageError::Entries)?;
            let known = match entry.get_entry_type() {
                EntryType::EntryNormal => true,
                EntryType::EntryConfChangeV2 => ConfChangeV2::parse_from_bytes(&entry.data).is_ok(),
                EntryType::EntryConfChange => false,
            };
            if entry.index != due || entry.term < term || !known {
                return Err(MessageError::Entries);
            }
            term = entry.term;
        }
        Ok(())
    }
}

/// The context of a message about a read, if it is the only thing there.
pub(super) fn read_context(message: &Message) -> Option<&[u8]> {
    match &*message.entries {
        [entry] if entry.data.len() == READ_CONTEXT && entry.context.is_empty() => Some(&entry.data),
        _ => None,
    }
}

impl fmt::Debug for PeerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.0;
        write!(
            f,
            "{:?} {}→{} term {} at {}:{} +{} commit {}{}",
            m.get_msg_type(),
            m.from,
            m.to,
            m.term,
            m.log_term,
            m.index,
            m.entries.len(),
            m.commit,
            if m.reject { " reject" } else { "" }
        )
    }
}
