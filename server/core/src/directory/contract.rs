//! What every store of the directory keeps, as one suite of plain assertions: a store's own tests call [`suite`].

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "assertions for tests of stores, here and elsewhere"
)]

use bytes::Bytes;
use rove_protocol::ids::{AccountId, DeviceId, NodeId};

use super::command::{Credentials, DirectoryCommand, DirectoryEffect, DirectoryOutcome, NewDevice, NewToken};
use super::error::DirectoryError;
use super::handle::Handle;
use super::machine::DirectoryMachine;
use super::memory::MemoryDirectory;
use super::rows::{
    AccessTokenRow, AccountRow, AccountState, DeviceRow, Digest, FamilyId, IdempotencyRow, Meta, OutboxRow,
    RefreshTokenRow,
};
use super::store::{DirectoryRead, DirectoryStore, DirectoryTx};
use crate::command::{Actor, Batch, Envelope, Gate, Origin};
use crate::formation::StoreId;
use crate::membership::MemberMap;

/// Runs everything against stores that `make` makes, each empty.
pub fn suite<S: DirectoryStore>(make: impl Fn() -> S) {
    a_new_store_is_empty(&mut make());
    rows_read_back_and_replace_their_key(&mut make());
    a_failed_transaction_leaves_nothing(&mut make());
    a_handle_has_one_owner(&mut make());
    lists_are_bounded_ordered_and_without_the_revoked(&mut make());
    tokens_go_with_their_family_and_their_device(&mut make());
    what_expired_goes_first_come_first_gone(&mut make());
    the_outbox_empties_from_the_front(&mut make());
    the_map_of_members_is_one_row(&mut make());
    numbers_keep_all_their_bits(&mut make());
    the_machine_says_and_keeps_the_same_as_in_memory(&mut make());
}

/// An entry in which one account signs up; the secrets are made from the handle.
pub fn sign_up(ticket: u64, time_ms: u64, handle: &str) -> Vec<u8> {
    entry(ticket, time_ms, &sign_up_command(handle, None))
}

/// An entry with one command.
pub(super) fn entry(ticket: u64, time_ms: u64, command: &DirectoryCommand) -> Vec<u8> {
    let origin = Origin { node: NodeId(1), ticket };
    Batch { time_ms, commands: vec![Envelope { origin, command: Bytes::from(command.encode()) }] }.encode()
}

pub(super) fn sign_up_command(handle: &str, idempotency: Option<Digest>) -> DirectoryCommand {
    DirectoryCommand::SignUp {
        handle: Handle::parse(handle).unwrap(),
        name: format!("The {handle}"),
        password_hash: format!("hash of {handle}"),
        device: NewDevice { name: "phone".to_owned(), credentials: credentials(handle) },
        idempotency,
    }
}

pub(super) fn token(label: &str) -> Digest {
    Digest::of(label.as_bytes())
}

pub(super) fn credentials(label: &str) -> Credentials {
    Credentials {
        secret: token(&format!("{label} secret")),
        access: NewToken { token: token(&format!("{label} access")), lifetime_ms: 900_000 },
        refresh: NewToken { token: token(&format!("{label} refresh")), lifetime_ms: 30 * 86_400_000 },
    }
}

fn write<S: DirectoryStore>(store: &mut S, mut work: impl FnMut(&mut dyn DirectoryTx)) {
    store
        .transaction(&mut |tx| {
            work(tx);
            Ok(())
        })
        .unwrap();
}

fn read<S: DirectoryStore, T>(store: &S, mut work: impl FnMut(&dyn DirectoryRead) -> Result<T, DirectoryError>) -> T {
    let mut result = None;
    store
        .read(&mut |rows| {
            result = Some(work(rows)?);
            Ok(())
        })
        .unwrap();
    result.unwrap()
}

fn meta_of<S: DirectoryStore>(store: &S) -> Meta {
    read(store, |rows| rows.meta())
}

fn account(id: u64, key: &str) -> AccountRow {
    AccountRow {
        id: AccountId(id),
        handle: key.to_uppercase(),
        handle_key: key.to_owned(),
        name: "Name".to_owned(),
        password_hash: "$argon2id$…".to_owned(),
        state: AccountState::Active,
        created_ms: 5,
    }
}

fn device(id: u64, account: u64) -> DeviceRow {
    DeviceRow {
        id: DeviceId(id),
        account: AccountId(account),
        name: "phone".to_owned(),
        secret: token("secret"),
        created_ms: 6,
        revoked_ms: None,
    }
}

