//! Who waits for which answer.
//!
//! A ticket is a number in a command's [`Origin`]: unique on this node for ever, because its upper bits are the node's
//! life. So an answer that is replayed after a restart finds nobody, rather than somebody else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rove_core::command::{ConversationOutcome, Origin};
use rove_core::directory::DirectoryOutcome;
use rove_core::life::Life;
use rove_protocol::ids::NodeId;
use tokio::sync::oneshot;

/// Most who may wait at once: twice what the queues of the default six partitions hold, as much again may be on its way.
pub(super) const MAX_TICKETS: usize = 128 * 1024;

/// Locks of the table: callers, and the writers that answer, rarely meet on one.
const SHARDS: u8 = 16;

/// How the waiting one is told.
pub(super) enum Waiter {
    /// A conversation's partition answers.
    Conversation(oneshot::Sender<ConversationOutcome>),
    /// The directory answers.
    Directory(oneshot::Sender<DirectoryOutcome>),
}

/// The table. Bounded by [`MAX_TICKETS`].
pub(super) struct TicketTable {
    node: NodeId,
    next: AtomicU64,
    waiting: AtomicUsize,
    shards: Box<[Mutex<HashMap<u64, Waiter>>]>,
}

impl TicketTable {
    /// An empty table of this life.
    pub(super) fn new(node: NodeId, life: Life) -> Self {
        Self {
            node,
            next: AtomicU64::new(life.first_number()),
            waiting: AtomicUsize::new(0),
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
        }
    }

    /// A ticket for `waiter`, or nothing when too many wait already.
    pub(super) fn issue(&self, waiter: Waiter) -> Option<Origin> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_TICKETS {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        self.shard(ticket).lock().insert(ticket, waiter);
        Some(Origin { node: self.node, ticket })
    }

    /// Takes out who waits for the answer to `origin`, if that is somebody here.
    pub(super) fn take(&self, origin: Origin) -> Option<Waiter> {
        if origin.node != self.node || origin.ticket == 0 {
            return None;
        }
        let waiter = self.shard(origin.ticket).lock().remove(&origin.ticket)?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(waiter)
    }

    /// Tells who waits for a conversation's answer. Whether somebody did.
    pub(super) fn answer_conversation(&self, origin: Origin, outcome: ConversationOutcome) -> bool {
        match self.take(origin) {
            Some(Waiter::Conversation(sender)) => sender.send(outcome).is_ok(),
            Some(Waiter::Directory(_)) | None => false,
        }
    }

    /// Tells who waits for the directory's answer. Whether somebody did.
    pub(super) fn answer_directory(&self, origin: Origin, outcome: DirectoryOutcome) -> bool {
        match self.take(origin) {
            Some(Waiter::Directory(sender)) => sender.send(outcome).is_ok(),
            Some(Waiter::Conversation(_)) | None => false,
        }
    }

    /// Everybody who waits learns that the outcome is unknown.
    pub(super) fn abandon_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.waiting.fetch_sub(shard.len(), Ordering::Relaxed);
            shard.clear();
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn shard(&self, ticket: u64) -> &Mutex<HashMap<u64, Waiter>> {
        // The low bits are the counter, so neighbours go to different locks.
        &self.shards[usize::from(ticket.to_le_bytes()[0] % SHARDS)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reaches_the_one_who_waits_and_only_once() {
        let table = TicketTable::new(NodeId(1), Life::new(0, 3));
        let (sender, mut receiver) = oneshot::channel();
        let origin = table.issue(Waiter::Conversation(sender)).unwrap();
        assert!(table.answer_conversation(origin, ConversationOutcome::Done));
        assert!(!table.answer_conversation(origin, ConversationOutcome::Done));
        assert_eq!(receiver.try_recv().unwrap(), ConversationOutcome::Done);
        assert_eq!(table.waiting(), 0);
    }

    #[test]
    fn an_answer_of_an_earlier_boot_or_another_node_finds_nobody() {
        let earlier = TicketTable::new(NodeId(1), Life::new(0, 3));
        let table = TicketTable::new(NodeId(1), Life::new(1, 1));
        let (sender, mut receiver) = oneshot::channel();
        let (other, _other) = oneshot::channel();
        let now = table.issue(Waiter::Conversation(sender)).unwrap();
        let then = earlier.issue(Waiter::Conversation(other)).unwrap();
        assert!(!table.answer_conversation(then, ConversationOutcome::Done));
        assert!(!table.answer_conversation(Origin { node: NodeId(2), ..now }, ConversationOutcome::Done));
        assert!(receiver.try_recv().is_err());
        assert_eq!(table.waiting(), 1);
    }
}
