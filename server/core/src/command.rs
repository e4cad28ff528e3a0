//! What the log says: one raft entry is a [`Batch`] of commands, and each command is answered.
//!
//! Entries are on disk for ever (until compacted) and on their way between versions of the program, so batches and
//! commands are [`versioned`](mod@crate::versioned). Outcomes and effects are not: they live between apply and the edge.

use bytes::Bytes;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, MessageId, NodeId, PostNo, Seq, WriterId};
use rove_protocol::registry::{ConversationKind, ErrorCode, Role};
use serde::{Deserialize, Serialize};

use crate::versioned::{self, VersionedError};

/// The version of [`Batch`] that is written.
const BATCH_VERSION: u8 = 1;
/// The version of [`ConversationCommand`] that is written.
const CONVERSATION_COMMAND_VERSION: u8 = 1;

/// An entry or a command that this binary cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The batch.
    #[error("a batch: {0}")]
    Batch(VersionedError),
    /// A command of the batch.
    #[error("a command: {0}")]
    Command(VersionedError),
}

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The node that proposed it.
    pub node: NodeId,
    /// Unique on that node since it started; 0: nobody waits, and no answer is made.
    pub ticket: u64,
}

impl Origin {
    /// Nobody waits for the answer.
    pub const NOBODY: Self = Self { node: NodeId(0), ticket: 0 };
}

/// A command and who waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who waits.
    pub origin: Origin,
    /// An encoded command: [`ConversationCommand`], or the directory's in partition 0.
    pub command: Bytes,
}

/// One raft entry: what queued up while the last one was on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's clock when it proposed the batch, in milliseconds of the Unix epoch.
    pub time_ms: u64,
    /// The commands, in the order they are applied.
    pub commands: Vec<Envelope>,
}

impl Batch {
    /// The bytes of the entry.
    pub fn encode(&self) -> Vec<u8> {
        versioned::encode(BATCH_VERSION, self)
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`CommandError::Batch`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        versioned::decode(BATCH_VERSION, bytes).map_err(CommandError::Batch)
    }
}

/// A [`Batch`] whose commands are slices of the entry: apply copies each command once, not twice.
#[derive(Debug, Deserialize)]
pub(crate) struct BatchRef<'a> {
    pub(crate) time_ms: u64,
    #[serde(borrow)]
    pub(crate) commands: Vec<EnvelopeRef<'a>>,
}

/// An [`Envelope`] in a [`BatchRef`].
#[derive(Debug, Deserialize)]
pub(crate) struct EnvelopeRef<'a> {
    pub(crate) origin: Origin,
    pub(crate) command: &'a [u8],
}

impl<'a> BatchRef<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, CommandError> {
        versioned::decode(BATCH_VERSION, bytes).map_err(CommandError::Batch)
    }
}

/// Who asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The account.
    pub account: AccountId,
    /// From which device.
    pub device: DeviceId,
}

/// What can be done to the conversations of a partition. The order of variants and fields is the format on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConversationCommand {
    /// Appends an event; answered with [`ConversationOutcome::Posted`] or [`ConversationOutcome::Refused`].
    Post {
        /// Where.
        conversation: ConversationId,
        /// Who.
        actor: Actor,
        /// The writer whose number the post bears.
        writer: WriterId,
        /// The body of the `Post` frame, verbatim: its digest is what repeats are compared with.
        post: Bytes,
    },
    /// Makes or finds the direct conversation of two accounts; answered with [`ConversationOutcome::Conversation`].
    CreateDirect {
        /// Who asks.
        actor: Actor,
        /// The other account. That it exists is for the proposer to check.
        peer: AccountId,
    },
    /// Makes or finds a group; answered with [`ConversationOutcome::Conversation`].
    CreateGroup {
        /// Who asks, and becomes its owner.
        actor: Actor,
        /// The same nonce by the same account is the same group.
        nonce: [u8; 16],
        /// Its title.
        title: String,
        /// Its other members.
        members: Vec<(AccountId, Role)>,
    },
    /// Adds members, changes roles, removes members ([`Role::None`]): all of it or nothing. Answered with
    /// [`ConversationOutcome::Conversation`].
    ChangeMembers {
        /// Who asks.
        actor: Actor,
        /// Where.
        conversation: ConversationId,
        /// The new roles; no account twice.
        changes: Vec<(AccountId, Role)>,
    },
    /// Moves a member's read watermark forward; answered with [`ConversationOutcome::Done`].
    MarkRead {
        /// Where.
        conversation: ConversationId,
        /// Whose.
        account: AccountId,
        /// The last seq read.
        read: Seq,
    },
    /// Something the directory makes known to this partition (D9); answered with [`ConversationOutcome::Done`].
    Gate {
        /// The directory's number of it. A repeat, or one that a later number about the same subject has overtaken,
        /// changes nothing.
        number: u64,
        /// What.
        gate: Gate,
    },
}

/// What the directory makes known to every partition concerned (D9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// The device does nothing any more, for ever.
    DeviceRevoked(DeviceId),
    /// The account does nothing until it is restored.
    AccountSuspended(AccountId),
    /// The account may act again.
    AccountRestored(AccountId),
    /// From here on entries are applied as this version does (D8).
    ApplyVersion(u16),
}

impl ConversationCommand {
    /// The bytes in an [`Envelope`].
    pub fn encode(&self) -> Vec<u8> {
        versioned::encode(CONVERSATION_COMMAND_VERSION, self)
    }

