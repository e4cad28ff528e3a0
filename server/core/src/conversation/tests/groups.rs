//! Making conversations, and who is in them.

use std::cell::Cell;

use bytes::Bytes;
use rove_protocol::ids::{AccountId, ConversationId, Seq};
use rove_protocol::limits;
use rove_protocol::message::{Body, Created, MembersChanged};
use rove_protocol::registry::{ConversationKind, ErrorCode, EventKind, Role};

use super::support::*;
use crate::command::{Batch, ConversationCommand, Effect, Envelope, Origin};
use crate::conversation::{EARLIER_STAYS, PartitionMachine, read};
use crate::store::{MemoryStore, StateRead, StoreError};

fn create(nonce: u8, title: &str, members: Vec<(AccountId, Role)>) -> ConversationCommand {
    ConversationCommand::CreateGroup { actor: alice(), nonce: [nonce; 16], title: title.to_owned(), members }
}

#[test]
fn a_direct_conversation_is_made_once_from_whichever_side() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    assert_eq!(id, ConversationId::direct(alice().account, bob().account));
    let created = &world.events(id)[0];
    assert_eq!((created.seq, created.kind, created.author), (Seq(1), EventKind::Created, alice().account));
    let body = Created::decode_body(created.body.clone()).unwrap();
    assert_eq!(body.kind, ConversationKind::Direct);
    let members: Vec<_> = body.members.iter().map(|member| (member.account, member.role)).collect();
    assert_eq!(members, [(bob().account.min(alice().account), Role::Member), (bob().account, Role::Member)]);
    assert!(
        matches!(&world.effects[..], [Effect::Event { .. }, Effect::Members { changes, .. }] if *changes == members)
    );

    world.say(id, alice(), 1, "hello");
    let again = view(world.run(ConversationCommand::CreateDirect { actor: bob(), peer: alice().account }));
    assert_eq!((again.conversation, again.head, again.member_count), (id, Seq(2), 2));
    assert!(world.effects.is_empty(), "found, not made");
    assert_eq!(world.conversation(id).peer_of(alice().account), bob().account);
    assert_eq!(world.conversation(id).peer_of(bob().account), alice().account);
}

#[test]
fn nobody_talks_directly_to_himself_or_to_nobody() {
    let mut world = World::new();
    for peer in [alice().account, AccountId(0), AccountId(u64::MAX)] {
        let outcome = world.run(ConversationCommand::CreateDirect { actor: alice(), peer });
        assert_eq!(outcome, failed(ErrorCode::InvalidArgument));
    }
}

#[test]
fn a_direct_conversation_never_changes() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    for changes in [[(carol(), Role::Member)], [(alice(), Role::None)], [(alice(), Role::Owner)]] {
        assert_eq!(world.change(alice(), id, &changes), failed(ErrorCode::InvalidArgument));
    }
}

#[test]
fn the_same_nonce_of_the_same_creator_is_the_same_group() {
    let mut world = World::new();
    let first = view(world.run(create(1, "one", vec![(bob().account, Role::Member)])));
    assert_eq!((first.kind, first.title.as_str(), first.head), (ConversationKind::Group, "one", Seq(1)));
    assert_eq!(first.member_count, 2);
    let again = view(world.run(create(1, "another title", vec![(carol().account, Role::Member)])));
    assert_eq!(again, first);
    let other = view(world.run(create(2, "one", Vec::new())));
    assert_ne!(other.conversation, first.conversation);
    assert_eq!(world.conversation(first.conversation).owner_count, 1);
}

#[test]
fn a_group_with_unsound_members_or_title_is_not_made() {
    let mut world = World::new();
    let bad = [
        create(1, "twice", vec![(bob().account, Role::Member), (bob().account, Role::Admin)]),
        create(1, "the creator again", vec![(alice().account, Role::Member)]),
        create(1, "no role", vec![(bob().account, Role::None)]),
        create(1, "unknown role", vec![(bob().account, Role(9))]),
        create(1, "nobody", vec![(AccountId(0), Role::Member)]),
        create(1, &"t".repeat(limits::TITLE + 1), Vec::new()),
    ];
    for command in bad {
        assert_eq!(world.run(command), failed(ErrorCode::InvalidArgument));
    }
    let many = (10..=10 + limits::MEMBERS_PER_REQUEST as u64).map(|account| (AccountId(account), Role::Member));
    assert_eq!(world.run(create(1, "many", many.collect())), failed(ErrorCode::LimitExceeded));
    assert!(
        read::conversation(&world.store, PARTITION, ConversationId::group(alice().account, [1; 16])).unwrap().is_none()
    );
}

