use rove_protocol::ids::{AccountId, DeviceId, NodeId};
use rove_protocol::registry::ErrorCode;

use super::super::contract::{credentials, entry, sign_up_command, token};
use super::super::{
    DEVICES, Digest, DirectoryCommand, DirectoryEffect, DirectoryError, DirectoryMachine, DirectoryOutcome,
    DirectoryRead, IDEMPOTENCY_MS, MemoryDirectory, NewDevice, NewToken, REFRESH_GRACE_MS,
};
use crate::apply_version::{ApplyVersions, CannotApply};
use crate::command::{Actor, Batch, Envelope, Gate, Origin};
use crate::formation::StoreId;
use crate::membership::MemberMap;

const ALICE: AccountId = AccountId(1);
const PHONE: DeviceId = DeviceId(1);

/// A directory and its machine; every command is an entry of its own.
struct World {
    rows: MemoryDirectory,
    machine: DirectoryMachine,
    now_ms: u64,
    effects: Vec<DirectoryEffect>,
}

impl World {
    fn new() -> Self {
        let rows = MemoryDirectory::default();
        let machine = DirectoryMachine::load(&rows).unwrap();
        Self { rows, machine, now_ms: 1_000_000, effects: Vec::new() }
    }

    /// Alice has signed up from her phone.
    fn with_alice() -> Self {
        let mut world = Self::new();
        let outcome = world.run(&sign_up_command("alice", None));
        assert_eq!(outcome, DirectoryOutcome::SignedIn { account: ALICE, device: PHONE });
        world
    }

    fn run(&mut self, command: &DirectoryCommand) -> DirectoryOutcome {
        self.effects.clear();
        let index = self.machine.applied() + 1;
        let data = entry(index, self.now_ms, command);
        self.machine.apply(&mut self.rows, index, &data, &mut self.effects).unwrap();
        let Some(DirectoryEffect::Answer { outcome, .. }) = self.effects.last() else { panic!("no answer") };
        *outcome
    }

    fn rotate(&mut self, presented: &str, next: &str) -> DirectoryOutcome {
        self.run(&DirectoryCommand::RotateRefresh {
            presented: token(presented),
            access: NewToken { token: token(&format!("{next} access")), lifetime_ms: 900_000 },
            refresh: NewToken { token: token(next), lifetime_ms: 30 * 86_400_000 },
        })
    }

    fn log_in(&mut self, label: &str, idempotency: Option<Digest>) -> DirectoryOutcome {
        self.run(&DirectoryCommand::AddDevice {
            account: ALICE,
            verified: "hash of alice".to_owned(),
            device: NewDevice { name: label.to_owned(), credentials: credentials(label) },
            idempotency,
        })
    }

    fn has_access(&self, label: &str) -> bool {
        self.rows.access_token(&token(label)).unwrap().is_some_and(|row| row.expires_ms > self.now_ms)
    }
}

const REFRESHED: DirectoryOutcome = DirectoryOutcome::Refreshed { account: ALICE, device: PHONE };
const UNAUTHENTICATED: DirectoryOutcome = DirectoryOutcome::Failed(ErrorCode::Unauthenticated);

#[test]
fn a_handle_is_taken_whatever_its_case() {
    let mut world = World::with_alice();
    assert_eq!(world.run(&sign_up_command("ALICE", None)), DirectoryOutcome::Failed(ErrorCode::NameTaken));
    assert_eq!(
        world.run(&sign_up_command("bob", None)),
        DirectoryOutcome::SignedIn { account: AccountId(2), device: DeviceId(2) },
        "and a refusal uses up no id"
    );
}

