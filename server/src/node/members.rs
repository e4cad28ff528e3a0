//! Who the nodes of the cluster are, between the directory, the groups of the partitions, and whoever connects nodes.
//!
//! What the directory says comes out here ([`Node::members_said`]); what the groups are to follow is put in here ([`Node::follow`]),
//! by whoever has made it durable and let the nodes in first.

use std::sync::Arc;

use parking_lot::Mutex;
use rove_core::lane::Lane;
use rove_core::membership::MemberMap;
use rove_core::replica::Group;
use rove_protocol::ids::PartitionId;
use tokio::sync::watch;

use super::handle::Node;
use super::replica_thread::ReplicaThread;

/// What the node's threads and its handles share of it.
pub(super) struct SharedMembers {
    /// What the directory here says; nothing while the nodes are those of the forming.
    pub(super) said: watch::Sender<Option<Arc<MemberMap>>>,
    /// What the groups that this node leads are made to follow.
    followed: Mutex<Option<Arc<MemberMap>>>,
    /// Who is in each group, the directory's first. As of the last tick.
    groups: Mutex<Vec<Group>>,
}

impl SharedMembers {
    pub(super) fn new(said: Option<MemberMap>) -> Self {
        Self { said: watch::Sender::new(said.map(Arc::new)), followed: Mutex::default(), groups: Mutex::default() }
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

    /// Who is in the group of each partition, the directory's first, as far as this node has applied its log.
    pub fn groups(&self) -> Vec<Group> {
        self.0.shared.members.groups.lock().clone()
    }
}

impl ReplicaThread {
    /// Takes the next step of each group that is not yet what the map says. With every tick.
    pub(super) fn follow_members(&mut self) {
        let map = self.shared.members.followed.lock().clone();
        if let Some(map) = map {
            self.lanes.iter_mut().for_each(|lane| follow(lane, &map));
        }
        *self.shared.members.groups.lock() = self.lanes.iter_mut().map(|lane| lane.replica().group()).collect();
    }
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
