//! The state on a real disk.

use super::*;
use rove_core::command::{Actor, Batch, ConversationCommand, Envelope, Origin};
use rove_core::conversation::PartitionMachine;
use rove_core::conversation::partition_range;
use rove_core::replica::{ConfState, Install};
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
    let (from, to) = partition_range(PARTITION);
    store
        .scan(&from, &to, false, &mut |key, value| {
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
        InPartition(open(&parent.path().join(count.borrow().to_string())))
    });
}

/// The contract's keys are of no partition: here they are of one.
struct InPartition(StateDb);

fn in_partition(key: &[u8]) -> Vec<u8> {
    [&PARTITION.0.to_be_bytes(), key].concat()
}

impl StateRead for InPartition {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(&in_partition(key))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.0.scan(&in_partition(from), &in_partition(to), descending, &mut |key, value| visit(&key[2..], value))
    }
}

impl StateStore for InPartition {
    fn write(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let map = |op: &Op| match op {
            Op::Put(key, value) => Op::Put(in_partition(key).into(), value.clone()),
            Op::Delete(key) => Op::Delete(in_partition(key).into()),
        };
        self.0.write(&WriteBatch { ops: batch.ops.iter().map(map).collect() })
    }
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
    let db = StateDb::open(
        directory.path(),
        &StateOptions { block_cache: 1 << 20, write_buffer: 64 << 10, background_jobs: 2 },
    )
    .unwrap();
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
    batch.put(&b"\0\x03k"[..], &b"old"[..]);
    db.write(&batch).unwrap();
    let snapshot = db.snapshot();
    batch.ops.clear();
    batch.put(&b"\0\x03k"[..], &b"new"[..]);
    batch.put(&b"\0\x03l"[..], &b"new"[..]);
    db.write(&batch).unwrap();
    assert_eq!(snapshot.get(b"\0\x03k"), Ok(Some(Bytes::from_static(b"old"))));
    assert_eq!(all(&snapshot).len(), 1);
    assert_eq!(db.get(b"\0\x03k"), Ok(Some(Bytes::from_static(b"new"))));
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
        .and_then(|db| db.scan(&[0, 3], &[0, 4], false, &mut |_, _| true));
    assert!(matches!(outcome, Err(StoreError::Corrupt(_))), "{outcome:?}");
}

fn install(index: u64) -> Install {
    Install { index, term: 4, conf_state: ConfState { voters: vec![1, 2, 3], ..ConfState::default() } }
}

/// Everything of `from`, staged in `to`, in chunks of `limit` bytes.
fn ship(from: &StateDb, to: &StateDb, limit: usize) -> (Staging, u64) {
    let mut capture = from.capture(PARTITION).unwrap();
    let staging = to.stage(PARTITION).unwrap();
    for number in 0.. {
        let Some(chunk) = capture.chunk(number, limit).unwrap() else { break };
        assert!(chunk.len() <= limit);
        to.stage_chunk(&staging, &chunk).unwrap();
    }
    (staging, capture.applied())
}

fn filled(path: &Path, entries: u64) -> (StateDb, PartitionMachine) {
    let db = open(path);
    let mut machine = PartitionMachine::load(&db, PARTITION).unwrap();
    for index in 1..=entries {
        apply(&mut machine, &db, index);
    }
    (db, machine)
}

/// Rows on disk of partitions, whatever their generation.
fn physical(db: &StateDb) -> usize {
    let mut rows = db.db.raw_iterator();
    rows.seek_to_first();
    let mut count = 0;
    while rows.key().is_some_and(|key| key < &[0xff, 0xff][..]) {
        count += 1;
        rows.next();
    }
    count
}

#[test]
fn a_snapshot_in_chunks_comes_to_the_same_state_and_goes_on_as_the_original_does() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, mut machine) = filled(one.path(), 200);
    let (to, _) = filled(other.path(), 7);
    let (staging, applied) = ship(&from, &to, 1_000);
    assert_eq!((applied, to.staged_applied(&staging)), (200, Ok(200)));
    assert_eq!(to.applied(PARTITION), Ok(7), "nobody sees it yet");
    let moment = to.snapshot();
    to.install(&staging, &install(200)).unwrap();
    assert_eq!(all(&to), all(&from));
    assert_eq!(physical(&to), all(&from).len(), "the old state is gone");
    assert!(all(&moment).len() < all(&to).len(), "who began to read before reads on in the old one");
    drop(moment);
    to.reclaim(PARTITION);
    assert_eq!(to.durable_applied(PARTITION), Ok(200));

    let after = killed_now(other.path());
    let survivor = open(after.path());
    assert_eq!(survivor.installed(PARTITION), Ok(Some(install(200))));
    let mut again = PartitionMachine::load(&survivor, PARTITION).unwrap();
    assert_eq!(again.state_hash(), machine.state_hash());
    apply(&mut machine, &from, 201);
    apply(&mut again, &survivor, 201);
    assert_eq!(all(&survivor), all(&from));
}

