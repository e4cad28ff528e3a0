//! From a data directory to a running node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::time::Instant;

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use rove_core::apply_version::CannotApply;
use rove_core::conversation::ApplyError;
use rove_core::directory::{DirectoryError, DirectoryRead};
use rove_core::formation::{Record, founders};
use rove_core::lane::Lane;
use rove_core::life::Life;
use rove_core::membership::MemberMap;
use rove_core::replica::{Recovered, Replica, ReplicaConfig, member_of};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use super::admission::Admission;
use super::config::{MAX_PARTITIONS, NodeConfig};
use super::crash_points::CrashPoints;
use super::directory_writer::DirectoryWriter;
use super::error::StartError;
use super::flusher::Flusher;
use super::handle::{DIRECTORY, Inner, Node, NodeRunner, Phase, Shared};
use super::layout::Layout;
use super::machine::{Applier, DirectoryState as _, SqlDirectory};
use super::members::SharedMembers;
use super::peers::{PeerMail, Peers};
use super::replica_thread::{
    CREDITS, HANDOVERS, Progress, READS, ReplicaThread, Reports, Timing, Writers, room_for_reports,
};
use super::sinks::Sinks;
use super::snapshots::{self, Snapshots};
use super::state_writer::{ApplyRound, StateWriter};
use super::supervisor::{Stage, Supervisor};
use super::tickets::TicketTable;
use super::wall_clock::WallClock;
use super::{gates, log_writer, raft_logger, read_pool};
use crate::storage::directory::{DirectoryDb, DirectoryFiles, DirectoryReader};
use crate::storage::quarantine::Quarantine;
use crate::storage::raft_log::{Identity, RaftLog};
use crate::storage::state::{StateDb, StateOptions};
use crate::storage::watermark::{Synced, Watermark};

/// A node whose data directory was opened, and everything in it found to be sound; nothing runs yet.
pub struct Opened {
    config: NodeConfig,
    lock: File,
    identity: Identity,
    log: RaftLog,
    watermark: Watermark,
    /// By partition.
    synced: Vec<Synced>,
    state: StateDb,
    machines: Vec<Applier>,
    directory: SqlDirectory,
    files: DirectoryFiles,
    /// One for each thread of the read pool, and one for the gates.
    readers: Vec<DirectoryReader>,
    /// What was found of each replica, and up to where its state is durable; by partition.
    recovered: Vec<(Recovered, u64)>,
}

impl Opened {
    /// Opens the data directory, which is this process's from then on, and looks whether it is sound. Blocks on the disk.
    ///
    /// # Errors
    /// [`StartError`]: each says what to do.
    pub fn open(config: NodeConfig) -> Result<Self, StartError> {
        open(config)
    }

    /// Whose data directory it is, and how often it was opened.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The version of apply that is in force, as far as the directory was applied here.
    pub fn apply_version(&self) -> u16 {
        self.directory.apply_version()
    }

    /// The nodes that the cluster is formed with, by what the data directory kept of it (`record`) and what is in its groups. Those of the
    /// configuration count only while it is as new as theirs.
    ///
    /// # Errors
    /// [`StartError::Forgotten`], [`StartError::Directory`].
    pub fn founders(&mut self, record: &Record) -> Result<Vec<NodeId>, StartError> {
        let mut found = BTreeSet::new();
        for (recovered, _) in &self.recovered {
            let members = &recovered.conf_state;
            found.extend(members.voters.iter().chain(&members.voters_outgoing).chain(&members.learners).copied());
        }
        let map = self.directory.rows().members().map_err(|error| StartError::Directory(error.to_string()))?;
        let of_map = map.iter().flat_map(|map| &map.nodes).map(|(node, member)| member_of(*node, member.rebuild));
        found.extend(of_map);
        let (path, node) = (self.config.data_dir.clone(), self.config.node_id);
        let nodes = founders(node, self.config.members.clone(), record, &found);
        let nodes = nodes.ok_or(StartError::Forgotten { path, node })?;
        self.config.members.clone_from(&nodes);
        Ok(nodes)
    }

    /// Recovers the replicas and starts the threads. Returns before the log is replayed: see [`Node::is_ready`]. `map` says how often
    /// this node's replicas were rebuilt, and where they were when the cluster was formed: those are founders of their groups, others wait
    /// to be taken in. `mail` is what `peers` have to say, best on the same `runtime`: that of a
    /// [`ReplicaRuntime`](super::ReplicaRuntime), which outlives the node.
    ///
    /// # Errors
    /// [`StartError::Quarantined`], [`StartError::Thread`].
    pub fn start(
        self,
        map: &MemberMap,
        sinks: Sinks,
        peers: Arc<dyn Peers>,
        mail: PeerMail,
        runtime: &Handle,
    ) -> Result<(Node, NodeRunner), StartError> {
        run(self, map, sinks, peers, mail, runtime)
    }
}