fn access(label: &str, device: u64, family: u64, expires_ms: u64) -> AccessTokenRow {
    AccessTokenRow {
        token: token(label),
        account: AccountId(1),
        device: DeviceId(device),
        family: FamilyId(family),
        expires_ms,
    }
}

fn refresh(label: &str, device: u64, family: u64, expires_ms: u64) -> RefreshTokenRow {
    RefreshTokenRow {
        token: token(label),
        account: AccountId(1),
        device: DeviceId(device),
        family: FamilyId(family),
        expires_ms,
        used_ms: None,
        successor: None,
    }
}

fn a_new_store_is_empty<S: DirectoryStore>(store: &mut S) {
    assert_eq!(meta_of(store), Meta::default());
    assert_eq!(read(store, |rows| rows.account(AccountId(1))), None);
    assert_eq!(read(store, |rows| rows.outbox(9)), Vec::new());
}

fn rows_read_back_and_replace_their_key<S: DirectoryStore>(store: &mut S) {
    let meta = Meta {
        applied: 1,
        state_hash: 2,
        time_ms: 3,
        last_account: 4,
        last_device: 5,
        last_family: 6,
        last_gate: 7,
        apply_version: 8,
    };
    let mut first = account(1, "alice");
    let mut phone = device(2, 1);
    let mut used = refresh("r", 2, 3, 1_000);
    let key = IdempotencyRow { key: token("k"), account: AccountId(1), device: DeviceId(2), expires_ms: 9 };
    write(store, |tx| {
        tx.put_meta(&Meta::default()).unwrap();
        tx.put_meta(&meta).unwrap();
        tx.put_account(&first).unwrap();
        tx.put_device(&phone).unwrap();
        tx.put_access_token(&access("a", 2, 3, 1_000)).unwrap();
        tx.put_refresh_token(&used).unwrap();
        tx.put_idempotency(&key).unwrap();
        // A transaction sees its own writes.
        assert_eq!(tx.account(AccountId(1)).unwrap().as_ref(), Some(&first));
        assert_eq!(tx.meta().unwrap(), meta);
    });
    "alicia".clone_into(&mut first.handle_key);
    first.state = AccountState::Suspended;
    phone.revoked_ms = Some(8);
    used.used_ms = Some(7);
    used.successor = Some(token("r2"));
    write(store, |tx| {
        tx.put_account(&first).unwrap();
        tx.put_device(&phone).unwrap();
        tx.put_refresh_token(&used).unwrap();
    });
    assert_eq!(meta_of(store), meta);
    assert_eq!(read(store, |rows| rows.account(AccountId(1))), Some(first.clone()));
    assert_eq!(read(store, |rows| rows.account_by_handle("alicia")), Some(first));
    assert_eq!(read(store, |rows| rows.account_by_handle("alice")), None);
    assert_eq!(read(store, |rows| rows.device(DeviceId(2))), Some(phone));
    assert_eq!(read(store, |rows| rows.access_token(&token("a"))), Some(access("a", 2, 3, 1_000)));
    assert_eq!(read(store, |rows| rows.refresh_token(&token("r"))), Some(used));
    assert_eq!(read(store, |rows| rows.idempotency(&token("k"))), Some(key));
    assert_eq!(read(store, |rows| rows.access_token(&token("other"))), None);
}

fn a_failed_transaction_leaves_nothing<S: DirectoryStore>(store: &mut S) {
    let failed = store.transaction(&mut |tx| {
        tx.put_account(&account(1, "alice"))?;
        tx.put_meta(&Meta { applied: 1, ..Meta::default() })?;
        Err(DirectoryError::Store("on purpose".to_owned()))
    });
    assert!(failed.is_err());
    assert_eq!(read(store, |rows| rows.account(AccountId(1))), None);
    assert_eq!(meta_of(store), Meta::default());
}

fn a_handle_has_one_owner<S: DirectoryStore>(store: &mut S) {
    write(store, |tx| tx.put_account(&account(1, "alice")).unwrap());
    let taken = store.transaction(&mut |tx| tx.put_account(&account(2, "alice")));
    assert!(taken.is_err());
    assert_eq!(read(store, |rows| rows.account(AccountId(2))), None);
    assert_eq!(read(store, |rows| rows.account_by_handle("alice")), Some(account(1, "alice")));
}