#[test]
fn a_sign_up_repeated_under_its_key_names_what_it_made() {
    let mut world = World::new();
    let again = sign_up_command("alice", Some(token("key")));
    assert_eq!(world.run(&again), DirectoryOutcome::SignedIn { account: ALICE, device: PHONE });
    assert_eq!(world.run(&again), DirectoryOutcome::Repeated { account: ALICE, device: PHONE });
    let reissue = |verified: &str| DirectoryCommand::Reissue {
        account: ALICE,
        device: PHONE,
        verified: verified.to_owned(),
        credentials: credentials("second"),
    };
    assert_eq!(world.run(&reissue("another hash")), UNAUTHENTICATED);
    assert!(world.has_access("alice access"));
    assert_eq!(world.run(&reissue("hash of alice")), DirectoryOutcome::SignedIn { account: ALICE, device: PHONE });
    assert!(world.has_access("second access") && !world.has_access("alice access"));
    assert_eq!(world.rows.device(PHONE).unwrap().unwrap().secret, token("second secret"));

    world.now_ms += IDEMPOTENCY_MS;
    assert_eq!(world.run(&again), DirectoryOutcome::Failed(ErrorCode::NameTaken), "the key is forgotten");
}

#[test]
fn a_log_in_repeated_under_its_key_is_the_same_device() {
    let mut world = World::with_alice();
    let laptop = DirectoryOutcome::SignedIn { account: ALICE, device: DeviceId(2) };
    assert_eq!(world.log_in("laptop", Some(token("key"))), laptop);
    assert_eq!(world.log_in("laptop again", Some(token("key"))), laptop);
    assert!(world.has_access("laptop again access") && !world.has_access("laptop access"));
    assert_eq!(world.rows.devices_of(ALICE).unwrap().len(), 2);
}

#[test]
fn a_log_in_needs_the_password_that_is_the_accounts_when_it_is_applied() {
    let mut world = World::with_alice();
    let outcome = world.run(&DirectoryCommand::AddDevice {
        account: ALICE,
        verified: "an older hash".to_owned(),
        device: NewDevice { name: String::new(), credentials: credentials("x") },
        idempotency: None,
    });
    assert_eq!(outcome, UNAUTHENTICATED);
}

#[test]
fn an_account_has_a_bounded_number_of_devices_and_revoking_makes_room() {
    let mut world = World::with_alice();
    for number in 1..DEVICES {
        assert!(matches!(world.log_in(&format!("d{number}"), None), DirectoryOutcome::SignedIn { .. }));
    }
    assert_eq!(world.log_in("one more", None), DirectoryOutcome::Failed(ErrorCode::LimitExceeded));
    let actor = Actor { account: ALICE, device: PHONE };
    world.run(&DirectoryCommand::RevokeDevice { actor, device: DeviceId(2) });
    assert!(matches!(world.log_in("one more", None), DirectoryOutcome::SignedIn { .. }));
}

#[test]
fn a_refresh_token_is_good_for_one_exchange() {
    let mut world = World::with_alice();
    assert_eq!(world.rotate("alice refresh", "r2"), REFRESHED);
    assert!(world.has_access("r2 access"));
    assert_eq!(world.rotate("r2", "r3"), REFRESHED);
    assert_eq!(world.rotate("never given", "x"), UNAUTHENTICATED);
    assert_eq!(world.rotate("r3", "r4"), REFRESHED, "an unknown token ends nobody's family");
}

#[test]
fn reuse_ends_the_family_for_thief_and_owner() {
    let mut world = World::with_alice();
    world.rotate("alice refresh", "r2");
    world.rotate("r2", "r3");
    assert_eq!(world.rotate("alice refresh", "stolen"), UNAUTHENTICATED);
    assert!(!world.has_access("r3 access") && !world.has_access("stolen access"));
    assert_eq!(world.rotate("r3", "r4"), UNAUTHENTICATED);
    assert_eq!(world.rows.device(PHONE).unwrap().unwrap().revoked_ms, None, "the device itself is not revoked");
}

#[test]
fn a_lost_reply_may_be_asked_for_again_within_the_grace() {
    let mut world = World::with_alice();
    assert_eq!(world.rotate("alice refresh", "lost"), REFRESHED);
    world.now_ms += REFRESH_GRACE_MS;
    assert_eq!(world.rotate("alice refresh", "lost too"), REFRESHED);
    assert_eq!(world.rotate("alice refresh", "received"), REFRESHED);
    assert_eq!(world.rotate("received", "next"), REFRESHED);
    // Whoever has the reply that was thought lost is not the owner.
    assert_eq!(world.rotate("lost", "x"), UNAUTHENTICATED);
    assert_eq!(world.rotate("next", "x"), UNAUTHENTICATED);
}