fn open(config: NodeConfig) -> Result<Opened, StartError> {
    check(&config)?;
    let lock = lock(&config.data_dir)?;
    trusted(&config.data_dir)?;
    let log = RaftLog::open(&config.data_dir.join("raft"))?;
    // What is found in the log is on disk from here on: the identity is written and synced after it.
    let identity = identify(&log, &config)?;
    let watermark = Watermark::open(&config.data_dir.join("raft-synced"))?;
    let layout = Layout::of(config.cores, config.partitions);
    let options = StateOptions { background_jobs: layout.background_jobs, ..StateOptions::default() };
    let state = StateDb::open(&config.data_dir.join("state"), &options)
        .map_err(|error| StartError::State(error.to_string()))?;
    let cannot = |why: CannotApply| StartError::CannotApply { path: config.data_dir.clone(), why };
    let machines = (1..=config.partitions)
        .map(|number| Applier::load(&state, PartitionId(number), config.applies))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| match error {
            ApplyError::ApplyVersion(why) => cannot(why),
            other => StartError::State(other.to_string()),
        })?;
    let directory_error = |error: DirectoryError| match error {
        DirectoryError::ApplyVersion(why) => cannot(why),
        other => StartError::Directory(other.to_string()),
    };
    let directory = DirectoryDb::open(&config.data_dir.join("directory")).map_err(directory_error)?;
    let readers =
        (0..=layout.readers).map(|_| directory.reader()).collect::<Result<_, _>>().map_err(directory_error)?;
    let files = directory.files().clone();
    let directory = SqlDirectory::load(directory, config.applies).map_err(directory_error)?;

    let mut synced = Vec::new();
    let mut recover = |partition, applied, durable| {
        let mut recovered = log.load(partition, applied)?;
        recovered.installed = if partition == DIRECTORY {
            files.installed().map_err(directory_error)?
        } else {
            state.installed(partition).map_err(|error| StartError::State(error.to_string()))?
        };
        watermark.check(partition, &recovered)?;
        synced.push(Synced::of(&recovered));
        Ok::<_, StartError>((recovered, durable))
    };
    // What is in RocksDB before anything is written was read from its files. SQLite's may be in its log only, and not synced.
    let mut replicas = vec![recover(DIRECTORY, directory.applied(), 0)?];
    for machine in &machines {
        let applied = machine.machine.applied();
        replicas.push(recover(machine.partition, applied, applied)?);
    }
    Ok(Opened {
        config,
        lock,
        identity,
        log,
        watermark,
        synced,
        state,
        machines,
        directory,
        files,
        readers,
        recovered: replicas,
    })
}

