//! How three empty data directories become one cluster, and how a directory that is not what it was is noticed.
//!
//! A data directory has a random [`StoreId`], made with it, and counts the boots from it. A cluster is formed once: when every node of
//! the configuration has been heard and none of them is formed, each writes down who the members are, by store: the first
//! [`MemberMap`]. Later ones come from the directory, and from peers that have a newer one. A node talks only to the stores of its
//! map: an empty disk has a new store, and an old copy put back has a boot that its peers have seen already under another nonce, or
//! a later one. Neither may vote under its old number, for it has forgotten what it acknowledged; with an empty disk it waits until
//! an operator has said that it is to be rebuilt, under a new one.
//!
//! A map that a peer tells is taken if it names this very store: no other cluster knows it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rove_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::apply_version::{self, ApplyVersions, CannotApply};
use crate::membership::{Member, MemberMap, NODES, Standing};
use crate::replica::{GroupMember, member_of};

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

/// A node, as its configuration and its data directory make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub node: NodeId,
    /// Its boot.
    pub boot: Boot,
    /// `host:port` at which it believes that the others reach it.
    pub address: String,
    /// Conversation partitions that it was set up with.
    pub partitions: u16,
    /// The versions of apply that its binary has.
    pub applies: ApplyVersions,
}

/// What a node says of itself to its peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Its boot.
    pub boot: Boot,
    /// `host:port` at which it believes that the others reach it.
    pub address: String,
    /// Conversation partitions that it was set up with: which of them a conversation lives in follows from their number.
    pub partitions: u16,
    /// Who the nodes of the cluster are, as far as it knows; nothing while it belongs to none.
    pub map: Option<MemberMap>,
    /// The versions of apply that its binary has.
    pub applies: ApplyVersions,
    /// The version of apply that is in force, as far as it knows.
    pub apply_version: u16,
}

/// What a node keeps, durably: written before anybody is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who the nodes of the cluster are; nothing while it is not formed.
    pub map: Option<MemberMap>,
    /// The last boot seen of each peer.
    pub seen: BTreeMap<NodeId, Boot>,
}

/// A node with a certificate of the cluster, and a data directory that is not of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The directory.
    pub store: StoreId,
    /// Where it believes that it is reached.
    pub address: String,
    /// Nothing is in the directory: it never belonged to any cluster.
    pub empty: bool,
}

/// Why a peer is not talked to, or this node may not take part. Says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormationError {
    /// A member has another data directory than it had.
    #[error(
        "node {node} has another data directory than the cluster knows (store {found}, not {known}); put the one that it had last \
         back, or, if that is lost, start it with an empty one and say on a node that serves: rove-server cluster replace {node}"
    )]
    OtherStore {
        /// Which.
        node: NodeId,
        /// As the cluster knows it.
        known: StoreId,
        /// As it says.
        found: StoreId,
    },
    /// A peer runs on an old copy of its data directory, or two processes run on copies of one.
    #[error(
        "node {node} runs on an old copy of its data directory (boot {found}, but boot {known} was seen); it has forgotten what it \
         acknowledged: put the one that it had last back, or, if that is lost, start it with an empty one and say on a node that \
         serves: rove-server cluster replace {node}"
    )]
    OldCopy {
        /// Which.
        node: NodeId,
        /// The boot that was seen.
        known: u64,
        /// The boot it says it is.
        found: u64,
    },
    /// The nodes do not agree where a conversation lives.
    #[error(
        "node {node} has {found} partitions and this one {ours}: `partitions` must be the same in every configuration, and it never \
         changes; a node with the wrong number starts again with the right one and an empty data directory"
    )]
    OtherPartitions {
        /// Which peer.
        node: NodeId,
        /// Its number of partitions.
        found: u16,
        /// This node's.
        ours: u16,
    },
    /// Its binary cannot apply the log of the cluster.
    #[error("node {node} cannot take part: {why}")]
    CannotApply {
        /// Which.
        node: NodeId,
        /// Why, and what to do.
        why: CannotApply,
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
    /// Two nodes have formed the cluster with different data directories of a third: it came with another one in between.
    #[error(
        "this node and node {node} do not agree which data directory node {of} had when the cluster was formed, so they cannot be one \
         cluster; if nothing is stored in it yet, start all nodes with empty data directories"
    )]
    OtherFounding {
        /// Which peer.
        node: NodeId,
        /// Whose directory it is about.
        of: NodeId,
    },
    /// There is no such node in the cluster.
    #[error(
        "node {node} is not a member of the cluster; if it is to be one, say on a node that serves: rove-server cluster add {node}"
    )]
    NotMember {
        /// Which.
        node: NodeId,
    },
    /// It was taken out.
    #[error(
        "node {node} was removed from the cluster: stop it; to take it in again, start it with an empty data directory and say on a \
         node that serves: rove-server cluster add {node}"
    )]
    Removed {
        /// Which.
        node: NodeId,
    },
}

