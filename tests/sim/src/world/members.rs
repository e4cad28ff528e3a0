//! Nodes that lose their disks, come and go, and the map of members that says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use rove_core::directory::DirectoryCommand;
use rove_core::formation::StoreId;
use rove_core::membership::{ChangeError, MemberMap};
use rove_protocol::ids::NodeId;

use super::{Happening, World};
use crate::bugs::Bug;
use crate::disk::Crash;
use crate::faults::Fault;
use crate::history::Record;
use crate::node::{FOUNDERS, NODES, Node};

/// How long the news of a map takes to each node, at most.
const TOLD_US: u64 = 500_000;

fn store(node: NodeId, rebuild: u32) -> StoreId {
    StoreId(((u128::from(node.0) << 32) | u128::from(rebuild)).to_be_bytes())
}

/// The map of the cluster as it was formed.
pub(super) fn founded(partitions: u16) -> Arc<MemberMap> {
    let stores: BTreeMap<NodeId, StoreId> = FOUNDERS.iter().map(|node| (*node, store(*node, 0))).collect();
    Arc::new(MemberMap::founded(&stores, partitions))
}

impl World {
    /// The nodes that belong to the cluster, or still do.
    pub(super) fn present(&self) -> Vec<NodeId> {
        self.map.all_present().map(|(node, _)| node).collect()
    }

    pub(super) fn is_present(&self, id: NodeId) -> bool {
        self.map.present(id).is_some()
    }

    /// The same nodes themselves.
    pub(super) fn all_present(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| self.is_present(node.id))
    }

    /// Whether the nodes may change: all but `id` run and trust their disks, and the last change is over.
    fn may_change(&self, id: Option<NodeId>) -> bool {
        let mut others = self.all_present().filter(|node| Some(node.id) != id);
        self.change.is_none() && others.all(|node| node.is_running() && !node.disk.is_rotten())
    }

    /// A node loses its disk, if no other one is lost or not yet replaced: the others have everything.
    pub(super) fn replace(&mut self, id: NodeId) {
        if !self.may_change(None) {
            return;
        }
        self.crash(id, Crash::Kill, false);
        let bug = self.options.bug;
        let node = self.node(id);
        let planted = bug == Some(Bug::RebuiltUnderOldNumber);
        let rebuild = node.rebuild + u32::from(!planted);
        node.begin_anew(rebuild, bug);
        self.restart_later(id);
        if !planted {
            self.change(Fault::Replace, self.map.replace(id, store(id, rebuild), None));
        }
    }

    /// A node that is not there is taken in, with an empty disk.
    pub(super) fn add(&mut self) {
        let absent = NODES.into_iter().find(|node| !self.is_present(*node));
        let Some(id) = absent.filter(|_| self.may_change(None)) else { return };
        // It may be one that was taken out a moment ago and has not heard of it.
        self.crash(id, Crash::Kill, false);
        let rebuild = self.node(id).rebuild + 1;
        let bug = self.options.bug;
        self.node(id).begin_anew(rebuild, bug);
        self.change(Fault::Add, self.map.add(id, store(id, rebuild), "node:1"));
    }

    /// A node is taken out of a cluster of four: one that does not trust its disk if there is one, otherwise `id`.
    pub(super) fn remove(&mut self, id: NodeId) {
        let lost = self.all_present().find(|node| node.quarantined).map(|node| node.id);
        let id = lost.unwrap_or(id);
        if self.present().len() > FOUNDERS.len() && self.may_change(Some(id)) {
            self.change(Fault::Remove, self.map.leave(id));
        }
    }

    /// There is another map. None of the changes that are made here may be refused.
    fn change(&mut self, change: Fault, next: Result<MemberMap, ChangeError>) {
        match next {
            Ok(next) if next.may_follow(Some(&self.map)) => {
                self.change = Some(change);
                self.want(next);
            }
            Ok(next) => self.record(Record::Wrong { what: format!("{next:?} may not follow {:?}", self.map) }),
            Err(error) => self.record(Record::Wrong { what: format!("{}: {error}", change.name()) }),
        }
    }

    /// This is to be the map: the directory is asked, or where there is none, it is.
    fn want(&mut self, next: MemberMap) {
        if self.plan.has_directory() {
            self.operate(&DirectoryCommand::ChangeMembers { map: next.clone() });
            self.wanted = Some(next);
        } else {
            self.tell_all(next);
        }
    }

    /// A node has applied a map: it knows it at once, and if it is the first one, it tells the others.
    pub(super) fn applied_map(&mut self, id: NodeId, map: MemberMap) {
        if map.version > self.map.version {
            self.wanted.take_if(|wanted| wanted.version <= map.version);
            self.tell_all(map.clone());
        }
        self.told(id, Arc::new(map));
    }

    fn tell_all(&mut self, map: MemberMap) {
        // Those that are taken out with it hear of it too.
        let mut nodes = self.present();
        self.map = Arc::new(map);
        for node in self.present().into_iter().filter(|node| !nodes.contains(node)) {
            self.node(node).map = Arc::clone(&self.map);
            self.restart_later(node);
        }
        nodes.extend(self.present());
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            self.queue.after(self.rng.below(TOLD_US), Happening::Told(node, Arc::clone(&self.map)));
        }
    }

    /// A node hears of a map; perhaps it knows a later one. One that is no member any more stops.
    pub(super) fn told(&mut self, id: NodeId, map: Arc<MemberMap>) {
        let stops = map.present(id).is_none();
        let node = self.node(id);
        if map.version > node.map.version {
            node.map = map;
            if stops {
                self.crash(id, Crash::Kill, false);
            }
        }
    }

    /// Looks whether the groups have followed the map.
    pub(super) fn look_after_members(&mut self) {
        let Some(change) = self.change else { return };
        if let Some(map) = self.wanted.clone() {
            if self.asks_again() {
                self.operate(&DirectoryCommand::ChangeMembers { map });
            }
            return;
        }
        let map = Arc::clone(&self.map);
        if !self.nodes.iter_mut().any(|node| node.follows(&map)) {
            return;
        }
        if let Some(without) = map.without_leaving() {
            self.want(without);
            return;
        }
        self.change = None;
        self.fired.count(change);
    }
}