/// Starts the threads.
fn run(
    opened: Opened,
    map: &MemberMap,
    sinks: Sinks,
    peers: Arc<dyn Peers>,
    mail: PeerMail,
    runtime: &Handle,
) -> Result<(Node, NodeRunner), StartError> {
    let Opened {
        config,
        lock,
        identity,
        log,
        watermark,
        synced,
        state,
        machines,
        directory,
        files,
        mut readers,
        recovered,
    } = opened;
    let lanes = lanes(&config, identity, map, recovered)?;
    let mut gates_reader = readers.pop().ok_or_else(|| StartError::Config("there are no readers".to_owned()))?;
    let shared = shared(&config, identity, map, members(&mut gates_reader)?, directory.apply_version())?;
    let stats = Arc::clone(&shared.stats);
    let (log, state, synced) = (Arc::new(log), Arc::new(state), Arc::new(Mutex::new(synced)));
    let mut supervisor = Supervisor::new(Arc::clone(&shared));
    let reads = read_pool::start(&mut supervisor, &state, readers, &stats)?;

    // Room for everything that admission lets through.
    let (proposals, proposed) = mpsc::channel((usize::from(config.partitions) + 1) * config.queue_commands);
    let (linearizable, reads_asked) = mpsc::channel(READS);
    let (handovers, handovers_asked) = mpsc::channel(HANDOVERS);
    let appliers = Layout::of(config.cores, config.partitions).appliers;
    let (reports, reported) = mpsc::channel(room_for_reports(appliers));
    let (log_rounds, mut to_log) = mpsc::channel(CREDITS);
    let (state_rounds, to_state): (Vec<_>, Vec<_>) = (0..appliers).map(|_| mpsc::channel(CREDITS)).unzip();
    let (directory_work, to_directory) = mpsc::channel(CREDITS);
    let (flushes, to_flush) = bounded(1);
    let (wake_gates, gates_woken) = bounded(1);

    let node = Node(Arc::new(Inner {
        shared: Arc::clone(&shared),
        proposals,
        linearizable,
        handovers,
        reads,
        state: Arc::clone(&state),
        lock,
    }));
    let mut runner = NodeRunner { node: node.clone(), supervisor, runtime: None };
    let machines_hash = machines.iter().map(|applier| applier.machine.state_hash());
    let state_hashes = std::iter::once(directory.state_hash()).chain(machines_hash).collect();
    let supervisor = &mut runner.supervisor;

    let (of, log_of, synced_of, out) = (Arc::clone(&shared), Arc::clone(&log), Arc::clone(&synced), reports.clone());
    supervisor
        .spawn(Stage::Pipeline, "log-writer", move || log_writer::run(&of, &log_of, &synced_of, &mut to_log, &out))?;

    let snapshots = Snapshots {
        shared: Arc::clone(&shared),
        state: Arc::clone(&state),
        directory: files,
        peers: Arc::clone(&peers),
    };
    let snapshots = snapshots::start(supervisor, &snapshots, mail.snapshots)?;

    let writer = StateWriter {
        shared: Arc::clone(&shared),
        state: Arc::clone(&state),
        number: 0,
        of: 1,
        appliers: machines,
        sink: sinks.effects,
        reclaims: snapshots.reclaims,
    };
    start_appliers(supervisor, writer, to_state, &reports)?;

    let writer = DirectoryWriter {
        shared: Arc::clone(&shared),
        directory,
        sink: sinks.directory,
        gates: wake_gates,
        gated: BTreeMap::new(),
        answered: Vec::new(),
    };
    let out = reports.clone();
    supervisor.spawn(Stage::Pipeline, "directory-writer", move || writer.run(to_directory, &out))?;

    let flusher = Flusher { shared: Arc::clone(&shared), state, log, watermark, synced, written: Vec::new() };
    supervisor.spawn(Stage::Pipeline, "flusher", move || flusher.run(&to_flush, &reports))?;

    let carrier = node.clone();
    supervisor.spawn(Stage::Helper, "gates", move || gates::run(&carrier, &mut gates_reader, &gates_woken))?;

    let replicas = ReplicaThread {
        shared,
        lanes,
        proposals: proposed,
        reads: reads_asked,
        from_peers: mail.says,
        peers,
        handovers: handovers_asked,
        snapshots: snapshots.events,
        sending: snapshots.sending,
        reports: reported,
        writers: Writers { log: log_rounds, state: state_rounds, directory: directory_work, flusher: flushes },
        timing: Timing {
            tick: config.tick,
            flush_every: config.flush_every,
            flush_log_bytes: config.flush_log_bytes,
            drain: config.drain,
        },
        progress: Progress::new(Instant::now(), state_hashes, appliers),
    };
    supervisor.spawn_on(runtime, Stage::Pipeline, "replicas", replicas.run());
    Ok((node, runner))
}

/// Who the nodes are, as the directory has it.
fn members(reader: &mut DirectoryReader) -> Result<Option<MemberMap>, StartError> {
    let members = reader.rows().and_then(DirectoryRead::members);
    members.map_err(|error| StartError::Directory(error.to_string()))
}

/// Starts a writer of the state for each of these channels.
fn start_appliers(
    supervisor: &mut Supervisor,
    writer: StateWriter<StateDb>,
    channels: Vec<mpsc::Receiver<ApplyRound>>,
    reports: &Reports,
) -> Result<(), StartError> {
    for (writer, rounds) in writer.divide(channels.len()).into_iter().zip(channels) {
        let reports = reports.clone();
        supervisor.spawn(Stage::Pipeline, "state-writer", move || writer.run(rounds, &reports))?;
    }
    Ok(())
}

