//! D9: what the directory makes known.

use rove_protocol::ids::{DeviceId, Seq};
use rove_protocol::registry::{ErrorCode, Role};

use super::support::*;
use crate::command::{Actor, ConversationCommand, ConversationOutcome, Gate};

fn gate(number: u64, gate: Gate) -> ConversationCommand {
    ConversationCommand::Gate { number, gate }
}

#[test]
fn a_revoked_device_does_nothing_and_the_other_devices_of_the_account_go_on() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    world.say(id, alice(), 1, "before");
    assert_eq!(world.run(gate(1, Gate::DeviceRevoked(alice().device))), ConversationOutcome::Done);
    assert_eq!(world.post(id, alice(), &message(2, "after")), refusal(2, ErrorCode::Revoked, false, 2));
    let direct = ConversationCommand::CreateDirect { actor: alice(), peer: carol().account };
    assert_eq!(world.run(direct), failed(ErrorCode::Revoked));
    let group =
        ConversationCommand::CreateGroup { actor: alice(), nonce: [1; 16], title: String::new(), members: Vec::new() };
    assert_eq!(world.run(group), failed(ErrorCode::Revoked));
    assert_eq!(world.change(alice(), id, &[(carol(), Role::Member)]), failed(ErrorCode::Revoked));
    let phone = Actor { device: DeviceId(77), ..alice() };
    assert_eq!(world.say(id, phone, 1, "from the phone").seq, Seq(3));
}

#[test]
fn a_gate_holds_from_its_place_in_the_log() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let post = |no| post_command(id, alice(), writer_of(alice()), &message(no, "x"));
    let outcomes = world.entry(&[post(1), gate(1, Gate::DeviceRevoked(alice().device)), post(2)]);
    assert_eq!(posted(outcomes[0].clone()).seq, Seq(2));
    assert_eq!(outcomes[2], refusal(2, ErrorCode::Revoked, false, 2));
}

#[test]
fn a_suspended_account_waits_and_goes_on_where_it_was() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    world.run(gate(1, Gate::AccountSuspended(alice().account)));
    assert_eq!(world.post(id, alice(), &message(1, "held")), refusal(1, ErrorCode::Revoked, false, 1));
    let mark = ConversationCommand::MarkRead { conversation: id, account: alice().account, read: Seq(1) };
    assert_eq!(world.run(mark), failed(ErrorCode::Revoked));
    world.run(gate(2, Gate::AccountRestored(alice().account)));
    assert_eq!(world.say(id, alice(), 1, "held").seq, Seq(2));
}

#[test]
fn a_repeated_or_overtaken_gate_changes_nothing() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    world.run(gate(5, Gate::AccountSuspended(alice().account)));
    world.run(gate(9, Gate::AccountRestored(alice().account)));
    for number in [5, 9, 8, 0] {
        assert_eq!(world.run(gate(number, Gate::AccountSuspended(alice().account))), ConversationOutcome::Done);
    }
    world.say(id, alice(), 1, "restored");
    // Numbers are compared for one subject: another one's later gate does not swallow this one's.
    world.run(gate(6, Gate::AccountSuspended(bob().account)));
    assert_eq!(world.post(id, bob(), &message(1, "x")), refusal(1, ErrorCode::Revoked, false, 1));
}

#[test]
fn a_gate_outlives_a_restart() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    world.run(gate(1, Gate::DeviceRevoked(alice().device)));
    world.machine = crate::conversation::PartitionMachine::load(&world.store, PARTITION).unwrap();
    assert_eq!(world.post(id, alice(), &message(1, "x")), refusal(1, ErrorCode::Revoked, false, 1));
}