#[test]
fn a_chunk_is_the_same_each_time_and_of_one_moment() {
    let directory = tempfile::tempdir().unwrap();
    let (db, mut machine) = filled(directory.path(), 50);
    let mut capture = db.capture(PARTITION).unwrap();
    let first = capture.chunk(0, 500).unwrap().unwrap();
    let third = capture.chunk(2, 500).unwrap().unwrap();
    apply(&mut machine, &db, 51);
    db.flush().unwrap();
    assert_eq!(capture.chunk(0, 500).unwrap().unwrap(), first);
    assert_eq!(capture.chunk(2, 500).unwrap().unwrap(), third);
    assert_eq!(capture.applied(), 50);
    assert_eq!(capture.chunk(10_000, 500), Ok(None));
    assert!(matches!(capture.chunk(0, 20), Err(StoreError::Failed(_))), "no row fits");
}

#[test]
fn a_crash_before_the_flip_leaves_the_old_state_and_nothing_of_the_new_one() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, _) = filled(one.path(), 200);
    let (to, _) = filled(other.path(), 7);
    let old = all(&to);
    let (staging, _) = ship(&from, &to, 1_000);
    to.flush().unwrap();
    let survivor = killed_now(other.path());
    let survivor = open(survivor.path());
    assert_eq!((all(&survivor), survivor.installed(PARTITION)), (old.clone(), Ok(None)));
    assert_eq!(physical(&survivor), old.len(), "what was staged is gone");
    to.discard(&staging).unwrap();
    assert_eq!((physical(&to), all(&to)), (old.len(), old));
    // Another may be staged right away.
    let (staging, applied) = ship(&from, &to, 1_000);
    to.install(&staging, &install(applied)).unwrap();
    assert_eq!(all(&to), all(&from));
}

#[test]
fn a_crash_after_the_flip_leaves_the_new_state_and_nothing_of_the_old_one() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, _) = filled(one.path(), 200);
    let (to, _) = filled(other.path(), 7);
    let (staging, applied) = ship(&from, &to, 1_000);
    to.write_installed(&staging, &install(applied)).unwrap();
    assert_eq!(to.applied(PARTITION), Ok(7), "not before it is durable");
    let survivor = killed_now(other.path());
    let survivor = open(survivor.path());
    assert_eq!((all(&survivor), survivor.installed(PARTITION)), (all(&from), Ok(Some(install(200)))));
    assert_eq!(physical(&survivor), all(&from).len(), "the old state is gone");
}

#[test]
fn a_chunk_that_is_none_is_refused_and_nothing_of_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let staging = db.stage(PARTITION).unwrap();
    let row = |key: &[u8], value: &[u8]| {
        let lengths =
            [u32::try_from(key.len()).unwrap().to_be_bytes(), u32::try_from(value.len()).unwrap().to_be_bytes()]
                .concat();
        [&lengths, key, value].concat()
    };
    let good = row(b"key", b"value");
    for bad in [&good[..good.len() - 1], &good[..7], &row(b"", b"value"), &[0xff; 12]] {
        let chunk = [&good, bad].concat();
        assert!(matches!(db.stage_chunk(&staging, &chunk), Err(StoreError::Corrupt(_))), "{bad:?}");
    }
    assert_eq!(physical(&db), 0);
    db.stage_chunk(&staging, &good).unwrap();
    assert_eq!((physical(&db), db.staged_applied(&staging)), (1, Ok(0)));
}

#[test]
fn a_directory_without_generations_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let db = DB::open(&StateOptions::default().database(), directory.path()).unwrap();
    db.put([0, 3, 1], b"row").unwrap();
    drop(db);
    let refused = StateDb::open(directory.path(), &StateOptions::default());
    assert!(matches!(&refused, Err(StoreError::Failed(why)) if why.contains("layout 1")), "{refused:?}");
}

#[test]
fn a_range_of_two_partitions_or_a_key_of_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let scan = |from: &[u8], to: &[u8]| db.scan(from, to, false, &mut |_, _| true);
    assert_eq!(scan(&[0, 3, 1], &[0, 4]), Ok(()));
    assert_eq!(scan(&[0, 4], &[0, 3]), Ok(()), "an empty one is none");
    for (from, to) in [
        (&[0, 3][..], &[0, 4, 0][..]),
        (&[0, 3], &[0, 5]),
        (&[0, 3], &[1]),
        (&[], &[0, 3]),
        (&[0xff, 0xff], &[0xff, 0xff, 1]),
    ] {
        assert!(matches!(scan(from, to), Err(StoreError::Failed(_))), "{from:?} {to:?}");
    }
    assert!(db.get(&[0]).is_err() && db.get(&[0xff, 0xff, 0]).is_err());
}
