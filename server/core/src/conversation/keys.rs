//! The keys of a partition's state: `partition (2) | table (1) | …`, everything big endian and of fixed length, so that
//! the order of keys is the order of things.

use rove_protocol::ids::{AccountId, ConversationId, PartitionId, Seq, WriterId};

use crate::command::Gate;

/// Tables, in the order of their keys. On disk: never renumbered.
mod table {
    pub(super) const PARTITION: u8 = 1;
    pub(super) const CONVERSATION: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const MEMBERSHIP: u8 = 4;
    pub(super) const WRITER: u8 = 5;
    pub(super) const WRITER_PAGE: u8 = 6;
    pub(super) const EVENT: u8 = 7;
    pub(super) const GATE: u8 = 8;
}

/// `partition | table | parts…` in one allocation.
fn key(partition: PartitionId, table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Every key of a partition: `[from, to)`. Partition 65,535 does not exist, so there is always a next one.
pub fn partition_range(partition: PartitionId) -> (Vec<u8>, Vec<u8>) {
    (partition.0.to_be_bytes().to_vec(), partition.0.saturating_add(1).to_be_bytes().to_vec())
}

/// The one row about the partition itself. A store reads it back from flushed data to learn what is durable.
pub fn partition(partition: PartitionId) -> Vec<u8> {
    key(partition, table::PARTITION, &[])
}

pub(crate) fn conversation(partition: PartitionId, id: ConversationId) -> Vec<u8> {
    key(partition, table::CONVERSATION, &[&id.0])
}

pub(crate) fn member(partition: PartitionId, id: ConversationId, account: AccountId) -> Vec<u8> {
    key(partition, table::MEMBER, &[&id.0, &account.0.to_be_bytes()])
}

/// The end of a conversation's members: no account has this number.
pub(crate) fn members_end(partition: PartitionId, id: ConversationId) -> Vec<u8> {
    key(partition, table::MEMBER, &[&id.0, &u64::MAX.to_be_bytes()])
}

pub(crate) fn membership(partition: PartitionId, account: AccountId, id: ConversationId) -> Vec<u8> {
    key(partition, table::MEMBERSHIP, &[&account.0.to_be_bytes(), &id.0])
}

/// The memberships of one account: `[from, to)`.
pub(crate) fn membership_range(partition: PartitionId, account: AccountId) -> (Vec<u8>, Vec<u8>) {
    let from = key(partition, table::MEMBERSHIP, &[&account.0.to_be_bytes()]);
    let to = match account.0.checked_add(1) {
        Some(next) => key(partition, table::MEMBERSHIP, &[&next.to_be_bytes()]),
        None => key(partition, table::MEMBERSHIP + 1, &[]),
    };
    (from, to)
}

pub(crate) fn writer(partition: PartitionId, id: ConversationId, writer: WriterId) -> Vec<u8> {
    key(partition, table::WRITER, &[&id.0, &writer.0])
}

pub(crate) fn writer_page(partition: PartitionId, id: ConversationId, writer: WriterId, page: u64) -> Vec<u8> {
    key(partition, table::WRITER_PAGE, &[&id.0, &writer.0, &page.to_be_bytes()])
}

pub(crate) fn event(partition: PartitionId, id: ConversationId, seq: Seq) -> Vec<u8> {
    key(partition, table::EVENT, &[&id.0, &seq.0.to_be_bytes()])
}

/// What a gate is about: the kind of thing, then its number.
pub(crate) type GateSubject = (u8, u64);

pub(crate) fn gate(partition: PartitionId, (kind, number): GateSubject) -> Vec<u8> {
    key(partition, table::GATE, &[&[kind], &number.to_be_bytes()])
}

/// The subject of a gate, and whether it is shut out; nothing if it is about nobody.
pub(crate) fn gate_subject(gate: &Gate) -> Option<(GateSubject, bool)> {
    match gate {
        Gate::DeviceRevoked(device) => Some(((GATE_DEVICE, device.0), true)),
        Gate::AccountSuspended(account) => Some(((GATE_ACCOUNT, account.0), true)),
        Gate::AccountRestored(account) => Some(((GATE_ACCOUNT, account.0), false)),
        Gate::ApplyVersion(_) => None,
    }
}

/// Gates about devices. On disk.
pub(crate) const GATE_DEVICE: u8 = 1;
/// Gates about accounts. On disk.
pub(crate) const GATE_ACCOUNT: u8 = 2;

/// The account in the key of a member, the last eight bytes.
pub(crate) fn account_of_member(key: &[u8]) -> Option<AccountId> {
    key.last_chunk::<8>().map(|bytes| AccountId(u64::from_be_bytes(*bytes)))
}

/// The conversation in the key of a membership, the last sixteen bytes.
pub(crate) fn conversation_of_membership(key: &[u8]) -> Option<ConversationId> {
    key.last_chunk::<16>().map(|bytes| ConversationId(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_sort_by_conversation_then_seq() {
        let key = |id, seq| event(PartitionId(1), ConversationId([id; 16]), Seq(seq));
        assert!(key(1, 9) < key(1, 10) && key(1, 256) < key(2, 1));
        assert_eq!(key(1, 9).len(), 27);
    }

    #[test]
    fn a_partition_is_one_range_of_keys() {
        let (from, to) = partition_range(PartitionId(0x00ff));
        for key in [
            partition(PartitionId(0x00ff)),
            gate(PartitionId(0x00ff), (GATE_ACCOUNT, u64::MAX)),
            event(PartitionId(0x00ff), ConversationId([0xff; 16]), Seq(u64::MAX)),
        ] {
            assert!(from <= key && key < to);
        }
        assert!(partition(PartitionId(0x0100)) >= to && partition(PartitionId(0x00fe)) < from);
    }

    #[test]
    fn ids_read_back_from_keys() {
        let (id, account) = (ConversationId([7; 16]), AccountId(300));
        assert_eq!(account_of_member(&member(PartitionId(1), id, account)), Some(account));
        assert_eq!(conversation_of_membership(&membership(PartitionId(1), account, id)), Some(id));
        assert_eq!(account_of_member(&[1, 2]), None);
        let (from, to) = membership_range(PartitionId(1), AccountId(u64::MAX));
        let key = membership(PartitionId(1), AccountId(u64::MAX), ConversationId([0xff; 16]));
        assert!(from <= key && key < to);
    }
}
