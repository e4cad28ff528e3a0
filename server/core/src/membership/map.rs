//! The map of a cluster's nodes, and the changes that can be made to it.

use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::{NodeId, PartitionId};
use serde::{Deserialize, Serialize};

use crate::formation::StoreId;
use crate::placement::{Placement, ShardMap};
use crate::replica::{GroupMember, member_of, node_of, rebuild_of};
use crate::versioned::{self, VersionedError};

/// Nodes that a cluster may have: each leader sends every entry to all of them.
pub const MEMBERS: usize = 9;
/// Replicas of a partition that vote, in clusters founded from now on: any one machine may be lost, and a post waits for one other disk, however
/// many nodes there are.
pub const REPLICAS: u8 = 3;
/// Nodes that the map remembers, those that were removed among them: their numbers must not come back. Each takes some 30 bytes of
/// what nodes tell each other on every connection.
pub const NODES: usize = 32;
/// Bytes of an address: a DNS name, a colon and a port.
pub const ADDRESS_BYTES: usize = 259;

/// Whether a node belongs to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It holds replicas of the directory and of all partitions, or is about to.
    Member,
    /// Its replicas are taken out of their groups.
    Leaving,
    /// It was taken out, and is not talked to.
    Removed,
}

/// A node of the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its data directory.
    pub store: StoreId,
    /// How often its replicas were rebuilt; 0 for a node that the cluster was formed with. Only rises.
    pub rebuild: u32,
    /// `host:port` at which the other nodes reach it; empty where each has it in its configuration.
    pub address: String,
    /// Whether it belongs to the cluster.
    pub standing: Standing,
}

/// Who the nodes of a cluster are. See the [module](super).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberMap {
    /// 0 as the cluster was formed; each change is the next.
    pub version: u64,
    /// The nodes, those that were removed too.
    pub nodes: BTreeMap<NodeId, Member>,
    /// Those that the cluster was formed with: the replicas of its first placement began with each other, all others are taken in.
    pub founders: BTreeSet<NodeId>,
    /// Which partition holds which shard.
    pub shards: ShardMap,
    /// How many replicas of each partition are to vote.
    pub replicas: u8,
    /// On which nodes.
    pub placement: Placement,
}

/// Why a change cannot be made. Says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such node.
    #[error(
        "node {node} is not a member of the cluster, which has nodes {known}; a new node is taken in with `rove-server cluster add {node}`"
    )]
    NotMember {
        /// Which was named.
        node: NodeId,
        /// Those there are.
        known: String,
    },
    /// It is there already.
    #[error(
        "node {0} is a member of the cluster already; if it has lost its data directory: `rove-server cluster replace {0}`"
    )]
    Member(NodeId),
    /// It is being removed.
    #[error("node {0} is being removed; wait until `rove-server cluster remove {0}` is done")]
    Leaving(NodeId),
    /// The data directory is the one it has.
    #[error("node {0} has the data directory that it always had: there is nothing to replace")]
    SameStore(NodeId),
    /// The data directory is another node's.
    #[error("the data directory of node {node} is that of node {owner}; give each node its own")]
    OtherNodes {
        /// Which node was named.
        node: NodeId,
        /// Whose directory it is.
        owner: NodeId,
    },
    /// The last one stays.
    #[error("node {0} is the only member of the cluster: add another first")]
    Last(NodeId),
    /// There are too many.
    #[error("the cluster has {0} nodes, which is the most there may be; remove one first")]
    Full(usize),
    /// There were too many.
    #[error(
        "the cluster remembers {0} nodes, those that were removed among them, which is the most there may be: give the new node the \
         number of one that was removed"
    )]
    NoNumber(usize),
    /// The address is too long, or none.
    #[error("{0:?} is no address at which nodes reach each other; give host:port with --address")]
    Address(String),
}

/// The version that a map begins with on disk.
const VERSION: u8 = 2;

impl MemberMap {
    /// The bytes of a row.
    pub fn encode(&self) -> Vec<u8> {
        versioned::encode(VERSION, self)
    }

