//! The conversation state in RocksDB.
//!
//! The write-ahead log is off: the raft log is one already, and after a crash it plays the rest again (D12). What makes
//! that right is that a partition's applied index travels in the same batch as the rows it stands for, that everything is
//! in one column family, and that a flush takes whole memtables in the order they were written: so what is on disk is
//! always the state after some batch, never half of one. [`StateDb::durable_applied`] reads that index back from flushed
//! data alone; the raft log may be cut below it and nowhere else.

use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, ErrorKind, FlushOptions, Options, ReadOptions, ReadTier,
    WriteOptions,
};
use rove_core::conversation::{PartitionRow, partition_key, read};
use rove_core::store::{Op, StateRead, StateStore, StoreError, WriteBatch};
use rove_protocol::ids::PartitionId;

/// How much memory the state may use. Everything else about RocksDB is decided here, for this state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateOptions {
    /// Bytes of blocks (data, index and filter) kept in memory.
    pub block_cache: usize,
    /// Bytes of a memtable: one is flushed when it is full, and up to three wait for that.
    pub write_buffer: usize,
}

impl Default for StateOptions {
    /// 64 MiB of cache holds the recent events of a few hundred thousand conversations; 32 MiB of memtable are some
    /// 60,000 posts, a flush every second at full load and few at rest.
    fn default() -> Self {
        Self { block_cache: 64 << 20, write_buffer: 32 << 20 }
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
        // Two cores are what a small server has: one flushes, one compacts.
        options.set_max_background_jobs(2);
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
    /// [`StoreError`]: the directory is in use, cannot be read, or is corrupt.
    pub fn open(path: &Path, options: &StateOptions) -> Result<Self, StoreError> {
        let db = DB::open(&options.database(), path).map_err(error)?;
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        Ok(Self { db, unlogged })
    }

    /// One moment of the state, for reads that must agree with each other. Cheap; holds back compaction while it lives.
    pub fn snapshot(&self) -> StateSnapshot<'_> {
        StateSnapshot { db: &self.db, snapshot: self.db.snapshot() }
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
        let row = self.db.get_pinned_opt(partition_key(partition), &options).map_err(error)?;
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
        get(&self.db, key, &ReadOptions::default())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        // An iterator is a snapshot of its own.
        scan(&self.db, ReadOptions::default(), (from, to), descending, visit)
    }
}

impl StateStore for StateDb {
    fn write(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut ops = rocksdb::WriteBatch::default();
        for op in &batch.ops {
            match op {
                Op::Put(key, value) => ops.put(key, value),
                Op::Delete(key) => ops.delete(key),
            }
        }
        self.db.write_opt(ops, &self.unlogged).map_err(error)
    }
}

/// One moment of the state.
pub struct StateSnapshot<'a> {
    db: &'a DB,
    snapshot: rocksdb::Snapshot<'a>,
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
        get(self.db, key, &self.options())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        scan(self.db, self.options(), (from, to), descending, visit)
    }
}

