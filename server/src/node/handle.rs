//! What the rest of the server holds of the node.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rove_core::apply_version::ApplyVersions;
use rove_core::command::{ConversationCommand, ConversationOutcome, Envelope};
use rove_core::directory::{DirectoryCommand, DirectoryOutcome, DirectoryRead};
use rove_core::formation::StoreId;
use rove_core::membership::MemberMap;
use rove_core::placement::ShardMap;
use rove_protocol::ids::{ConversationId, NodeId, PartitionId};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, oneshot, watch};

use super::admission::Admission;
use super::config::NodeConfig;
use super::crash_points::CrashPoints;
use super::error::{CallError, FatalError, ProposeError, StartError};
use super::members::SharedMembers;
use super::peers::{NoPeers, inbox};
use super::read_pool::ReadPool;
use super::replica_runtime::ReplicaRuntime;
use super::replica_thread::{HandoverRequest, Proposal, ReadRequest};
use super::sinks::Sinks;
use super::start::Opened;
use super::stats::{NodeStats, PartitionStats};
use super::supervisor::Supervisor;
use super::tickets::{TicketTable, Waiter};
use super::wall_clock::WallClock;
use crate::storage::quarantine::Quarantine;
use crate::storage::state::StateDb;

/// The directory's partition.
pub(super) const DIRECTORY: PartitionId = PartitionId(0);

/// Largest encoded command: the largest that a frame can ask for (a group with 500 members named one by one) with room to spare.
pub(super) const MAX_COMMAND: usize = 64 * 1024;

/// Where the node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Replaying, electing.
    Starting = 0,
    /// Every partition has caught up with what was in the log at start.
    Ready = 1,
    /// Takes nothing new.
    Stopping = 2,
}

/// What the node's threads and its handles share.
pub(super) struct Shared {
    pub(super) id: NodeId,
    /// How often it was started with its data directory, this time included.
    pub(super) boot: u64,
    pub(super) partitions: u16,
    /// Which of them holds which shard.
    pub(super) shards: ShardMap,
    pub(super) queue_commands: usize,
    pub(super) queue_bytes: usize,
    /// One for each partition, the directory's first.
    pub(super) doors: Box<[Admission]>,
    pub(super) tickets: TicketTable,
    pub(super) stats: Arc<NodeStats>,
    pub(super) phase: AtomicU8,
    pub(super) phase_entered: Notify,
    /// Stop at once, without draining or flushing: as if the process had been killed.
    pub(super) killed: AtomicBool,
    /// Newest status of each replica, refreshed with every tick.
    pub(super) status: Mutex<Vec<PartitionStats>>,
    /// Who leads each partition, the directory's first.
    pub(super) leaders: watch::Sender<Vec<Option<NodeId>>>,
    pub(super) members: SharedMembers,
    /// The versions of apply that this node has.
    pub(super) applies: ApplyVersions,
    /// The one that is in force, as far as the directory is applied here.
    pub(super) apply_version: watch::Sender<u16>,
    /// See [`Node::revocations`].
    pub(super) revocations: AtomicU64,
    pub(super) clock: WallClock,
    /// Where it is written down that the data directory is not to be trusted.
    pub(super) quarantine: Quarantine,
    /// Where it is told to panic, in tests.
    pub(super) crash_points: CrashPoints,
}

impl Shared {
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }

    /// Phases only go forward.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.phase_entered.notify_waiters();
    }
}

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) proposals: Sender<Proposal>,
    pub(super) linearizable: Sender<ReadRequest>,
    pub(super) handovers: Sender<HandoverRequest>,
    pub(super) reads: ReadPool,
    pub(super) state: Arc<StateDb>,
    /// Closed last: the directory is ours as long as anything in it is open.
    #[allow(dead_code, reason = "held, not used")]
    pub(super) lock: File,
}

/// A node's replicas, as everything above them sees them. Cheap to clone.
#[derive(Clone)]
pub struct Node(pub(super) Arc<Inner>);

impl Node {
    /// Opens the data directory of a node on its own, recovers the replicas and starts the threads.
    ///
    /// Returns before the log is replayed: see [`Node::is_ready`]. Blocks on the disk; call it before the runtime is busy. A node of a
    /// cluster is opened and started in two steps: [`Opened`].
    pub fn start(config: NodeConfig, sinks: Sinks) -> Result<(Self, NodeRunner), StartError> {
        let (_, nobody) = inbox();
        // What it is called by others, there are none.
        let alone = MemberMap::founded(&[(config.node_id, StoreId([0; 16]))].into(), config.partitions);
        let runtime = ReplicaRuntime::start()?;
        let (node, mut runner) =
            Opened::open(config)?.start(&alone, sinks, Arc::new(NoPeers), nobody, runtime.handle())?;
        runner.runtime = Some(runtime);
        Ok((node, runner))
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.0.shared.id
    }

