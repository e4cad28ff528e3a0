//! What an outbox holds and what it says is to be stored.

use bytes::Bytes;
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{AccountId, MessageId, PostNo, Seq, WriterId};
use rove_protocol::message::{AccountRef, Event, Post};
use rove_protocol::registry::{ContentType, ErrorCode, EventKind};
use rove_protocol::wire::List;

use crate::timeline::LocalId;

/// What a post says, without its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it does.
    pub kind: EventKind,
    /// The event it is about; 0: none.
    pub refers_to: Seq,
    /// What the body is.
    pub content_type: ContentType,
    /// The epoch of the end-to-end encryption; 0: none.
    pub crypto_epoch: u64,
    /// Accounts to be told.
    pub mentions: Vec<AccountId>,
    /// The body.
    pub body: Bytes,
}

impl Draft {
    /// A text about `refers_to` (0: none).
    pub fn text(kind: EventKind, refers_to: Seq, text: &str) -> Self {
        Self {
            kind,
            refers_to,
            content_type: if text.is_empty() { ContentType::None } else { ContentType::Text },
            crypto_epoch: 0,
            mentions: Vec::new(),
            body: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    /// Whether `event` is this post in the log.
    pub fn is(&self, event: &Event) -> bool {
        self.kind == event.kind
            && self.refers_to == event.refers_to
            && self.content_type == event.content_type
            && self.crypto_epoch == event.crypto_epoch
            && self.body == event.body
            && event.mentions.iter().map(|mention| mention.account).eq(self.mentions.iter().copied())
    }

    fn mentions(&self) -> List<AccountRef> {
        self.mentions.iter().map(|account| AccountRef { account: *account }).collect()
    }
}

/// A queued post, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name in the store; rises.
    pub local: LocalId,
    /// Whose number it has or will have.
    pub writer: WriterId,
    /// Its number, from its first sending on.
    pub number: Option<PostNo>,
    /// What it says.
    pub draft: Draft,
    /// When it was queued, in milliseconds of the Unix epoch.
    pub created_ms: u64,
    /// It is not to be posted any more, and why; its number goes up as a void.
    pub void: Option<ErrorCode>,
}

impl Item {
    /// What goes on the wire under `number`.
    pub(super) fn post(&self, number: PostNo) -> Post {
        if self.void.is_some() {
            return Post {
                post_no: number,
                kind: EventKind::Void,
                refers_to: Seq(0),
                content_type: ContentType::None,
                crypto_epoch: 0,
                mentions: List::default(),
                body: Bytes::new(),
                extensions: Extensions::default(),
            };
        }
        Post {
            post_no: number,
            kind: self.draft.kind,
            refers_to: self.draft.refers_to,
            content_type: self.draft.content_type,
            crypto_epoch: self.draft.crypto_epoch,
            mentions: self.draft.mentions(),
            body: self.draft.body.clone(),
            extensions: Extensions::default(),
        }
    }
}

/// How a post ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log.
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

/// What is to be stored, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Insert or replace the row of this post, and raise the last number of its writer to its number. Durable before
    /// the post is sent and before the app is told that it is queued.
    Put(Item),
    /// Mark its row as refused: it is only shown from now on.
    Refused(LocalId, ErrorCode),
    /// Delete its row. May be lost in a crash: it is then found again in the log.
    Remove(LocalId),
}

/// What happened in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// What is to be stored, in order.
    pub changes: Vec<Change>,
    /// Posts that have ended.
    pub resolved: Vec<(LocalId, Outcome)>,
    /// Somebody else uses the writer: mint a new one for the whole store.
    pub needs_writer: bool,
}
