//! What a post costs at apply: entries of one and of 64 posts, on the store in memory.
//!
//! Figures are per post, and are of apply and of the batch it leaves; the store's own writing is not in them.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "criterion's macros make the functions; a benchmark that fails is to panic"
)]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rove_benches::sample;
use rove_core::command::{Actor, Batch, ConversationCommand, ConversationOutcome, Effect, Envelope, Origin};
use rove_core::conversation::PartitionMachine;
use rove_core::store::{MemoryStore, StateStore};
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PartitionId, WriterId};
use rove_protocol::limits;
use rove_protocol::message::Body;
use rove_protocol::registry::Role;

const OWNER: Actor = Actor { account: AccountId(1), device: DeviceId(1) };
/// As many as one request may make: a large group costs no more at apply, as nothing is written per member (D13).
const MANY: u64 = limits::MEMBERS_PER_REQUEST as u64;
const WRITER: WriterId = WriterId([5; 16]);

/// A partition with one group, and the log it applies.
struct Partition {
    store: MemoryStore,
    machine: PartitionMachine,
    group: ConversationId,
    index: u64,
    posts: u64,
    effects: Vec<Effect>,
}

impl Partition {
    fn with_a_group_of(members: u64) -> Self {
        let store = MemoryStore::new();
        let machine = PartitionMachine::load(&store, PartitionId(1)).unwrap();
        let nonce = [3; 16];
        let group = ConversationId::group(OWNER.account, nonce);
        let mut partition = Self { store, machine, group, index: 0, posts: 0, effects: Vec::new() };
        let members = (2..=members).map(|account| (AccountId(account), Role::Member)).collect();
        let create = ConversationCommand::CreateGroup { actor: OWNER, nonce, title: "bench".to_owned(), members };
        partition.apply(&[create]);
        partition
    }

    fn entry(&self, commands: &[ConversationCommand]) -> Vec<u8> {
        let envelope = |(ticket, command): (u64, &ConversationCommand)| Envelope {
            origin: Origin { node: NodeId(1), ticket },
            command: command.encode().into(),
        };
        let commands = (1..).zip(commands).map(envelope).collect();
        Batch { time_ms: sample::TIME_MS + self.index, commands }.encode()
    }

    /// Applies one entry of these commands, and how long that took.
    fn apply(&mut self, commands: &[ConversationCommand]) -> Duration {
        self.index += 1;
        let entry = self.entry(commands);
        self.effects.clear();
        let started = Instant::now();
        self.machine.apply(&self.store, self.index, &entry, &mut self.effects).unwrap();
        let batch = self.machine.take_batch();
        let took = started.elapsed();
        // What was measured is what was meant: nothing was refused.
        let refused = |effect: &Effect| {
            matches!(
                effect,
                Effect::Answer { outcome: ConversationOutcome::Refused(_) | ConversationOutcome::Failed(_), .. }
            )
        };
        assert!(!self.effects.iter().any(refused), "{:?}", self.effects);
        self.store.write(&batch).unwrap();
        took
    }

    /// The writer's next `count` posts.
    fn next_posts(&mut self, count: u64) -> Vec<ConversationCommand> {
        let numbers = self.posts + 1..=self.posts + count;
        self.posts += count;
        numbers
            .map(|number| ConversationCommand::Post {
                conversation: self.group,
                actor: OWNER,
                writer: WRITER,
                post: sample::post(number).encode_body().into(),
            })
            .collect()
    }
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    for (members, posts) in [(2, 1), (2, 64), (MANY, 64)] {
        group.throughput(Throughput::Elements(posts));
        let name = format!("{members}_members");
        group.bench_function(BenchmarkId::new(name, posts), |b| {
            b.iter_custom(|entries| {
                // A new one each time: the store in memory would otherwise grow for as long as the measurement runs.
                let mut partition = Partition::with_a_group_of(members);
                (0..entries)
                    .map(|_| {
                        let commands = partition.next_posts(posts);
                        partition.apply(&commands)
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
