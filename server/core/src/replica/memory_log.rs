//! The log as raft reads it: everything above the truncation point, in memory.
//!
//! Memory is bounded by how far the durable state lags behind the log, which the node bounds by flushing.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::config::GroupMember;
use super::error::ReplicaError;
use super::outputs::Install;

/// Bytes counted for an entry beside its data: what the struct and its headers cost.
const ENTRY_OVERHEAD: u64 = 64;

/// Where a log begins: the last entry that is no longer in it. (0, 0) for a log with its first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truncated {
    /// Its index.
    pub index: u64,
    /// Its term, kept so that a follower's log can still be matched there.
    pub term: u64,
}

/// What was found on disk at start.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Term, vote, commit index.
    pub hard_state: HardState,
    /// The members of the group as they were stored last; empty for a new one.
    pub conf_state: ConfState,
    /// The index they became that at: changes up to there are in them, later ones are taken from the log.
    pub conf_index: u64,
    /// Where the log begins.
    pub truncated: Truncated,
    /// The log after that, without holes.
    pub entries: Vec<Entry>,
    /// Last index that the state has applied, and has durably.
    pub applied: u64,
    /// The snapshot that the state came from last, as the state itself tells; nothing if it never did.
    pub installed: Option<Install>,
}

impl Recovered {
    /// Last index of the log.
    pub fn last(&self) -> u64 {
        self.entries.last().map_or(self.truncated.index, |entry| entry.index)
    }

    /// After a crash between a snapshot's state and its log: the log begins anew after the snapshot, as it would have. Says whether.
    ///
    /// The log is of before then: it ends below the snapshot, or has something else in its place that was never committed. Where
    /// the state has gone on from the snapshot, or more is known to be committed, it is another loss, and stays one.
    pub(super) fn restart_if_installed(&mut self) -> bool {
        let Some(install) = self.installed.clone() else { return false };
        if install.index != self.applied || self.hard_state.commit > install.index {
            return false;
        }
        if self.term_at(install.index) == Some(install.term) || self.truncated.index > install.index {
            return false;
        }
        self.truncated = Truncated { index: install.index, term: install.term };
        self.entries.clear();
        (self.conf_state, self.conf_index) = (install.conf_state, install.index);
        if self.hard_state.term < install.term {
            // The term that came with the snapshot was not written; nobody was given a vote in it.
            self.hard_state = HardState { term: install.term, ..HardState::default() };
        }
        self.hard_state.commit = install.index;
        true
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.truncated.index {
            return Some(self.truncated.term);
        }
        self.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term)
    }

    /// Changes of the members that are applied and that the stored members do not have.
    pub(super) fn changes_lacking(&self) -> Vec<Entry> {
        let lacking = |entry: &&Entry| {
            entry.get_entry_type() == EntryType::EntryConfChangeV2
                && entry.index > self.conf_index
                && entry.index <= self.applied
        };
        self.entries.iter().filter(lacking).cloned().collect()
    }

    /// Refuses what raft would panic over, and raises the commit index to what is known to be committed: everything applied is,
    /// and the log holds it.
    pub(super) fn check(&mut self) -> std::result::Result<(), ReplicaError> {
        let mut due = self.truncated.index;
        let mut term = self.truncated.term;
        for entry in &self.entries {
            due += 1;
            if entry.index != due {
                return Err(ReplicaError::Gap { expected: due, found: entry.index });
            }
            if entry.term < term {
                return Err(ReplicaError::TermWentBack { index: entry.index, term: entry.term, previous: term });
            }
            term = entry.term;
        }
        let last = self.last();
        if self.hard_state.term < term {
            return Err(ReplicaError::StaleHardState { term: self.hard_state.term, last_term: term });
        }
        let needed = self.hard_state.commit.max(self.applied).max(self.conf_index);
        if needed > last {
            return Err(ReplicaError::LogLost { last, needed });
        }
        if self.applied < self.truncated.index {
            return Err(ReplicaError::StateLost { applied: self.applied, truncated: self.truncated.index });
        }
        self.hard_state.commit = needed;
        Ok(())
    }
}

/// The log in memory.
pub(super) struct MemoryLog {
    hard_state: HardState,
    conf_state: ConfState,
    truncated: Truncated,
    entries: VecDeque<Entry>,
    bytes: u64,
    /// Peers that need a snapshot. Behind a cell, as raft asks for one only where it may not change anything.
    wanted: RefCell<BTreeSet<GroupMember>>,
}

impl MemoryLog {
    pub(super) fn new(recovered: Recovered) -> Self {
        let bytes = recovered.entries.iter().map(size).sum();
        Self {
            hard_state: recovered.hard_state,
            conf_state: recovered.conf_state,
            truncated: recovered.truncated,
            entries: recovered.entries.into(),
            bytes,
            wanted: RefCell::default(),
        }
    }

