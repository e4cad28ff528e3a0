//! I11: read watermarks rise and never pass the head.

use rove_protocol::ids::{AccountId, ConversationId, Seq};
use rove_protocol::registry::{ErrorCode, Role};

use super::support::*;
use crate::command::{Actor, ConversationCommand, ConversationOutcome, Effect};

fn mark(conversation: ConversationId, actor: Actor, read: u64) -> ConversationCommand {
    ConversationCommand::MarkRead { conversation, account: actor.account, read: Seq(read) }
}

#[test]
fn reading_moves_forward_and_says_so_once() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    for no in 1..=4 {
        world.say(id, alice(), no, "x");
    }
    assert_eq!(world.run(mark(id, bob(), 3)), ConversationOutcome::Done);
    let moved = |read| [Effect::Read { conversation: id, account: bob().account, read: Seq(read) }];
    assert_eq!(world.effects, moved(3));
    for read in [3, 2, 0] {
        assert_eq!(world.run(mark(id, bob(), read)), ConversationOutcome::Done);
        assert!(world.effects.is_empty(), "{read} is no news");
    }
    assert_eq!(world.member(id, bob()).unwrap().read, Seq(3));
    world.run(mark(id, bob(), 1_000));
    assert_eq!(world.effects, moved(5));
    assert_eq!(world.member(id, bob()).unwrap().read, world.conversation(id).head);
}

#[test]
fn only_members_read() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::ReadOnly)]);
    assert_eq!(world.run(mark(id, carol(), 1)), failed(ErrorCode::NotFound));
    assert_eq!(world.run(mark(ConversationId([1; 16]), alice(), 1)), failed(ErrorCode::NotFound));
    assert_eq!(world.run(mark(id, bob(), 1)), ConversationOutcome::Done);
    world.change(alice(), id, &[(bob(), Role::None)]);
    assert_eq!(world.run(mark(id, bob(), 2)), failed(ErrorCode::Forbidden));
    assert_eq!(world.member(id, bob()).unwrap().read, Seq(1));
}

#[test]
fn a_command_nobody_waits_for_is_not_answered() {
    use crate::command::{Batch, Envelope, Origin};
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let command = mark(id, bob(), 1).encode().into();
    let data = Batch { time_ms: 1, commands: vec![Envelope { origin: Origin::NOBODY, command }] }.encode();
    let mut effects = Vec::new();
    world.machine.apply(&world.store, 2, &data, &mut effects).unwrap();
    assert_eq!(effects, [Effect::Read { conversation: id, account: AccountId(2), read: Seq(1) }]);
}
