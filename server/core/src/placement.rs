//! Where a conversation lives: shard → partition → nodes.
//!
//! The shard is part of the conversation's id and never changes. Which partition holds a shard is arithmetic for now; it
//! becomes a replicated map when partitions can be split, and nothing but this file will know.

use rove_protocol::ids::{ConversationId, PartitionId, ShardId};

/// The partition of accounts, devices and tokens. Conversations live in the others.
pub const DIRECTORY: PartitionId = PartitionId(0);

/// Conversation partitions of a new cluster: enough that three nodes lead two each, few enough that every round still
/// has something of each to write in one sync.
pub const DEFAULT_PARTITIONS: u16 = 6;

/// The partition that holds `shard` in a cluster with `partitions` conversation partitions (at least one).
#[must_use]
pub const fn partition_of(shard: ShardId, partitions: u16) -> PartitionId {
    let partitions = if partitions == 0 { 1 } else { partitions };
    PartitionId(1 + shard.0 % partitions)
}

/// The partition that holds `conversation`.
#[must_use]
pub const fn partition_of_conversation(conversation: ConversationId, partitions: u16) -> PartitionId {
    partition_of(conversation.shard(), partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rove_protocol::ids::SHARDS;

    #[test]
    fn every_shard_has_a_conversation_partition_and_the_shards_spread_evenly() {
        for partitions in [1, 2, 6, 7, 4_096] {
            let mut count = vec![0u32; usize::from(partitions) + 1];
            for shard in 0..SHARDS {
                count[usize::from(partition_of(ShardId(shard), partitions).0)] += 1;
            }
            assert_eq!(count[0], 0, "the directory holds no shard");
            let (least, most) = (count[1..].iter().min().unwrap(), count[1..].iter().max().unwrap());
            assert!(most - least <= 1);
        }
    }
}
