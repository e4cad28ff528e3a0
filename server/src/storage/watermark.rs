//! How far the raft log is known to be synced, kept apart from it.
//!
//! The log forgives a torn tail, because a crash leaves one. So a damaged byte in what *was* synced would look like a short log, and
//! a replica with a short log could vote away what it has acknowledged. This file says, for each partition, what the log had on disk
//! a moment ago: a log that has less is refused at start (RELIABILITY F16, F17).
//!
//! Two slots are written in turn, each with a checksum, so that one is whole whatever happens to the other. It is written at most once
//! a second: what was synced since the last time is not covered.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rove_core::replica::{Persist, Recovered};
use rove_protocol::ids::PartitionId;
use sha2::{Digest as _, Sha256};

/// First bytes of a slot: what it is, and its version.
const MAGIC: &[u8; 8] = b"rovesyn\x01";

/// Bytes of one partition in a slot.
const RECORD: usize = 2 + 8 * 4;

/// Bytes of a slot's checksum: the first of a SHA-256. It guards against rot, not against people.
const CHECKSUM: usize = 8;

/// Bytes of a slot: room for more partitions than there can be, and whole blocks, so that a torn write of one leaves the other.
const SLOT: u64 = 16 * 1024;

/// What is known to be synced of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Of the hard state.
    pub term: u64,
    /// Of the hard state: for whom it voted in that term.
    pub vote: u64,
    /// Of the last entry.
    pub last_term: u64,
    /// Its index.
    pub last: u64,
}

impl Synced {
    /// What a log has that was just recovered.
    pub fn of(recovered: &Recovered) -> Self {
        Self {
            term: recovered.hard_state.term,
            vote: recovered.hard_state.vote,
            last_term: recovered.entries.last().map_or(recovered.truncated.term, |entry| entry.term),
            last: recovered.last(),
        }
    }

    /// What it has after this was synced as well.
    pub fn advance(&mut self, persist: &Persist) {
        if let Some(hard_state) = &persist.hard_state {
            (self.term, self.vote) = (hard_state.term, hard_state.vote);
        }
        if let Some(begins) = persist.reset {
            (self.last_term, self.last) = (begins.term, begins.index);
        }
        if let Some(entry) = persist.entries.last() {
            (self.last_term, self.last) = (entry.term, entry.index);
        }
    }

    /// Whether a log with `found` has everything that this says.
    fn is_in(&self, found: &Self) -> bool {
        let voted = found.term > self.term || (found.term == self.term && (self.vote == 0 || found.vote == self.vote));
        // A later leader may have replaced the end of the log by a shorter one of a higher term.
        voted && (found.last_term, found.last) >= (self.last_term, self.last)
    }
}

/// Why the watermark, or the log compared with it, is refused.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither slot is whole.
    #[error("{path} is damaged: it cannot be told whether the raft log is complete; {}", super::REBUILD)]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The log has less than was synced.
    #[error(
        "the raft log of partition {partition} has lost what was synced: it had {synced:?}, it has {found:?}; this replica must not \
         vote: {}",
        super::REBUILD
    )]
    Lost {
        /// Whose log.
        partition: PartitionId,
        /// What it had.
        synced: Synced,
        /// What it has.
        found: Synced,
    },
}

/// The file.
pub struct Watermark {
    path: PathBuf,
    file: File,
    generation: u64,
    known: Vec<(PartitionId, Synced)>,
}

impl Watermark {
    /// Opens the file at `path`, and makes it if there is none.
    pub fn open(path: &Path) -> Result<Self, WatermarkError> {
        let error = |source| WatermarkError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        let newest = (0..2).filter_map(|slot| read_slot(&file, slot)).max_by_key(|(generation, _)| *generation);
        let (generation, known) = match newest {
            Some(found) => found,
            None if length == 0 => (0, Vec::new()),
            None => return Err(WatermarkError::Damaged { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), file, generation, known })
    }

    /// Refuses a log that has less than was synced.
    pub fn check(&self, partition: PartitionId, recovered: &Recovered) -> Result<(), WatermarkError> {
        let Some((_, synced)) = self.known.iter().find(|(of, _)| *of == partition) else { return Ok(()) };
        let found = Synced::of(recovered);
        if synced.is_in(&found) { Ok(()) } else { Err(WatermarkError::Lost { partition, synced: *synced, found }) }
    }