    /// How often this node was started with its data directory, this time included.
    pub fn boot(&self) -> u64 {
        self.0.shared.boot
    }

    /// Conversation partitions of the cluster.
    pub fn partitions(&self) -> u16 {
        self.0.shared.partitions
    }

    /// The versions of apply that this node has (D8).
    pub fn applies(&self) -> ApplyVersions {
        self.0.shared.applies
    }

    /// The version of apply that is in force in the cluster, as far as the directory is applied here.
    pub fn apply_version(&self) -> u16 {
        *self.0.shared.apply_version.borrow()
    }

    /// The same, and every change.
    pub fn apply_version_said(&self) -> watch::Receiver<u16> {
        self.0.shared.apply_version.subscribe()
    }

    /// Which partition holds which shard.
    pub fn shards(&self) -> &ShardMap {
        &self.0.shared.shards
    }

    /// Where a conversation lives.
    pub fn partition_of(&self, conversation: ConversationId) -> PartitionId {
        self.0.shared.shards.of_conversation(conversation)
    }

    /// Queues a command for its partition, in the order of the calls. The receiver resolves when the command is applied, and fails
    /// when its outcome is lost (leadership moved, or the node stopped): the caller repeats it under the same post number.
    pub fn propose_conversation(
        &self,
        partition: PartitionId,
        command: &ConversationCommand,
    ) -> Result<oneshot::Receiver<ConversationOutcome>, ProposeError> {
        if partition == DIRECTORY {
            return Err(ProposeError::UnknownPartition(partition));
        }
        let (sender, receiver) = oneshot::channel();
        self.propose(partition, command.encode().into(), Waiter::Conversation(sender), command.may_use_reserve())?;
        Ok(receiver)
    }

    /// Runs a command of the directory and waits for its outcome. What every partition has to know (D9) has reached all of them
    /// when this returns.
    pub async fn propose_directory(&self, command: &DirectoryCommand) -> Result<DirectoryOutcome, CallError> {
        self.queue_directory(command)?.await.map_err(|_| CallError::Unknown)
    }

    /// Queues a command of the directory.
    pub(super) fn queue_directory(
        &self,
        command: &DirectoryCommand,
    ) -> Result<oneshot::Receiver<DirectoryOutcome>, ProposeError> {
        let (sender, receiver) = oneshot::channel();
        self.propose(DIRECTORY, command.encode().into(), Waiter::Directory(sender), command.may_use_reserve())?;
        Ok(receiver)
    }