    /// Appends, after taking back what the new entries contradict.
    pub(super) fn append(&mut self, entries: &[Entry]) -> std::result::Result<(), ReplicaError> {
        let Some(first) = entries.first() else { return Ok(()) };
        let last = self.last();
        if first.index <= self.truncated.index || first.index > last + 1 {
            return Err(ReplicaError::Gap { expected: last + 1, found: first.index });
        }
        while self.entries.back().is_some_and(|entry| entry.index >= first.index) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= size(&entry);
            }
        }
        self.bytes += entries.iter().map(size).sum::<u64>();
        self.entries.extend(entries.iter().cloned());
        Ok(())
    }

    /// Forgets everything up to `index`, which must be in the log. Says where the log begins now, or nothing if that is no change.
    pub(super) fn truncate(&mut self, index: u64) -> Option<Truncated> {
        if index <= self.truncated.index {
            return None;
        }
        let term = self.get(index)?.term;
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= size(&entry);
            }
        }
        self.truncated = Truncated { index, term };
        Some(self.truncated)
    }

    /// The index to truncate at so that at most `entries` are left, of at most `bytes`; perhaps none.
    pub(super) fn all_but(&self, entries: u64, bytes: u64) -> u64 {
        let mut index = self.last().saturating_sub(entries).max(self.truncated.index);
        let gone = usize::try_from(index - self.truncated.index).unwrap_or(usize::MAX);
        let mut left = self.bytes - self.entries.iter().take(gone).map(size).sum::<u64>();
        for entry in self.entries.iter().skip(gone) {
            if left <= bytes {
                break;
            }
            left -= size(entry);
            index = entry.index;
        }
        index
    }

    /// Forgets everything: the state now is that of `begins`, and the log goes on from there.
    pub(super) fn restart(&mut self, begins: Truncated) {
        self.entries.clear();
        self.bytes = 0;
        self.truncated = begins;
    }

    /// Who needs a snapshot, since this was asked last.
    pub(super) fn take_wanted(&self) -> Vec<GroupMember> {
        self.wanted.take().into_iter().collect()
    }

    pub(super) fn truncated(&self) -> Truncated {
        self.truncated
    }

    pub(super) fn last(&self) -> u64 {
        self.truncated.index + self.entries.len() as u64
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.truncated.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut total = 0;
        let mut found = Vec::new();
        for index in low..high {
            let entry = self.get(index).ok_or(Error::Store(StorageError::Unavailable))?;
            total += size(entry);
            // At least one, so that there is progress however large it is.
            if total > limit && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.get(index).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> Result<Snapshot> {
        // The state is captured elsewhere; its message goes to the peer without raft's help.
        self.wanted.borrow_mut().insert(to);
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

fn size(entry: &Entry) -> u64 {
    entry.data.len() as u64 + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 10].into(), ..Entry::default() }
    }

    fn log(entries: &[(u64, u64)]) -> MemoryLog {
        MemoryLog::new(Recovered {
            entries: entries.iter().map(|(index, term)| entry(*index, *term)).collect(),
            ..Recovered::default()
        })
    }

    #[test]
    fn appending_takes_back_what_it_contradicts() {
        let mut log = log(&[(1, 1), (2, 1), (3, 1)]);
        log.append(&[entry(2, 2)]).unwrap();
        assert_eq!((log.last(), log.term(2).unwrap()), (2, 2));
        assert_eq!(log.bytes(), 2 * 74);
        assert_eq!(log.append(&[entry(5, 2)]), Err(ReplicaError::Gap { expected: 3, found: 5 }));
    }

    #[test]
    fn truncating_keeps_the_term_of_the_last_entry_that_went() {
        let mut log = log(&[(1, 1), (2, 1), (3, 2), (4, 2)]);
        assert_eq!(log.truncate(3), Some(Truncated { index: 3, term: 2 }));
        assert_eq!(log.truncate(3), None);
        assert_eq!((log.first_index().unwrap(), log.last(), log.term(3).unwrap()), (4, 4, 2));
        assert_eq!(log.term(2), Err(Error::Store(StorageError::Compacted)));
        assert_eq!(log.truncate(9), None, "it is not in the log");
        assert_eq!(log.append(&[entry(3, 3)]), Err(ReplicaError::Gap { expected: 5, found: 3 }));
    }

    #[test]
    fn what_is_kept_is_bounded_in_entries_and_in_bytes() {
        let mut log = log(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
        for (entries, bytes, index) in
            [(9, 999, 0), (2, 999, 2), (9, 3 * 74, 1), (3, 2 * 74 + 1, 2), (9, 0, 4), (0, 9, 4)]
        {
            assert_eq!(log.all_but(entries, bytes), index, "{entries} entries, {bytes} bytes");
        }
        log.truncate(3);
        assert_eq!((log.all_but(9, 999), log.all_but(9, 73)), (3, 4));
    }

    #[test]
    fn reading_stops_at_the_size_but_after_one() {
        let log = log(&[(1, 1), (2, 1), (3, 1)]);
        let read = |max: u64| log.entries(1, 4, max, GetEntriesContext::empty(false)).unwrap().len();
        assert_eq!((read(0), read(148), read(u64::MAX)), (1, 2, 3));
    }
}