#[test]
fn a_change_of_members_is_an_event_and_moves_their_rows() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::Member)]);
    world.say(id, alice(), 1, "hello");
    let found = view(world.change(alice(), id, &[(carol(), Role::Member), (bob(), Role::None)]));
    assert_eq!((found.head, found.member_count), (Seq(3), 2));
    let event = world.events(id).remove(2);
    assert_eq!((event.kind, event.author), (EventKind::MembersChanged, alice().account));
    let body = MembersChanged::decode_body(event.body).unwrap();
    let changes: Vec<_> = body.changes.iter().map(|change| (change.account, change.role)).collect();
    assert_eq!(changes, [(carol().account, Role::Member), (bob().account, Role::None)]);
    assert!(
        matches!(&world.effects[..], [Effect::Event { .. }, Effect::Members { changes: told, .. }] if *told == changes)
    );

    let (bob, carol) = (world.member(id, bob()).unwrap(), world.member(id, carol()).unwrap());
    assert_eq!((bob.role, bob.joined, bob.left), (Role::None, Seq(1), Some(Seq(3))));
    assert_eq!((carol.role, carol.joined, carol.left, carol.read), (Role::Member, Seq(3), None, Seq(2)));
}

#[test]
fn what_is_already_so_is_passed_over_and_appends_nothing() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::Member)]);
    let found = view(world.change(alice(), id, &[(bob(), Role::Member), (carol(), Role::None)]));
    assert_eq!(found.head, Seq(1));
    assert!(world.effects.is_empty());
    assert_eq!(view(world.change(alice(), id, &[(bob(), Role::Member), (carol(), Role::Member)])).head, Seq(2));
    let body = MembersChanged::decode_body(world.events(id).remove(1).body).unwrap();
    assert_eq!(body.changes.len(), 1);
}

#[test]
fn a_request_is_done_whole_or_not_at_all() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::Admin)]);
    let rows = world.store.rows();
    assert_eq!(
        world.change(bob(), id, &[(carol(), Role::Member), (alice(), Role::None)]),
        failed(ErrorCode::Forbidden)
    );
    let after = world.store.rows();
    assert_eq!(rows.len(), after.len());
    assert!(world.member(id, carol()).is_none());
}

/// Who may do what: the actor's role, the change of another's role, whether it is allowed.
#[test]
fn admins_manage_members_and_only_owners_manage_admins_and_owners() {
    let roles = [Role::None, Role::ReadOnly, Role::Member, Role::Admin, Role::Owner];
    for own in roles {
        for old in roles {
            for new in roles {
                let mut world = World::new();
                let mut members = Vec::new();
                for (who, role) in [(bob(), own), (carol(), old)] {
                    if role != Role::None {
                        members.push((who, role));
                    }
                }
                let id = world.group(alice(), &members);
                let outcome = world.change(bob(), id, &[(carol(), new)]);
                let low = |role: Role| !role.may_manage();
                let allowed = own == Role::Owner || (own == Role::Admin && low(old) && low(new));
                let what = format!("{own} makes {old} {new}: {outcome:?}");
                if own == Role::None {
                    assert_eq!(outcome, failed(ErrorCode::NotFound), "{what}");
                } else if allowed || old == new {
                    assert_eq!(view(outcome).head, Seq(if old == new { 1 } else { 2 }), "{what}");
                } else {
                    assert_eq!(outcome, failed(ErrorCode::Forbidden), "{what}");
                }
            }
        }
    }
}

#[test]
fn anyone_may_lower_himself_or_leave_and_nobody_raises_himself() {
    for (own, new, allowed) in [
        (Role::ReadOnly, Role::None, true),
        (Role::ReadOnly, Role::Member, false),
        (Role::Member, Role::None, true),
        (Role::Member, Role::Admin, false),
        (Role::Admin, Role::Member, true),
        (Role::Admin, Role::Owner, false),
        (Role::Owner, Role::Admin, true),
    ] {
        let mut world = World::new();
        let id = world.group(alice(), &[(bob(), own)]);
        let outcome = world.change(bob(), id, &[(bob(), new)]);
        if allowed {
            assert_eq!(view(outcome).head, Seq(2), "{own} to {new}");
        } else {
            assert_eq!(outcome, failed(ErrorCode::Forbidden), "{own} to {new}");
        }
    }
}

#[test]
fn the_last_owner_stays_unless_he_makes_another_or_is_alone() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::Admin)]);
    assert_eq!(world.change(alice(), id, &[(alice(), Role::None)]), failed(ErrorCode::Forbidden));
    assert_eq!(world.change(alice(), id, &[(alice(), Role::Member)]), failed(ErrorCode::Forbidden));
    let handed = world.change(alice(), id, &[(alice(), Role::None), (bob(), Role::Owner)]);
    assert_eq!(view(handed).member_count, 1);
    assert_eq!(world.conversation(id).owner_count, 1);
    let last = view(world.change(bob(), id, &[(bob(), Role::None)]));
    assert_eq!((last.member_count, last.head), (0, Seq(3)));
    assert_eq!(world.change(bob(), id, &[(bob(), Role::Owner)]), failed(ErrorCode::Forbidden), "empty for good");
}

