//! D8: apply is closed. The same log gives the same rows and the same hash, however it is cut and whenever it is resumed.

use bytes::Bytes;
use rove_protocol::ids::Seq;
use rove_protocol::registry::{EventKind, Role};

use super::support::*;
use crate::apply_version::{ApplyVersions, CannotApply, FIRST};
use crate::command::{Batch, CommandError, ConversationCommand, ConversationOutcome, Effect, Envelope, Gate, Origin};
use crate::conversation::{ApplyError, PartitionMachine, ReadError, keys, read, rows::Row};
use crate::store::{StateStore, WriteBatch};

/// A log with something of everything.
fn eventful() -> World {
    let mut world = World::new();
    let direct = world.direct(alice(), bob());
    let group = world.group(alice(), &[(bob(), Role::Member), (carol(), Role::Admin)]);
    for no in 1..=150 {
        world.now_ms += no % 3;
        world.say(direct, alice(), no, "direct");
        world.post(group, carol(), &message(no, "group"));
        if no % 10 == 0 {
            world.change(carol(), group, &[(bob(), if no % 20 == 0 { Role::Member } else { Role::None })]);
            world.post(direct, bob(), &about(no / 10, EventKind::Reaction, no));
            world.post(direct, alice(), &message(no - 9, "direct"));
        }
    }
    world.run(crate::command::ConversationCommand::Gate {
        number: 1,
        gate: crate::command::Gate::AccountSuspended(bob().account),
    });
    world
}

#[test]
fn the_same_log_gives_the_same_rows_and_hash_however_rounds_are_cut() {
    let world = eventful();
    for round in [1, 2, 7, 64, world.log.len()] {
        let (store, machine) = world.replay(round);
        assert_eq!(machine.state_hash(), world.machine.state_hash(), "rounds of {round}");
        assert_eq!(store.rows(), world.store.rows(), "rounds of {round}");
    }
}

#[test]
fn a_machine_loaded_from_the_store_midway_goes_on_as_if_nothing_had_happened() {
    let world = eventful();
    for midway in [1, 3, 100, world.log.len() - 1] {
        let store = crate::store::MemoryStore::new();
        let mut machine = PartitionMachine::load(&store, PARTITION).unwrap();
        let mut effects = Vec::new();
        for (index, data) in (1..).zip(&world.log) {
            if index == midway as u64 {
                store.write(&machine.take_batch()).unwrap();
                machine = PartitionMachine::load(&store, PARTITION).unwrap();
                assert_eq!(machine.applied(), index - 1);
            }
            machine.apply(&store, index, data, &mut effects).unwrap();
        }
        store.write(&machine.take_batch()).unwrap();
        assert_eq!(machine.state_hash(), world.machine.state_hash());
        assert_eq!(store.rows(), world.store.rows());
    }
}

#[test]
fn entries_at_or_below_the_applied_index_are_passed_over() {
    let mut world = eventful();
    let (rows, hash) = (world.store.rows(), world.machine.state_hash());
    let mut effects = Vec::new();
    for (index, data) in (1..).zip(&world.log) {
        world.machine.apply(&world.store, index, data, &mut effects).unwrap();
    }
    world.machine.apply(&world.store, 0, b"not an entry", &mut effects).unwrap();
    assert!(effects.is_empty());
    assert!(world.machine.take_batch().is_empty());
    assert_eq!((world.store.rows(), world.machine.state_hash()), (rows, hash));
}

#[test]
fn the_hash_tells_apart_what_differs_in_a_bit() {
    let hash = |text: &str, time: u64, empty: bool| {
        let mut world = World::new();
        world.now_ms = time;
        let id = world.direct(alice(), bob());
        world.say(id, alice(), 1, text);
        if empty {
            world.machine.apply(&world.store, 3, &[], &mut Vec::new()).unwrap();
        }
        world.machine.state_hash()
    };
    let hashes = [hash("a", 1, false), hash("b", 1, false), hash("a", 2, false), hash("a", 1, true)];
    for (index, one) in hashes.iter().enumerate() {
        assert!(!hashes[index + 1..].contains(one));
    }
    assert_eq!(hash("a", 1, false), hashes[0]);
}

