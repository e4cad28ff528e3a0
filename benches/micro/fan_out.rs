//! What an event costs on its way to many: encoded once, whoever takes it.
//!
//! Figures are per event: what grows with the members is the difference between two of them.

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make the functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rove_benches::work::FanOut;

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan_out");
    for members in [1, 10, 100, 1_000] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("members", members), |b| {
            let mut conversation = FanOut::to(members);
            b.iter(|| conversation.publish());
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
