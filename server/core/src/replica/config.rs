//! What a replica is told at start.

use std::ops::Range;

use raft::{Config, ReadOnlyOption};
use rove_protocol::ids::{NodeId, PartitionId};

/// The number of one replica in its group: that of its node, and above it how often the node's replica was rebuilt. Never used again
/// once the replica is gone. See [`member_of`].
pub type GroupMember = u64;

/// Bits of a [`GroupMember`] that name the node. Node ids are given by hand and small; what is left counts rebuilds.
const NODE_BITS: u32 = 32;

/// The replica of `node` after `rebuild` rebuilds; 0 for one that was made with its group. A node id of 2³² or more has none of its own:
/// the configuration refuses such ids, and here only the low half counts.
#[must_use]
pub fn member_of(node: NodeId, rebuild: u32) -> GroupMember {
    (node.0 & ((1 << NODE_BITS) - 1)) | (u64::from(rebuild) << NODE_BITS)
}

/// The node of a replica.
#[must_use]
pub fn node_of(member: GroupMember) -> NodeId {
    NodeId(member & ((1 << NODE_BITS) - 1))
}

/// How often a replica's node was rebuilt before it.
#[must_use]
pub fn rebuild_of(member: GroupMember) -> u32 {
    // What is left are 32 bits.
    u32::try_from(member >> NODE_BITS).unwrap_or(u32::MAX)
}

/// Heartbeats are sent every so many ticks: two in the shortest time that makes anybody suspicious. The transport sends a lost one again
/// within a round trip, so that more of them would make nothing safer, and nearly all of what a node costs that has nothing to do is
/// heartbeats. [`Mailing`](crate::lane::Mailing) sends those of all groups at once, in one packet.
pub(crate) const HEARTBEAT_TICKS: usize = 2;

/// Bytes of entries in one message to a peer: one full batch, so that a follower far behind is not sent a frame for each small
/// entry, and a slow link still interleaves heartbeats.
const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;

/// Messages of entries to one peer that are not acknowledged: fills a path of 100 ms at half a gigabit with full ones.
const MAX_INFLIGHT: usize = 64;

/// Bytes of entries proposed and not committed, beyond which proposals are refused: as much as all messages in flight to a peer
/// may hold at most would be 64 MiB; a quarter of it is a second of a fast disk.
const MAX_UNCOMMITTED_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of committed entries handed out at once: a replay after a restart is applied in portions whose effects fit in memory.
const MAX_COMMITTED_BYTES: u64 = 4 * 1024 * 1024;

/// Who a replica is and who else is in its group.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The partition it is a replica of.
    pub partition: PartitionId,
    /// Its number in the group. Not 0.
    pub id: GroupMember,
    /// The voters of a new group, all the same on every replica of it, and remembered from then on. Empty for a replica that joins a
    /// group that exists: it waits until a leader sends it a snapshot.
    pub voters: Vec<GroupMember>,
    /// Ticks without a leader before it stands for election: a random number in this range. In a simulation, a range of one.
    pub election_ticks: Range<usize>,
    /// Entries kept although the state has them durably, for peers that are behind. None are kept in a group of one.
    pub keep_for_peers: u64,
    /// Bytes that these may take at most, as [`ReplicaStatus::log_bytes`](super::ReplicaStatus::log_bytes) counts them.
    pub keep_bytes_for_peers: u64,
}

impl ReplicaConfig {
    /// The defaults.
    pub fn new(partition: PartitionId, id: GroupMember, voters: Vec<GroupMember>) -> Self {
        Self {
            partition,
            id,
            voters,
            // Two heartbeats and a half missed; the width is as much again, so that two replicas rarely stand at once.
            election_ticks: 5..10,
            // A follower that was away for a minute at a hundred entries a second is caught up from the log.
            keep_for_peers: 6_000,
            // The log is held in memory, and there are some of them. What does not fit is sent as a snapshot, which is no larger
            // than a few of these.
            keep_bytes_for_peers: 16 * 1024 * 1024,
        }
    }

    pub(super) fn raft(&self, applied: u64) -> Config {
        Config {
            id: self.id,
            election_tick: self.election_ticks.start,
            min_election_tick: self.election_ticks.start,
            max_election_tick: self.election_ticks.end,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            max_size_per_msg: MAX_MESSAGE_BYTES,
            max_inflight_msgs: MAX_INFLIGHT,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES,
            // A leader that cannot reach a majority steps down, and a replica that was away does not unseat a good leader.
            check_quorum: true,
            pre_vote: true,
            // The other kind believes that every node's clock runs alike.
            read_only_option: ReadOnlyOption::Safe,
            ..Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_names_its_node_however_often_it_was_rebuilt() {
        for (node, rebuild) in [(1, 0), (7, 3), (u64::from(u32::MAX), u32::MAX)] {
            assert_eq!(node_of(member_of(NodeId(node), rebuild)), NodeId(node));
            assert_eq!(rebuild_of(member_of(NodeId(node), rebuild)), rebuild);
        }
        assert_eq!(member_of(NodeId(3), 0), 3);
        assert!(member_of(NodeId(3), 1) > member_of(NodeId(u64::from(u32::MAX)), 0));
    }
}