/// The behaviour of version 1, pinned: if this fails, replicas of two binaries would part. A change of behaviour
/// is a new version, with this value kept for the old one.
#[test]
fn the_behaviour_of_this_apply_version_is_pinned() {
    assert_eq!((FIRST, ApplyVersions::THIS.highest), (1, 1), "pin the new version beside the old one");
    let world = eventful();
    assert_eq!(world.machine.state_hash(), PINNED, "the state hash is {:#x}", world.machine.state_hash());
}
const PINNED: u64 = 0xbebd_138a_2d5f_b3df;

#[test]
fn an_empty_entry_moves_the_index_and_only_that() {
    let mut world = World::new();
    let mut effects = Vec::new();
    world.machine.apply(&world.store, 1, &[], &mut effects).unwrap();
    assert_eq!((world.machine.applied(), effects.len()), (1, 0));
    let batch = world.machine.take_batch();
    assert_eq!(batch.ops.len(), 1);
    world.store.write(&batch).unwrap();
    assert_eq!(read::partition(&world.store, PARTITION).unwrap().unwrap().applied, 1);
    assert!(world.machine.take_batch().is_empty());
}

#[test]
fn a_missing_entry_stops_the_machine() {
    let mut world = World::new();
    let hole = world.machine.apply(&world.store, 2, &[], &mut Vec::new());
    assert_eq!(hole, Err(ApplyError::Hole { expected: 1, got: 2 }));
    assert_eq!(world.machine.apply(&world.store, 1, &[], &mut Vec::new()), Err(ApplyError::Failed));
}

#[test]
fn an_entry_that_cannot_be_read_stops_the_machine_and_leaves_nothing_behind() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let good = post_command(id, alice(), writer_of(alice()), &message(1, "good")).encode();
    let origin = Origin { node: rove_protocol::ids::NodeId(1), ticket: 1 };
    let commands = [Bytes::from(good), Bytes::from_static(&[1, 99])];
    let commands = commands.map(|command| Envelope { origin, command }).to_vec();
    let mut effects = vec![Effect::Members { conversation: id, changes: Vec::new() }];
    let result = world.machine.apply(&world.store, 2, &Batch { time_ms: 1, commands }.encode(), &mut effects);
    assert!(matches!(result, Err(ApplyError::Entry { index: 2, error: CommandError::Command(_) })), "{result:?}");
    assert_eq!(effects.len(), 1, "the good half is not told either");
    assert!(world.machine.take_batch().is_empty(), "nor written");
    assert_eq!(world.machine.apply(&world.store, 2, &[], &mut effects), Err(ApplyError::Failed));

    let mut fresh = PartitionMachine::load(&world.store, PARTITION).unwrap();
    let result = fresh.apply(&world.store, 2, &[7, 7], &mut effects);
    assert!(matches!(result, Err(ApplyError::Entry { index: 2, error: CommandError::Batch(_) })), "{result:?}");
}

