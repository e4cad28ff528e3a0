//! The conversation state in RocksDB.
//!
//! The keys of the core begin with their partition. On disk its *generation* comes right after that: a snapshot from a peer is written
//! beside the state there is, under a generation of its own, and one flushed batch makes it the current one ([`snapshot`](self)).
//! Nobody above this folder sees generations.
//!
//! The write-ahead log is off: the raft log is one already, and after a crash it plays the rest again (D12). What makes
//! that right is that a partition's applied index travels in the same batch as the rows it stands for, that everything is
//! in one column family, and that a flush takes whole memtables in the order they were written: so what is on disk is
//! always the state after some batch, never half of one. [`StateDb::durable_applied`] reads that index back from flushed
//! data alone; the raft log may be cut below it and nowhere else.

mod generation;
mod snapshot;
#[cfg(test)]
mod tests;

use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, ErrorKind, FlushOptions, Options, ReadOptions,
    ReadTier, WriteOptions,
};
use rove_core::conversation::{PartitionRow, partition_key, read};
use rove_core::store::{Op, StateRead, StateStore, StoreError, WriteBatch};
use rove_protocol::ids::PartitionId;

use generation::{Generations, Table};

pub use snapshot::{Capture, Staging};

/// How much memory the state may use. Everything else about RocksDB is decided here, for this state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateOptions {
    /// Bytes of blocks (data, index and filter) kept in memory.
    pub block_cache: usize,
    /// Bytes of a memtable: one is flushed when it is full, and up to three wait for that.
    pub write_buffer: usize,
    /// Threads that flush and compact.
    pub background_jobs: usize,
}

impl Default for StateOptions {
    /// 64 MiB of cache holds the recent events of a few hundred thousand conversations; 32 MiB of memtable are some
    /// 60,000 posts, a flush every second at full load and few at rest. Two threads are what a small server has cores for: one flushes, one compacts.
    fn default() -> Self {
        Self { block_cache: 64 << 20, write_buffer: 32 << 20, background_jobs: 2 }
    }
}

impl StateOptions {
    fn database(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(self.block_cache));
        // Index and filters count against the cache, so that memory does not grow with the state; those of the newest
        // level, which every read asks, stay in.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // A look-up of what is not there (a gate, a new writer) seldom touches the disk: one in a hundred at ten bits.
        table.set_bloom_filter(10.0, false);
        // Pages of history are read in order: larger blocks compress better and are read less often than 4 KiB ones.
        table.set_block_size(16 << 10);
        table.set_format_version(5);

        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(self.write_buffer);
        options.set_max_write_buffer_number(4);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_max_background_jobs(self.background_jobs.try_into().unwrap_or(i32::MAX));
        // Files are synced as they are written, so that the end of a large one does not stall the raft log's syncs.
        options.set_bytes_per_sync(1 << 20);
        // Only one column family has data; if a second one comes, the two must be flushed as one.
        options.set_atomic_flush(true);
        // An error of the disk or a wrong checksum stops writing for good. The node then stops too.
        options.set_paranoid_checks(true);
        options.set_max_open_files(1_024);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 << 20);
        options
    }
}

/// The conversation state of every partition of this node.
///
/// A single `get` or `scan` is consistent in itself; several reads that must agree go through [`StateDb::snapshot`].
pub struct StateDb {
    db: DB,
    unlogged: WriteOptions,
    /// What is staged waits when compaction is behind, so that what is applied need not.
    staged: WriteOptions,
    generations: Generations,
}

impl std::fmt::Debug for StateDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateDb").field("path", &self.db.path()).finish_non_exhaustive()
    }
}

impl StateDb {
    /// Opens the state in the directory `path`, and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError`]: the directory is in use, cannot be read, is corrupt, or is laid out as this program does not know it.
    pub fn open(path: &Path, options: &StateOptions) -> Result<Self, StoreError> {
        let db = DB::open(&options.database(), path).map_err(error)?;
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let mut staged = WriteOptions::default();
        staged.disable_wal(true);
        staged.set_low_pri(true);
        let generations = Generations::open(&db, &unlogged)?;
        Ok(Self { db, unlogged, staged, generations })
    }