fn get(db: &DB, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, StoreError> {
    let value = db.get_pinned_opt(key, options).map_err(error)?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

fn scan(
    db: &DB,
    mut options: ReadOptions,
    (from, to): (&[u8], &[u8]),
    descending: bool,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    // An inverted range would be no range to RocksDB but undefined.
    if from >= to {
        return Ok(());
    }
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    let mut rows = db.raw_iterator_opt(options);
    if descending {
        rows.seek_to_last();
    } else {
        rows.seek_to_first();
    }
    while let Some((key, value)) = rows.item() {
        if !visit(key, value) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rove_core::command::{Actor, Batch, ConversationCommand, Envelope, Origin};
    use rove_core::conversation::PartitionMachine;
    use rove_core::store::{MemoryStore, contract};
    use rove_protocol::ids::{AccountId, DeviceId};
    use std::cell::RefCell;

    const PARTITION: PartitionId = PartitionId(3);

    fn open(path: &Path) -> StateDb {
        StateDb::open(path, &StateOptions::default()).unwrap()
    }

    /// What is on disk at this moment, as a process killed now would leave it, in another directory.
    fn killed_now(path: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "LOCK" {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        copy
    }

    fn entry(peer: u64) -> Vec<u8> {
        let actor = Actor { account: AccountId(1), device: DeviceId(1) };
        let command = ConversationCommand::CreateDirect { actor, peer: AccountId(peer) }.encode().into();
        Batch { time_ms: 1_000, commands: vec![Envelope { origin: Origin::NOBODY, command }] }.encode()
    }

    fn apply(machine: &mut PartitionMachine, store: &impl StateStore, index: u64) {
        machine.apply(store, index, &entry(index + 1), &mut Vec::new()).unwrap();
        store.write(&machine.take_batch()).unwrap();
    }

    fn all(store: &impl StateRead) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        store
            .scan(&[], &[0xff; 4], false, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                true
            })
            .unwrap();
        rows
    }

    #[test]
    fn rocksdb_keeps_the_contract_of_stores() {
        let parent = tempfile::tempdir().unwrap();
        let count = RefCell::new(0);
        contract::suite(|| {
            *count.borrow_mut() += 1;
            open(&parent.path().join(count.borrow().to_string()))
        });
    }

    #[test]
    fn what_is_applied_is_durable_only_once_it_is_flushed() {
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let mut machine = PartitionMachine::load(&db, PARTITION).unwrap();
        assert_eq!(db.durable_applied(PARTITION), Ok(0));
        apply(&mut machine, &db, 1);
        assert_eq!((db.applied(PARTITION), db.durable_applied(PARTITION)), (Ok(1), Ok(0)));
        db.flush().unwrap();
        assert_eq!(db.durable_applied(PARTITION), Ok(1));
        apply(&mut machine, &db, 2);
        assert_eq!((db.applied(PARTITION), db.durable_applied(PARTITION)), (Ok(2), Ok(1)));
        assert_eq!(db.durable_applied(PartitionId(4)), Ok(0));
        assert!(db.unflushed_bytes().unwrap() > 0 && db.disk_bytes().unwrap() > 0);

        let after = killed_now(directory.path());
        let db = open(after.path());
        assert_eq!(db.applied(PARTITION), Ok(1), "the second entry was never flushed");
        let mut again = PartitionMachine::load(&db, PARTITION).unwrap();
        apply(&mut again, &db, 2);
        assert_eq!(again.state_hash(), machine.state_hash(), "played again, it comes to the same");
    }

    #[test]
    fn a_killed_process_leaves_the_state_after_some_entry_and_never_half_of_one() {
        let directory = tempfile::tempdir().unwrap();
        // Memtables of 64 KiB, the least there are: RocksDB flushes on its own again and again.
        let db =
            StateDb::open(directory.path(), &StateOptions { block_cache: 1 << 20, write_buffer: 64 << 10 }).unwrap();
        let mut machine = PartitionMachine::load(&db, PARTITION).unwrap();
        let mut durable = 0;
        for index in 1..=3_000 {
            apply(&mut machine, &db, index);
            let now = db.durable_applied(PARTITION).unwrap();
            assert!(durable <= now && now <= index, "durable went from {durable} to {now} at {index}");
            durable = now;
        }
        assert!(durable > 0, "RocksDB never flushed on its own: the test tests nothing");
        db.db.cancel_all_background_work(true);
        let after = killed_now(directory.path());
        let survivor = open(after.path());
        let applied = survivor.applied(PARTITION).unwrap();
        assert!(applied >= durable);

        let model = MemoryStore::new();
        let mut machine = PartitionMachine::load(&model, PARTITION).unwrap();
        for index in 1..=applied {
            apply(&mut machine, &model, index);
        }
        assert_eq!(all(&survivor), all(&model));
    }

    #[test]
    fn a_snapshot_does_not_see_later_writes() {
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let mut batch = WriteBatch::default();
        batch.put(&b"k"[..], &b"old"[..]);
        db.write(&batch).unwrap();
        let snapshot = db.snapshot();
        batch.ops.clear();
        batch.put(&b"k"[..], &b"new"[..]);
        batch.put(&b"l"[..], &b"new"[..]);
        db.write(&batch).unwrap();
        assert_eq!(snapshot.get(b"k"), Ok(Some(Bytes::from_static(b"old"))));
        assert_eq!(all(&snapshot).len(), 1);
        assert_eq!(db.get(b"k"), Ok(Some(Bytes::from_static(b"new"))));
    }

    #[test]
    fn a_directory_in_use_is_not_opened_twice() {
        let directory = tempfile::tempdir().unwrap();
        let _db = open(directory.path());
        let second = StateDb::open(directory.path(), &StateOptions::default());
        assert!(matches!(second, Err(StoreError::Failed(_))), "{second:?}");
    }

    #[test]
    fn a_flipped_bit_in_a_file_is_corruption_and_is_never_served() {
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let mut machine = PartitionMachine::load(&db, PARTITION).unwrap();
        for index in 1..=50 {
            apply(&mut machine, &db, index);
        }
        db.flush().unwrap();
        drop(db);
        let table = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|extension| extension == "sst"))
            .unwrap();
        let mut bytes = std::fs::read(&table).unwrap();
        bytes[100] ^= 0x10;
        std::fs::write(&table, bytes).unwrap();
        let outcome = StateDb::open(directory.path(), &StateOptions::default())
            .and_then(|db| db.scan(&[], &[0xff; 4], false, &mut |_, _| true));
        assert!(matches!(outcome, Err(StoreError::Corrupt(_))), "{outcome:?}");
    }
}
