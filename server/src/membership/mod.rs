//! Who the nodes of the cluster are, on this node: what the forming, the directory and the peers say of it comes together here, is
//! written down, and is acted on.
//!
//! ```text
//! directory (applied here) ─┐                    ┌─▶ the transport: whom it talks to, what it tells them
//!                           ├─▶ Roster ─▶ disk ──┤
//! introductions of peers ───┘                    └─▶ the replicas: what their groups are to follow
//! ```

pub mod change;
mod raising;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rove_core::formation::{Formation, FormationError, Introduction};
use rove_core::membership::{MemberMap, Standing, follows};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, NotAllowed, PeerAddress};
use crate::leaving::Drainer;
use crate::node::Node;
use crate::storage::formation::FormationFile;

pub use raising::raise;

/// How often a node that waits for others says for whom.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether a node that leaves is out of every group.
const LOOK: Duration = Duration::from_millis(200);

/// Who the nodes are. See the [module](self).
pub struct Roster {
    me: NodeId,
    /// Where the configuration says that nodes are reached.
    configured: BTreeMap<NodeId, String>,
    file: FormationFile,
    formation: Mutex<Formation>,
    /// How often this node was rebuilt, once it belongs to a cluster.
    rebuild: watch::Sender<Option<u32>>,
    /// Why this node is not part of the cluster it hears of, as it was said last.
    excluded: Mutex<Option<FormationError>>,
    /// Why there is no place in the cluster for this node as it is, however long it waits.
    out: watch::Sender<Option<FormationError>>,
    /// Set as soon as it is started; what peers say before is said again by then.
    transport: OnceLock<Cluster>,
    /// Set once this node's replicas run.
    node: OnceLock<Node>,
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Roster {
    /// Of this node. `configured` are the nodes of the configuration with their addresses.
    pub fn new(
        me: NodeId,
        configured: BTreeMap<NodeId, String>,
        file: FormationFile,
        formation: Formation,
    ) -> Arc<Self> {
        let rebuild = watch::Sender::new(formation.rebuild());
        Arc::new(Self {
            me,
            configured,
            file,
            formation: Mutex::new(formation),
            rebuild,
            excluded: Mutex::default(),
            out: watch::Sender::default(),
            transport: OnceLock::new(),
            node: OnceLock::new(),
        })
    }

    /// What is said to peers.
    pub fn introduction(&self) -> Bytes {
        encode(&self.formation.lock().introduction())
    }

    /// Whom to talk to: the members, or before there are any those of the configuration.
    pub fn peers(&self) -> Vec<PeerAddress> {
        let formation = self.formation.lock();
        let address = |node: &NodeId| self.configured.get(node).cloned().unwrap_or_default();
        match formation.map() {
            Some(map) => map
                .all_present()
                .map(|(node, member)| {
                    let address = if member.address.is_empty() { address(&node) } else { member.address.clone() };
                    PeerAddress { node, address }
                })
                .collect(),
            None => self.configured.keys().map(|node| PeerAddress { node: *node, address: address(node) }).collect(),
        }
    }

    /// The transport runs.
    pub fn started(&self, transport: Cluster) {
        // It is started once.
        let _ = self.transport.set(transport);
        self.act();
    }

    /// This node's replicas run.
    pub fn running(&self, node: Node) {
        // As above.
        let _ = self.node.set(node);
        self.act();
    }

    /// Waits until this node belongs to a cluster, and says for whom it waits.
    pub async fn formed(&self) -> MemberMap {
        let mut rebuild = self.rebuild.subscribe();
        loop {
            tokio::select! {
                // The sender is ours: it is there as long as we are.
                Ok(_) = rebuild.wait_for(Option::is_some) => if let Some(map) = self.formation.lock().map() {
                    return map.clone();
                },
                () = tokio::time::sleep(SAY_EVERY) => self.say_for_whom_it_waits(),
            }
        }
    }

    fn say_for_whom_it_waits(&self) {
        if let Some(why) = &*self.excluded.lock() {
            tracing::warn!("waiting to be let into the cluster: {why}");
        } else {
            let missing: BTreeSet<u64> = self.formation.lock().missing().iter().map(|node| node.0).collect();
            let peers = self.transport.get().map(Cluster::peers).unwrap_or_default();
            let why = peers.into_iter().filter(|peer| missing.contains(&peer.node.0) && !peer.connected);
            let why: BTreeMap<u64, String> = why.filter_map(|peer| Some((peer.node.0, peer.last_error?))).collect();
            tracing::info!(?missing, ?why, "waiting for the other nodes, to form the cluster");
        }
    }

    /// A peer introduces itself.
    ///
    /// # Errors
    /// Why it is not talked to, in words for both nodes' logs.
    pub fn hear(&self, from: NodeId, said: &[u8]) -> Result<(), NotAllowed> {
        let peer: Introduction = postcard::from_bytes(said).map_err(|error| format!("its introduction: {error}"))?;
        let mut formation = self.formation.lock();
        let mut next = formation.clone();
        match next.hear(from, &peer) {
            Ok(false) => *formation = next,
            Ok(true) => {
                let news = self.keep(&mut formation, next).map_err(|error| error.to_string())?;
                drop(formation);
                if news {
                    self.act();
                }
            }
            Err(error) => {
                // Who was refused is remembered; there is nothing to keep.
                *formation = next;
                drop(formation);
                self.refused(&error);
                // One that comes with another directory, or does not know of its membership yet, waits to be taken in again.
                let knew = peer.map.and_then(|map| Some(map.present(from)?.store == peer.boot.store)).unwrap_or(false);
                let removed = knew && error == FormationError::Removed { node: from };
                return Err(NotAllowed { why: error.to_string(), removed });
            }
        }
        Ok(())
    }

    /// A member says that this node was taken out.
    pub fn removed(&self, by: NodeId) {
        tracing::debug!(%by, "this node was removed from the cluster");
        self.refused(&FormationError::Removed { node: self.me });
    }

    /// The directory says who the nodes are.
    fn adopt(&self, map: &MemberMap) {
        let mut formation = self.formation.lock();
        let mut next = formation.clone();
        if !next.adopt(map) {
            return;
        }
        match self.keep(&mut formation, next) {
            Ok(_) => {
                drop(formation);
                self.act();
            }
            // The directory has it; it is adopted at the next start, or the next change.
            Err(error) => tracing::error!(%error, "who the nodes are cannot be written down, and is not acted on"),
        }
    }

    /// The directory here says which version of apply is in force: peers are told when that is news.
    fn say_apply_version(&self, version: u16) {
        if self.formation.lock().set_apply_version(version) {
            self.act();
        }
    }

    /// Writes it down before anybody acts on it: a small file, written when a peer has restarted. Whether peers are to be told.
    fn keep(
        &self,
        formation: &mut Formation,
        next: Formation,
    ) -> Result<bool, crate::storage::formation::FormationFileError> {
        self.file.save(next.record())?;
        let news = next.map() != formation.map();
        *formation = next;
        Ok(news)
    }

    /// Does what the map says, which is written down: again and again is as good as once. Several may be at it at once, and the slower
    /// one must not leave behind what an older map says: whoever finds a newer one when it is done does it again.
    fn act(&self) {
        loop {
            let done = self.act_once();
            if self.formation.lock().map().map(|map| map.version) == done {
                return;
            }
        }
    }

    /// Returns the version of the map that it did.
    fn act_once(&self) -> Option<u64> {
        let (map, introduction, rebuild) = {
            let formation = self.formation.lock();
            (formation.map().cloned(), formation.introduction(), formation.rebuild())
        };
        let version = map.as_ref().map(|map| map.version);
        if let Some(map) = &map {
            let members: Vec<u64> = map.members().map(|node| node.0).collect();
            tracing::info!(version = map.version, ?members, "the nodes of the cluster");
        }
        if let Some(transport) = self.transport.get() {
            if let Err(error) = transport.set_formation(encode(&introduction)) {
                tracing::error!(%error, "peers cannot be told who the nodes of the cluster are");
            }
            transport.set_peers(self.peers());
        }
        if let (Some(node), Some(map)) = (self.node.get(), map) {
            node.follow(Arc::new(map));
        }
        self.rebuild.send_if_modified(|before| {
            // Once it belongs to a cluster its replicas run, whatever comes.
            let joins = before.is_none() && rebuild.is_some();
            if joins {
                *before = rebuild;
                *self.excluded.lock() = None;
            }
            joins
        });
        version
    }

    /// If it is this node that is not wanted, somebody has to do something here.
    fn refused(&self, error: &FormationError) {
        let of_this = match error {
            FormationError::OtherStore { node, .. }
            | FormationError::OldCopy { node, .. }
            | FormationError::CannotApply { node, .. }
            | FormationError::NotMember { node }
            | FormationError::Removed { node } => *node == self.me,
            FormationError::OtherPartitions { .. }
            | FormationError::OtherFounding { .. }
            | FormationError::OtherMembers { .. } => true,
        };
        let mut excluded = self.excluded.lock();
        if of_this && excluded.as_ref() != Some(error) {
            tracing::error!("this node does not take part: {error}");
            *excluded = Some(error.clone());
        }
        drop(excluded);
        let out = match error {
            FormationError::CannotApply { .. } => true,
            // One that does not belong to the cluster yet, or not any more, waits to be taken in.
            FormationError::Removed { .. } => self.formation.lock().rebuild().is_some(),
            _ => false,
        };
        if of_this && out {
            self.out.send_replace(Some(error.clone()));
        }
    }

    /// Waits until there is no place in the cluster for this node as it is, whatever comes. Returns why: the process is to end.
    pub async fn out(&self) -> FormationError {
        let mut out = self.out.subscribe();
        // The sender is ours: it is there as long as we are.
        let why = out.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Why this node is not part of the cluster it hears of.
    pub fn excluded(&self) -> Option<FormationError> {
        self.excluded.lock().clone()
    }

    /// Hears what the directory says, drains this node when it is to leave, and ends the leaving of nodes that are out of every
    /// group; until `stop`.
    pub async fn watch(self: Arc<Self>, node: Node, drainer: Arc<Drainer>, stop: CancellationToken) {
        let mut said = node.members_said();
        said.mark_changed();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = said.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let map = said.borrow_and_update().clone();
                    if let Some(map) = map {
                        self.adopt(&map);
                    }
                }
                _ = look.tick() => {
                    self.drain_if_leaving(&drainer);
                    self.end_leaving(&node).await;
                }
            }
        }
    }

    fn standing(&self, map: &MemberMap) -> Option<Standing> {
        map.nodes.get(&self.me).map(|member| member.standing)
    }

    fn drain_if_leaving(&self, drainer: &Drainer) {
        let leaves = self.formation.lock().map().is_some_and(|map| self.standing(map) == Some(Standing::Leaving));
        if leaves && drainer.progress().phase == crate::leaving::DrainPhase::Serving {
            // Without another node that is ready it goes on as long as it can.
            let _ = drainer.begin();
        }
    }

    /// One node does it, the one that leads the directory; if another does too, one of them is overtaken.
    async fn end_leaving(&self, node: &Node) {
        let next = self.formation.lock().map().and_then(|map| Some((map.without_leaving()?, map.clone())));
        let Some((next, map)) = next else { return };
        let leads = node.leader(PartitionId(0)) == Some(self.me);
        let groups = node.groups();
        // There are none before the first tick.
        let done = leads
            && !groups.is_empty()
            && (0..).map(PartitionId).zip(&groups).all(|(partition, group)| follows(&map, partition, group));
        if done && let Err(error) = self.propose(node, next).await {
            tracing::debug!(%error, "the end of a node's leaving has to wait");
        }
    }
}

