//! What the edge reads.

use bytes::Bytes;
use rove_protocol::ids::{AccountId, ConversationId, MessageId, PartitionId, Seq};
use rove_protocol::registry::{Anchor, Role};

use super::support::*;
use crate::conversation::{MemberRow, ReadError, keys, read};
use crate::store::{StateStore, WriteBatch};

fn seqs(world: &World, id: ConversationId, from: u64, to: u64, max_bytes: usize) -> Vec<u64> {
    let events = read::events(&world.store, PARTITION, id, Seq(from), Seq(to), max_bytes).unwrap();
    events.iter().map(|event| event.seq.0).collect()
}

fn chatted(count: u64) -> (World, ConversationId) {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    // A neighbour on either side, so that a range that is not kept would show.
    world.direct(alice(), carol());
    world.direct(bob(), carol());
    for no in 1..=count {
        world.now_ms += 10;
        world.say(id, alice(), no, &"x".repeat(100));
    }
    (world, id)
}

#[test]
fn a_range_of_events_comes_whole_and_in_order() {
    let (world, id) = chatted(300);
    assert_eq!(seqs(&world, id, 1, 301, usize::MAX), (1..=301).collect::<Vec<_>>());
    assert_eq!(seqs(&world, id, 0, 3, usize::MAX), [1, 2, 3]);
    assert_eq!(seqs(&world, id, 250, 260, usize::MAX), (250..=260).collect::<Vec<_>>());
    assert_eq!(seqs(&world, id, 300, u64::MAX, usize::MAX), [300, 301]);
    assert!(seqs(&world, id, 302, 400, usize::MAX).is_empty());
    assert!(seqs(&world, id, 9, 8, usize::MAX).is_empty());
}

#[test]
fn a_range_stops_at_the_bytes_allowed_but_gives_at_least_one() {
    let (world, id) = chatted(20);
    assert_eq!(seqs(&world, id, 2, 21, 1), [2]);
    let some = seqs(&world, id, 2, 21, 1_000);
    assert!(some.len() > 3 && some.len() < 9, "{some:?}");
}

#[test]
fn a_missing_event_is_found_out() {
    let (world, id) = chatted(5);
    let mut batch = WriteBatch::default();
    batch.delete(keys::event(PARTITION, id, Seq(4)));
    world.store.write(&batch).unwrap();
    let events = read::events(&world.store, PARTITION, id, Seq(2), Seq(6), usize::MAX);
    assert!(matches!(events, Err(ReadError::Inconsistent(_))));
}

#[test]
fn events_are_found_by_seq_by_message_id_and_by_time() {
    let (world, id) = chatted(50);
    let at = |anchor, at| read::seq_at(&world.store, PARTITION, id, anchor, at).unwrap().0;
    for event in world.events(id) {
        assert_eq!(at(Anchor::MessageId, event.message_id.0), event.seq.0);
        assert_eq!(at(Anchor::MessageId, event.message_id.0 + 1), event.seq.0 + 1);
        assert_eq!(at(Anchor::Time, event.time_ms), event.seq.0);
        assert_eq!(at(Anchor::Time, event.time_ms + 1), event.seq.0 + 1);
    }
    assert_eq!(at(Anchor::MessageId, MessageId(0).0), 1);
    assert_eq!((at(Anchor::Time, 0), at(Anchor::Time, u64::MAX)), (1, 52));
    assert_eq!((at(Anchor::Seq, 0), at(Anchor::Seq, 7), at(Anchor::Seq, u64::MAX)), (1, 7, 52));
    assert_eq!((at(Anchor::Head, 0), at(Anchor(9), 3)), (52, 52));
    let nowhere = read::seq_at(&world.store, PARTITION, ConversationId([1; 16]), Anchor::Time, 5);
    assert_eq!(nowhere, Ok(Seq(1)));
}

#[test]
fn members_come_in_pages_without_those_who_left() {
    let mut world = World::new();
    let people: Vec<_> = (2..=30).map(|number| (person(number), Role::Member)).collect();
    let id = world.group(alice(), &people);
    world.change(alice(), id, &[(person(5), Role::None), (person(30), Role::None)]);
    let mut all = Vec::new();
    let mut after = AccountId(0);
    loop {
        let page = read::members(&world.store, PARTITION, id, after, 7).unwrap();
        let Some(last) = page.last() else { break };
        after = last.0;
        assert!(page.len() <= 7);
        all.extend(page.into_iter().map(|(account, _)| account.0));
    }
    assert_eq!(all, (1..=29).filter(|number| *number != 5).collect::<Vec<_>>());
    assert!(read::members(&world.store, PARTITION, id, AccountId(0), 0).unwrap().is_empty());
    assert!(read::members(&world.store, PARTITION, id, AccountId(u64::MAX), 9).unwrap().is_empty());
}