    /// Reads a command.
    ///
    /// # Errors
    /// [`CommandError::Command`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        versioned::decode(CONVERSATION_COMMAND_VERSION, bytes).map_err(CommandError::Command)
    }

    /// Whether it is taken below the reserve of the disk ([`disk`](crate::disk)): what the cluster tells itself is little, and must go on.
    pub fn may_use_reserve(&self) -> bool {
        matches!(self, Self::Gate { .. })
    }

    /// The conversation it is about, which decides the partition it is proposed to; none for a gate, which goes to every
    /// partition concerned.
    pub fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Post { conversation, .. }
            | Self::ChangeMembers { conversation, .. }
            | Self::MarkRead { conversation, .. } => Some(*conversation),
            Self::CreateDirect { actor, peer } => Some(ConversationId::direct(actor.account, *peer)),
            Self::CreateGroup { actor, nonce, .. } => Some(ConversationId::group(actor.account, *nonce)),
            Self::Gate { .. } => None,
        }
    }
}

/// A post that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostedOutcome {
    /// Which post.
    pub post_no: PostNo,
    /// Where it is.
    pub seq: Seq,
    /// Its name in the cluster.
    pub message_id: MessageId,
    /// When it was accepted, in milliseconds of the Unix epoch.
    pub time_ms: u64,
}

/// A post that is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedOutcome {
    /// Which post.
    pub post_no: PostNo,
    /// Why.
    pub code: ErrorCode,
    /// Whether its number is used up, so that the refusal is for good.
    pub consumed: bool,
    /// The number taken next from this writer; 1 if the writer is another device's and a new one is to be minted.
    pub expected: PostNo,
}

/// A conversation as whoever asked for it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationView {
    /// Its id.
    pub conversation: ConversationId,
    /// Direct or group.
    pub kind: ConversationKind,
    /// A group's title.
    pub title: String,
    /// The last seq of its log.
    pub head: Seq,
    /// How many members.
    pub member_count: u32,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConversationOutcome {
    /// The post is in the log.
    Posted(PostedOutcome),
    /// The post is not in the log.
    Refused(RefusedOutcome),
    /// The conversation that was made, found or changed.
    Conversation(ConversationView),
    /// Done, with nothing to tell.
    Done,
    /// Nothing was changed, and why.
    Failed(ErrorCode),
}

/// What applying says, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A command was decided.
    Answer {
        /// Who waits; never [`Origin::NOBODY`].
        origin: Origin,
        /// How it ended.
        outcome: ConversationOutcome,
    },
    /// An event was appended.
    Event {
        /// Where.
        conversation: ConversationId,
        /// Its place.
        seq: Seq,
        /// Its name.
        message_id: MessageId,
        /// The body of its `Event` frame, verbatim.
        body: Bytes,
    },
    /// Members came, went or changed role; follows the event that says so.
    Members {
        /// Where.
        conversation: ConversationId,
        /// The new roles; [`Role::None`] for who is out.
        changes: Vec<(AccountId, Role)>,
    },
    /// A member has read (and therefore received) up to here, further than before.
    Read {
        /// Where.
        conversation: ConversationId,
        /// Who.
        account: AccountId,
        /// The last seq read.
        read: Seq,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> ConversationCommand {
        ConversationCommand::Post {
            conversation: ConversationId([7; 16]),
            actor: Actor { account: AccountId(1), device: DeviceId(2) },
            writer: WriterId([9; 16]),
            post: Bytes::from_static(b"post"),
        }
    }

    #[test]
    fn batches_and_commands_read_back() {
        let envelope = Envelope { origin: Origin { node: NodeId(3), ticket: 4 }, command: command().encode().into() };
        let batch = Batch { time_ms: 5, commands: vec![envelope.clone(), envelope] };
        let bytes = batch.encode();
        assert_eq!(Batch::decode(&bytes), Ok(batch.clone()));
        assert_eq!(ConversationCommand::decode(&batch.commands[0].command), Ok(command()));
        let borrowed = BatchRef::decode(&bytes).unwrap();
        assert_eq!((borrowed.time_ms, borrowed.commands.len()), (5, 2));
        assert_eq!(borrowed.commands[1].command, &batch.commands[1].command[..]);
        assert_eq!(borrowed.commands[1].origin, batch.commands[1].origin);
    }

    #[test]
    fn the_bytes_on_disk_are_pinned() {
        let expected = [&[1, 0][..], &[7; 16], &[1, 2], &[9; 16], &[4], b"post"].concat();
        assert_eq!(command().encode(), expected);
        let gate = ConversationCommand::Gate { number: 300, gate: Gate::AccountRestored(AccountId(1)) };
        assert_eq!(gate.encode(), [1, 5, 0xac, 0x02, 2, 1]);
        let raise = ConversationCommand::Gate { number: 1, gate: Gate::ApplyVersion(2) };
        assert_eq!(raise.encode(), [1, 5, 1, 3, 2]);
        let batch = Batch {
            time_ms: 1,
            commands: vec![Envelope { origin: Origin::NOBODY, command: Bytes::from_static(&[8]) }],
        };
        assert_eq!(batch.encode(), [1, 1, 1, 0, 0, 1, 8]);
    }

    #[test]
    fn an_entry_of_another_version_is_refused() {
        let mut bytes = Batch { time_ms: 5, commands: Vec::new() }.encode();
        bytes[0] = 2;
        assert_eq!(Batch::decode(&bytes), Err(CommandError::Batch(VersionedError::Version(2))));
    }
}
