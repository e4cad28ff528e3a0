//! Nodes that lose their disks, and the map of members that says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use rove_core::formation::StoreId;
use rove_core::membership::MemberMap;
use rove_protocol::ids::NodeId;

use super::{Happening, World};
use crate::bugs::Bug;
use crate::disk::Crash;
use crate::faults::Fault;
use crate::node::NODES;

/// How long the news of a map takes to each node, at most.
const TOLD_US: u64 = 500_000;

fn store(node: NodeId, rebuild: u32) -> StoreId {
    StoreId(((u128::from(node.0) << 32) | u128::from(rebuild)).to_be_bytes())
}

/// The map of the cluster as it was formed.
pub(super) fn founded(partitions: u16) -> Arc<MemberMap> {
    let stores: BTreeMap<NodeId, StoreId> = NODES.iter().map(|node| (*node, store(*node, 0))).collect();
    Arc::new(MemberMap::founded(&stores, partitions))
}

impl World {
    /// A node loses its disk, if no other one is lost or not yet replaced: the two others have everything.
    pub(super) fn replace(&mut self, id: NodeId) {
        let sound = self.nodes.iter().all(|node| node.is_running() && !node.disk.is_rotten());
        if !sound || self.replacing {
            return;
        }
        self.crash(id, Crash::Kill, false);
        let bug = self.options.bug;
        let node = self.node(id);
        node.lose_disk(bug);
        let rebuild = node.rebuild;
        self.restart_later(id);
        if bug == Some(Bug::RebuiltUnderOldNumber) {
            return;
        }
        // Refused only for a store that is known.
        let Ok(next) = self.map.replace(id, store(id, rebuild), None) else { return };
        self.map = Arc::new(next);
        self.replacing = true;
        for node in NODES {
            self.queue.after(self.rng.below(TOLD_US), Happening::Told(node, Arc::clone(&self.map)));
        }
    }

    /// A node hears of a map; perhaps it knows a later one.
    pub(super) fn told(&mut self, id: NodeId, map: Arc<MemberMap>) {
        let node = self.node(id);
        if map.version > node.map.version {
            node.map = map;
        }
    }

    /// Looks whether the groups have followed the map.
    pub(super) fn look_after_members(&mut self) {
        let map = Arc::clone(&self.map);
        if self.replacing && self.nodes.iter_mut().any(|node| node.follows(&map)) {
            self.replacing = false;
            self.fired.count(Fault::Replace);
        }
    }
}