#[test]
fn an_account_finds_every_conversation_it_is_or_was_in() {
    let mut world = World::new();
    let mut expected = vec![world.direct(alice(), bob()), world.group(alice(), &[(bob(), Role::Member)])];
    world.direct(alice(), carol());
    world.change(alice(), expected[1], &[(bob(), Role::None)]);
    world.change(alice(), expected[1], &[(bob(), Role::Member)]);
    let mut found = Vec::new();
    let mut collect = |id| {
        found.push(id);
        true
    };
    read::memberships(&world.store, PARTITION, bob().account, &mut collect).unwrap();
    expected.sort();
    assert_eq!(found, expected, "each once, ascending");
    let mut first = Vec::new();
    read::memberships(&world.store, PARTITION, bob().account, &mut |id| {
        first.push(id);
        false
    })
    .unwrap();
    assert_eq!(first, expected[..1]);
    let mut none = 0;
    read::memberships(&world.store, PartitionId(9), bob().account, &mut |_| {
        none += 1;
        true
    })
    .unwrap();
    assert_eq!(none, 0);
}

fn stay(joined: u64, left: Option<u64>, earlier: &[(u64, u64)]) -> MemberRow {
    MemberRow {
        role: if left.is_some() { Role::None } else { Role::Member },
        joined: Seq(joined),
        left: left.map(Seq),
        read: Seq(0),
        earlier: earlier.iter().map(|(first, last)| (Seq(*first), Seq(*last))).collect(),
    }
}

#[test]
fn what_a_member_sees_is_his_stays_up_to_the_head() {
    let cases: [(MemberRow, u64, &[(u64, u64)]); 8] = [
        (stay(1, None, &[]), 9, &[(1, 9)]),
        (stay(4, None, &[]), 9, &[(4, 9)]),
        (stay(4, Some(6), &[]), 9, &[(4, 6)]),
        (stay(4, Some(6), &[]), 5, &[(4, 5)]),
        (stay(4, None, &[]), 3, &[]),
        (stay(7, None, &[(1, 3)]), 9, &[(1, 3), (7, 9)]),
        (stay(4, None, &[(1, 3)]), 9, &[(1, 9)]),
        (stay(8, Some(8), &[(1, 2), (4, 5)]), 9, &[(1, 2), (4, 5), (8, 8)]),
    ];
    for (row, head, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|(first, last)| (Seq(*first), Seq(*last))).collect();
        let ranges = read::visible(&row, Seq(head));
        assert_eq!(ranges, expected, "{row:?} {head}");
        for seq in 1..=head {
            let inside = ranges.iter().any(|(first, last)| (first.0..=last.0).contains(&seq));
            assert_eq!(row.may_see(Seq(seq)), inside, "{row:?} {seq}");
        }
    }
}

#[test]
fn a_corrupt_row_is_an_error_and_names_its_table() {
    let (world, id) = chatted(3);
    let mut batch = WriteBatch::default();
    batch.put(keys::conversation(PARTITION, id), Bytes::from_static(&[1, 0xff]));
    batch.put(keys::member(PARTITION, id, bob().account), Bytes::from_static(&[9]));
    batch.put(keys::event(PARTITION, id, Seq(2)), Bytes::new());
    world.store.write(&batch).unwrap();
    let table = |error: ReadError| match error {
        ReadError::Corrupt { table, .. } => table,
        other => panic!("{other:?}"),
    };
    assert_eq!(table(read::conversation(&world.store, PARTITION, id).unwrap_err()), "conversation");
    assert_eq!(table(read::member(&world.store, PARTITION, id, bob().account).unwrap_err()), "member");
    assert_eq!(table(read::members(&world.store, PARTITION, id, AccountId(0), 9).unwrap_err()), "member");
    assert_eq!(table(read::event(&world.store, PARTITION, id, Seq(2)).unwrap_err()), "event");
}