    /// Runs a read of the conversation state on the read pool.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&StateDb) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.0.reads.state(&self.0.shared.stats, f).await
    }

    /// Runs a read of the directory on the read pool.
    pub async fn read_directory<T: Send + 'static>(
        &self,
        f: impl FnOnce(&dyn DirectoryRead) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.0.reads.directory(&self.0.shared.stats, f).await
    }

    /// The conversation state, for reads that are known to be short: a row or two that were just written and are in memory.
    /// Everything else goes through [`Node::read`].
    pub fn state(&self) -> &StateDb {
        &self.0.state
    }

    /// Whether every partition has caught up since the start, and takes commands: it has, or is about to elect, a leader that can be
    /// reached from here.
    pub fn is_ready(&self) -> bool {
        self.0.shared.phase() == Phase::Ready && self.0.shared.doors.iter().all(Admission::is_open)
    }

    /// Waits until every partition has caught up. False if the node stops instead.
    pub async fn ready(&self) -> bool {
        loop {
            let entered = self.0.shared.phase_entered.notified();
            match self.0.shared.phase() {
                Phase::Starting => entered.await,
                Phase::Ready => return true,
                Phase::Stopping => return false,
            }
        }
    }

    /// Whether the log that was there at start is replayed.
    pub fn has_caught_up(&self) -> bool {
        self.0.shared.phase() == Phase::Ready
    }

    /// Whether the disk is almost full, so that commands are refused.
    pub fn is_disk_low(&self) -> bool {
        self.stats().disk_low.load(Ordering::Acquire)
    }

    /// Whether this node's clock is far from the others', so that it is not to lead.
    pub fn is_clock_far(&self) -> bool {
        self.stats().clock_far.load(Ordering::Acquire)
    }

    /// How often devices were revoked since the start, at least: it grows after the directory has it, and before a session is told. So
    /// who registers a session need not look again whether its device is revoked, if this is what it was before the first look.
    pub fn revocations(&self) -> u64 {
        self.0.shared.revocations.load(Ordering::Acquire)
    }

    /// What time it is here, in milliseconds of the Unix epoch, as a leader on this node would stamp it.
    pub fn now_ms(&self) -> u64 {
        self.0.shared.clock.now_ms()
    }

    /// The partitions of which no leader can be reached from here: their commands are refused.
    pub fn unreachable(&self) -> Vec<PartitionId> {
        let doors = self.0.shared.doors.iter().zip(0..);
        doors.filter(|(door, _)| !door.is_open()).map(|(_, partition)| PartitionId(partition)).collect()
    }

    /// Who leads `partition`, as far as is known here.
    pub fn leader(&self, partition: PartitionId) -> Option<NodeId> {
        self.0.shared.leaders.borrow().get(usize::from(partition.0)).copied().flatten()
    }

    /// Who leads each partition, the directory's first, now and when it changes.
    pub fn leaders(&self) -> watch::Receiver<Vec<Option<NodeId>>> {
        self.0.shared.leaders.subscribe()
    }

    /// The partitions that this node leads.
    pub fn led(&self) -> Vec<PartitionId> {
        let leaders = self.0.shared.leaders.borrow();
        let led = leaders.iter().zip(0..).filter(|(leader, _)| **leader == Some(self.id()));
        led.map(|(_, partition)| PartitionId(partition)).collect()
    }

    /// The replicas, the directory's first. As of the last tick.
    pub fn partition_stats(&self) -> Vec<PartitionStats> {
        self.0.shared.status.lock().clone()
    }

    /// The counters.
    pub fn stats(&self) -> &NodeStats {
        &self.0.shared.stats
    }

    fn propose(
        &self,
        partition: PartitionId,
        command: Bytes,
        waiter: Waiter,
        may_use_reserve: bool,
    ) -> Result<(), ProposeError> {
        let shared = &self.0.shared;
        let refused = |error: ProposeError| {
            let counter = match error {
                ProposeError::NoLeader => &shared.stats.commands_refused_no_leader,
                ProposeError::DiskLow => &shared.stats.commands_refused_disk,
                _ => &shared.stats.commands_refused_busy,
            };
            NodeStats::add(counter, 1);
            error
        };
        if shared.phase() == Phase::Stopping {
            return Err(ProposeError::Stopping);
        }
        if !may_use_reserve && self.is_disk_low() {
            return Err(refused(ProposeError::DiskLow));
        }
        let size = command.len();
        if size > MAX_COMMAND {
            return Err(ProposeError::TooLarge { size, limit: MAX_COMMAND });
        }
        let door = shared.doors.get(usize::from(partition.0)).ok_or(ProposeError::UnknownPartition(partition))?;
        door.enter(size, shared.queue_commands, shared.queue_bytes).map_err(refused)?;
        let Some(origin) = shared.tickets.issue(waiter) else {
            door.leave(1, size);
            return Err(refused(ProposeError::Busy));
        };
        let proposal = Proposal { partition, envelope: Envelope { origin, command } };
        if let Err(error) = self.0.proposals.try_send(proposal) {
            door.leave(1, size);
            shared.tickets.take(origin);
            return Err(match error {
                TrySendError::Full(_) => refused(ProposeError::Busy),
                TrySendError::Closed(_) => ProposeError::Stopping,
            });
        }
        NodeStats::add(&shared.stats.commands_queued, 1);
        Ok(())
    }
}

/// The running threads. The process's main holds it, awaits [`NodeRunner::failed`] beside its own signals, and ends with
/// [`NodeRunner::stop`]. Dropping it stops the threads at once, without draining or flushing, as a crash would.
pub struct NodeRunner {
    pub(super) node: Node,
    pub(super) supervisor: Supervisor,
    /// Of a node on its own.
    pub(super) runtime: Option<ReplicaRuntime>,
}

impl NodeRunner {
    /// Resolves when the node cannot go on. The process must end then, loudly.
    pub async fn failed(&mut self) -> FatalError {
        self.supervisor.failed().await
    }

    /// Stops gracefully: takes nothing new, finishes what is queued, flushes the state, checkpoints the directory, syncs the log.
    pub async fn stop(self) -> Result<(), FatalError> {
        match tokio::task::spawn_blocking(move || self.stop_blocking()).await {
            Ok(result) => result,
            Err(panic) => Err(FatalError::Panicked { name: "stop", message: panic.to_string() }),
        }
    }

    /// The same for callers without a runtime.
    pub fn stop_blocking(mut self) -> Result<(), FatalError> {
        self.node.0.shared.enter(Phase::Stopping);
        let result = self.supervisor.join();
        self.node.0.shared.tickets.abandon_all();
        result
    }
}

impl Drop for NodeRunner {
    fn drop(&mut self) {
        let shared = &self.node.0.shared;
        shared.killed.store(true, Ordering::Release);
        shared.enter(Phase::Stopping);
        // Whatever they say, nobody is left to hear it.
        let _ = self.supervisor.join();
        shared.tickets.abandon_all();
    }
}
