//! The raft log on disk: one `raft-engine` for every partition of the node.
//!
//! A round of all partitions is one write and one `fdatasync`. What is known of a partition beside its entries (hard state, members,
//! where the log begins) are key-values of the same engine, written in the same batch as what they belong to, so they are never torn
//! apart.
//!
//! A failed sync is never retried: after `EIO` the kernel may have dropped the pages, and a second sync would succeed without them.
//! The engine panics then, which is an error like others here, and the node ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protobuf::Message as _;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use rove_core::replica::{ConfState, HardState, LogEntry, Persist, Recovered, Truncated};
use rove_protocol::ids::{NodeId, PartitionId};

use crate::panics::panic_text;

/// Bytes of a log file before the next is begun. Files are the unit of purging: small ones give space back early.
const FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Bytes of log files beyond which old ones are purged, and what little they still hold is rewritten. Also bounds what a restart
/// reads.
const PURGE_BYTES: u64 = 256 * 1024 * 1024;

/// Batches larger than this are compressed (LZ4). Bodies are mostly encrypted or small; a large batch of small posts shrinks by
/// half, which is worth more than the microseconds it costs once it is several pages long.
const COMPRESS_BYTES: u64 = 16 * 1024;

/// Threads that read the files at start.
const RECOVERY_THREADS: usize = 4;

const HARD_STATE: &[u8] = b"hard-state";
const CONF_STATE: &[u8] = b"conf-state";
const CONF_INDEX: &[u8] = b"conf-index";
const TRUNCATED: &[u8] = b"truncated";
/// Where a snapshot has the log begin. Beside `TRUNCATED`, so that a truncation of the log before, which is written later, does not
/// undo it: the higher of the two counts.
const RESET: &[u8] = b"reset";

/// The engine's "region" of what belongs to the node and not to a partition: partitions are 16 bits.
const NODE_REGION: u64 = u64::MAX;
const IDENTITY: &[u8] = b"identity";
const CLOSED: &[u8] = b"closed";

/// The layout of this directory.
const LAYOUT: u8 = 1;

/// What can go wrong with the raft log.
#[derive(Debug, thiserror::Error)]
pub enum RaftLogError {
    /// It cannot be opened.
    #[error(
        "raft log {path}: {message}; if the disk is sound this copy is damaged: do not delete single files; {}",
        super::REBUILD
    )]
    Open {
        /// Where.
        path: PathBuf,
        /// What the engine said.
        message: String,
    },
    /// Something in it cannot be read back.
    #[error("raft log of partition {partition}: {what}: {message}; this copy is damaged: {}", super::REBUILD)]
    Read {
        /// Whose.
        partition: PartitionId,
        /// What.
        what: &'static str,
        /// What the engine said.
        message: String,
    },
    /// A write failed. Nothing after it may be acknowledged.
    #[error(
        "writing the raft log: {message}; free space or replace the disk, then start again: nothing acknowledged is lost"
    )]
    Write {
        /// What the engine said.
        message: String,
    },
    /// Written by a newer program.
    #[error("the raft log has layout {found}, this program knows {known}; use the newer program")]
    Layout {
        /// On disk.
        found: u8,
        /// Of this program.
        known: u8,
    },
}

/// Whose directory this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Conversation partitions it was made with.
    pub partitions: u16,
    /// Boots so far: raised by each.
    pub incarnation: u64,
}

/// What one write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub bytes: usize,
    /// Whether it was synced, and how long that took together with the write.
    pub synced: Option<Duration>,
}

struct Entries;

impl MessageExt for Entries {
    type Entry = LogEntry;

    fn index(entry: &LogEntry) -> u64 {
        entry.index
    }
}

/// One write to the log, of any number of partitions. See [`RaftLog::write`].
#[derive(Default)]
pub struct Round {
    batch: LogBatch,
    sync: bool,
}

impl Round {
    /// Adds what a replica wants persisted. In the order of its tickets.
    pub fn persist(&mut self, partition: PartitionId, persist: &Persist) -> Result<(), RaftLogError> {
        let region = region(partition);
        if let Some(begins) = persist.reset {
            // Everything of the region goes, what is beside the entries as well: all of it is in what follows.
            self.batch.add_command(region, Command::Clean);
            self.begins(region, RESET, begins)?;
        }
        if let Some((conf_state, index)) = &persist.conf_state {
            self.batch
                .put_message(region, CONF_STATE.to_vec(), conf_state)
                .and_then(|()| self.batch.put(region, CONF_INDEX.to_vec(), index.to_be_bytes().to_vec()))
                .map_err(|error| write_error(&error))?;
        }
        // The engine drops what the first entry contradicts, and everything after it.
        self.batch.add_entries::<Entries>(region, &persist.entries).map_err(|error| write_error(&error))?;
        if let Some(hard_state) = &persist.hard_state {
            self.batch.put_message(region, HARD_STATE.to_vec(), hard_state).map_err(|error| write_error(&error))?;
        }
        self.sync |= persist.must_sync;
        Ok(())
    }

