//! Whose presence an account may be told (S17): of those it shares a conversation with.

use std::collections::BTreeSet;

use rove_core::conversation::{ReadError, read};
use rove_core::store::StateRead;
use rove_protocol::ids::{AccountId, ConversationId, PartitionId};
use rove_protocol::registry::{ConversationKind, ErrorCode};

use super::control;
use super::session::Session;

/// Rows one check may read, a tenth of a second of them. Accounts that are not found by then look offline.
const ROWS: usize = 20_000;
/// Members of a group up to which all are read at once; of a larger one each wanted account is looked up.
const SMALL_GROUP: u32 = 64;

/// Those of `wanted` that the session's account shares a conversation with now.
pub(super) async fn shares_conversation(
    session: &Session,
    wanted: BTreeSet<AccountId>,
) -> Result<BTreeSet<AccountId>, ErrorCode> {
    let (account, partitions) = (session.account(), session.edge.node.partitions());
    let node = session.edge.node.clone();
    let place = move |id| node.partition_of(id);
    let read = session.edge.node.read(move |state| shared(state, partitions, &place, account, wanted));
    control::state(read.await)
}

/// Direct conversations first, as their ids are known; then the groups the account is in.
fn shared(
    store: &impl StateRead,
    partitions: u16,
    place: &impl Fn(ConversationId) -> PartitionId,
    account: AccountId,
    mut wanted: BTreeSet<AccountId>,
) -> Result<BTreeSet<AccountId>, ReadError> {
    let mut found = BTreeSet::new();
    let is_member = |id, who| -> Result<bool, ReadError> {
        Ok(read::member(store, place(id), id, who)?.is_some_and(|row| row.is_member()))
    };
    for other in &wanted {
        if *other == account || is_member(ConversationId::direct(account, *other), account)? {
            found.insert(*other);
        }
    }
    wanted.retain(|other| !found.contains(other));
    let mut budget = ROWS;
    for partition in (1..=partitions).map(PartitionId) {
        if wanted.is_empty() || budget == 0 {
            break;
        }
        let mut ids = Vec::new();
        read::memberships(store, partition, account, &mut |id| {
            ids.push(id);
            ids.len() < budget
        })?;
        for id in ids {
            let rows = wanted.len() + 2;
            if wanted.is_empty() || budget < rows {
                budget = if wanted.is_empty() { budget } else { 0 };
                break;
            }
            budget -= rows;
            let Some(row) = read::conversation(store, partition, id)? else { continue };
            if row.kind == ConversationKind::Direct || !is_member(id, account)? {
                continue;
            }
            let here: Vec<AccountId> = if row.member_count <= SMALL_GROUP {
                let members = read::members(store, partition, id, AccountId(0), SMALL_GROUP as usize)?;
                members.into_iter().map(|(member, _)| member).filter(|member| wanted.contains(member)).collect()
            } else {
                let mut here = Vec::new();
                for other in &wanted {
                    if is_member(id, *other)? {
                        here.push(*other);
                    }
                }
                here
            };
            for other in here {
                wanted.remove(&other);
                found.insert(other);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rove_core::command::{Actor, Batch, ConversationCommand, Envelope, Origin};
    use rove_core::conversation::PartitionMachine;
    use rove_core::store::{MemoryStore, StateStore as _};
    use rove_protocol::ids::DeviceId;
    use rove_protocol::registry::Role;

    use super::*;

    const ALICE: AccountId = AccountId(1);

    /// All in partition 1 of one.
    fn store(commands: &[ConversationCommand]) -> MemoryStore {
        let store = MemoryStore::default();
        let mut machine = PartitionMachine::load(&store, PartitionId(1)).unwrap();
        let envelope =
            |command: &ConversationCommand| Envelope { origin: Origin::NOBODY, command: command.encode().into() };
        let batch = Batch { time_ms: 1, commands: commands.iter().map(envelope).collect() };
        machine.apply(&store, 1, &batch.encode(), &mut Vec::new()).unwrap();
        store.write(&machine.take_batch()).unwrap();
        store
    }

    fn actor() -> Actor {
        Actor { account: ALICE, device: DeviceId(1) }
    }

    fn check(store: &MemoryStore, account: AccountId, wanted: &[u64]) -> Vec<u64> {
        let wanted = wanted.iter().map(|id| AccountId(*id)).collect();
        let found = shared(store, 1, &|_| PartitionId(1), account, wanted).unwrap();
        found.into_iter().map(|account| account.0).collect()
    }

    #[test]
    fn one_is_told_of_those_one_shares_a_conversation_with_and_of_nobody_else() {
        let store = store(&[
            ConversationCommand::CreateDirect { actor: actor(), peer: AccountId(2) },
            ConversationCommand::CreateGroup {
                actor: actor(),
                nonce: [1; 16],
                title: "group".to_owned(),
                members: vec![(AccountId(3), Role::Member), (AccountId(4), Role::Member)],
            },
            ConversationCommand::ChangeMembers {
                actor: actor(),
                conversation: ConversationId::group(ALICE, [1; 16]),
                changes: BTreeMap::from([(AccountId(4), Role::None)]).into_iter().collect(),
            },
        ]);
        assert_eq!(check(&store, ALICE, &[2, 3, 4, 5]), [2, 3]);
        assert_eq!(check(&store, AccountId(3), &[1, 2, 4]), [1]);
        assert_eq!(check(&store, AccountId(4), &[1, 3]), [0u64; 0], "taken out");
        assert_eq!(check(&store, AccountId(9), &[1, 2, 3]), [0u64; 0]);
    }
}
