//! How three empty data directories become one cluster, and how a directory that is not what it was is noticed.
//!
//! A data directory has a random [`StoreId`], made with it, and counts the boots from it. A cluster is formed once: when every node of
//! the configuration has been heard and none of them is formed, each writes down who the members are, by store. From then on a
//! node talks only to those stores: an empty disk has a new store, and an old copy put back has a boot that its peers have
//! seen already under another nonce, or a later one. Neither may vote under its old number, for it has forgotten what it acknowledged.

use std::collections::BTreeMap;
use std::fmt;

use rove_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};

/// A data directory, by the random bytes made with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One start of a node from its data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The directory.
    pub store: StoreId,
    /// How often it was started from, this time included.
    pub number: u64,
    /// Random: two boots with one number are not from one life of the directory.
    pub nonce: u64,
}

/// What a node says of itself to its peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Its boot.
    pub boot: Boot,
    /// Which store each member of the cluster had when it was formed; empty while it is not.
    pub members: BTreeMap<NodeId, StoreId>,
}

/// What a node keeps, durably: written before anybody is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which store each member has; empty while the cluster is not formed.
    pub members: BTreeMap<NodeId, StoreId>,
    /// The last boot seen of each peer.
    pub seen: BTreeMap<NodeId, Boot>,
}

/// Why a peer is not talked to, or this node may not take part. Says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormationError {
    /// A peer that the cluster was formed with has another data directory now.
    #[error(
        "node {node} has lost its data directory: the cluster knows it with store {known}, now it has {found}; put the directory \
         that it had last back; a node cannot be replaced yet"
    )]
    OtherStore {
        /// Which.
        node: NodeId,
        /// As the cluster was formed.
        known: StoreId,
        /// As it says.
        found: StoreId,
    },
    /// A peer runs on an old copy of its data directory, or two processes run on copies of one.
    #[error(
        "node {node} runs on an old copy of its data directory (boot {found}, but boot {known} was seen); it has forgotten what it \
         acknowledged: put the directory that it had last back; a node cannot be replaced yet"
    )]
    OldCopy {
        /// Which.
        node: NodeId,
        /// The boot that was seen.
        known: u64,
        /// The boot it says it is.
        found: u64,
    },
    /// The cluster was formed with other members.
    #[error(
        "node {node} belongs to a cluster that was formed with the nodes {members:?}; check the peers in both configurations"
    )]
    OtherMembers {
        /// Which peer says so.
        node: NodeId,
        /// Its members.
        members: Vec<NodeId>,
    },
}

/// The forming of a cluster, as one node sees it.
#[derive(Clone, Debug)]
pub struct Formation {
    me: NodeId,
    boot: Boot,
    /// The nodes of the configuration, this one among them.
    nodes: Vec<NodeId>,
    record: Record,
    /// Those who were heard and are not formed either.
    waiting: BTreeMap<NodeId, StoreId>,
}

impl Formation {
    /// Continues with what was kept. `nodes` is the configuration's.
    pub fn new(me: NodeId, boot: Boot, mut nodes: Vec<NodeId>, record: Record) -> Self {
        nodes.sort_unstable();
        nodes.dedup();
        let mut formation = Self { me, boot, nodes, record, waiting: BTreeMap::new() };
        // A node on its own waits for nobody.
        formation.form_if_all_are_here();
        formation
    }

    /// What to say to peers.
    pub fn introduction(&self) -> Introduction {
        Introduction { boot: self.boot, members: self.record.members.clone() }
    }

    /// What to keep.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether the cluster is formed: replicas may be started.
    pub fn is_formed(&self) -> bool {
        !self.record.members.is_empty()
    }

    /// The nodes that have not been heard yet, while the cluster is not formed.
    pub fn missing(&self) -> Vec<NodeId> {
        let here = |node: &NodeId| *node == self.me || self.waiting.contains_key(node);
        self.nodes.iter().copied().filter(|node| !self.is_formed() && !here(node)).collect()
    }

    /// A peer introduces itself. True if there is something new to keep (before anything is answered) and to say.
    ///
    /// # Errors
    /// Why the peer is not talked to; nothing has changed then.
    pub fn hear(&mut self, node: NodeId, peer: &Introduction) -> Result<bool, FormationError> {
        let before = self.record.clone();
        self.check(node, peer)?;
        if self.is_formed() {
            self.record.seen.insert(node, peer.boot);
        } else if peer.members.is_empty() {
            self.waiting.insert(node, peer.boot.store);
            self.form_if_all_are_here();
        } else {
            // It has heard all of us, and wrote down this very store.
            self.record.members.clone_from(&peer.members);
            self.record.seen.insert(node, peer.boot);
        }
        Ok(self.record != before)
    }