    /// Adds that the log begins after `truncated` now. May be lost without harm: it is not synced on its own account.
    pub fn truncate(&mut self, partition: PartitionId, truncated: Truncated) -> Result<(), RaftLogError> {
        let region = region(partition);
        self.begins(region, TRUNCATED, truncated)?;
        self.batch.add_command(region, Command::Compact { index: truncated.index + 1 });
        Ok(())
    }

    fn begins(&mut self, region: u64, key: &[u8], truncated: Truncated) -> Result<(), RaftLogError> {
        let mut value = Vec::with_capacity(16);
        value.extend(truncated.index.to_be_bytes());
        value.extend(truncated.term.to_be_bytes());
        self.batch.put(region, key.to_vec(), value).map_err(|error| write_error(&error))
    }

    fn identity(&mut self, identity: Identity) -> Result<(), RaftLogError> {
        let mut value = vec![LAYOUT];
        value.extend(identity.node.0.to_be_bytes());
        value.extend(identity.partitions.to_be_bytes());
        value.extend(identity.incarnation.to_be_bytes());
        self.sync = true;
        self.batch.put(NODE_REGION, IDENTITY.to_vec(), value).map_err(|error| write_error(&error))
    }

    /// Whether there is anything to write.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

/// The log of every partition. One thread writes; any may purge.
pub struct RaftLog {
    engine: Arc<Engine>,
    path: PathBuf,
}

impl RaftLog {
    /// Opens the log in `path`, which is made if need be. The caller holds the lock of the data directory.
    pub fn open(path: &Path) -> Result<Self, RaftLogError> {
        Self::open_with(path, FILE_BYTES, PURGE_BYTES)
    }

    fn open_with(path: &Path, file_bytes: u64, purge_bytes: u64) -> Result<Self, RaftLogError> {
        let open_error = |message: String| RaftLogError::Open { path: path.to_owned(), message };
        let dir = path.to_str().ok_or_else(|| open_error("the path is not UTF-8".to_owned()))?;
        let config = Config {
            dir: dir.to_owned(),
            // A torn tail is what a crash leaves of a write that nobody was told of. What was synced is checked against the
            // state and the hard state when the replica is recovered.
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            recovery_threads: RECOVERY_THREADS,
            batch_compression_threshold: ReadableSize(COMPRESS_BYTES),
            target_file_size: ReadableSize(file_bytes),
            purge_threshold: ReadableSize(purge_bytes),
            ..Config::default()
        };
        let engine = Engine::open(config).map_err(|error| open_error(error.to_string()))?;
        Ok(Self { engine: Arc::new(engine), path: path.to_owned() })
    }

    /// Whose log this is; nothing if it is new.
    pub fn identity(&self) -> Result<Option<Identity>, RaftLogError> {
        let Some(value) = self.engine.get(NODE_REGION, IDENTITY) else { return Ok(None) };
        let damaged = || RaftLogError::Open { path: self.path.clone(), message: "the identity is damaged".to_owned() };
        let found = *value.first().ok_or_else(damaged)?;
        if found != LAYOUT {
            return Err(RaftLogError::Layout { found, known: LAYOUT });
        }
        let node = NodeId(u64::from_be_bytes(field(&value, 1).ok_or_else(damaged)?));
        let partitions = u16::from_be_bytes(field(&value, 9).ok_or_else(damaged)?);
        let incarnation = u64::from_be_bytes(field(&value, 11).ok_or_else(damaged)?);
        Ok(Some(Identity { node, partitions, incarnation }))
    }

    /// Stores whose log this is, durably.
    pub fn set_identity(&self, identity: Identity) -> Result<(), RaftLogError> {
        let mut round = Round::default();
        round.identity(identity)?;
        self.write(round).map(|_| ())
    }

