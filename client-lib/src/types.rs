//! What an app is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rove_client_core::timeline::{LocalId, TimelineItem};
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, MessageId, NodeId, Seq};
use rove_protocol::message::Event;
use rove_protocol::registry::{ConversationKind, ErrorCode, PresenceStatus, Role};

/// Counts changes: a larger one means "look again".
pub type Version = u64;

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// Between two attempts.
    Disconnected {
        /// Why the last one ended.
        code: ErrorCode,
        /// When the next one begins, in milliseconds from when this was set.
        retry_in_ms: u64,
    },
    /// An attempt is under way.
    Connecting,
    /// Logged in and in step.
    Connected {
        /// The node that serves the session.
        node: NodeId,
        /// The round trip when it was set.
        rtt: Duration,
    },
    /// Over for good: closed by the app, revoked, or the server does not know the device any more.
    Closed {
        /// Why; [`ErrorCode::None`] if the app closed it.
        code: ErrorCode,
    },
}

/// What one account may know of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountInfo {
    /// Its id.
    pub account: AccountId,
    /// Its handle.
    pub handle: String,
    /// The name it shows; may be empty.
    pub name: String,
}

/// One line of the list of conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationSummary {
    /// Its id.
    pub id: ConversationId,
    /// Direct or group.
    pub kind: ConversationKind,
    /// What this account is in it; [`Role::None`] once it is out.
    pub role: Role,
    /// A group's title; empty for a direct conversation.
    pub title: String,
    /// The other account of a direct conversation. Its handle is empty until the server has named it.
    pub peer: Option<AccountInfo>,
    /// The last seq of its log, as far as known.
    pub head: Seq,
    /// How far this account has read, from whichever device.
    pub read: Seq,
    /// Seqs after `read`.
    pub unread: u64,
    /// The newest event, if it is held.
    pub last: Option<TimelineItem>,
    /// Posts that wait in the outbox.
    pub queued: usize,
}

/// One event as it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place.
    pub seq: Seq,
    /// Its bytes: the same for every reader.
    pub encoded: Bytes,
    /// What they say.
    pub event: Event,
}

impl StoredEvent {
    /// Its body as text, if it is text.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.event.body).ok()
    }
}

/// How a post ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log, durable on a majority.
    Posted {
        /// Where.
        seq: Seq,
        /// Its name in the cluster.
        message_id: MessageId,
        /// When it was accepted, in milliseconds of the Unix epoch.
        time_ms: u64,
    },
    /// Refused for good, or cancelled.
    Refused(ErrorCode),
}

/// What became of a wish to cancel a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It was not sent and never will be.
    Done,
    /// It was sent and not answered: its outcome says whether it was still in time.
    Requested,
    /// It is in the log, or was refused, or is not known.
    TooLate,
}

/// How far another member has received and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptInfo {
    /// Who.
    pub account: AccountId,
    /// The last seq one of its devices holds.
    pub delivered: Seq,
    /// The last seq it has read.
    pub read: Seq,
}

/// Whether an account is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceInfo {
    /// Online or not.
    pub status: PresenceStatus,
    /// When it was last online, in milliseconds of the Unix epoch; 0: unknown or now.
    pub last_seen_ms: u64,
}

/// The presence of the watched accounts, as far as known.
pub type PresenceMap = BTreeMap<AccountId, PresenceInfo>;

/// A conversation and a page of its members, as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationDetails {
    /// Its id.
    pub id: ConversationId,
    /// Direct or group.
    pub kind: ConversationKind,
    /// A group's title.
    pub title: String,
    /// The last seq of its log.
    pub head: Seq,
    /// How many members.
    pub member_count: u32,
    /// A page of them, ascending by account.
    pub members: Vec<(AccountId, Role)>,
}

/// One device of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id.
    pub device: DeviceId,
    /// What it is called; may be empty.
    pub name: String,
}

/// Numbers for tests, benchmarks and support.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Connections made after the first.
    pub reconnects: u64,
    /// The current or last round trip.
    pub rtt: Duration,
    /// Events stored since the client was opened.
    pub events: u64,
    /// Events that came twice and were ignored.
    pub duplicates: u64,
    /// Posts acknowledged since the client was opened.
    pub posted: u64,
    /// Times the socket was changed under a living connection.
    pub rebinds: u64,
    /// Writers minted because the store looked like a copy (D1).
    pub writers_minted: u64,
}

/// A post in the outbox.
#[derive(Debug)]
pub struct PostHandle {
    pub(crate) local: LocalId,
    pub(crate) outcome: tokio::sync::oneshot::Receiver<Outcome>,
}

impl PostHandle {
    /// Its name in the store, for [`crate::Conversation::cancel`].
    pub fn local(&self) -> LocalId {
        self.local
    }

    /// Waits until the server has answered for good, across any number of reconnects.
    ///
    /// # Errors
    /// [`crate::Error::Closed`] if the client is closed first; the post stays in the outbox.
    pub async fn outcome(self) -> Result<Outcome, crate::Error> {
        self.outcome.await.map_err(|_| crate::Error::Closed(ErrorCode::None))
    }
}