fn lists_are_bounded_ordered_and_without_the_revoked<S: DirectoryStore>(store: &mut S) {
    write(store, |tx| {
        for id in [3, 1, 2] {
            tx.put_account(&account(id, &format!("a{id}"))).unwrap();
            tx.put_device(&device(10 + id, 1)).unwrap();
        }
        tx.put_device(&device(20, 2)).unwrap();
        tx.put_device(&DeviceRow { revoked_ms: Some(1), ..device(12, 1) }).unwrap();
    });
    let ids = |rows: Vec<DeviceRow>| rows.iter().map(|row| row.id.0).collect::<Vec<_>>();
    assert_eq!(ids(read(store, |rows| rows.devices_of(AccountId(1)))), [11, 13]);
    let named = read(store, |rows| rows.accounts(&[AccountId(3), AccountId(9), AccountId(1)]));
    assert_eq!(named.iter().map(|row| row.id.0).collect::<Vec<_>>(), [3, 1]);
}

fn tokens_go_with_their_family_and_their_device<S: DirectoryStore>(store: &mut S) {
    write(store, |tx| {
        for (label, device, family) in [("a1", 1, 1), ("a2", 1, 2), ("a3", 2, 3)] {
            tx.put_access_token(&access(label, device, family, 9)).unwrap();
            tx.put_refresh_token(&refresh(label, device, family, 9)).unwrap();
        }
        tx.remove_family(FamilyId(1)).unwrap();
    });
    let left = |store: &S| {
        ["a1", "a2", "a3"].map(|label| {
            let access = read(store, |rows| rows.access_token(&token(label))).is_some();
            assert_eq!(access, read(store, |rows| rows.refresh_token(&token(label))).is_some());
            access
        })
    };
    assert_eq!(left(store), [false, true, true]);
    write(store, |tx| tx.remove_tokens_of(DeviceId(1)).unwrap());
    assert_eq!(left(store), [false, false, true]);
}

fn what_expired_goes_first_come_first_gone<S: DirectoryStore>(store: &mut S) {
    let labels = ["t5", "t3", "t9", "t4"];
    write(store, |tx| {
        for (label, expires_ms) in labels.iter().zip([5, 3, 9, 4]) {
            tx.put_access_token(&access(label, 1, 1, expires_ms)).unwrap();
            tx.put_refresh_token(&refresh(label, 1, 1, expires_ms)).unwrap();
            let key = IdempotencyRow { key: token(label), account: AccountId(1), device: DeviceId(1), expires_ms };
            tx.put_idempotency(&key).unwrap();
        }
        tx.purge(5, 2).unwrap();
    });
    let left = |store: &S| {
        labels.map(|label| {
            let there = read(store, |rows| rows.access_token(&token(label))).is_some();
            assert_eq!(there, read(store, |rows| rows.refresh_token(&token(label))).is_some());
            assert_eq!(there, read(store, |rows| rows.idempotency(&token(label))).is_some());
            there
        })
    };
    assert_eq!(left(store), [true, false, true, false]);
    write(store, |tx| tx.purge(5, 2).unwrap());
    assert_eq!(left(store), [false, false, true, false]);
}

fn the_outbox_empties_from_the_front<S: DirectoryStore>(store: &mut S) {
    let gates = [
        Gate::DeviceRevoked(DeviceId(7)),
        Gate::AccountSuspended(AccountId(8)),
        Gate::AccountRestored(AccountId(8)),
        Gate::ApplyVersion(u16::MAX),
    ];
    let rows: Vec<OutboxRow> = gates.into_iter().zip(1..).map(|(gate, number)| OutboxRow { number, gate }).collect();
    write(store, |tx| {
        for row in rows.iter().rev() {
            tx.put_outbox(row).unwrap();
        }
    });
    assert_eq!(read(store, |tx| tx.outbox(2)), rows[..2]);
    write(store, |tx| tx.remove_outbox(2).unwrap());
    assert_eq!(read(store, |tx| tx.outbox(9)), rows[2..]);
}

fn numbers_keep_all_their_bits<S: DirectoryStore>(store: &mut S) {
    let meta = Meta { applied: 1, state_hash: u64::MAX, ..Meta::default() };
    write(store, |tx| tx.put_meta(&meta).unwrap());
    assert_eq!(meta_of(store), meta);
}

/// Three founders.
fn founded() -> MemberMap {
    let store = |node: u8| (NodeId(u64::from(node)), StoreId([node; 16]));
    MemberMap::founded(&(1..=3).map(store).collect(), 6)
}

