//! What a post costs at apply: entries of one and of 64 posts, and the same once more (dedup), on the store in memory.
//!
//! Figures are per post, and are of apply and of the batch it leaves; the store's own writing is not in them.

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make the functions")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rove_benches::work::{MANY, Partition};
use rove_core::store::MemoryStore;

/// How long applying takes, without the writing.
fn time(partition: &mut Partition<MemoryStore>, entry: &[u8]) -> Duration {
    let started = Instant::now();
    let batch = partition.apply(entry);
    let took = started.elapsed();
    partition.write(&batch);
    took
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    for (members, posts) in [(2, 1), (2, 64), (MANY, 64)] {
        group.throughput(Throughput::Elements(posts));
        let name = format!("{members}_members");
        group.bench_function(BenchmarkId::new(name, posts), |b| {
            b.iter_custom(|entries| {
                // A new one each time: the store in memory would otherwise grow for as long as the measurement runs.
                let mut partition = Partition::with_a_group_of(members, MemoryStore::new());
                (0..entries)
                    .map(|_| {
                        let entry = partition.next_posts(posts);
                        let took = time(&mut partition, &entry);
                        assert_eq!(partition.outcome().0 as u64, posts, "what was measured is what was meant");
                        took
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// A writer sends again what it did not hear of: its table of outcomes answers, and nothing is appended.
fn dedup(c: &mut Criterion) {
    let mut group = c.benchmark_group("dedup");
    for posts in [1, 64] {
        group.throughput(Throughput::Elements(posts));
        group.bench_function(BenchmarkId::new("sent_again", posts), |b| {
            b.iter_custom(|entries| {
                let mut partition = Partition::with_a_group_of(2, MemoryStore::new());
                let entry = partition.next_posts(64);
                time(&mut partition, &entry);
                let again = partition.last_posts(posts);
                let took = (0..entries).map(|_| time(&mut partition, &again)).sum();
                assert_eq!(partition.outcome(), (0, usize::try_from(posts).unwrap_or(0)));
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, apply, dedup);
criterion_main!(benches);