/// The nodes that a cluster is, or was, formed with: those `configured`, if nothing was kept and the data directory is as empty as
/// theirs. `found` are the replicas that its groups know. A node that ran alone is the whole cluster: others that formed one with
/// it could decide without what only it has. Nothing if the directory belonged to a cluster and what it kept of it is lost.
pub fn founders(
    me: NodeId,
    configured: Vec<NodeId>,
    record: &Record,
    found: &BTreeSet<GroupMember>,
) -> Option<Vec<NodeId>> {
    if let Some(map) = &record.map {
        return Some(map.nodes.keys().copied().collect());
    }
    if found.is_empty() {
        return Some(configured);
    }
    found.iter().all(|replica| *replica == member_of(me, 0)).then(|| vec![me])
}

/// The forming of a cluster, as one node sees it, and who is let in afterwards.
#[derive(Clone, Debug)]
pub struct Formation {
    me: Identity,
    /// The nodes of the configuration, this one among them.
    nodes: Vec<NodeId>,
    record: Record,
    /// Those who were heard and are not formed either.
    waiting: BTreeMap<NodeId, StoreId>,
    strangers: BTreeMap<NodeId, Stranger>,
    /// The version of apply that is in force, as far as this node has applied the directory.
    apply_version: u16,
    /// What each peer's binary was heard to apply, with which data directory. Since this node started: one that is away now counts.
    able: BTreeMap<NodeId, (StoreId, ApplyVersions)>,
}

impl Formation {
    /// Continues with what was kept. `nodes` is the configuration's.
    pub fn new(me: Identity, mut nodes: Vec<NodeId>, record: Record) -> Self {
        nodes.sort_unstable();
        nodes.dedup();
        let (waiting, strangers, able) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let apply_version = apply_version::FIRST;
        let mut formation = Self { me, nodes, record, waiting, strangers, apply_version, able };
        // A node on its own waits for nobody.
        formation.form_if_all_are_here();
        formation
    }

    /// What to say to peers.
    pub fn introduction(&self) -> Introduction {
        let Identity { boot, partitions, applies, .. } = self.me;
        let (address, map) = (self.me.address.clone(), self.record.map.clone());
        Introduction { boot, address, partitions, map, applies, apply_version: self.apply_version }
    }

    /// The directory says which version of apply is in force. True if that is new: to be said to peers.
    pub fn set_apply_version(&mut self, version: u16) -> bool {
        std::mem::replace(&mut self.apply_version, version) != version
    }

    /// What the binary of `node` applies, if that is known.
    pub fn applies(&self, node: NodeId) -> Option<ApplyVersions> {
        if node == self.me.node {
            return Some(self.me.applies);
        }
        let store = self.map()?.present(node)?.store;
        self.able.get(&node).filter(|(heard, _)| *heard == store).map(|(_, applies)| *applies)
    }

