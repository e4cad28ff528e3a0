//! Three nodes in one process, each on a disk of its own, joined by memory instead of a network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use rove_core::formation::StoreId;
use rove_core::membership::MemberMap;
use rove_core::replica::{ConfState, Install, PeerMessage, ReplicaError, member_of};
use rove_core::routing::{Forward, ForwardAck};

use super::handle::DIRECTORY;
use super::*;
use crate::cluster::{SnapshotError, SnapshotHeader, SnapshotSource};
use crate::storage::state::{StateDb, StateOptions};

/// Longer than any of this takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What joins them.
#[derive(Default)]
struct Net {
    inboxes: Mutex<BTreeMap<NodeId, PeerInbox>>,
    down: Mutex<BTreeSet<NodeId>>,
    /// Partitions of which nothing comes through.
    muted: Mutex<BTreeSet<PartitionId>>,
    /// Snapshots are cut off after so many chunks, once.
    cut_after: Mutex<Option<u64>>,
    snapshots: Mutex<Vec<(NodeId, PartitionId, u64)>>,
}

impl Net {
    fn inbox(&self, from: NodeId, to: NodeId) -> Option<PeerInbox> {
        let down = self.down.lock();
        if down.contains(&from) || down.contains(&to) { None } else { self.inboxes.lock().get(&to).cloned() }
    }
}

/// The net, as one node sees it.
struct Side {
    me: NodeId,
    net: Arc<Net>,
}

impl Side {
    fn put(&self, to: NodeId, says: PeerSays) {
        self.net.inbox(self.me, to).map(|inbox| inbox.put(self.me, says));
    }
}

impl Peers for Side {
    fn send_raft(&self, to: NodeId, mut messages: Vec<(PartitionId, PeerMessage)>) {
        let muted = self.net.muted.lock().clone();
        messages.retain(|(partition, _)| !muted.contains(partition));
        self.put(to, PeerSays::Raft(messages));
    }

    fn send_forward(&self, to: NodeId, forward: Forward) {
        self.put(to, PeerSays::Forward(forward));
    }

    fn send_forward_ack(&self, to: NodeId, ack: ForwardAck) {
        self.put(to, PeerSays::ForwardAck(ack));
    }

    fn send_snapshot<'a>(
        &'a self,
        to: NodeId,
        header: SnapshotHeader,
        source: &'a mut dyn SnapshotSource,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(self.ship(to, header, source))
    }
}

impl Side {
    /// As the transport does it, without the bytes.
    async fn ship(
        &self,
        to: NodeId,
        header: SnapshotHeader,
        source: &mut dyn SnapshotSource,
    ) -> Result<(), SnapshotError> {
        let partition = header.partition;
        let inbox = self.net.inbox(self.me, to).ok_or(SnapshotError::Unlinked)?;
        let mut receiver = inbox.snapshot(self.me, header).await.map_err(SnapshotError::Refused)?;
        let mut progress = receiver.have();
        self.net.snapshots.lock().push((to, partition, progress.chunks));
        while let Some(chunk) = source.chunk(progress.chunks).await.unwrap() {
            let cut = self.net.cut_after.lock().take_if(|after| *after == progress.chunks).is_some();
            if cut || self.net.inbox(self.me, to).is_none() {
                return Err(SnapshotError::Lost("cut off".to_owned()));
            }
            progress = progress.with(&chunk);
            receiver.chunk(chunk, progress).await.map_err(SnapshotError::Refused)?;
        }
        receiver.finish().await.map_err(SnapshotError::Refused)
    }
}

/// The nodes, and their disks.
/// The data directories of the three nodes.
fn stores() -> BTreeMap<NodeId, StoreId> {
    (1..=3).map(|id| (NodeId(id), StoreId([u8::try_from(id).unwrap(); 16]))).collect()
}

struct World {
    dir: tempfile::TempDir,
    net: Arc<Net>,
    nodes: BTreeMap<NodeId, (Node, NodeRunner)>,
    /// What node 3 was told of.
    revoked: Arc<Revoked>,
}

impl World {
    async fn new() -> Self {
        let mut world = Self {
            dir: tempfile::tempdir().unwrap(),
            net: Arc::default(),
            nodes: BTreeMap::new(),
            revoked: Arc::default(),
        };
        (1..=3).for_each(|id| world.start(NodeId(id)));
        for (node, _) in world.nodes.values() {
            assert!(node.ready().await);
        }
        world
    }