    /// Reads what [`MemberMap::encode`] wrote.
    ///
    /// # Errors
    /// [`VersionedError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, VersionedError> {
        versioned::decode(VERSION, bytes)
    }

    /// The map of a cluster that was just formed, with so many conversation partitions.
    pub fn founded(stores: &BTreeMap<NodeId, StoreId>, partitions: u16) -> Self {
        let founder =
            |store: &StoreId| Member { store: *store, rebuild: 0, address: String::new(), standing: Standing::Member };
        let founders: BTreeSet<NodeId> = stores.keys().copied().collect();
        Self {
            version: 0,
            nodes: stores.iter().map(|(node, store)| (*node, founder(store))).collect(),
            shards: ShardMap::even(partitions),
            replicas: REPLICAS,
            placement: first_placement(partitions, &founders, REPLICAS),
            founders,
        }
    }

    /// Where the partitions were when the cluster was formed.
    pub fn first_placement(&self) -> Placement {
        first_placement(self.shards.partitions(), &self.founders, self.replicas)
    }

    /// A node that belongs to the cluster, or still does.
    pub fn present(&self, node: NodeId) -> Option<&Member> {
        self.nodes.get(&node).filter(|member| member.standing != Standing::Removed)
    }

    /// The nodes that belong to the cluster, or still do.
    pub fn all_present(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.nodes.iter().map(|(node, member)| (*node, member)).filter(|(node, _)| self.present(*node).is_some())
    }

    /// The nodes that belong to it and stay.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().filter(|(_, member)| member.standing == Standing::Member).map(|(node, _)| *node)
    }

    /// The replicas that are to vote in a partition's group.
    pub fn wanted(&self, partition: PartitionId) -> impl Iterator<Item = GroupMember> + '_ {
        self.placement.of(partition).filter_map(|node| self.replica_of(node))
    }

    /// The replicas that are to have everything of a partition and not to vote: those of all other members.
    pub fn learners(&self, partition: PartitionId) -> impl Iterator<Item = GroupMember> + '_ {
        let others = self.members().filter(move |node| !self.placement.has(partition, *node));
        others.filter_map(|node| self.replica_of(node))
    }

    fn replica_of(&self, node: NodeId) -> Option<GroupMember> {
        Some(member_of(node, self.nodes.get(&node)?.rebuild))
    }

    /// Whether a replica is to go, by this map and every later one.
    pub fn is_obsolete(&self, replica: GroupMember) -> bool {
        self.nodes.get(&node_of(replica)).is_some_and(|member| {
            rebuild_of(replica) < member.rebuild
                || (rebuild_of(replica) == member.rebuild && member.standing != Standing::Member)
        })
    }

    /// The map with a new node, or one that was removed before, with an empty data directory.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn add(&self, node: NodeId, store: StoreId, address: &str) -> Result<Self, ChangeError> {
        // No number of a replica is ever given out twice; 0 is for those that the cluster was formed with.
        let rebuild = match self.nodes.get(&node) {
            Some(Member { standing: Standing::Member, .. }) => return Err(ChangeError::Member(node)),
            Some(Member { standing: Standing::Leaving, .. }) => return Err(ChangeError::Leaving(node)),
            Some(removed) => removed.rebuild + 1,
            None => 1,
        };
        if self.members().count() >= MEMBERS {
            return Err(ChangeError::Full(MEMBERS));
        }
        if address.is_empty() || address.len() > ADDRESS_BYTES {
            return Err(ChangeError::Address(address.to_owned()));
        }
        self.with(node, Member { store, rebuild, address: address.to_owned(), standing: Standing::Member })
    }

    /// The map with an empty data directory for a node that has lost its own, at another address if one is given.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn replace(&self, node: NodeId, store: StoreId, address: Option<&str>) -> Result<Self, ChangeError> {
        let old = self.present(node).ok_or_else(|| self.not_member(node))?;
        if old.standing == Standing::Leaving {
            return Err(ChangeError::Leaving(node));
        }
        if old.store == store {
            return Err(ChangeError::SameStore(node));
        }
        let address = address.unwrap_or(&old.address);
        if address.len() > ADDRESS_BYTES {
            return Err(ChangeError::Address(address.to_owned()));
        }
        let (rebuild, address) = (old.rebuild + 1, address.to_owned());
        self.with(node, Member { store, rebuild, address, standing: Standing::Member })
    }

    /// The map with a node on its way out.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn leave(&self, node: NodeId) -> Result<Self, ChangeError> {
        let member = self.present(node).ok_or_else(|| self.not_member(node))?;
        if member.standing == Standing::Leaving {
            return Err(ChangeError::Leaving(node));
        }
        if self.members().count() <= 1 {
            return Err(ChangeError::Last(node));
        }
        self.with(node, Member { standing: Standing::Leaving, ..member.clone() })
    }

    /// The map without the nodes on their way out: their replicas are in no group any more. Nothing if there are none.
    pub fn without_leaving(&self) -> Option<Self> {
        let mut next = Self { version: self.version + 1, ..self.clone() };
        let mut any = false;
        for member in next.nodes.values_mut().filter(|member| member.standing == Standing::Leaving) {
            member.standing = Standing::Removed;
            member.address.clear();
            any = true;
        }
        any.then_some(next)
    }

    /// That there is no such node, and which there are.
    pub fn not_member(&self, node: NodeId) -> ChangeError {
        let known: Vec<_> = self.members().map(|node| node.to_string()).collect();
        ChangeError::NotMember { node, known: known.join(", ") }
    }

    fn with(&self, node: NodeId, member: Member) -> Result<Self, ChangeError> {
        let owner = self.nodes.iter().find(|(other, theirs)| **other != node && theirs.store == member.store);
        if let Some((owner, _)) = owner {
            return Err(ChangeError::OtherNodes { node, owner: *owner });
        }
        let mut nodes = self.nodes.clone();
        nodes.insert(node, member);
        if nodes.len() > NODES {
            return Err(ChangeError::NoNumber(NODES));
        }
        let mut next = Self { version: self.version + 1, nodes, ..self.clone() };
        next.placement = self.placement.next(&next.members().collect(), usize::from(self.replicas));
        Ok(next)
    }

    /// Whether this map may take the place of `before`, the one that the directory has, if it has one. Looked at where it is applied:
    /// whatever proposed it, no node is forgotten and no number goes back.
    pub fn may_follow(&self, before: Option<&Self>) -> bool {
        let sound = self.version == before.map_or(0, |map| map.version) + 1
            && self.nodes.len() <= NODES
            && (1..=MEMBERS).contains(&self.members().count())
            && self.nodes.values().all(|member| member.address.len() <= ADDRESS_BYTES)
            && self.is_placed();
        let kept = |(node, old): (&NodeId, &Member)| {
            self.nodes.get(node).is_some_and(|new| {
                let rebuilt = new.rebuild > old.rebuild;
                // With its number a node keeps its directory, and leaves only.
                let same = new.rebuild == old.rebuild && new.store == old.store;
                rebuilt || (same && new.standing as u8 >= old.standing as u8)
            })
        };
        // Conversations do not move.
        let same = |before: &Self| before.shards == self.shards && before.founders == self.founders;
        sound && before.is_none_or(|before| same(before) && before.nodes.iter().all(kept))
    }

    /// Whether every partition is held by members, and by as many as it is to be.
    fn is_placed(&self) -> bool {
        let members: BTreeSet<NodeId> = self.members().collect();
        let replicas = usize::from(self.replicas).min(members.len());
        let held = |partition: u16| {
            let partition = PartitionId(partition);
            self.placement.of(partition).count() == replicas
                && self.placement.of(partition).all(|node| members.contains(&node))
        };
        self.shards.is_sound()
            && self.placement.len() == usize::from(self.shards.partitions()) + 1
            && (0..=self.shards.partitions()).all(held)
    }
}

fn first_placement(partitions: u16, founders: &BTreeSet<NodeId>, replicas: u8) -> Placement {
    Placement::founded(partitions, founders, usize::from(replicas))
}
