//! A store that is gone with the client: for tests and for replaying. Only what is read back is kept, the events.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;
use rove_client_core::timeline::UnavailableRange;
use rove_protocol::ids::{ConversationId, Seq};

use super::Change;

#[derive(Debug, Default)]
struct Log {
    events: BTreeMap<Seq, Bytes>,
    /// (what it refers to, its own seq)
    references: BTreeSet<(Seq, Seq)>,
    unavailable: BTreeMap<Seq, UnavailableRange>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<BTreeMap<ConversationId, Log>>);

impl MemoryStore {
    pub(super) fn write(&self, changes: &[Change]) {
        let mut logs = self.0.lock();
        for change in changes {
            match change {
                Change::Event { conversation, seq, refers_to, encoded } => {
                    let log = logs.entry(*conversation).or_default();
                    log.events.insert(*seq, encoded.clone());
                    if refers_to.0 > 0 {
                        log.references.insert((*refers_to, *seq));
                    }
                }
                Change::Unavailable { conversation, range } => {
                    logs.entry(*conversation).or_default().unavailable.insert(range.from, *range);
                }
                Change::Forget(conversation) => {
                    logs.remove(conversation);
                }
                // Nobody will ever load these.
                Change::Account(_)
                | Change::Writer(_)
                | Change::Conversation(_)
                | Change::Outbox { .. }
                | Change::Inbox(..)
                | Change::Name(_)
                | Change::Nodes(_) => {}
            }
        }
    }

    pub(super) fn events_after(&self, id: ConversationId, after: Seq, limit: usize) -> Vec<(Seq, Bytes)> {
        let logs = self.0.lock();
        let Some(log) = logs.get(&id) else { return Vec::new() };
        let range = (Bound::Excluded(after), Bound::Unbounded);
        log.events.range(range).take(limit).map(|(seq, event)| (*seq, event.clone())).collect()
    }

    pub(super) fn events_before(&self, id: ConversationId, before: Seq, limit: usize) -> Vec<(Seq, Bytes)> {
        let logs = self.0.lock();
        let Some(log) = logs.get(&id) else { return Vec::new() };
        let newest = log.events.range(..before).rev().take(limit);
        let mut events: Vec<_> = newest.map(|(seq, event)| (*seq, event.clone())).collect();
        events.reverse();
        events
    }

    pub(super) fn referring(&self, id: ConversationId, from: Seq, to: Seq) -> Vec<(Seq, Bytes)> {
        let logs = self.0.lock();
        let Some(log) = logs.get(&id) else { return Vec::new() };
        let mut events: Vec<_> = log
            .references
            .range((from, Seq(0))..=(to, Seq(u64::MAX)))
            .filter_map(|(_, seq)| log.events.get(seq).map(|event| (*seq, event.clone())))
            .collect();
        events.sort_by_key(|(seq, _)| *seq);
        events
    }

    pub(super) fn unavailable(&self, id: ConversationId, from: Seq, to: Seq) -> Vec<UnavailableRange> {
        let logs = self.0.lock();
        logs.get(&id).map_or_else(Vec::new, |log| log.unavailable.range(from..=to).map(|(_, range)| *range).collect())
    }

    pub(super) fn wipe(&self) {
        self.0.lock().clear();
    }
}
