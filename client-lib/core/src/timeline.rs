//! What a user sees of a conversation: its events in order, edits and deletions folded in, own unsent posts at the end.

use std::fmt;

use bytes::Bytes;
use rove_protocol::ids::{AccountId, MessageId, Seq};
use rove_protocol::registry::{ContentType, ErrorCode, EventKind, Role, UnavailableReason};

/// Names a post in the local store from the moment it is queued, before the server has given it a seq.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub u64);

impl fmt::Display for LocalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How far an own post has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In the outbox, durable on this device.
    Queued,
    /// Sent, not answered yet; sent again after a lost connection.
    Sent,
    /// In the log, durable on a majority.
    Posted,
    /// Refused for good, or cancelled ([`ErrorCode::Cancelled`]).
    Refused(ErrorCode),
}

/// What an item shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A message, in its newest version.
    Text(String),
    /// A message that was taken back.
    Deleted,
    /// The conversation was made.
    Created {
        /// A group's title.
        title: String,
        /// Its first members.
        members: Vec<(AccountId, Role)>,
    },
    /// Members came, went ([`Role::None`]) or changed role.
    MembersChanged(Vec<(AccountId, Role)>),
    /// A group's new title.
    TitleChanged(String),
    /// Seqs nobody will send any more (D3).
    Unavailable {
        /// The last of them; the item's seq is the first.
        to: Seq,
        /// Why.
        reason: UnavailableReason,
    },
    /// Something this version does not understand: it still has its place.
    Other {
        /// What it does.
        kind: EventKind,
        /// What its body is.
        content_type: ContentType,
        /// The body.
        body: Bytes,
    },
}

/// One line of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineItem {
    /// Its place in the log; `None` for an own post that is not there yet.
    pub seq: Option<Seq>,
    /// Its name in the outbox, while it is there.
    pub local: Option<LocalId>,
    /// Its name in the cluster; 0 for an own post that is not in the log yet.
    pub message_id: MessageId,
    /// When it was accepted (or, before that, queued), in milliseconds of the Unix epoch.
    pub time_ms: u64,
    /// Who did it; 0 for unavailable seqs.
    pub author: AccountId,
    /// Whether this account did it, from whichever device.
    pub mine: bool,
    /// The event it replies to; 0: none.
    pub refers_to: Seq,
    /// What it shows.
    pub content: Content,
    /// Whether an edit was folded in.
    pub edited: bool,
    /// Reactions of the accounts, in the order of the log.
    pub reactions: Vec<(AccountId, String)>,
    /// How far it has come; [`Delivery::Posted`] for everybody else's.
    pub delivery: Delivery,
}

impl TimelineItem {
    /// The text, if it is a message of text.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }
}
