//! The rows of a partition's state. Each value is a version byte, then postcard; an event's is a version byte, then the
//! body of its `Event` frame, so that it is sent as it is stored.

use bytes::Bytes;
use rove_protocol::ids::{AccountId, DeviceId, MessageId, PostNo, Seq};
use rove_protocol::registry::{ConversationKind, ErrorCode, Role};
use serde::{Deserialize, Serialize};

use super::ReadError;
use crate::versioned;

/// The version of every row that is written. Rows of different tables grow apart when one of them changes.
const ROW_VERSION: u8 = 1;

/// A row with a value that is encoded whole.
pub(crate) trait Row: Sized + Serialize + for<'de> Deserialize<'de> {
    /// The name of its table, for errors.
    const TABLE: &'static str;

    fn encode(&self) -> Vec<u8> {
        versioned::encode(ROW_VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        versioned::decode(ROW_VERSION, bytes).map_err(|error| ReadError::Corrupt { table: Self::TABLE, error })
    }
}

/// Where a partition's state is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRow {
    /// The behaviour of apply this state was made with (D8).
    pub apply_version: u16,
    /// The last entry applied.
    pub applied: u64,
    /// The chained hash of all changes up to it.
    pub state_hash: u64,
    /// The time part of the last message id (D10).
    pub last_hi: u64,
    /// The latest time of an entry, in milliseconds of the Unix epoch; never goes back.
    pub last_time_ms: u64,
}

/// One conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationRow {
    /// Direct or group.
    pub kind: ConversationKind,
    /// A group's title; empty for a direct one.
    pub title: String,
    /// The last seq of its log.
    pub head: Seq,
    /// The name of the event at `head`.
    pub last_message_id: MessageId,
    /// The time of the event at `head`, in milliseconds of the Unix epoch.
    pub last_event_time_ms: u64,
    /// How many members there are now.
    pub member_count: u32,
    /// How many of them are owners.
    pub owner_count: u32,
    /// The two accounts of a direct conversation, ascending; nobody in a group.
    pub peers: [AccountId; 2],
}

impl ConversationRow {
    /// The other account of a direct conversation; nobody (0) in a group.
    #[must_use]
    pub fn peer_of(&self, account: AccountId) -> AccountId {
        if self.peers[0] == account { self.peers[1] } else { self.peers[0] }
    }
}

/// Stays of a member before the present or last one that are remembered. Somebody who came and went more often no longer
/// sees his oldest stays: the row must not grow for ever.
pub const EARLIER_STAYS: usize = 8;

/// What an account is or was in a conversation. It survives leaving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// What it may do; [`Role::None`] once it is out.
    pub role: Role,
    /// The event by which it came in, the last time: the first it sees of this stay.
    pub joined: Seq,
    /// The event by which it went: the last it sees. `None` while it is in.
    pub left: Option<Seq>,
    /// How far it has read.
    pub read: Seq,
    /// First and last seq of earlier stays, ascending, at most [`EARLIER_STAYS`].
    pub earlier: Vec<(Seq, Seq)>,
}

impl MemberRow {
    /// Whether it is in now.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.role != Role::None
    }

    /// Whether it may see the event at `seq`.
    #[must_use]
    pub fn may_see(&self, seq: Seq) -> bool {
        (seq >= self.joined && self.left.is_none_or(|left| seq <= left))
            || self.earlier.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }
}

/// Outcomes on one page: the limit of unanswered posts (D7), so that every repeat a client may still send is on the open
/// page or the one before.
pub(crate) const PAGE: u64 = rove_protocol::limits::UNANSWERED_POSTS as u64;

/// What became of one post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Recorded {
    /// It is the event at this seq, which has the rest of the outcome.
    Posted(Seq),
    /// It was refused for good.
    Refused(ErrorCode),
}

/// What a repeat is compared with, and answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedPost {
    pub(crate) digest: Digest,
    pub(crate) recorded: Recorded,
}

/// The first 64 bits of the SHA-256 of a post's bytes. It finds the mistakes of an honest client; who forges a collision
/// with his own post deceives himself alone, so eight bytes do, sixty-four times a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest([u8; 8]);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(bytes);
        let mut cut = [0; 8];
        cut.copy_from_slice(&hash[..8]);
        Self(cut)
    }

    pub(crate) fn as_u64(self) -> u64 {
        u64::from_le_bytes(self.0)
    }
}

/// One writer in one conversation. Outcomes come in pages of [`PAGE`] numbers: the page that is being filled is here,
/// full ones are rows of their own that never change. So this row, written every round, stays small, and a repeat gets
/// its exact answer however old it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WriterRow {
    /// The device it was first used by.
    pub(crate) device: DeviceId,
    /// The last number consumed.
    pub(crate) last: PostNo,
    /// The outcomes of the numbers after the last full page, up to `last`.
    pub(crate) open: Vec<RecordedPost>,
}

/// A full page of outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WriterPageRow {
    pub(crate) outcomes: Vec<RecordedPost>,
}

/// That an account is or was in a conversation: the key says it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipRow;

/// The newest gate about one device or account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GateRow {
    /// The directory's number of it.
    pub(crate) number: u64,
    /// Whether the subject is shut out.
    pub(crate) shut: bool,
}

macro_rules! rows {
    ($($row:ident: $table:literal),* $(,)?) => {
        $( impl Row for $row { const TABLE: &'static str = $table; } )*
    };
}
rows! {
    PartitionRow: "partition",
    ConversationRow: "conversation",
    MemberRow: "member",
    WriterRow: "writer",
    WriterPageRow: "writer page",
    MembershipRow: "membership",
    GateRow: "gate",
}

/// The first byte of an event's row.
pub(crate) const EVENT_VERSION: u8 = ROW_VERSION;

/// The body of the `Event` frame in an event's row.
pub(crate) fn event_body(row: &Bytes) -> Result<Bytes, ReadError> {
    match row.first() {
        Some(&EVENT_VERSION) => Ok(row.slice(1..)),
        Some(&other) => Err(ReadError::Corrupt { table: "event", error: versioned::VersionedError::Version(other) }),
        None => Err(ReadError::Corrupt { table: "event", error: versioned::VersionedError::Empty }),
    }
}