    /// The version of apply to raise the cluster to, if every node that belongs to it was heard to have it, and the version of the map
    /// with those nodes.
    pub fn raised(&self) -> Option<(u16, u64)> {
        let map = self.map()?;
        let members = map.all_present().map(|(node, _)| self.applies(node));
        Some((apply_version::raised(self.apply_version, members)?, map.version))
    }

    /// What to keep.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Who the nodes of the cluster are; nothing while it is not formed.
    pub fn map(&self) -> Option<&MemberMap> {
        self.record.map.as_ref()
    }

    /// How often this node was rebuilt, once it belongs to a cluster: replicas may be started. 0 if it was formed with it.
    pub fn rebuild(&self) -> Option<u32> {
        let member = self.map()?.nodes.get(&self.me.node)?;
        (member.store == self.me.boot.store).then_some(member.rebuild)
    }

    /// The nodes that have not been heard yet, while the cluster is not formed.
    pub fn missing(&self) -> Vec<NodeId> {
        let here = |node: &NodeId| *node == self.me.node || self.waiting.contains_key(node);
        self.nodes.iter().copied().filter(|node| self.map().is_none() && !here(node)).collect()
    }

    /// The nodes that were heard and are not let in, since this node started.
    pub fn strangers(&self) -> &BTreeMap<NodeId, Stranger> {
        &self.strangers
    }

    /// A peer introduces itself. True if there is something new to keep (before anything is answered) and to say.
    ///
    /// # Errors
    /// Why the peer is not talked to. There is nothing to keep then.
    pub fn hear(&mut self, node: NodeId, peer: &Introduction) -> Result<bool, FormationError> {
        if let Err(error) = self.check(node, peer) {
            self.remember(node, peer, &error);
            return Err(error);
        }
        self.strangers.remove(&node);
        let before = self.record.clone();
        match &peer.map {
            Some(map) => _ = self.adopt(map),
            // One that is not in the configuration is nothing to wait for.
            None if self.map().is_none() && !self.nodes.contains(&node) => return Ok(false),
            None if self.map().is_none() => {
                self.able.insert(node, (peer.boot.store, peer.applies));
                self.waiting.insert(node, peer.boot.store);
                self.form_if_all_are_here();
                return Ok(self.record != before);
            }
            None => {}
        }
        self.able.insert(node, (peer.boot.store, peer.applies));
        self.record.seen.insert(node, peer.boot);
        Ok(self.record != before)
    }

    /// The directory, or a peer, says who the nodes are. True if that is new: to be kept, and then acted on.
    pub fn adopt(&mut self, map: &MemberMap) -> bool {
        let newer = self.map().is_none_or(|known| map.version > known.version);
        if newer {
            self.record.map = Some(map.clone());
            let has = |node: &NodeId, store| map.nodes.get(node).is_some_and(|member| member.store == store);
            self.record.seen.retain(|node, boot| has(node, boot.store));
            self.able.retain(|node, (store, _)| has(node, *store));
            self.strangers
                .retain(|node, stranger| map.present(*node).is_none_or(|there| there.store != stranger.store));
        }
        newer
    }

    fn check(&self, node: NodeId, peer: &Introduction) -> Result<(), FormationError> {
        if peer.partitions != self.me.partitions {
            let (found, ours) = (peer.partitions, self.me.partitions);
            return Err(FormationError::OtherPartitions { node, found, ours });
        }
        let cannot = |node| move |why| FormationError::CannotApply { node, why };
        self.me.applies.check(peer.apply_version).map_err(cannot(self.me.node))?;
        peer.applies.check(self.apply_version).map_err(cannot(node))?;
        self.check_founding(node, peer)?;
        // What the newer map says counts for both; of two of one version each says the same, or they are of two clusters.
        let version = self.map().into_iter().chain(&peer.map).map(|map| map.version).max();
        let newest = self.map().into_iter().chain(&peer.map).filter(|map| Some(map.version) == version);
        for map in newest {
            admitted(map, self.me.node, self.me.boot.store)?;
            admitted(map, node, peer.boot.store)?;
        }
        if let Some(of) = self.map().zip(peer.map.as_ref()).and_then(|(ours, theirs)| disputed(ours, theirs)) {
            return Err(FormationError::OtherFounding { node, of });
        }
        let old = |seen: &&Boot| {
            let (now, before) = (peer.boot, **seen);
            now.store == before.store
                && (before.number > now.number || (before.number == now.number && before.nonce != now.nonce))
        };
        match self.record.seen.get(&node).filter(old) {
            Some(seen) => Err(FormationError::OldCopy { node, known: seen.number, found: peer.boot.number }),
            None => Ok(()),
        }
    }

