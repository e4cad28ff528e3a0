//! The disk under the raft log of one node: what is asked for, what is written, what is synced, and what a crash leaves of it.
//!
//! It stands in for the server's `storage/raft_log.rs` and `storage/watermark.rs` and behaves as they promise: writes happen in order, a
//! record is there whole or not at all, a torn record at the end is as if it had not been written, and damage to what was synced a
//! while ago is found out at start.

use std::collections::{BTreeMap, VecDeque};

use rove_core::replica::{ConfState, HardState, LogEntry, Persist, Recovered, Truncated};
use rove_protocol::ids::PartitionId;

use crate::bugs::Bug;
use crate::rng::Rng;

/// The watermark is written at most this often: what was synced since is not covered by it.
const WATERMARK_EVERY_US: u64 = 1_000_000;

/// One thing to write.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are the large one")]
pub enum Write {
    /// What a replica wants persisted.
    Persist(PartitionId, Persist),
    /// Where a log begins now.
    Truncate(PartitionId, Truncated),
}

/// How a node stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: the system still has what was written.
    Kill,
    /// The machine loses power: what was not synced may be gone.
    Power,
}

/// What a crash did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Writes that are gone.
    pub lost: usize,
    /// The first of them is there in part.
    pub torn: bool,
}

/// What a sync did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Up to these tickets everything is as durable as it was asked for.
    Persisted(Vec<(PartitionId, u64)>),
    /// The sync failed. Nothing can be said of what was not synced before.
    SyncFailed,
}

/// What is there of one partition.
#[derive(Debug, Clone, Default)]
struct Kept {
    hard_state: HardState,
    /// The members, and the index at which they became that.
    conf_state: (ConfState, u64),
    truncated: Truncated,
    entries: VecDeque<LogEntry>,
}

/// How far a log was synced when the watermark was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Watermark {
    term: u64,
    vote: u64,
    last_term: u64,
    last: u64,
}

/// The disk of one node.
#[derive(Debug, Default)]
pub struct LogDisk {
    synced: BTreeMap<PartitionId, Kept>,
    /// Written, and not synced.
    written: VecDeque<Write>,
    /// Being written.
    writing: Vec<Write>,
    /// Asked for.
    queue: Vec<Write>,
    watermarks: BTreeMap<PartitionId, Watermark>,
    watermark_at_us: u64,
    /// The entry of a partition that has rotted.
    rotten: Option<(PartitionId, u64)>,
    bug: Option<Bug>,
}

impl Kept {
    fn last(&self) -> (u64, u64) {
        self.entries.back().map_or((self.truncated.term, self.truncated.index), |entry| (entry.term, entry.index))
    }

    fn watermark(&self) -> Watermark {
        let (last_term, last) = self.last();
        Watermark { term: self.hard_state.term, vote: self.hard_state.vote, last_term, last }
    }

    fn persist(&mut self, persist: Persist) {
        if let Some(truncated) = persist.reset {
            self.entries.clear();
            self.truncated = truncated;
        }
        self.conf_state = persist.conf_state.unwrap_or_else(|| std::mem::take(&mut self.conf_state));
        self.hard_state = persist.hard_state.unwrap_or_else(|| std::mem::take(&mut self.hard_state));
        if let Some(first) = persist.entries.first().map(|entry| entry.index) {
            while self.entries.back().is_some_and(|entry| entry.index >= first) {
                self.entries.pop_back();
            }
            self.entries.extend(persist.entries);
        }
    }

    fn truncate(&mut self, truncated: Truncated) {
        self.truncated = truncated;
        while self.entries.front().is_some_and(|entry| entry.index <= truncated.index) {
            self.entries.pop_front();
        }
    }
}

impl LogDisk {
    /// An empty disk.
    pub fn new(bug: Option<Bug>) -> Self {
        Self { bug, ..Self::default() }
    }

    /// Asks for a write. They are done in order.
    pub fn ask(&mut self, write: Write) {
        self.queue.push(write);
    }

