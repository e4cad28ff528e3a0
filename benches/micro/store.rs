//! What it costs to keep a post, as the server does it: its entry in the raft log (raft-engine), with and without the sync, and what
//! applying it leaves for the state (RocksDB, whose own log is off).
//!
//! Figures are per post, in a directory for temporary files: `TMPDIR` says on which disk. What a sync takes is the disk's.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "criterion's macros make the functions; a benchmark that fails is to panic"
)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rove_benches::work::Partition;
use rove_core::replica::{LogEntry, Persist, Truncated};
use rove_core::store::MemoryStore;
use rove_protocol::ids::PartitionId;
use rove_server::storage::raft_log::{RaftLog, Round};
use rove_server::storage::state::{StateDb, StateOptions};

const PARTITION: PartitionId = PartitionId(1);
/// The log is cut after so many entries, as the server cuts it after each flush of the state: an engine keeps what is not cut in memory.
const CUT_EVERY: u64 = 1_000;

/// One entry, as a replica asks for it.
fn persist(index: u64, data: &[u8], must_sync: bool) -> Persist {
    let mut entry = LogEntry { index, term: 1, ..LogEntry::default() };
    entry.data = data.to_vec().into();
    Persist { ticket: index, reset: None, hard_state: None, conf_state: None, entries: vec![entry], must_sync }
}

fn raft_log(c: &mut Criterion) {
    let mut group = c.benchmark_group("raft_log");
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open(dir.path()).unwrap();
    let mut index = 0;
    for (name, must_sync) in [("append", false), ("append_and_sync", true)] {
        for posts in [1, 64] {
            let data = Partition::with_a_group_of(2, MemoryStore::new()).next_posts(posts);
            group.throughput(Throughput::Elements(posts));
            group.bench_function(BenchmarkId::new(name, posts), |b| {
                b.iter_custom(|entries| {
                    (0..entries)
                        .map(|_| {
                            index += 1;
                            let persist = persist(index, &data, must_sync);
                            let started = Instant::now();
                            let mut round = Round::default();
                            round.persist(PARTITION, &persist).unwrap();
                            let written = log.write(round).unwrap();
                            let took = started.elapsed();
                            assert_eq!(written.synced.is_some(), must_sync);
                            cut(&log, index);
                            took
                        })
                        .sum()
                });
            });
        }
    }
    group.finish();
}

fn cut(log: &RaftLog, index: u64) {
    if index.is_multiple_of(CUT_EVERY) {
        let mut round = Round::default();
        round.truncate(PARTITION, Truncated { index, term: 1 }).unwrap();
        log.write(round).unwrap();
        log.purge().unwrap();
    }
}

fn state(c: &mut Criterion) {
    let mut group = c.benchmark_group("state");
    for posts in [1, 64] {
        group.throughput(Throughput::Elements(posts));
        group.bench_function(BenchmarkId::new("write", posts), |b| {
            let dir = tempfile::tempdir().unwrap();
            let store = StateDb::open(dir.path(), &StateOptions::default()).unwrap();
            let mut partition = Partition::with_a_group_of(2, store);
            b.iter_custom(|entries| {
                (0..entries)
                    .map(|_| {
                        let entry = partition.next_posts(posts);
                        let batch = partition.apply(&entry);
                        let started = Instant::now();
                        partition.write(&batch);
                        started.elapsed()
                    })
                    .sum::<Duration>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, raft_log, state);
criterion_main!(benches);