fn the_map_of_members_is_one_row<S: DirectoryStore>(store: &mut S) {
    assert_eq!(read(store, |rows| rows.members()), None, "nothing has changed since the forming");
    let first = founded().replace(NodeId(3), StoreId([9; 16]), None).unwrap();
    let second = first.add(NodeId(4), StoreId([4; 16]), "four.example:7684").unwrap();
    for map in [first, second] {
        write(store, |tx| {
            tx.put_members(&map).unwrap();
            assert_eq!(tx.members().unwrap().as_ref(), Some(&map));
        });
        assert_eq!(read(store, |rows| rows.members()), Some(map));
    }
}

/// A script of everything the directory does, run on the store and in memory side by side.
fn the_machine_says_and_keeps_the_same_as_in_memory<S: DirectoryStore>(store: &mut S) {
    let mut memory = MemoryDirectory::default();
    let mut machine = DirectoryMachine::load(&memory).unwrap();
    let mut in_memory = machine.clone();
    let actor = Actor { account: AccountId(1), device: DeviceId(1) };
    let rotate = |presented: &str, next: &str| DirectoryCommand::RotateRefresh {
        presented: token(presented),
        access: NewToken { token: token(&format!("{next} access")), lifetime_ms: 900_000 },
        refresh: NewToken { token: token(next), lifetime_ms: 86_400_000 },
    };
    let script = [
        sign_up_command("Alice", Some(token("key"))),
        sign_up_command("alice", Some(token("key"))),
        sign_up_command("ALICE", None),
        sign_up_command("bob", None),
        DirectoryCommand::AddDevice {
            account: AccountId(1),
            verified: "hash of Alice".to_owned(),
            device: NewDevice { name: "laptop".to_owned(), credentials: credentials("laptop") },
            idempotency: None,
        },
        rotate("laptop refresh", "laptop 2"),
        rotate("laptop refresh", "laptop 3"),
        rotate("laptop 2", "laptop 4"),
        DirectoryCommand::RevokeDevice { actor, device: DeviceId(3) },
        DirectoryCommand::SuspendAccount { account: AccountId(2) },
        DirectoryCommand::GateDone { number: 1 },
        DirectoryCommand::RestoreAccount { account: AccountId(2) },
        DirectoryCommand::ChangeMembers { map: founded().leave(NodeId(3)).unwrap() },
        DirectoryCommand::ChangeMembers { map: founded().leave(NodeId(2)).unwrap() },
    ];
    let (mut said, mut said_in_memory) = (Vec::new(), Vec::new());
    for (command, index) in script.iter().zip(1..) {
        let data = entry(index, 1_000 * index, command);
        store.transaction(&mut |tx| machine.apply(tx, index, &data, &mut said)).unwrap();
        in_memory.apply(&mut memory, index, &data, &mut said_in_memory).unwrap();
    }
    assert_eq!(said, said_in_memory);
    assert_eq!(machine.state_hash(), in_memory.state_hash());
    assert_eq!(meta_of(store), memory.meta().unwrap());
    for id in 0..4 {
        assert_eq!(read(store, |rows| rows.account(AccountId(id))), memory.account(AccountId(id)).unwrap());
        assert_eq!(read(store, |rows| rows.device(DeviceId(id))), memory.device(DeviceId(id)).unwrap());
        assert_eq!(read(store, |rows| rows.devices_of(AccountId(id))), memory.devices_of(AccountId(id)).unwrap());
    }
    for label in ["Alice access", "Alice refresh", "laptop refresh", "laptop 2", "laptop 3", "bob refresh"] {
        let label = token(label);
        assert_eq!(read(store, |rows| rows.access_token(&label)), memory.access_token(&label).unwrap());
        assert_eq!(read(store, |rows| rows.refresh_token(&label)), memory.refresh_token(&label).unwrap());
    }
    assert_eq!(read(store, |rows| rows.outbox(9)), memory.outbox(9).unwrap());
    assert_eq!(read(store, |rows| rows.members()), Some(founded().leave(NodeId(3)).unwrap()));
    // Not everything may have failed alike.
    let done = said.iter().filter(|effect| {
        use DirectoryOutcome::{Failed, Overtaken};
        matches!(effect, DirectoryEffect::Answer { outcome, .. } if !matches!(outcome, Failed(_) | Overtaken))
    });
    assert_eq!(done.count(), 11);
}