    fn path(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    fn start(&mut self, id: NodeId) {
        self.start_rebuilt(id, 0);
    }

    fn start_rebuilt(&mut self, id: NodeId, rebuild: u32) {
        self.start_with(id, rebuild, false);
    }

    fn config(&self, id: NodeId) -> NodeConfig {
        NodeConfig {
            partitions: 2,
            cores: 1,
            members: (1..=3).map(NodeId).collect(),
            keep_for_peers: 5,
            flush_every: Duration::ZERO,
            ..NodeConfig::new(self.path(id), id)
        }
    }

    fn start_with(&mut self, id: NodeId, rebuild: u32, disk_low: bool) {
        let config = self.config(id);
        let (inbox, mail) = inbox();
        let side = Side { me: id, net: Arc::clone(&self.net) };
        let mut sinks = Sinks::none();
        if id == NodeId(3) {
            sinks.directory = self.revoked.clone();
        }
        let mut map = MemberMap::founded(&stores(), 2);
        map.nodes.get_mut(&id).unwrap().rebuild = rebuild;
        let runtime = ReplicaRuntime::start().unwrap();
        let opened = Opened::open(config).unwrap();
        let mut started = opened.start(&map, sinks, Arc::new(side), mail, runtime.handle()).unwrap();
        started.1.runtime = Some(runtime);
        // Nothing comes before it is reached.
        started.0.stats().disk_low.store(disk_low, std::sync::atomic::Ordering::Release);
        self.net.inboxes.lock().insert(id, inbox);
        self.net.down.lock().remove(&id);
        self.nodes.insert(id, started);
    }

    /// Its disk is almost full.
    fn start_low(&mut self, id: NodeId) {
        self.start_with(id, 0, true);
    }

    /// As if its process had been killed.
    async fn kill(&mut self, id: NodeId) {
        self.net.down.lock().insert(id);
        let (node, runner) = self.nodes.remove(&id).unwrap();
        tokio::task::spawn_blocking(move || drop(runner)).await.unwrap();
        drop(node);
    }

    fn node(&self, id: u64) -> &Node {
        &self.nodes[&NodeId(id)].0
    }

    /// How far each partition's state is, the directory's first, and its hash. As of the last tick.
    fn states(&self, id: u64) -> Vec<(u64, u64)> {
        self.node(id).partition_stats().iter().map(|stats| (stats.applied, stats.state_hash)).collect()
    }

    fn agreed(&self) -> bool {
        let first = self.states(1);
        !first.is_empty() && (2..=3).all(|id| self.states(id) == first && rows(self.node(id)) == rows(self.node(1)))
    }

    /// Waits until all nodes have the same state.
    async fn agree(&self) {
        let agreed = async {
            while !self.agreed() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, agreed).await.expect("they never come to the same state");
    }
}

/// Posts until the log of the conversation's partition has let go of what node 3 lacks.
async fn leave_behind(world: &mut World, id: ConversationId) -> u64 {
    world.kill(NodeId(3)).await;
    let partition = usize::from(world.node(1).partition_of(id).0);
    let mut number = 0;
    loop {
        number += 1;
        // Large enough that the state is more than one chunk.
        seq(post_of(world.node(1), id, ALICE, 1, number, vec![7; 4_000].into())).await;
        let stats = world.node(1).partition_stats()[partition];
        assert!(stats.log_entries < 1_000, "the log grows while a node is down: {stats:?}");
        if number > 150 && stats.durable > 100 && stats.last - stats.log_entries > 60 {
            return number;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_for_longer_than_the_log_reaches_back_catches_up_by_a_snapshot() {
    let mut world = World::new().await;
    let id = create(world.node(1), ALICE, BOB).await;
    world.agree().await;
    let number = leave_behind(&mut world, id).await;
    world.start(NodeId(3));
    world.agree().await;
    assert!(world.net.snapshots.lock().iter().any(|(to, ..)| *to == NodeId(3)), "it came by the log");
    // And it goes on, also after it was killed right then.
    world.kill(NodeId(3)).await;
    world.start(NodeId(3));
    assert!(world.node(3).ready().await);
    seq(post(world.node(3), id, ALICE, 1, number + 1)).await;
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_comes_as_a_snapshot_too_and_who_was_revoked_meanwhile_is_told() {
    let mut world = World::new().await;
    let signed_in = world.node(1).propose_directory(&sign_up("alice")).await.unwrap();
    let DirectoryOutcome::SignedIn { account, device } = signed_in else { panic!("{signed_in:?}") };
    let signed_in = world.node(1).propose_directory(&sign_up("bob")).await.unwrap();
    let DirectoryOutcome::SignedIn { device: bobs, .. } = signed_in else { panic!("{signed_in:?}") };
    world.agree().await;
    world.kill(NodeId(3)).await;
    let revoke = DirectoryCommand::RevokeDevice { actor: Actor { account, device }, device };
    world.node(1).propose_directory(&revoke).await.unwrap();
    let mut number = 0;
    while {
        let stats = world.node(1).partition_stats()[0];
        stats.last - stats.log_entries < 60
    } {
        number += 1;
        world.node(1).propose_directory(&sign_up(&format!("account{number}"))).await.unwrap();
    }
    assert!(world.revoked.0.lock().is_empty(), "it is away");
    *world.net.cut_after.lock() = Some(0);
    world.start(NodeId(3));
    world.agree().await;
    assert!(world.net.snapshots.lock().contains(&(NodeId(3), DIRECTORY, 0)), "it came by the log");
    let told = world.revoked.0.lock().clone();
    assert!(told.contains(&device) && !told.contains(&bobs), "{told:?}");
    let last = format!("account{number}");
    let read = world.node(3).read_directory(move |rows| rows.account_by_handle(&last).unwrap().is_some()).await;
    assert_eq!(read, Ok(true));
    // And it goes on, also after it was killed right then.
    world.kill(NodeId(3)).await;
    world.start(NodeId(3));
    assert!(world.node(3).ready().await);
    world.node(3).propose_directory(&sign_up("carol")).await.unwrap();
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_a_dead_leader_has_not_carried_everywhere_is_carried_by_the_next() {
    let mut world = World::new().await;
    let signed_in = world.node(1).propose_directory(&sign_up("alice")).await.unwrap();
    let DirectoryOutcome::SignedIn { account, device } = signed_in else { panic!("{signed_in:?}") };
    let actor = Actor { account, device };
    let mut ids = Vec::new();
    for peer in (100..108).map(AccountId) {
        ids.push(create(world.node(1), actor, peer).await);
    }
    let partitions: BTreeSet<_> = ids.iter().map(|id| world.node(1).partition_of(*id)).collect();
    assert_eq!(partitions.len(), 2, "there is a conversation in each");
    world.agree().await;
    let leader = world.node(1).leader(DIRECTORY).unwrap();
    let other = (1..=3).find(|id| NodeId(*id) != leader).unwrap();
    world.net.muted.lock().insert(PartitionId(1));
    let node = world.node(other).clone();
    let revoke = DirectoryCommand::RevokeDevice { actor, device };
    let revoking = tokio::spawn(async move { node.propose_directory(&revoke).await });
    let pending = async {
        while world.node(other).read_directory(|rows| rows.outbox(1).unwrap().is_empty()).await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, pending).await.expect("the directory never hears of it");
    world.kill(leader).await;
    assert!(!revoking.is_finished(), "one partition cannot have heard of it");
    world.net.muted.lock().clear();
    let outcome = tokio::time::timeout(PATIENCE, revoking).await.expect("nobody carries it on").unwrap();
    assert!(matches!(outcome, Ok(DirectoryOutcome::Gated { .. })), "{outcome:?}");
    for id in &ids {
        match post(world.node(other), *id, actor, 1, 1).await.unwrap() {
            ConversationOutcome::Refused(refused) => assert_eq!(refused.code, ErrorCode::Revoked),
            posted => panic!("{posted:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_empty_disk_is_rebuilt_from_snapshots() {
    let mut world = World::new().await;
    let id = create(world.node(1), ALICE, BOB).await;
    seq(post(world.node(1), id, ALICE, 1, 1)).await;
    world.node(1).propose_directory(&sign_up("alice")).await.unwrap();
    world.agree().await;
    world.kill(NodeId(3)).await;
    std::fs::remove_dir_all(world.path(NodeId(3))).unwrap();
    let mut map = MemberMap::founded(&stores(), 2);
    map.version = 1;
    map.nodes.get_mut(&NodeId(3)).unwrap().rebuild = 1;
    for id in 1..=2 {
        world.node(id).follow(Arc::new(map.clone()));
    }
    world.start_rebuilt(NodeId(3), 1);
    let rebuilt = async {
        let voters = [1, 2, member_of(NodeId(3), 1)];
        while !(world.agreed() && world.node(3).groups().iter().all(|group| group.voters == voters)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, rebuilt).await.expect("it never votes with what the others have");
    let installed = NodeStats::get(&world.node(3).stats().snapshots_installed);
    assert!(installed >= 3, "{installed} snapshots for the directory and two partitions");
    seq(post(world.node(3), id, ALICE, 1, 2)).await;
    world.agree().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &there);
        } else {
            std::fs::copy(&path, &there).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_from_a_leader_what_its_disk_has_forgotten_ends_and_never_starts_with_that_disk_again() {
    let mut world = World::new().await;
    let id = create(world.node(1), ALICE, BOB).await;
    world.agree().await;
    world.kill(NodeId(3)).await;
    let (path, old) = (world.path(NodeId(3)), world.dir.path().join("old"));
    copy(&path, &old);
    world.start(NodeId(3));
    seq(post(world.node(1), id, ALICE, 1, 1)).await;
    world.agree().await;
    world.kill(NodeId(3)).await;
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(&old, &path).unwrap();
    world.start(NodeId(3));
    let (_, runner) = world.nodes.get_mut(&NodeId(3)).unwrap();
    let error = tokio::time::timeout(PATIENCE, runner.failed()).await.expect("it goes on without what it acknowledged");
    assert!(matches!(&error, FatalError::Replica { reason: ReplicaError::LogLost { .. }, .. }), "{error}");
    assert!(error.advice().contains("cluster replace"), "{}", error.advice());
    world.kill(NodeId(3)).await;
    let refused = Opened::open(world.config(NodeId(3))).err().expect("it starts as if nothing had been");
    let said = refused.to_string();
    assert!(said.contains("quarantined") && said.contains("the log ends at"), "{said}");
    assert!(said.contains("cluster replace"), "{said}");
    seq(post(world.node(1), id, ALICE, 1, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_almost_full_takes_no_snapshot_until_there_is_room() {
    let mut world = World::new().await;
    let id = create(world.node(1), ALICE, BOB).await;
    world.agree().await;
    leave_behind(&mut world, id).await;
    world.start_low(NodeId(3));
    let failed = |world: &World| (1..=2).any(|id| NodeStats::get(&world.node(id).stats().snapshots_failed) > 0);
    let refused = async {
        while !failed(&world) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("it is never refused");
    assert_eq!(NodeStats::get(&world.node(3).stats().snapshots_installed), 0);
    world.node(3).stats().disk_low.store(false, std::sync::atomic::Ordering::Release);
    world.agree().await;
    assert!(NodeStats::get(&world.node(3).stats().snapshots_installed) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_cut_off_goes_on_from_there() {
    let mut world = World::new().await;
    let id = create(world.node(1), ALICE, BOB).await;
    world.agree().await;
    leave_behind(&mut world, id).await;
    *world.net.cut_after.lock() = Some(1);
    world.start(NodeId(3));
    world.agree().await;
    let snapshots = world.net.snapshots.lock().clone();
    assert!(snapshots.iter().any(|(_, _, chunks)| *chunks == 1), "{snapshots:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_while_its_snapshot_is_staged_or_installed_has_the_old_state_or_the_new_one() {
    for installed in [false, true] {
        let mut world = World::new().await;
        let id = create(world.node(1), ALICE, BOB).await;
        world.agree().await;
        let number = leave_behind(&mut world, id).await;
        let partition = world.node(1).partition_of(id);
        let term = world.node(1).partition_stats()[usize::from(partition.0)].term;
        {
            // What it had done of it when it died: everything, or everything but its log.
            let state = StateDb::open(&world.path(NodeId(3)).join("state"), &StateOptions::default()).unwrap();
            let mut capture = world.node(1).state().capture(partition).unwrap();
            let staging = state.stage(partition).unwrap();
            for chunk in 0.. {
                let Some(chunk) = capture.chunk(chunk, 100_000).unwrap() else { break };
                state.stage_chunk(&staging, &chunk).unwrap();
            }
            state.flush().unwrap();
            let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
            if installed {
                state.install(&staging, &Install { index: capture.applied(), term, conf_state }).unwrap();
            }
        }
        world.start(NodeId(3));
        assert!(world.node(3).ready().await);
        world.agree().await;
        seq(post(world.node(3), id, ALICE, 1, number + 1)).await;
        world.agree().await;
        // The leader may send one all the same, as it does not know; it is not needed.
        let more = NodeStats::get(&world.node(3).stats().snapshots_installed);
        assert_eq!(more == 0, installed, "{more} snapshots");
    }
}