#[test]
fn after_the_grace_a_second_use_is_reuse() {
    let mut world = World::with_alice();
    world.rotate("alice refresh", "r2");
    world.now_ms += REFRESH_GRACE_MS + 1;
    assert_eq!(world.rotate("alice refresh", "x"), UNAUTHENTICATED);
    assert_eq!(world.rotate("r2", "x"), UNAUTHENTICATED);
}

#[test]
fn tokens_expire_and_their_rows_go() {
    let mut world = World::with_alice();
    world.now_ms += 900_000;
    assert!(!world.has_access("alice access"));
    world.run(&sign_up_command("bob", None));
    assert_eq!(world.rows.access_token(&token("alice access")).unwrap(), None);
    world.now_ms += 31 * 86_400_000;
    assert_eq!(world.rotate("alice refresh", "x"), UNAUTHENTICATED);
}

#[test]
fn revoking_a_device_ends_its_tokens_and_tells_sessions_and_partitions() {
    let mut world = World::with_alice();
    world.log_in("laptop", None);
    let laptop = DeviceId(2);
    let actor = Actor { account: ALICE, device: PHONE };
    let revoke = DirectoryCommand::RevokeDevice { actor, device: laptop };
    assert_eq!(world.run(&revoke), DirectoryOutcome::Gated { number: 1 });
    assert_eq!(world.effects[..2], [DirectoryEffect::DeviceRevoked(laptop), DirectoryEffect::OutboxGrew]);
    assert!(!world.has_access("laptop access"));
    assert_eq!(world.rows.outbox(9).unwrap()[0].gate, Gate::DeviceRevoked(laptop));
    assert_eq!(world.run(&revoke), DirectoryOutcome::Done, "once is enough");
    assert_eq!(world.rotate("laptop refresh", "x"), UNAUTHENTICATED);
    let as_laptop = Actor { account: ALICE, device: laptop };
    let outcome = world.run(&DirectoryCommand::RevokeDevice { actor: as_laptop, device: PHONE });
    assert_eq!(outcome, DirectoryOutcome::Failed(ErrorCode::Revoked), "a revoked device revokes nobody");

    world.run(&DirectoryCommand::GateDone { number: 1 });
    assert_eq!(world.effects[0], DirectoryEffect::GatesDone(1));
    assert!(world.rows.outbox(9).unwrap().is_empty());
}

#[test]
fn nobody_revokes_another_accounts_device() {
    let mut world = World::with_alice();
    world.run(&sign_up_command("bob", None));
    let bob = Actor { account: AccountId(2), device: DeviceId(2) };
    let not_found = DirectoryOutcome::Failed(ErrorCode::NotFound);
    assert_eq!(world.run(&DirectoryCommand::RevokeDevice { actor: bob, device: PHONE }), not_found);
    assert_eq!(world.run(&DirectoryCommand::RevokeDevice { actor: bob, device: DeviceId(99) }), not_found);
    let forged = Actor { account: AccountId(2), device: PHONE };
    assert_eq!(world.run(&DirectoryCommand::RevokeDevice { actor: forged, device: PHONE }), UNAUTHENTICATED);
    assert!(world.has_access("alice access"));
}

#[test]
fn a_suspended_account_does_nothing_until_it_is_restored() {
    let mut world = World::with_alice();
    assert_eq!(world.run(&DirectoryCommand::SuspendAccount { account: ALICE }), DirectoryOutcome::Gated { number: 1 });
    assert_eq!(world.effects[0], DirectoryEffect::DeviceRevoked(PHONE));
    let revoked = DirectoryOutcome::Failed(ErrorCode::Revoked);
    assert_eq!(world.log_in("laptop", None), revoked);
    assert_eq!(world.rotate("alice refresh", "r2"), revoked);
    assert_eq!(world.run(&DirectoryCommand::RestoreAccount { account: ALICE }), DirectoryOutcome::Gated { number: 2 });
    assert_eq!(world.rotate("alice refresh", "r2"), REFRESHED);
    let gates: Vec<Gate> = world.rows.outbox(9).unwrap().into_iter().map(|row| row.gate).collect();
    assert_eq!(gates, [Gate::AccountSuspended(ALICE), Gate::AccountRestored(ALICE)]);
}

