//! Where a conversation lives: conversation → shard → partition → nodes.
//!
//! A conversation's shard is in its id. Which partition holds a shard ([`ShardMap`]) and on which nodes a partition's replicas vote ([`Placement`])
//! stand in the map of the cluster ([`MemberMap`](crate::membership::MemberMap)), which the directory replicates: they are not worked
//! out anew by each node, so that they can change without nodes disagreeing meanwhile.
//!
//! Every node has a replica of every partition: those that do not vote follow, so that any node serves any session from its own disk, and the
//! next voter has everything already.
//!
//! A placement follows from the one before and the nodes there are now ([`Placement::next`]): each partition has as many voters as it is
//! to have, every node votes in as many partitions as the others within one, and little more moves than that asks for (it looks for a good
//! way, not for the best). Of one partition a minority moves at most, so that whoever decided before still can; where that stands against
//! it a node may keep two more than another until the next change. A placement says only what is to be; that groups become it, one step
//! after the other, is [`next_step`](crate::membership::next_step)'s work.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::{ConversationId, NodeId, PartitionId, SHARDS, ShardId};
use serde::{Deserialize, Serialize};

/// The directory's partition.
pub const DIRECTORY: PartitionId = PartitionId(0);

/// Which partition holds which shard: partition 1 the first ones, and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    /// The first shard of each partition, from partition 1 on.
    first: Vec<ShardId>,
}

impl ShardMap {
    /// The shards dealt out evenly to `partitions` (at least one).
    pub fn even(partitions: u16) -> Self {
        let (partitions, shards) = (u32::from(partitions.max(1)), u32::from(SHARDS));
        let first = (0..partitions).map(|number| ShardId(u16::try_from(number * shards / partitions).unwrap_or(0)));
        Self { first: first.collect() }
    }

    /// How many conversation partitions there are.
    pub fn partitions(&self) -> u16 {
        u16::try_from(self.first.len()).unwrap_or(u16::MAX)
    }

    /// The partition that holds a shard. Partition 0 holds none: it is the directory.
    pub fn partition_of(&self, shard: ShardId) -> PartitionId {
        let number = self.first.partition_point(|first| *first <= shard);
        PartitionId(u16::try_from(number.max(1)).unwrap_or(u16::MAX))
    }

    /// The partition that holds a conversation.
    pub fn of_conversation(&self, conversation: ConversationId) -> PartitionId {
        self.partition_of(conversation.shard())
    }

    /// Whether every shard has its partition. One that was told by somebody else need not be so.
    pub fn is_sound(&self) -> bool {
        self.first.first() == Some(&ShardId(0))
            && self.first.is_sorted()
            && self.first.iter().all(|shard| shard.0 < SHARDS)
    }
}

/// The nodes whose replicas vote in each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// By partition, the directory's first.
    nodes: Vec<BTreeSet<NodeId>>,
}

impl Placement {
    /// That of a cluster that begins with `members`.
    pub fn founded(partitions: u16, members: &BTreeSet<NodeId>, replicas: usize) -> Self {
        Self { nodes: vec![BTreeSet::new(); usize::from(partitions) + 1] }.next(members, replicas)
    }

    /// How many partitions it has nodes for, the directory among them.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes that vote in a partition.
    pub fn of(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.get(usize::from(partition.0)).into_iter().flatten().copied()
    }

    /// Whether `node` is one of them.
    pub fn has(&self, partition: PartitionId, node: NodeId) -> bool {
        self.nodes.get(usize::from(partition.0)).is_some_and(|nodes| nodes.contains(&node))
    }

    /// The placement once the nodes are `members`: in each partition `replicas` of them vote, or all if they are fewer.
    #[must_use]
    pub fn next(&self, members: &BTreeSet<NodeId>, replicas: usize) -> Self {
        let replicas = replicas.clamp(1, members.len().max(1));
        let mut plan = Plan::new(self, members);
        for partition in 0..self.nodes.len() {
            plan.shrink(partition, replicas);
        }
        while plan.fill(replicas) {}
        while plan.even_out() {}
        Self { nodes: plan.nodes }
    }
}