#[test]
fn a_corrupt_row_stops_the_machine() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    world.say(id, alice(), 1, "x");
    for (table, key) in [
        ("conversation", keys::conversation(PARTITION, id)),
        ("member", keys::member(PARTITION, id, alice().account)),
        ("writer", keys::writer(PARTITION, id, writer_of(alice()))),
    ] {
        let store = world.store.clone();
        let mut batch = WriteBatch::default();
        batch.put(key, Bytes::from_static(&[1, 0x80]));
        store.write(&batch).unwrap();
        let mut machine = PartitionMachine::load(&store, PARTITION).unwrap();
        let command = post_command(id, alice(), writer_of(alice()), &message(2, "y")).encode().into();
        let data = Batch { time_ms: 1, commands: vec![Envelope { origin: Origin::NOBODY, command }] }.encode();
        match machine.apply(&store, 3, &data, &mut Vec::new()) {
            Err(ApplyError::Read(ReadError::Corrupt { table: found, .. })) => assert_eq!(found, table),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_state_of_a_newer_behaviour_is_not_touched() {
    let world = eventful();
    let mut row = read::partition(&world.store, PARTITION).unwrap().unwrap();
    row.apply_version = ApplyVersions::THIS.highest + 1;
    let mut batch = WriteBatch::default();
    batch.put(keys::partition(PARTITION), row.encode());
    world.store.write(&batch).unwrap();
    let loaded = PartitionMachine::load(&world.store, PARTITION);
    let why = CannotApply { needed: row.apply_version, has: ApplyVersions::THIS };
    assert_eq!(loaded.err(), Some(ApplyError::ApplyVersion(why)));
}

#[test]
fn hot_rows_are_written_once_per_round() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let posts: Vec<_> = (1..=50).map(|no| post_command(id, alice(), writer_of(alice()), &message(no, "x"))).collect();
    let commands =
        posts.iter().map(|post| Envelope { origin: Origin::NOBODY, command: post.encode().into() }).collect();
    let data = Batch { time_ms: 1, commands }.encode();
    world.machine.apply(&world.store, 2, &data, &mut Vec::new()).unwrap();
    assert_eq!(world.machine.pending_rows(), 50 + 2);
    let batch = world.machine.take_batch();
    assert_eq!(batch.ops.len(), 50 + 3, "events, conversation, writer, partition");
    world.store.write(&batch).unwrap();
    assert_eq!(world.conversation(id).head, Seq(51));
}

/// A binary with one version more than this one.
const NEWER: ApplyVersions = ApplyVersions { highest: ApplyVersions::THIS.highest + 1, ..ApplyVersions::THIS };

#[test]
fn a_version_holds_from_its_place_in_the_log_and_stays() {
    let mut world = World::new();
    world.machine = PartitionMachine::load_with(&world.store, PARTITION, NEWER).unwrap();
    let id = world.direct(alice(), bob());
    let raise = |version| ConversationCommand::Gate { number: 1, gate: Gate::ApplyVersion(version) };
    assert_eq!(world.machine.apply_version(), FIRST, "whatever the binary could");
    let before = world.machine.state_hash();
    assert_eq!(world.run(raise(NEWER.highest)), ConversationOutcome::Done);
    assert_eq!(world.machine.apply_version(), NEWER.highest);
    for lower in [FIRST, NEWER.highest] {
        assert_eq!(world.run(raise(lower)), ConversationOutcome::Done);
    }
    world.say(id, alice(), 1, "after");
    let again = PartitionMachine::load_with(&world.store, PARTITION, NEWER).unwrap();
    assert_eq!(again.apply_version(), NEWER.highest, "it is in the state");
    assert_eq!(again.state_hash(), world.machine.state_hash());

    // Nothing but the version of the raise differs.
    let mut other = World::new();
    other.direct(alice(), bob());
    assert_eq!(other.machine.state_hash(), before);
    other.run(raise(FIRST));
    let mut raised = World::new();
    raised.machine = PartitionMachine::load_with(&raised.store, PARTITION, NEWER).unwrap();
    raised.direct(alice(), bob());
    raised.run(raise(NEWER.highest));
    assert_ne!(other.machine.state_hash(), raised.machine.state_hash(), "the hash tells");
}

#[test]
fn an_older_binary_stops_at_the_entry_that_raises_the_version() {
    let mut world = World::new();
    world.direct(alice(), bob());
    let raise = ConversationCommand::Gate { number: 1, gate: Gate::ApplyVersion(NEWER.highest) }.encode().into();
    let data = Batch { time_ms: 1, commands: vec![Envelope { origin: Origin::NOBODY, command: raise }] }.encode();
    let refused = world.machine.apply(&world.store, 2, &data, &mut Vec::new());
    let why = CannotApply { needed: NEWER.highest, has: ApplyVersions::THIS };
    assert_eq!(refused, Err(ApplyError::ApplyVersion(why)));
    assert!(world.machine.take_batch().is_empty());
}