#[test]
fn the_same_entries_make_the_same_hash_and_other_entries_another() {
    let (one, mut other) = (World::with_alice(), World::with_alice());
    assert_eq!(one.machine.state_hash(), other.machine.state_hash());
    other.rotate("alice refresh", "r2");
    assert_ne!(one.machine.state_hash(), other.machine.state_hash());
}

#[test]
fn empty_entries_move_the_index_old_ones_nothing_and_missing_ones_fail() {
    let mut world = World::with_alice();
    let mut effects = Vec::new();
    let World { machine, rows, .. } = &mut world;
    machine.apply(rows, 2, &[], &mut effects).unwrap();
    assert_eq!((machine.applied(), rows.meta().unwrap().applied), (2, 2));
    let before = machine.state_hash();
    machine.apply(rows, 1, &entry(1, 1, &sign_up_command("zoe", None)), &mut effects).unwrap();
    assert_eq!(machine.state_hash(), before);
    let gap = machine.apply(rows, 4, &[], &mut effects);
    assert!(matches!(gap, Err(DirectoryError::Gap { expected: 3, got: 4 })));
    assert!(effects.is_empty());
}

#[test]
fn an_entry_that_does_not_decode_changes_the_machine_in_nothing() {
    let mut world = World::with_alice();
    let good = Envelope { origin: Origin::NOBODY, command: sign_up_command("bob", None).encode().into() };
    let bad = Envelope { origin: Origin::NOBODY, command: vec![9, 9].into() };
    let data = Batch { time_ms: 2_000_000, commands: vec![good, bad] }.encode();
    let World { machine, rows, .. } = &mut world;
    let before = (machine.applied(), machine.state_hash());
    let mut effects = Vec::new();
    let failed = machine.apply(&mut rows.clone(), 2, &data, &mut effects);
    assert!(matches!(failed, Err(DirectoryError::Entry { index: 2, .. })));
    assert_eq!((machine.applied(), machine.state_hash()), before);
    assert!(effects.is_empty());
}

#[test]
fn the_clock_of_the_directory_never_goes_back() {
    let mut world = World::with_alice();
    world.now_ms -= 500_000;
    world.log_in("laptop", None);
    assert_eq!(world.rows.device(DeviceId(2)).unwrap().unwrap().created_ms, 1_000_000);
}

#[test]
fn nobody_is_answered_where_nobody_waits() {
    let mut world = World::new();
    let mut effects = Vec::new();
    let data = entry(0, 1, &sign_up_command("alice", None));
    world.machine.apply(&mut world.rows, 1, &data, &mut effects).unwrap();
    assert!(effects.is_empty());
}

#[test]
fn the_bytes_of_commands_on_disk_are_pinned() {
    let revoke =
        DirectoryCommand::RevokeDevice { actor: Actor { account: ALICE, device: PHONE }, device: DeviceId(300) };
    assert_eq!(revoke.encode(), [1, 4, 1, 1, 0xac, 0x02]);
    assert_eq!(DirectoryCommand::GateDone { number: 5 }.encode(), [1, 7, 5]);
    let map = MemberMap::founded(&[(NodeId(1), StoreId([7; 16]))].into(), 6);
    let change = DirectoryCommand::ChangeMembers { map };
    // A version, then for each node its store, rebuild, address and standing; the founders, the first shard of each partition, the number of
    // replicas, and the nodes of each partition, the directory's first.
    let shards = [6, 0, 170, 5, 213, 10, 128, 16, 170, 21, 213, 26];
    let rest = [&[1, 1][..], &shards, &[3], &[7], &[1; 14]].concat();
    assert_eq!(change.encode(), [&[1, 8, 0, 1, 1][..], &[7; 16], &[0, 0, 0], &rest].concat());
    for command in [sign_up_command("alice", Some(token("k"))), revoke, change] {
        assert_eq!(DirectoryCommand::decode(&command.encode()), Ok(command));
    }
}