/// A placement on its way to the next.
struct Plan<'a> {
    before: &'a [BTreeSet<NodeId>],
    nodes: Vec<BTreeSet<NodeId>>,
    /// In how many partitions each member votes.
    loads: BTreeMap<NodeId, usize>,
}

impl<'a> Plan<'a> {
    /// What there was, without the nodes that are no members.
    fn new(before: &'a Placement, members: &BTreeSet<NodeId>) -> Self {
        let nodes: Vec<BTreeSet<NodeId>> = before.nodes.iter().map(|nodes| nodes & members).collect();
        // Without the directory: who votes in it is no load.
        let load = |node: &NodeId| (*node, nodes.iter().skip(1).filter(|nodes| nodes.contains(node)).count());
        let loads = members.iter().map(load).collect();
        Self { before: &before.nodes, nodes, loads }
    }

    fn add(&mut self, partition: usize, node: NodeId) {
        if self.nodes[partition].insert(node) && partition > 0 {
            *self.loads.entry(node).or_default() += 1;
        }
    }

    fn remove(&mut self, partition: usize, node: NodeId) {
        if self.nodes[partition].remove(&node) && partition > 0 {
            *self.loads.entry(node).or_default() -= 1;
        }
    }

    /// Whether another node of a partition may go without those that decided before losing their majority.
    fn may_lose(&self, partition: usize) -> bool {
        let before = &self.before[partition];
        let kept = self.nodes[partition].intersection(before).count();
        before.is_empty() || kept > before.len() / 2 + 1
    }

    /// Takes votes from a partition that has too many, from the nodes that have most.
    fn shrink(&mut self, partition: usize, replicas: usize) {
        while self.nodes[partition].len() > replicas {
            let fullest = self.nodes[partition].iter().copied().max_by_key(|node| (self.loads[node], *node));
            let Some(fullest) = fullest else { return };
            self.remove(partition, fullest);
        }
    }

    /// Gives a vote in a partition that has too few to the node that has least; of several to that which finds others only among those that
    /// have most. False if none has too few.
    fn fill(&mut self, replicas: usize) -> bool {
        /// What a node has, and what the others have that could be taken instead.
        type Rank = (usize, Reverse<Vec<usize>>);
        let mut best: Option<(Rank, usize, NodeId)> = None;
        for (partition, nodes) in self.nodes.iter().enumerate().filter(|(_, nodes)| nodes.len() < replicas) {
            let mut others: Vec<(usize, NodeId)> = self
                .loads
                .iter()
                .filter(|(node, _)| !nodes.contains(node))
                .map(|(node, load)| (*load, *node))
                .collect();
            others.sort_unstable();
            let Some((load, node)) = others.first().copied() else { continue };
            let rank = (load, Reverse(others.into_iter().skip(1).map(|(load, _)| load).collect()));
            if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
                best = Some((rank, partition, node));
            }
        }
        let Some((_, partition, node)) = best else { return false };
        self.add(partition, node);
        true
    }

    /// Moves one vote from a node that has at least two more than another: if there is one, one that has not been there before, as
    /// that moves nothing. False if nobody has so much more, or nothing can move.
    fn even_out(&mut self) -> bool {
        let new = |plan: &Self, partition: usize, from: NodeId| !plan.before[partition].contains(&from);
        let found = self.movable(new).or_else(|| self.movable(|plan, partition, _| plan.may_lose(partition)));
        let Some((partition, from, to)) = found else { return false };
        self.remove(partition, from);
        self.add(partition, to);
        true
    }

    fn movable(&self, may: impl Fn(&Self, usize, NodeId) -> bool) -> Option<(usize, NodeId, NodeId)> {
        let mut by_load: Vec<(usize, NodeId)> = self.loads.iter().map(|(node, load)| (*load, *node)).collect();
        by_load.sort_unstable();
        by_load.iter().rev().find_map(|(most, from)| {
            by_load.iter().take_while(|(least, _)| least + 2 <= *most).find_map(|(_, to)| {
                let moves = |partition: &usize| {
                    let nodes = &self.nodes[*partition];
                    nodes.contains(from) && !nodes.contains(to) && may(self, *partition, *from)
                };
                (1..self.nodes.len()).find(moves).map(|partition| (partition, *from, *to))
            })
        })
    }
}
