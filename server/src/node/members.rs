//! Who the nodes of the cluster are, between the directory, the groups of the partitions, and whoever connects nodes.
//!
//! What the directory says comes out here ([`Node::members_said`]); what the groups are to follow is put in here ([`Node::follow`]),
//! by whoever has made it durable and let the nodes in first.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rove_core::lane::Lane;
use rove_core::membership::MemberMap;
use rove_core::replica::{Group, Membership};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::watch;

use super::handle::{DIRECTORY, Node, Shared};
use super::replica_thread::ReplicaThread;

/// What the node's threads and its handles share of it.
pub(super) struct SharedMembers {
    /// What the directory here says; nothing while the nodes are those of the forming.
    pub(super) said: watch::Sender<Option<Arc<MemberMap>>>,
    /// What the groups that this node leads are made to follow.
    followed: Mutex<Option<Arc<MemberMap>>>,
    /// The partitions as they are on this node, the directory's first. As of the last tick.
    standings: Mutex<Vec<Standing>>,
    /// What the leaders of groups said of them, on other nodes.
    heard: Mutex<BTreeMap<PartitionId, LedGroup>>,
}

/// How a partition stands on this node.
#[derive(Clone, Default)]
struct Standing {
    /// Its group, as far as its log is applied here.
    group: Group,
    /// The node has a replica of it, or is to have one.
    held: bool,
    /// The replica can be read and posted through: it is where it is to be, and one of the group.
    here: bool,
}

/// The group of a partition, as its leader has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedGroup {
    /// Who leads.
    pub leader: NodeId,
    /// In which term.
    pub term: u64,
    /// Who is in it.
    pub group: Group,
}

impl SharedMembers {
    pub(super) fn new(said: Option<MemberMap>) -> Self {
        Self {
            said: watch::Sender::new(said.map(Arc::new)),
            followed: Mutex::default(),
            standings: Mutex::default(),
            heard: Mutex::default(),
        }
    }
}

impl Node {
    /// Who the nodes are, as the directory here has it, and every change.
    pub fn members_said(&self) -> watch::Receiver<Option<Arc<MemberMap>>> {
        self.0.shared.members.said.subscribe()
    }

    /// From now on the groups that this node leads are made what `map` says.
    pub fn follow(&self, map: Arc<MemberMap>) {
        *self.0.shared.members.followed.lock() = Some(map);
    }

    /// Who is in the group of each partition, the directory's first: as far as this node has applied its log, or as its leader has said.
    /// Nothing before the first tick.
    pub fn groups(&self) -> Vec<Group> {
        let members = &self.0.shared.members;
        let heard = members.heard.lock();
        let known = |(standing, partition): (&Standing, u16)| match heard.get(&PartitionId(partition)) {
            Some(led) if !standing.here => led.group.clone(),
            _ => standing.group.clone(),
        };
        members.standings.lock().iter().zip(0..).map(known).collect()
    }

    /// The groups that this node leads.
    pub fn led_groups(&self) -> Vec<(PartitionId, LedGroup)> {
        let stats = self.partition_stats();
        let standings = self.0.shared.members.standings.lock();
        let leads = stats.iter().zip(standings.iter()).filter(|(replica, _)| replica.leader == Some(self.id()));
        let led = leads.map(|(replica, standing)| {
            (replica.partition, LedGroup { leader: self.id(), term: replica.term, group: standing.group.clone() })
        });
        led.collect()
    }

    /// The leader of a group that this node may have no replica of has said who is in it.
    pub fn group_heard(&self, partition: PartitionId, led: LedGroup) {
        if partition.0 > self.partitions() {
            return;
        }
        let mut heard = self.0.shared.members.heard.lock();
        // One that has lost the leadership may say so a moment later than its successor.
        if heard.get(&partition).is_none_or(|before| before.term <= led.term) {
            heard.insert(partition, led);
        }
    }

    /// Whether `partition` can be read and posted through here. Otherwise [`Node::holders`] can.
    pub fn is_here(&self, partition: PartitionId) -> bool {
        self.0.shared.members.is_here(partition)
    }

    /// The other nodes that hold `partition`: its leader first, if it is known.
    pub fn holders(&self, partition: PartitionId) -> Vec<NodeId> {
        let leader = self.leader_anywhere(partition);
        let followed = self.0.shared.members.followed.lock();
        let placed = followed.iter().flat_map(|map| map.placement.of(partition));
        let others = placed.filter(|node| Some(*node) != leader);
        leader.into_iter().chain(others).filter(|node| *node != self.id()).collect()
    }

    /// Who leads `partition`, as its replica here knows, or else as the leader itself has said.
    pub fn leader_anywhere(&self, partition: PartitionId) -> Option<NodeId> {
        let heard = || self.0.shared.members.heard.lock().get(&partition).map(|led| led.leader);
        if self.0.shared.members.is_here(partition) { self.leader(partition) } else { heard() }
    }
}

impl SharedMembers {
    /// Whether the replica of a partition can be read and posted through. Before anything else is known it is.
    pub(super) fn is_here(&self, partition: PartitionId) -> bool {
        self.standings.lock().get(usize::from(partition.0)).is_none_or(|standing| standing.here)
    }

    /// Whether this node has a replica of a partition, or is to have one.
    pub(super) fn is_held(&self, partition: PartitionId) -> bool {
        self.standings.lock().get(usize::from(partition.0)).is_none_or(|standing| standing.held)
    }
}

impl Shared {
    /// The partitions that can be read and posted through here.
    pub(super) fn here(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let all = self.doors.iter().zip(0..).map(|(_, partition)| PartitionId(partition));
        all.filter(|partition| self.members.is_here(*partition))
    }
}

impl ReplicaThread {
    /// Takes the next step of each group that is not yet what the map says. With every tick.
    pub(super) fn follow_members(&mut self) {
        let map = self.shared.members.followed.lock().clone();
        if let Some(map) = &map {
            self.lanes.iter_mut().for_each(|lane| follow(lane, map));
        }
        let me = self.shared.id;
        let standings = self.lanes.iter_mut().map(|lane| standing(lane, map.as_deref(), me)).collect();
        *self.shared.members.standings.lock() = standings;
    }
}

fn standing(lane: &mut Lane, map: Option<&MemberMap>, me: NodeId) -> Standing {
    let (partition, status) = (lane.partition(), lane.status());
    let placed = map.is_none_or(|map| map.places(partition, me));
    let takes_part = match status.membership {
        Membership::Voter => true,
        // Of the directory that is all that some nodes ever are.
        Membership::Learner => partition == DIRECTORY,
        Membership::Joining | Membership::Removed => false,
    };
    // One that is taken out need not hear of it: it is left without a leader.
    let held = placed || (takes_part && status.leader.is_some());
    Standing { group: lane.replica().group(), held, here: placed && takes_part }
}

fn follow(lane: &mut Lane, map: &MemberMap) {
    let partition: PartitionId = lane.partition();
    match lane.follow(map) {
        Ok(None) => {}
        Ok(Some(step)) => tracing::info!(%partition, ?step, "the group follows the map of members"),
        // It is tried again with the next tick.
        Err(error) => tracing::debug!(%partition, %error, "a change of the group has to wait"),
    }
}