    /// Two that were to form one cluster must mean the same one.
    fn check_founding(&self, node: NodeId, peer: &Introduction) -> Result<(), FormationError> {
        let Some(theirs) = peer.map.as_ref().filter(|map| map.version == 0) else { return Ok(()) };
        let same = match self.map() {
            Some(ours) => ours.version > 0 || ours.nodes.keys().eq(theirs.nodes.keys()),
            // One that was not there is told so, below.
            None => !theirs.nodes.contains_key(&self.me.node) || theirs.nodes.keys().eq(&self.nodes),
        };
        let members = || theirs.nodes.keys().copied().collect();
        if same { Ok(()) } else { Err(FormationError::OtherMembers { node, members: members() }) }
    }

    /// Whoever is refused because of its data directory may be let in by an operator.
    fn remember(&mut self, node: NodeId, peer: &Introduction, error: &FormationError) {
        let of_it = match error {
            FormationError::OtherStore { node: of, .. }
            | FormationError::NotMember { node: of }
            | FormationError::Removed { node: of } => *of == node,
            FormationError::OldCopy { .. }
            | FormationError::OtherPartitions { .. }
            | FormationError::CannotApply { .. }
            | FormationError::OtherFounding { .. }
            | FormationError::OtherMembers { .. } => false,
        };
        // The disk of a node that was removed is refused for ever, and told so: there is nothing left to be done about it.
        let was_removed = self.map().and_then(|map| map.nodes.get(&node)).is_some_and(|of| of.store == peer.boot.store);
        if of_it && !was_removed && (self.strangers.len() < NODES || self.strangers.contains_key(&node)) {
            let stranger =
                Stranger { store: peer.boot.store, address: peer.address.clone(), empty: peer.map.is_none() };
            self.strangers.insert(node, stranger);
        }
    }

    fn form_if_all_are_here(&mut self) {
        if self.map().is_none() && self.missing().is_empty() {
            let mut stores = self.waiting.clone();
            stores.insert(self.me.node, self.me.boot.store);
            self.record.map = Some(MemberMap::founded(&stores, self.me.partitions));
        }
    }
}

/// A node of which two maps of one version say different things. Later versions are agreed upon; the first is each node's own.
fn disputed(ours: &MemberMap, theirs: &MemberMap) -> Option<NodeId> {
    let same =
        |(node, member): &(&NodeId, &Member)| theirs.nodes.get(node).is_some_and(|there| there.store == member.store);
    let differs = || ours.nodes.iter().find(|one| !same(one)).map(|(node, _)| *node);
    (ours.version == theirs.version).then(differs).flatten()
}

/// Whether `map` lets `node` take part with `store`.
fn admitted(map: &MemberMap, node: NodeId, store: StoreId) -> Result<(), FormationError> {
    match map.nodes.get(&node) {
        None => Err(FormationError::NotMember { node }),
        Some(member) if member.standing == Standing::Removed => Err(FormationError::Removed { node }),
        Some(member) if member.store != store => {
            Err(FormationError::OtherStore { node, known: member.store, found: store })
        }
        Some(_) => Ok(()),
    }
}