#[test]
fn of_two_changes_of_the_members_made_at_once_one_is_overtaken() {
    let mut world = World::new();
    let store = |node: u8| (NodeId(u64::from(node)), StoreId([node; 16]));
    let founded = MemberMap::founded(&(1..=3).map(store).collect(), 6);
    let change = |map: &MemberMap| DirectoryCommand::ChangeMembers { map: map.clone() };
    let (one, other) = (founded.leave(NodeId(3)).unwrap(), founded.leave(NodeId(2)).unwrap());
    let before = world.machine.state_hash();
    assert_eq!(world.run(&change(&one)), DirectoryOutcome::Done);
    assert_eq!(world.effects[0], DirectoryEffect::Members(one.clone()));
    assert_ne!(world.machine.state_hash(), before);
    assert_eq!(world.run(&change(&other)), DirectoryOutcome::Overtaken);
    assert_eq!(world.effects.len(), 1, "nobody is told of what was not done");
    assert_eq!(world.rows.members().unwrap(), Some(one.clone()));
    assert_eq!(world.run(&change(&one.without_leaving().unwrap())), DirectoryOutcome::Done);
    assert_eq!(world.run(&change(&founded)), DirectoryOutcome::Overtaken, "it goes back");
}

/// A binary with one version of apply more than this one.
const NEWER: ApplyVersions = ApplyVersions { highest: ApplyVersions::THIS.highest + 1, ..ApplyVersions::THIS };

#[test]
fn the_apply_version_is_raised_for_the_members_that_were_looked_at_and_every_partition_is_told() {
    let mut world = World::with_alice();
    world.machine = DirectoryMachine::load_with(&world.rows, NEWER).unwrap();
    assert_eq!(world.machine.apply_version(), 1);
    let raise = |version, members| DirectoryCommand::RaiseApplyVersion { version, members };
    let map = MemberMap::founded(&[(NodeId(1), StoreId([1; 16]))].into(), 6);
    let map = map.add(NodeId(2), StoreId([2; 16]), "two:7684").unwrap();
    world.run(&DirectoryCommand::ChangeMembers { map });
    assert_eq!(world.run(&raise(2, 0)), DirectoryOutcome::Overtaken, "somebody came meanwhile");
    assert_eq!(world.machine.apply_version(), 1);
    assert_eq!(world.run(&raise(2, 1)), DirectoryOutcome::Gated { number: 1 });
    assert!(world.effects.contains(&DirectoryEffect::ApplyVersion(2)));
    assert_eq!(world.rows.outbox(9).unwrap()[0].gate, Gate::ApplyVersion(2));
    assert_eq!((world.run(&raise(2, 1)), world.run(&raise(1, 1))), (DirectoryOutcome::Done, DirectoryOutcome::Done));
    assert_eq!(world.rows.outbox(9).unwrap().len(), 1, "once");
    assert_eq!(DirectoryMachine::load_with(&world.rows, NEWER).unwrap().apply_version(), 2);
    let older = DirectoryMachine::load(&world.rows).map(drop);
    assert!(matches!(older, Err(DirectoryError::ApplyVersion(CannotApply { needed: 2, .. }))), "{older:?}");
}

#[test]
fn an_older_binary_stops_at_the_entry_that_raises_the_apply_version() {
    let mut world = World::with_alice();
    let (before, index) = (world.machine.state_hash(), world.machine.applied() + 1);
    let raise = DirectoryCommand::RaiseApplyVersion { version: NEWER.highest, members: 0 };
    let mut rows = world.rows.clone();
    let refused = world.machine.apply(&mut rows, index, &entry(index, world.now_ms, &raise), &mut world.effects);
    assert!(matches!(refused, Err(DirectoryError::ApplyVersion(_))), "{refused:?}");
    assert_eq!(world.machine.state_hash(), before);
}