#[test]
fn strangers_are_told_nothing_and_former_members_may_change_nothing() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::Admin)]);
    assert_eq!(world.change(carol(), id, &[(carol(), Role::Member)]), failed(ErrorCode::NotFound));
    assert_eq!(world.change(carol(), ConversationId([3; 16]), &[(carol(), Role::Member)]), failed(ErrorCode::NotFound));
    world.change(bob(), id, &[(bob(), Role::None)]);
    assert_eq!(world.change(bob(), id, &[(bob(), Role::Member)]), failed(ErrorCode::Forbidden));
    world.change(alice(), id, &[(bob(), Role::Owner)]);
    world.change(bob(), id, &[(alice(), Role::None)]);
    let create =
        ConversationCommand::CreateGroup { actor: alice(), nonce: [5; 16], title: String::new(), members: Vec::new() };
    assert_eq!(world.run(create), failed(ErrorCode::Forbidden), "the creator has been removed");
}

#[test]
fn unsound_changes_are_refused() {
    let mut world = World::new();
    let id = world.group(alice(), &[]);
    for changes in
        [&[][..], &[(bob(), Role::Member), (bob(), Role::None)], &[(bob(), Role(5))], &[(person(0), Role::Member)]]
    {
        assert_eq!(world.change(alice(), id, changes), failed(ErrorCode::InvalidArgument));
    }
}

#[test]
fn a_group_takes_as_many_members_as_the_limit_and_no_more() {
    let mut world = World::new();
    let id = world.group(alice(), &[]);
    let mut next = 100;
    while world.conversation(id).member_count < limits::MEMBERS {
        let room = u64::from(limits::MEMBERS - world.conversation(id).member_count);
        let count = room.min(limits::MEMBERS_PER_REQUEST as u64);
        let changes: Vec<_> = (next..next + count).map(|number| (person(number), Role::Member)).collect();
        view(world.change(alice(), id, &changes));
        next += count;
    }
    assert_eq!(world.change(alice(), id, &[(bob(), Role::Member)]), failed(ErrorCode::TooManyMembers));
    let swapped = world.change(alice(), id, &[(bob(), Role::Member), (person(100), Role::None)]);
    assert_eq!(view(swapped).member_count, limits::MEMBERS);

    // A post in the full group writes its event, the conversation, the writer and the partition: nothing per member.
    let command = post_command(id, bob(), writer_of(bob()), &message(1, "hello, all"));
    let before = world.store.clone().rows();
    posted(world.run(command));
    let changed = world.store.rows().into_iter().filter(|row| before.binary_search(row).is_err()).count();
    assert_eq!(changed, 4);
}

/// Counts what is read.
struct Counting<'a>(&'a MemoryStore, Cell<usize>);

impl StateRead for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.1.set(self.1.get() + 1);
        self.0.get(key)
    }
    fn scan(&self, _: &[u8], _: &[u8], _: bool, _: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        panic!("apply scanned")
    }
}

#[test]
fn a_change_of_many_members_reads_and_writes_their_rows_once_each_however_large_the_group() {
    let mut world = World::new();
    let id = world.group(alice(), &[]);
    for start in [1_000, 2_000, 3_000] {
        let people: Vec<_> = (start..start + 500).map(|number| (person(number), Role::Member)).collect();
        view(world.change(alice(), id, &people));
    }
    let changes = (5_000..5_500).map(|number| (AccountId(number), Role::Member)).collect();
    let command = ConversationCommand::ChangeMembers { actor: alice(), conversation: id, changes }.encode().into();
    let data = Batch { time_ms: 1, commands: vec![Envelope { origin: Origin::NOBODY, command }] }.encode();
    let mut machine = PartitionMachine::load(&world.store, PARTITION).unwrap();
    let store = Counting(&world.store, Cell::new(0));
    machine.apply(&store, 5, &data, &mut Vec::new()).unwrap();
    assert_eq!(store.1.get(), 4 + 500, "two gates, the group, the actor, and each of the new members");
    assert_eq!(machine.take_batch().ops.len(), 3 + 2 * 500, "event, group, partition; a member and a membership each");
}

#[test]
fn who_comes_back_sees_his_stays_and_nothing_between_them() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::Member)]);
    world.say(id, alice(), 1, "2");
    world.change(alice(), id, &[(bob(), Role::None)]); // 3
    world.say(id, alice(), 2, "4");
    world.say(id, alice(), 3, "5");
    world.change(alice(), id, &[(bob(), Role::ReadOnly)]); // 6
    world.say(id, alice(), 4, "7");
    let row = world.member(id, bob()).unwrap();
    assert_eq!(read::visible(&row, world.conversation(id).head), [(Seq(1), Seq(3)), (Seq(6), Seq(7))]);
    assert_eq!((row.joined, row.left, row.read), (Seq(6), None, Seq(5)));
    let mut stays = 0;
    for _ in 0..2 * EARLIER_STAYS {
        world.change(alice(), id, &[(bob(), Role::None)]);
        world.change(alice(), id, &[(bob(), Role::Member)]);
        stays = world.member(id, bob()).unwrap().earlier.len();
        assert!(stays <= EARLIER_STAYS);
    }
    assert_eq!(stays, EARLIER_STAYS);
}