    /// What the log has of `partition`, for [`rove_core::replica::Replica::recover`]; `applied` is the state's. What the state knows of
    /// the snapshot it was installed from ([`Recovered::installed`]) is for the caller to add.
    pub fn load(&self, partition: PartitionId, applied: u64) -> Result<Recovered, RaftLogError> {
        let region = region(partition);
        let error = |what, message: String| RaftLogError::Read { partition, what, message };
        let hard_state: HardState = self
            .engine
            .get_message(region, HARD_STATE)
            .map_err(|cause| error("hard state", cause.to_string()))?
            .unwrap_or_default();
        let conf_state: ConfState = self
            .engine
            .get_message(region, CONF_STATE)
            .map_err(|cause| error("members", cause.to_string()))?
            .unwrap_or_default();
        let conf_index = match self.engine.get(region, CONF_INDEX) {
            None => 0,
            Some(value) => value
                .as_slice()
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|_| error("members' index", format!("{} bytes", value.len())))?,
        };
        let begins = |key| match self.engine.get(region, key) {
            None => Ok(Truncated::default()),
            Some(value) => match (value.len(), field(&value, 0), field(&value, 8)) {
                (16, Some(index), Some(term)) => {
                    Ok(Truncated { index: u64::from_be_bytes(index), term: u64::from_be_bytes(term) })
                }
                _ => Err(error("where it begins", format!("{} bytes", value.len()))),
            },
        };
        let (truncated, reset) = (begins(TRUNCATED)?, begins(RESET)?);
        let truncated = if reset.index > truncated.index { reset } else { truncated };
        let mut entries = Vec::new();
        if let (Some(first), Some(last)) = (self.engine.first_index(region), self.engine.last_index(region)) {
            // Purging may have kept entries below the truncation point.
            let begin = first.max(truncated.index + 1);
            if begin <= last {
                self.engine
                    .fetch_entries_to::<Entries>(region, begin, last + 1, None, &mut entries)
                    .map_err(|cause| error("entries", cause.to_string()))?;
            }
        }
        Ok(Recovered { hard_state, conf_state, conf_index, truncated, entries, applied, installed: None })
    }

    /// Writes a round, and syncs it if anything in it must be. After an error the log must not be used any more.
    pub fn write(&self, mut round: Round) -> Result<Written, RaftLogError> {
        let begun = Instant::now();
        let bytes = self.change(|engine| engine.write(&mut round.batch, round.sync))?;
        Ok(Written { bytes, synced: round.sync.then(|| begun.elapsed()) })
    }

    /// Syncs what was written without. (The engine's own `sync` does nothing: it writes an empty batch, which it skips.)
    pub fn sync(&self) -> Result<(), RaftLogError> {
        let mut round = Round { sync: true, ..Round::default() };
        round.batch.put(NODE_REGION, CLOSED.to_vec(), vec![LAYOUT]).map_err(|error| write_error(&error))?;
        self.write(round).map(|_| ())
    }

    /// Removes files that hold nothing any more. May be called beside writes; takes as long as rewriting what little old files hold.
    pub fn purge(&self) -> Result<(), RaftLogError> {
        self.change(Engine::purge_expired_files).map(drop)
    }

    /// A change that may fail. Where a sync does, the engine panics, and would sync once more as it is dropped, and panic again: after any
    /// failure it is not dropped.
    fn change<T>(&self, work: impl FnOnce(&Engine) -> raft_engine::Result<T>) -> Result<T, RaftLogError> {
        // Nobody looks at what it leaves half-way: the caller stops.
        let done = catch_unwind(AssertUnwindSafe(|| work(&self.engine)));
        let message = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_text(panic.as_ref()),
        };
        std::mem::forget(Arc::clone(&self.engine));
        Err(RaftLogError::Write { message })
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.engine.get_used_size() as u64
    }
}

fn region(partition: PartitionId) -> u64 {
    // The engine treats 0 like any other, but a number that is never the default is easier to find in a dump.
    u64::from(partition.0) + 1
}

fn field<const N: usize>(value: &[u8], at: usize) -> Option<[u8; N]> {
    value.get(at..at + N)?.try_into().ok()
}

fn write_error(error: &raft_engine::Error) -> RaftLogError {
    RaftLogError::Write { message: error.to_string() }
}

/// Bytes a persist will take, roughly: for deciding how much to put into one round.
pub fn persist_bytes(persist: &Persist) -> usize {
    persist.entries.iter().map(|entry| entry.compute_size() as usize).sum::<usize>() + 64
}

#[cfg(test)]
mod tests;