    /// Writes down what is synced, durably.
    pub fn write(&mut self, synced: &[(PartitionId, Synced)]) -> Result<(), WatermarkError> {
        let generation = self.generation + 1;
        let mut slot = MAGIC.to_vec();
        slot.extend(generation.to_be_bytes());
        slot.extend((synced.len() as u64).to_be_bytes());
        for (partition, synced) in synced {
            slot.extend(partition.0.to_be_bytes());
            for number in [synced.term, synced.vote, synced.last_term, synced.last] {
                slot.extend(number.to_be_bytes());
            }
        }
        let digest = Sha256::digest(&slot);
        slot.extend(&digest[..CHECKSUM]);
        self.file
            .write_all_at(&slot, SLOT * (generation % 2))
            .and_then(|()| self.file.sync_data())
            .map_err(|source| WatermarkError::Io { path: self.path.clone(), source })?;
        self.generation = generation;
        synced.clone_into(&mut self.known);
        Ok(())
    }
}

/// The generation and the content of a slot that is whole.
fn read_slot(file: &File, slot: u64) -> Option<(u64, Vec<(PartitionId, Synced)>)> {
    let mut header = [0; 24];
    file.read_exact_at(&mut header, SLOT * slot).ok()?;
    if &header[..8] != MAGIC {
        return None;
    }
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    let generation = number(&header[8..16])?;
    let count = usize::try_from(number(&header[16..])?).ok()?;
    let length = count.checked_mul(RECORD)?.checked_add(header.len())?;
    if length + CHECKSUM > usize::try_from(SLOT).ok()? {
        return None;
    }
    let mut bytes = vec![0; length + CHECKSUM];
    file.read_exact_at(&mut bytes, SLOT * slot).ok()?;
    let (content, checksum) = bytes.split_at(length);
    if Sha256::digest(content)[..CHECKSUM] != *checksum {
        return None;
    }
    content[header.len()..]
        .chunks_exact(RECORD)
        .map(|record| {
            let partition = PartitionId(u16::from_be_bytes(record[..2].try_into().ok()?));
            let field = |at: usize| number(&record[2 + 8 * at..][..8]);
            Some((partition, Synced { term: field(0)?, vote: field(1)?, last_term: field(2)?, last: field(3)? }))
        })
        .collect::<Option<Vec<_>>>()
        .map(|known| (generation, known))
}

#[cfg(test)]
mod tests {
    use rove_core::replica::{HardState, LogEntry};

    use super::*;

    const ONE: PartitionId = PartitionId(1);

    fn log(term: u64, vote: u64, last_term: u64, last: u64) -> Recovered {
        let entries = (1..=last).map(|index| LogEntry { index, term: last_term, ..LogEntry::default() }).collect();
        Recovered { hard_state: HardState { term, vote, ..HardState::default() }, entries, ..Recovered::default() }
    }

    fn synced(term: u64, vote: u64, last_term: u64, last: u64) -> Synced {
        Synced { term, vote, last_term, last }
    }

    #[test]
    fn a_log_with_less_than_was_synced_is_refused_and_one_with_as_much_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced");
        let mut watermark = Watermark::open(&path).unwrap();
        assert!(watermark.check(ONE, &log(0, 0, 0, 0)).is_ok(), "nothing is known of a new one");
        watermark.write(&[(ONE, synced(3, 1, 2, 5))]).unwrap();
        let watermark = Watermark::open(&path).unwrap();
        for whole in [log(3, 1, 2, 5), log(3, 1, 2, 6), log(4, 2, 2, 5), log(3, 1, 3, 4)] {
            assert!(watermark.check(ONE, &whole).is_ok());
        }
        for short in [log(3, 1, 2, 4), log(2, 1, 2, 5), log(3, 0, 2, 5), log(3, 2, 2, 5), log(0, 0, 0, 0)] {
            assert!(matches!(watermark.check(ONE, &short), Err(WatermarkError::Lost { .. })), "{short:?}");
        }
        assert!(watermark.check(PartitionId(2), &log(0, 0, 0, 0)).is_ok());
    }

    #[test]
    fn a_damaged_slot_leaves_the_other_and_two_damaged_ones_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced");
        let mut watermark = Watermark::open(&path).unwrap();
        watermark.write(&[(ONE, synced(1, 1, 1, 1))]).unwrap();
        watermark.write(&[(ONE, synced(1, 1, 1, 2))]).unwrap();
        let damage = |slot: u64| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[0xff], SLOT * slot + 30).unwrap();
        };
        damage(0);
        let known = Watermark::open(&path).unwrap();
        assert_eq!(known.known, [(ONE, synced(1, 1, 1, 1))]);
        damage(1);
        assert!(matches!(Watermark::open(&path), Err(WatermarkError::Damaged { .. })));
    }
}