    /// One moment of the state, for reads that must agree with each other. Cheap; holds back compaction while it lives.
    pub fn snapshot(&self) -> StateSnapshot<'_> {
        self.generations.with(|table| StateSnapshot {
            db: &self.db,
            snapshot: self.db.snapshot(),
            table: table.clone(),
        })
    }

    /// Makes everything written so far durable. Blocks: milliseconds to a second. Writes go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError`]: then nothing more may be taken to be durable, and the node stops.
    pub fn flush(&self) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options).map_err(error)
    }

    /// The last entry of `partition` whose effects are on disk, as read back from there; 0 if none is. RocksDB also
    /// flushes on its own, so this may be more than at the last [`StateDb::flush`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn durable_applied(&self, partition: PartitionId) -> Result<u64, StoreError> {
        Ok(self.partition_row(ReadTier::Persisted, partition)?.map_or(0, |row| row.applied))
    }

    /// The last entry of `partition` that was applied and written, durable or not; 0 if none was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn applied(&self, partition: PartitionId) -> Result<u64, StoreError> {
        Ok(self.partition_row(ReadTier::All, partition)?.map_or(0, |row| row.applied))
    }

    fn partition_row(&self, tier: ReadTier, partition: PartitionId) -> Result<Option<PartitionRow>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(tier);
        let row = self.generations.with(|table| {
            let key = table.physical(&partition_key(partition))?;
            self.db.get_pinned_opt(key, &options).map_err(error)
        })?;
        row.map(|row| read::partition_row(&row).map_err(|error| StoreError::Corrupt(error.to_string()))).transpose()
    }

    /// Bytes in memtables that are not flushed yet: what would have to be replayed, roughly.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unflushed_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.db.property_int_value("rocksdb.cur-size-all-mem-tables").map_err(error)?.unwrap_or(0))
    }

    /// Bytes of the files on disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.db.property_int_value("rocksdb.total-sst-files-size").map_err(error)?.unwrap_or(0))
    }
}

impl StateRead for StateDb {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        // No generation goes while it is being read: see `Generations::with`.
        self.generations.with(|table| get(&self.db, &table.physical(key)?, &ReadOptions::default()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        // An iterator is a snapshot of its own.
        let rows = self.generations.with(|table| rows(&self.db, ReadOptions::default(), table.range(from, to)?))?;
        scan(rows, descending, visit)
    }
}

impl StateStore for StateDb {
    fn write(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut ops = rocksdb::WriteBatch::default();
        let table = self.generations.with(Table::clone);
        let mut physical = Vec::new();
        for op in &batch.ops {
            match op {
                Op::Put(key, value) => {
                    table.put_physical(key, &mut physical)?;
                    ops.put(&physical, value);
                }
                Op::Delete(key) => {
                    table.put_physical(key, &mut physical)?;
                    ops.delete(&physical);
                }
            }
        }
        self.db.write_opt(ops, &self.unlogged).map_err(error)
    }
}

/// One moment of the state.
pub struct StateSnapshot<'a> {
    db: &'a DB,
    snapshot: rocksdb::Snapshot<'a>,
    table: Table,
}

impl StateSnapshot<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl StateRead for StateSnapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        get(self.db, &self.table.physical(key)?, &self.options())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        scan(rows(self.db, self.options(), self.table.range(from, to)?)?, descending, visit)
    }
}

fn get(db: &DB, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, StoreError> {
    let value = db.get_pinned_opt(key, options).map_err(error)?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

/// The rows between two keys as they are on disk, at this moment.
fn rows(db: &DB, mut options: ReadOptions, (from, to): (Vec<u8>, Vec<u8>)) -> Result<DBRawIterator<'_>, StoreError> {
    // An inverted range would be no range to RocksDB but undefined.
    if from >= to {
        return Err(StoreError::Failed("an inverted range".to_owned()));
    }
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    Ok(db.raw_iterator_opt(options))
}

fn scan(
    mut rows: DBRawIterator<'_>,
    descending: bool,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    if descending {
        rows.seek_to_last();
    } else {
        rows.seek_to_first();
    }
    let mut logical = Vec::new();
    while let Some((key, value)) = rows.item() {
        generation::put_logical(key, &mut logical)?;
        if !visit(&logical, value) {
            return Ok(());
        }
        if descending {
            rows.prev();
        } else {
            rows.next();
        }
    }
    rows.status().map_err(error)
}

fn error(error: rocksdb::Error) -> StoreError {
    match error.kind() {
        ErrorKind::Corruption => StoreError::Corrupt(error.into_string()),
        _ => StoreError::Failed(error.into_string()),
    }
}