/// What the threads and the handles share.
fn shared(
    config: &NodeConfig,
    identity: Identity,
    map: &MemberMap,
    members: Option<MemberMap>,
    apply_version: u16,
) -> Result<Arc<Shared>, StartError> {
    Ok(Arc::new(Shared {
        id: config.node_id,
        boot: identity.incarnation,
        partitions: config.partitions,
        shards: map.shards.clone(),
        queue_commands: config.queue_commands,
        queue_bytes: config.queue_bytes,
        doors: (0..=config.partitions).map(|_| Admission::default()).collect(),
        tickets: TicketTable::new(config.node_id, Life::new(rebuild_of(config, map), identity.incarnation)),
        stats: Arc::default(),
        phase: AtomicU8::new(Phase::Starting as u8),
        phase_entered: Notify::new(),
        killed: AtomicBool::new(false),
        status: Mutex::new(Vec::new()),
        leaders: watch::Sender::new(vec![None; 1 + usize::from(config.partitions)]),
        members: SharedMembers::new(members),
        applies: config.applies,
        apply_version: watch::Sender::new(apply_version),
        revocations: AtomicU64::new(0),
        clock: WallClock::from_environment()?,
        quarantine: Quarantine::of(&config.data_dir),
        crash_points: CrashPoints::from_environment()?,
    }))
}

fn check(config: &NodeConfig) -> Result<(), StartError> {
    let wrong = |what: &str| Err(StartError::Config(what.to_owned()));
    if config.node_id.0 == 0 {
        return wrong("node_id must not be 0");
    }
    if config.node_id.0 > u64::from(u32::MAX) {
        return wrong("node_id must be below 2^32");
    }
    if !config.members.contains(&config.node_id) {
        return wrong("the members of the cluster must name this node");
    }
    if config.partitions == 0 || config.partitions > MAX_PARTITIONS {
        return wrong("partitions must be between 1 and 256");
    }
    if config.queue_commands == 0 || config.queue_bytes == 0 {
        return wrong("queue_commands and queue_bytes must not be 0");
    }
    if config.tick.is_zero() {
        return wrong("tick must not be 0");
    }
    Ok(())
}

/// Takes the data directory for this process, until the file is closed. The file says which process that is; that it can be written shows
/// that the file system can.
fn lock(dir: &Path) -> Result<File, StartError> {
    let error = |source| StartError::data_dir(dir, source);
    fs::create_dir_all(dir).map_err(error)?;
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(error)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(error)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(error(source)),
    }
}

/// Makes sure that nothing was held against the directory while a node ran with it.
fn trusted(dir: &Path) -> Result<(), StartError> {
    let path = dir.to_owned();
    match Quarantine::of(dir).reason() {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(StartError::Distrusted { path, reason }),
        Err(source) => Err(StartError::data_dir(&path, source)),
    }
}

/// Makes sure that the directory is this node's, and counts this boot.
fn identify(log: &RaftLog, config: &NodeConfig) -> Result<Identity, StartError> {
    let found =
        log.identity()?.unwrap_or(Identity { node: config.node_id, partitions: config.partitions, incarnation: 0 });
    if found.node != config.node_id {
        return Err(StartError::OtherNode {
            path: config.data_dir.clone(),
            found: found.node,
            expected: config.node_id,
        });
    }
    if found.partitions != config.partitions {
        return Err(StartError::OtherPartitions { found: found.partitions, expected: config.partitions });
    }
    let identity = Identity { incarnation: found.incarnation + 1, ..found };
    log.set_identity(identity)?;
    Ok(identity)
}

/// How often this node was rebuilt on an empty disk.
fn rebuild_of(config: &NodeConfig, map: &MemberMap) -> u32 {
    map.nodes.get(&config.node_id).map_or(0, |member| member.rebuild)
}

/// By partition.
fn lanes(
    config: &NodeConfig,
    identity: Identity,
    map: &MemberMap,
    recovered: Vec<(Recovered, u64)>,
) -> Result<Vec<Lane>, StartError> {
    let rebuild = rebuild_of(config, map);
    let life = Life::new(rebuild, identity.incarnation);
    let first = map.first_placement();
    let recovered = (0..).map(PartitionId).zip(recovered);
    let lane = |(partition, (of, durable))| {
        let founds = rebuild == 0 && first.has(partition, config.node_id);
        let founders = first.of(partition).filter(|_| founds).map(|node| member_of(node, 0)).collect();
        let replica = ReplicaConfig::new(partition, member_of(config.node_id, rebuild), founders);
        lane(config, life, replica, of, durable)
    };
    recovered.map(lane).collect()
}

/// A replica, from what is on disk.
fn lane(
    config: &NodeConfig,
    life: Life,
    mut replica_config: ReplicaConfig,
    recovered: Recovered,
    durable: u64,
) -> Result<Lane, StartError> {
    let partition = replica_config.partition;
    replica_config.keep_for_peers = config.keep_for_peers;
    let mut replica = Replica::recover(replica_config, recovered, &raft_logger::logger(partition))
        .map_err(|reason| StartError::Quarantined { partition, reason })?;
    replica.campaign_if_alone();
    Ok(Lane::new(replica, config.node_id, life, durable))
}