    /// Begins to write everything that was asked for, unless something is being written. Whether it did.
    pub fn begin(&mut self) -> bool {
        if !self.writing.is_empty() || self.queue.is_empty() {
            return false;
        }
        self.writing = std::mem::take(&mut self.queue);
        true
    }

    /// What was being written is written, and synced if anything of it must be.
    pub fn complete(&mut self, now_us: u64, sync_fails: bool) -> Done {
        let mut tickets: BTreeMap<PartitionId, u64> = BTreeMap::new();
        let mut must_sync = false;
        for write in std::mem::take(&mut self.writing) {
            if let Write::Persist(partition, persist) = &write {
                tickets.insert(*partition, persist.ticket);
                must_sync |= persist.must_sync;
            }
            self.written.push_back(write);
        }
        if must_sync && sync_fails {
            return Done::SyncFailed;
        }
        if must_sync && self.bug != Some(Bug::AckBeforeSync) {
            self.sync(now_us);
        }
        Done::Persisted(tickets.into_iter().collect())
    }

    /// Whether what is being written is to be synced.
    pub fn is_syncing(&self) -> bool {
        self.writing.iter().any(|write| matches!(write, Write::Persist(_, persist) if persist.must_sync))
    }

    fn sync(&mut self, now_us: u64) {
        while let Some(write) = self.written.pop_front() {
            self.keep(write);
        }
        if now_us >= self.watermark_at_us + WATERMARK_EVERY_US {
            self.watermark_at_us = now_us;
            self.watermarks = self.synced.iter().map(|(partition, kept)| (*partition, kept.watermark())).collect();
        }
    }

    fn keep(&mut self, write: Write) {
        match write {
            Write::Persist(partition, persist) => self.synced.entry(partition).or_default().persist(persist),
            Write::Truncate(partition, truncated) => self.synced.entry(partition).or_default().truncate(truncated),
        }
    }

    /// The node stops. `tear`: the first write that is lost leaves a part of itself.
    pub fn crash(&mut self, crash: Crash, tear: bool, rng: &mut Rng) -> Loss {
        self.queue.clear();
        let writing = std::mem::take(&mut self.writing);
        let safe = match crash {
            Crash::Kill => self.written.len(),
            // Half of the time nothing at all made it: that is the hardest.
            Crash::Power if rng.chance(500) => 0,
            Crash::Power => usize::try_from(rng.below(self.written.len() as u64 + 1)).unwrap_or(0),
        };
        self.written.extend(writing);
        let uncertain = (self.written.len() - safe) as u64;
        let survive = match crash {
            Crash::Kill => safe + usize::try_from(rng.below(uncertain + 1)).unwrap_or(0),
            Crash::Power => safe,
        };
        let lost = self.written.len() - survive;
        // The part of a torn record is found out by its checksum and is as if it were not there.
        self.written.truncate(survive);
        Loss { lost, torn: tear && crash == Crash::Power && lost > 0 }
    }

    /// An entry that was synced a while ago rots. Whether there was one.
    pub fn rot(&mut self, rng: &mut Rng) -> bool {
        let covered: Vec<(PartitionId, u64)> = self
            .synced
            .iter()
            .flat_map(|(partition, kept)| {
                let watermark = self.watermarks.get(partition).copied().unwrap_or_default();
                let covered =
                    move |entry: &&LogEntry| (entry.term, entry.index) <= (watermark.last_term, watermark.last);
                kept.entries.iter().filter(covered).map(|entry| (*partition, entry.index))
            })
            .collect();
        self.rotten = rng.pick(&covered).or(self.rotten);
        self.rotten.is_some()
    }

    /// Whether something on it has rotted.
    pub fn is_rotten(&self) -> bool {
        self.rotten.is_some()
    }

