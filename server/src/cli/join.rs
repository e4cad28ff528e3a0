//! From a configuration to a node whose replicas run: alone, or as one of a cluster.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use rove_core::formation::{Formation, Identity};
use rove_protocol::ids::NodeId;

use super::config::{ClusterSection, Config};
use super::members::{self, Members, Transport};
use super::run::RunError;
use crate::cluster::{self, Cluster, ClusterConfig, ClusterRunner};
use crate::edge::{Hub, HubConfig};
use crate::membership::Roster;
use crate::node::{Node, NodeConfig, NodeRunner, Opened, ReplicaRuntime, Sinks, StartError, inbox};
use crate::storage::formation::FormationFile;
use crate::storage::space::space_of;

/// MiB that a start may write before the first command: the first files of the log and of the stores.
const START_MIB: u64 = 16;

/// A node that runs, and who stops it.
pub(super) struct Joined {
    pub(super) hub: Arc<Hub>,
    pub(super) node: Node,
    pub(super) runner: NodeRunner,
    /// The other nodes, if there are any.
    pub(super) cluster: Option<JoinedCluster>,
}

/// What connects a node with the others.
pub(super) struct JoinedCluster {
    pub(super) transport: Cluster,
    /// Who hears the others.
    pub(super) members: Arc<Members>,
    /// Stopped after the node.
    pub(super) runner: ClusterRunner,
    /// Where both run.
    pub(super) replicas: ReplicaRuntime,
}

/// Opens the data directory and starts the node. One of a cluster that was never formed waits here until all its nodes are there.
pub(super) async fn join(config: &Config) -> Result<Joined, RunError> {
    // What people say is nobody else's to read on this machine. A directory that is there keeps its mode: the operator's choice.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir);
    made.map_err(|source| StartError::data_dir(&config.data_dir, source))?;
    check_space(config)?;
    let hub = Hub::new(&HubConfig {
        partitions: config.partitions,
        heartbeat: Duration::from_secs(config.heartbeat_s),
        pull: config.pull(),
    });
    let sinks = Sinks { effects: hub.clone(), directory: hub.clone() };
    let node_config = NodeConfig {
        partitions: config.partitions,
        flush_every: Duration::from_secs(config.flush_s),
        applies: config.release.applies,
        ..NodeConfig::new(&config.data_dir, config.node())
    };
    let Some(section) = &config.cluster else {
        let (node, runner) = Node::start(node_config, sinks)?;
        return Ok(Joined { hub, node, runner, cluster: None });
    };
    join_cluster(config, section, node_config, sinks, hub).await
}

async fn join_cluster(
    config: &Config,
    section: &ClusterSection,
    node_config: NodeConfig,
    sinks: Sinks,
    hub: Arc<Hub>,
) -> Result<Joined, RunError> {
    let members: Vec<NodeId> = section.peers.iter().map(|peer| NodeId(peer.node)).collect();
    let mut opened = Opened::open(NodeConfig { members, keep_for_peers: section.keep_log, ..node_config })?;
    let (file, record) = FormationFile::open(&config.data_dir)?;
    let nodes = opened.founders(&record)?;
    let incarnation = opened.identity().incarnation;
    let boot = members::boot(&file, incarnation);
    let (inbox, mail) = inbox();
    let me = config.node();
    let configured: BTreeMap<_, _> =
        section.peers.iter().map(|peer| (NodeId(peer.node), peer.address.clone())).collect();
    let address = configured.get(&me).cloned().unwrap_or_default();
    let identity = Identity { node: me, boot, address, partitions: config.partitions, applies: config.release.applies };
    let mut formation = Formation::new(identity, nodes, record);
    formation.set_apply_version(opened.apply_version());
    let roster = Roster::new(me, configured, file, formation);
    let members = Members::new(inbox, roster.clone(), hub.clone());
    let socket = cluster::bind(section.listen).map_err(|source| RunError::Listen {
        key: "cluster.listen",
        address: section.listen,
        source,
    })?;
    let cluster_config = ClusterConfig {
        name: section.name.clone(),
        node: config.node(),
        store: boot.store.0,
        incarnation,
        formation: roster.introduction(),
        files: section.files(),
        peers: roster.peers(),
        socket,
        program: config.release.version,
        versions: config.release.speaks,
    };
    let replicas = ReplicaRuntime::start()?;
    let (transport, runner) = {
        let _on = replicas.handle().enter();
        Cluster::start(cluster_config, members.clone())?
    };
    roster.started(transport.clone());
    let map = tokio::select! {
        map = roster.formed() => map,
        why = roster.out() => return Err(RunError::Out(why)),
    };
    let peers = Arc::new(Transport(transport.clone()));
    hub.join_peers(peers.clone());
    let (node, node_runner) = opened.start(&map, sinks, peers, mail, replicas.handle())?;
    roster.running(node.clone());
    let cluster = Some(JoinedCluster { transport, members, runner, replicas });
    Ok(Joined { hub, node, runner: node_runner, cluster })
}

/// Whether there is a disk to start on.
fn check_space(config: &Config) -> Result<(), StartError> {
    let path = config.data_dir.clone();
    let space = match space_of(&path) {
        Ok(space) => space,
        Err(source) => return Err(StartError::data_dir(&path, source)),
    };
    let (free, reserve) = (space.free >> 20, config.disk_reserve);
    if space.read_only {
        return Err(StartError::ReadOnly { path });
    }
    if free < START_MIB {
        return Err(StartError::DiskFull { path, free_mib: free, needed_mib: START_MIB });
    }
    if space.total >> 20 < 2 * reserve {
        tracing::warn!(
            total_mib = space.total >> 20,
            disk_reserve = reserve,
            "disk_reserve is more than half of the disk of data_dir: posts are refused while there is much room"
        );
    }
    Ok(())
}
