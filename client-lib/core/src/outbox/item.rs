//! What an outbox holds and what it says is to be stored.

use bytes::Bytes;
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{AccountId, MessageId, PostNo, PostTag, Seq, WriterId};
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

    /// Whether `event` says the same.
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
    /// Its name in the log, the same for ever: random, made by the shell when it was queued. None: it was queued before
    /// there were tags, and its number is bound to bytes without one.
    pub tag: Option<PostTag>,
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
        Post {
            post_no: number,
            kind: self.draft.kind,
            refers_to: self.draft.refers_to,
            content_type: self.draft.content_type,
            crypto_epoch: self.draft.crypto_epoch,
            mentions: self.draft.mentions(),
            body: self.draft.body.clone(),
            extensions: Extensions::with_tag(self.tag),
        }
    }

    /// What uses up `number` instead.
    pub(super) fn void(&self, number: PostNo) -> Post {
        Post {
            post_no: number,
            kind: EventKind::Void,
            refers_to: Seq(0),
            content_type: ContentType::None,
            crypto_epoch: 0,
            mentions: List::default(),
            body: Bytes::new(),
            extensions: Extensions::with_tag(self.tag),
        }
    }

    /// Whether `event` is this post in the log, under whatever writer and number.
    pub(super) fn is(&self, event: &Event) -> bool {
        match self.tag {
            Some(tag) => event.extensions.tag() == Some(tag),
            None => self.has_number_of(event) && self.draft.is(event),
        }
    }

    /// Whether `event` has the number that was given to this post.
    pub(super) fn has_number_of(&self, event: &Event) -> bool {
        self.writer == event.writer && self.number == Some(event.post_no)
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