    fn check(&self, node: NodeId, peer: &Introduction) -> Result<(), FormationError> {
        if !peer.members.is_empty() && !peer.members.keys().eq(&self.nodes) {
            return Err(FormationError::OtherMembers { node, members: peer.members.keys().copied().collect() });
        }
        if let Some(known) = peer.members.get(&self.me).filter(|known| **known != self.boot.store) {
            return Err(FormationError::OtherStore { node: self.me, known: *known, found: self.boot.store });
        }
        if let Some(known) = self.record.members.get(&node).filter(|known| **known != peer.boot.store) {
            return Err(FormationError::OtherStore { node, known: *known, found: peer.boot.store });
        }
        let old = |seen: &&Boot| {
            seen.number > peer.boot.number || (seen.number == peer.boot.number && seen.nonce != peer.boot.nonce)
        };
        match self.record.seen.get(&node).filter(old) {
            Some(seen) => Err(FormationError::OldCopy { node, known: seen.number, found: peer.boot.number }),
            None => Ok(()),
        }
    }

    fn form_if_all_are_here(&mut self) {
        if !self.is_formed() && self.missing().is_empty() {
            self.record.members.clone_from(&self.waiting);
            self.record.members.insert(self.me, self.boot.store);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(store: u8, number: u64, nonce: u64) -> Boot {
        Boot { store: StoreId([store; 16]), number, nonce }
    }

    fn nodes() -> Vec<NodeId> {
        vec![NodeId(1), NodeId(2), NodeId(3)]
    }

    fn node(id: u8, record: Record) -> Formation {
        Formation::new(NodeId(u64::from(id)), boot(id, 1, u64::from(id)), nodes(), record)
    }

    /// All hear each other until nothing is new.
    fn meet(formations: &mut [Formation]) {
        loop {
            let mut news = false;
            for from in 0..formations.len() {
                for to in (0..formations.len()).filter(|to| *to != from) {
                    let (node, introduction) = (formations[from].me, formations[from].introduction());
                    news |= formations[to].hear(node, &introduction).unwrap();
                }
            }
            if !news {
                return;
            }
        }
    }

    fn formed() -> Vec<Formation> {
        let mut all: Vec<_> = (1..=3).map(|id| node(id, Record::default())).collect();
        meet(&mut all);
        all
    }

    #[test]
    fn three_empty_nodes_form_one_cluster_and_two_never_do() {
        let mut two: Vec<_> = (1..=2).map(|id| node(id, Record::default())).collect();
        meet(&mut two);
        assert!(two.iter().all(|formation| !formation.is_formed() && formation.missing() == [NodeId(3)]));
        let all = formed();
        assert!(all.iter().all(Formation::is_formed));
        assert!(all.iter().all(|formation| formation.record().members == all[0].record().members));
    }

    #[test]
    fn one_that_hears_of_the_forming_last_follows_it() {
        let mut all: Vec<_> = (1..=3).map(|id| node(id, Record::default())).collect();
        let said: Vec<_> = all.iter().map(Formation::introduction).collect();
        all[0].hear(NodeId(2), &said[1]).unwrap();
        assert!(all[0].hear(NodeId(3), &said[2]).unwrap());
        assert!(all[0].is_formed());
        let formed = all[0].introduction();
        assert!(all[2].hear(NodeId(1), &formed).unwrap());
        assert_eq!(all[2].record().members, formed.members);
    }

    #[test]
    fn an_empty_disk_is_recognised_by_its_peers_and_by_itself() {
        let mut all = formed();
        let mut empty = Formation::new(NodeId(3), boot(9, 1, 9), nodes(), Record::default());
        let refused = all[0].hear(NodeId(3), &empty.introduction());
        assert!(matches!(refused, Err(FormationError::OtherStore { node: NodeId(3), .. })), "{refused:?}");
        let refused = empty.hear(NodeId(1), &all[0].introduction());
        assert!(matches!(refused, Err(FormationError::OtherStore { node: NodeId(3), .. })), "{refused:?}");
        assert!(!empty.is_formed());
    }

    #[test]
    fn an_old_copy_is_recognised_also_when_it_counts_the_same_boot() {
        let mut all = formed();
        let record = all[2].record().clone();
        let restart = |number, nonce| Formation::new(NodeId(3), boot(3, number, nonce), nodes(), record.clone());
        assert_eq!(all[0].hear(NodeId(3), &restart(3, 30).introduction()), Ok(true));
        assert_eq!(all[0].hear(NodeId(3), &restart(3, 30).introduction()), Ok(false), "a reconnect");
        for copy in [restart(2, 20), restart(3, 31)] {
            let refused = all[0].hear(NodeId(3), &copy.introduction());
            assert!(matches!(refused, Err(FormationError::OldCopy { known: 3, .. })), "{refused:?}");
        }
        assert_eq!(all[0].hear(NodeId(3), &restart(4, 40).introduction()), Ok(true));
    }

    #[test]
    fn a_cluster_of_other_nodes_is_not_joined_and_a_node_alone_waits_for_nobody() {
        let mut alone = Formation::new(NodeId(1), boot(1, 1, 1), vec![NodeId(1)], Record::default());
        assert!(alone.is_formed());
        let all = formed();
        let refused = alone.hear(NodeId(2), &all[1].introduction());
        assert!(matches!(refused, Err(FormationError::OtherMembers { node: NodeId(2), .. })), "{refused:?}");
    }
}