fn encode(introduction: &Introduction) -> Bytes {
    // Only a value that serde cannot describe fails, and this is ids, numbers and addresses.
    postcard::to_allocvec(introduction).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use rove_core::apply_version::ApplyVersions;
    use rove_core::formation::{Boot, Identity, Record, StoreId};
    use rove_core::membership::{ADDRESS_BYTES, MEMBERS, Member, NODES};

    use super::*;
    use crate::cluster::registry::FORMATION_BYTES;
    use crate::node::MAX_PARTITIONS;

    #[test]
    fn the_largest_map_there_may_be_fits_into_what_nodes_say_of_themselves() {
        let address = "a".repeat(ADDRESS_BYTES);
        let store = |number: u64| StoreId([u8::try_from(number).unwrap(); 16]);
        // The numbers of nodes, of rebuilds and of changes as large as they are written.
        let node = |number: u64| NodeId(u64::from(u32::MAX) - number);
        let members: Vec<_> = (0..MEMBERS as u64).collect();
        let founders = members.iter().map(|number| (node(*number), store(*number))).collect();
        let mut map = MemberMap::founded(&founders, MAX_PARTITIONS);
        for number in MEMBERS as u64..NODES as u64 {
            let standing = Standing::Removed;
            map.nodes
                .insert(node(number), Member { store: store(number), rebuild: 0, address: String::new(), standing });
        }
        for member in map.nodes.values_mut() {
            member.rebuild = u32::MAX;
            if member.standing == Standing::Member {
                member.address.clone_from(&address);
            }
        }
        map.version = u64::MAX;
        let boot = Boot { store: store(0), number: u64::MAX, nonce: u64::MAX };
        let applies = ApplyVersions { lowest: u16::MAX, highest: u16::MAX };
        let me = Identity { node: node(0), boot, address, partitions: MAX_PARTITIONS, applies };
        let mut formation = Formation::new(me, Vec::new(), Record { map: Some(map), ..Record::default() });
        formation.set_apply_version(u16::MAX);
        let said = encode(&formation.introduction());
        assert!(said.len() > 3_000 && said.len() <= FORMATION_BYTES, "{} bytes", said.len());
    }
}
