//! A conversation an app has open.

use rove_client_core::timeline::{LocalId, TimelineItem};
use rove_protocol::ids::{AccountId, ConversationId, Seq};
use tokio::sync::watch;

use crate::Error;
use crate::types::{Cancel, PostHandle, ReceiptInfo, StoredEvent, Version};

/// A conversation an app has open. Clones are the same conversation; while one lives it is kept in step.
#[derive(Debug, Clone)]
pub struct Conversation {
    id: ConversationId,
    updates: watch::Receiver<Version>,
}

fn not_yet<T>() -> Result<T, Error> {
    Err(Error::Closed(rove_protocol::registry::ErrorCode::Unsupported))
}

#[allow(clippy::unused_async, unused_variables, reason = "bodies follow")]
impl Conversation {
    /// Its id.
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// Queues a message of text. It is durable in the outbox when this returns.
    pub async fn post(&self, text: &str) -> Result<PostHandle, Error> {
        not_yet()
    }

    /// Queues a message that answers the event at `to`.
    pub async fn reply(&self, to: Seq, text: &str) -> Result<PostHandle, Error> {
        not_yet()
    }

    /// Queues a new text for the own message at `seq`.
    pub async fn edit(&self, seq: Seq, text: &str) -> Result<PostHandle, Error> {
        not_yet()
    }

    /// Queues taking back the own message at `seq`.
    pub async fn delete(&self, seq: Seq) -> Result<PostHandle, Error> {
        not_yet()
    }

    /// Queues a reaction to the event at `seq`.
    pub async fn react(&self, seq: Seq, reaction: &str) -> Result<PostHandle, Error> {
        not_yet()
    }

    /// Cancels a queued post, or dismisses a refused one.
    pub async fn cancel(&self, local: LocalId) -> Result<Cancel, Error> {
        not_yet()
    }

    /// The last items, oldest first, own pending posts at the end.
    pub async fn timeline(&self, last: usize) -> Result<Vec<TimelineItem>, Error> {
        not_yet()
    }

    /// Up to `limit` items before `before`, oldest first, from the store.
    pub async fn timeline_before(&self, before: Seq, limit: usize) -> Result<Vec<TimelineItem>, Error> {
        not_yet()
    }

    /// Up to `limit` events after `seq`, in the order of the log, from the store.
    pub async fn events_after(&self, seq: Seq, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        not_yet()
    }

    /// Up to where every seq is held or known to be unavailable.
    pub fn cursor(&self) -> Seq {
        Seq(0)
    }

    /// The last seq of the log, as far as known.
    pub fn head(&self) -> Seq {
        Seq(0)
    }

    /// How far this account has read.
    pub fn read(&self) -> Seq {
        Seq(0)
    }

    /// Changes when there is something new to look at: events, outbox states, receipts, typing.
    pub fn updates(&self) -> watch::Receiver<Version> {
        self.updates.clone()
    }

    /// Makes sure up to `limit` seqs before `before` are in the store; the first seq held now.
    pub async fn fetch_older(&self, before: Seq, limit: u32) -> Result<Seq, Error> {
        not_yet()
    }

    /// The user has seen everything up to `seq`.
    pub async fn mark_read(&self, seq: Seq) -> Result<(), Error> {
        not_yet()
    }

    /// The user types, or has stopped.
    pub fn set_typing(&self, typing: bool) {}

    /// Who is typing.
    pub fn typing(&self) -> Vec<AccountId> {
        Vec::new()
    }

    /// How far the other members have received and read, ascending by account.
    pub fn receipts(&self) -> Vec<ReceiptInfo> {
        Vec::new()
    }

    /// Posts that wait in the outbox.
    pub fn queued(&self) -> usize {
        0
    }
}