    /// What a node finds that starts now. What it finds it also syncs, before it relies on it.
    ///
    /// # Errors
    /// Something that was synced is not there: this copy is not to be used.
    pub fn recover(&mut self, now_us: u64) -> Result<BTreeMap<PartitionId, Recovered>, String> {
        self.sync(now_us);
        let mut found = BTreeMap::new();
        for (partition, kept) in &self.synced {
            let mut kept = kept.clone();
            if let Some((_, index)) = self.rotten.filter(|(rotten, _)| rotten == partition) {
                // Where the log cannot be read it ends, as after a torn write.
                while kept.entries.back().is_some_and(|entry| entry.index >= index) {
                    kept.entries.pop_back();
                }
            }
            let (has, had) = (kept.watermark(), self.watermarks.get(partition).copied().unwrap_or_default());
            let voted = has.term > had.term || (has.term == had.term && (had.vote == 0 || has.vote == had.vote));
            if !voted || (has.last_term, has.last) < (had.last_term, had.last) {
                return Err(format!(
                    "the log of partition {partition} has lost what was synced: it had {had:?}, it has {has:?}"
                ));
            }
            let recovered = Recovered {
                hard_state: kept.hard_state,
                conf_state: kept.conf_state.0,
                conf_index: kept.conf_state.1,
                truncated: kept.truncated,
                entries: kept.entries.into(),
                ..Recovered::default()
            };
            found.insert(*partition, recovered);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId(1);

    fn entry(index: u64) -> LogEntry {
        LogEntry { index, term: 1, ..LogEntry::default() }
    }

    fn write(disk: &mut LogDisk, ticket: u64, index: u64, must_sync: bool) {
        let hard_state = Some(HardState { term: 1, vote: 2, ..HardState::default() });
        let persist = Persist { ticket, hard_state, entries: vec![entry(index)], must_sync, ..Persist::default() };
        disk.ask(Write::Persist(PARTITION, persist));
    }

    fn last(disk: &mut LogDisk) -> u64 {
        disk.recover(0).unwrap().get(&PARTITION).map_or(0, Recovered::last)
    }

    #[test]
    fn what_was_synced_survives_and_what_was_only_written_survives_a_kill_but_not_every_loss_of_power() {
        let mut survivors = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let mut disk = LogDisk::new(None);
            write(&mut disk, 1, 1, true);
            assert!(disk.begin() && !disk.begin());
            assert_eq!(disk.complete(0, false), Done::Persisted(vec![(PARTITION, 1)]));
            write(&mut disk, 2, 2, false);
            disk.begin();
            disk.complete(0, false);
            let crash = if seed % 2 == 0 { Crash::Kill } else { Crash::Power };
            let loss = disk.crash(crash, true, &mut Rng::new(seed));
            let last = last(&mut disk);
            assert_eq!((loss.lost as u64, loss.torn), (2 - last, last == 1));
            assert!(last == 2 || (last == 1 && crash == Crash::Power));
            survivors.insert((crash == Crash::Power, last));
        }
        assert_eq!(survivors.len(), 3, "power is lost with and without damage");
    }

    #[test]
    fn a_failed_sync_says_so_and_promises_nothing() {
        let mut disk = LogDisk::new(None);
        write(&mut disk, 1, 1, true);
        disk.begin();
        assert_eq!(disk.complete(0, true), Done::SyncFailed);
    }

    #[test]
    fn rot_below_the_watermark_is_found_at_start() {
        let mut disk = LogDisk::new(None);
        for index in 1..=3 {
            write(&mut disk, index, index, true);
            disk.begin();
            disk.complete(index * WATERMARK_EVERY_US, false);
        }
        assert_eq!(last(&mut disk), 3);
        assert!(disk.rot(&mut Rng::new(1)));
        assert!(disk.recover(0).unwrap_err().contains("has lost what was synced"));
    }

    #[test]
    fn truncating_and_replacing_the_end_change_what_is_found() {
        let mut disk = LogDisk::new(None);
        (1..=5).for_each(|index| write(&mut disk, index, index, true));
        disk.ask(Write::Truncate(PARTITION, Truncated { index: 2, term: 1 }));
        write(&mut disk, 6, 4, true);
        disk.begin();
        disk.complete(0, false);
        let found = disk.recover(0).unwrap().remove(&PARTITION).unwrap();
        assert_eq!((found.truncated.index, found.entries.len(), found.last()), (2, 2, 4));
    }
}
