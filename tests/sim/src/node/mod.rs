//! One node: the lanes of the real core, a disk and a state store under them, sessions of clients above. What the server's shell does
//! with threads and channels happens here event by event.

mod apply;
mod directory;
mod edge;
mod snapshots;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rove_core::command::Gate;
use rove_core::conversation::PartitionMachine;
use rove_core::directory::{DirectoryMachine, MemoryDirectory};
use rove_core::lane::{Lane, LaneOutputs};
use rove_core::life::Life;
use rove_core::membership::{MemberMap, follows};
use rove_core::placement::DIRECTORY;
use rove_core::replica::{
    Committed, Install, PeerMessage, Recovered, Replica, ReplicaConfig, ReplicaRole, StepError, member_of, node_of,
};
use rove_core::routing::{Forward, ForwardAck};
use rove_core::store::{MemoryStore, StateStore, WriteBatch};
use rove_protocol::ids::{NodeId, PartitionId};
use slog::{Discard, Logger, o};

use crate::bugs::Bug;
use crate::disk::{Crash, Done, LogDisk, Loss, Write};
use crate::faults::{Fault, Fired};
use crate::history::Record;
use crate::options::Plan;
use crate::rng::Rng;
use crate::wire::{SessionId, ToClient, ToNode};
pub use directory::founded;
use directory::{Carrier, Machine};
use edge::{Session, Waiter};
use snapshots::{Due, Said, Snapshots};

/// The nodes that the cluster begins with.
pub const FOUNDERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// All that there may be: one more, so that some hold replicas that do not vote.
pub const NODES: [NodeId; 4] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4)];

/// Raft's unit of time, as in the server.
pub const TICK_US: u64 = 50_000;

/// Milliseconds of the Unix epoch at which the simulation begins.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// What happens to a node.
#[derive(Debug, Clone)]
pub enum NodeEvent {
    /// Time passes.
    Tick,
    /// A raft message arrives.
    Peer(NodeId, Bytes),
    /// Commands arrive that another node forwards.
    Forward(NodeId, Forward),
    /// A leader says which command is due.
    Ack(NodeId, ForwardAck),
    /// There is a new connection to a node.
    LinkUp(NodeId),
    /// The disk is done.
    Written,
    /// The state writer gets to work on a partition.
    Apply(PartitionId),
    /// The state is to be flushed.
    Flush,
    /// A client says something.
    Client(SessionId, ToNode),
    /// A client's connection is gone.
    SessionGone(SessionId),
    /// An operator wants another leader.
    Transfer(NodeId),
    /// An operator wants this of the directory.
    Operate(Bytes),
    /// Something of a snapshot arrives.
    Snapshot(NodeId, Said),
    /// The next step of a snapshot is due.
    SnapshotDue(PartitionId, Due),
}

/// What a node wants done.
#[derive(Debug)]
pub enum Action {
    /// Send this to the replica on that node.
    Raft(NodeId, Bytes),
    /// Send this to that node, in order.
    Forward(NodeId, Forward),
    /// Send this to that node, in order.
    Ack(NodeId, ForwardAck),
    /// Send this to a client, in order.
    Client(SessionId, ToClient),
    /// Tell me this after some microseconds, unless I have stopped.
    After(u64, NodeEvent),
    /// This happened.
    Record(Record),
    /// Send this to that node; it can be lost like raft's messages.
    Snapshot(NodeId, Said),
    /// The directory says who the nodes are.
    Members(MemberMap),
    /// These gates are in the directory's outbox.
    Gates(Vec<(u64, Gate)>),
    /// All partitions have the gates up to this one.
    GatesDone(u64),
    /// A sync has failed: I stop.
    FailStop,
    /// The step of an install is there at which I was to crash.
    Crash(Fault),
}

/// What a node may know and use of the world.
pub struct Context<'a> {
    /// Microseconds since the beginning.
    pub now_us: u64,
    /// Chance.
    pub rng: &'a mut Rng,
    /// The run's plan.
    pub plan: &'a Plan,
    /// The bug that is planted.
    pub bug: Option<Bug>,
    /// Faults that did something.
    pub fired: &'a mut Fired,
    /// The last entry of each partition that was applied anywhere.
    pub applied_anywhere: &'a mut BTreeMap<PartitionId, u64>,
    /// What is to be done.
    pub actions: Vec<Action>,
}

impl Context<'_> {
    fn record(&mut self, record: Record) {
        self.actions.push(Action::Record(record));
    }
}

/// One partition on a node that runs.
struct Place {
    lane: Lane,
    machine: Machine,
    /// Committed, and waiting for the state writer.
    committed: VecDeque<Committed>,
    applying: bool,
    snapshots: Snapshots,
}

/// A node that runs.
struct Running {
    /// What readers see.
    store: MemoryStore,
    /// Written since the last flush.
    unflushed: Vec<WriteBatch>,
    /// The directory's tables, and who carries its gates.
    directory: MemoryDirectory,
    carrier: Carrier,
    places: BTreeMap<PartitionId, Place>,
    next_ticket: u64,
    tickets: BTreeMap<u64, Waiter>,
    sessions: BTreeMap<SessionId, Session>,
    /// Who asked for which linearizable read.
    reads: BTreeMap<u64, edge::Reader>,
}

/// A node, running or not.
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// Its log's disk.
    pub disk: LogDisk,
    /// What the state store has durably.
    flushed: MemoryStore,
    /// The directory as it was checkpointed last; and as it is before its first entry.
    checkpoint: MemoryDirectory,
    blank: MemoryDirectory,
    /// And with it: the snapshots that states came from last.
    installed: BTreeMap<PartitionId, Install>,
    /// How often it came with an empty disk, after the cluster was formed.
    pub rebuild: u32,
    /// Who the nodes are, as far as it has been told.
    pub map: Arc<MemberMap>,
    /// Starts so far.
    pub boot: u64,
    /// Those of them on the disk that it has.
    pub starts: u64,
    /// Milliseconds by which its wall clock is wrong.
    pub clock_ms: i64,
    /// It stands still until the world lets it go on.
    pub paused: bool,
    /// Writes take long.
    pub slow_disk: bool,
    /// The next sync fails.
    pub sync_fails: bool,
    /// Nothing starts it before this.
    pub away_until_us: u64,
    /// It crashes at this step of the next install.
    pub crash_at: Option<Fault>,
    /// The next piece of a snapshot that it sends is lost.
    pub cuts_snapshot: bool,
    /// It does not trust its disk, and takes no part any more.
    pub quarantined: bool,
    running: Option<Running>,
}

/// How a partition is on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceStatus {
    /// Last index of the log, committed, applied.
    pub indexes: [u64; 3],
    /// Whether nothing is on its way.
    pub idle: bool,
    /// Whether it leads.
    pub leads: bool,
}

impl Node {
    /// A node that was never started.
    pub fn new(id: NodeId, map: &Arc<MemberMap>, blank: &MemoryDirectory, bug: Option<Bug>) -> Self {
        Self {
            id,
            disk: LogDisk::new(bug),
            flushed: MemoryStore::new(),
            checkpoint: blank.clone(),
            blank: blank.clone(),
            installed: BTreeMap::new(),
            rebuild: 0,
            map: Arc::clone(map),
            boot: 0,
            starts: 0,
            clock_ms: 0,
            paused: false,
            slow_disk: false,
            sync_fails: false,
            away_until_us: 0,
            crash_at: None,
            cuts_snapshot: false,
            quarantined: false,
            running: None,
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts from what the disk has, or finds that it must not.
    pub fn start(&mut self, context: &mut Context<'_>) {
        self.boot += 1;
        self.starts += 1;
        match self.recover(context) {
            Ok(running) => {
                self.running = Some(running);
                context.actions.push(Action::After(context.rng.below(TICK_US), NodeEvent::Tick));
                context.actions.push(Action::After(context.plan.flush_every_us, NodeEvent::Flush));
            }
            Err(reason) => self.quarantine(reason, context),
        }
    }

    fn recover(&mut self, context: &Context<'_>) -> Result<Running, String> {
        let mut found = self.disk.recover(context.now_us)?;
        let store = self.flushed.clone();
        let logger = Logger::root(Discard, o!());
        let mut places = BTreeMap::new();
        let life = Life::new(self.rebuild, self.starts);
        for partition in context.plan.all_partitions() {
            let machine = if partition == DIRECTORY {
                Machine::Directory(DirectoryMachine::load(&self.checkpoint).map_err(|error| error.to_string())?)
            } else {
                let machine = PartitionMachine::load(&store, partition).map_err(|error| error.to_string())?;
                Machine::Conversations(Box::new(machine))
            };
            let applied = machine.applied();
            let installed = self.installed.get(&partition).cloned();
            let recovered = Recovered { applied, installed, ..found.remove(&partition).unwrap_or_default() };
            // Who comes later waits until it is taken in.
            let founders: &[NodeId] = if self.rebuild == 0 { &FOUNDERS } else { &[] };
            let voters = founders.iter().map(|node| member_of(*node, 0)).collect();
            let mut config = ReplicaConfig::new(partition, member_of(self.id, self.rebuild), voters);
            let ticks = usize::try_from(self.id.0 - 1).ok().and_then(|at| context.plan.election_ticks.get(at));
            let ticks = ticks.copied().unwrap_or(10);
            config.election_ticks = ticks..ticks + 1;
            config.keep_for_peers = context.plan.keep_for_peers;
            let replica = Replica::recover(config, recovered, &logger).map_err(|error| error.to_string())?;
            let lane = Lane::new(replica, self.id, life, applied);
            let (committed, snapshots) = (VecDeque::new(), Snapshots::default());
            places.insert(partition, Place { lane, machine, committed, applying: false, snapshots });
        }
        Ok(Running {
            store,
            unflushed: Vec::new(),
            directory: self.checkpoint.clone(),
            carrier: Carrier::default(),
            places,
            next_ticket: life.first_number(),
            tickets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            reads: BTreeMap::new(),
        })
    }

    /// Stops at once.
    pub fn crash(&mut self, crash: Crash, tear: bool, rng: &mut Rng) -> Loss {
        self.running = None;
        self.paused = false;
        self.disk.crash(crash, tear, rng)
    }

    fn quarantine(&mut self, reason: String, context: &mut Context<'_>) {
        self.running = None;
        self.quarantined = true;
        let damaged = self.disk.is_rotten();
        if damaged {
            context.fired.count(Fault::BitRot);
        }
        context.record(Record::Quarantined { node: self.id, damaged, reason });
    }

    /// Something happens to it.
    pub fn handle(&mut self, event: NodeEvent, context: &mut Context<'_>) {
        if self.running.is_none() {
            return;
        }
        if let Err(reason) = self.event(event, context).and_then(|()| self.pump(context)) {
            self.quarantine(reason, context);
        }
    }

    fn event(&mut self, event: NodeEvent, context: &mut Context<'_>) -> Result<(), String> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let id = self.id;
        match event {
            NodeEvent::Tick => {
                for place in running.places.values_mut() {
                    place.lane.tick();
                    // One that has to wait is tried again with the next tick.
                    let _ = place.lane.follow(&self.map);
                    place.look_after_snapshots();
                }
                running.time_out_opens(context);
                running.carry(id, context)?;
                context.actions.push(Action::After(TICK_US, NodeEvent::Tick));
            }
            NodeEvent::Peer(from, bytes) => return running.peer(from, &bytes),
            NodeEvent::Forward(from, forward) => {
                let mut outputs = LaneOutputs::default();
                if let Some(place) = running.places.get_mut(&forward.partition) {
                    let mut forward = forward;
                    if context.bug == Some(Bug::ForwardOfAnotherTerm) {
                        forward.term = place.lane.status().term;
                    }
                    place.lane.forwarded(from, forward, &mut outputs);
                }
                context.actions.extend(outputs.acks.into_iter().map(|(to, ack)| Action::Ack(to, ack)));
            }
            NodeEvent::Ack(from, ack) => {
                if let Some(place) = running.places.get_mut(&ack.partition) {
                    place.lane.forward_acked(from, ack);
                }
            }
            NodeEvent::LinkUp(with) => running.places.values_mut().for_each(|place| place.lane.link_up(with)),
            NodeEvent::Written => match self.disk.complete(context.now_us, std::mem::take(&mut self.sync_fails)) {
                Done::Persisted(tickets) => {
                    for (partition, ticket) in tickets {
                        if let Some(place) = running.places.get_mut(&partition) {
                            place.persisted(partition, ticket, context);
                        }
                    }
                }
                Done::SyncFailed => context.actions.push(Action::FailStop),
            },
            NodeEvent::Apply(partition) => return running.apply(id, partition, context),
            NodeEvent::Flush => {
                self.flush()?;
                context.actions.push(Action::After(context.plan.flush_every_us, NodeEvent::Flush));
            }
            NodeEvent::Client(session, message) => running.client(id, session, message, context)?,
            NodeEvent::SessionGone(session) => {
                running.sessions.remove(&session);
            }
            NodeEvent::Transfer(to) => {
                let leads = running.places.values_mut().filter(|place| place.lane.leads());
                for place in leads {
                    let voters = place.lane.replica().group().voters;
                    if let Some(to) = voters.into_iter().rev().find(|voter| node_of(*voter) == to) {
                        let _ = place.lane.replica().transfer_leadership(to);
                    }
                    context.fired.count(Fault::Transfer);
                }
            }
            NodeEvent::Operate(command) => running.operate(id, command, context),
            NodeEvent::Snapshot(from, said) => {
                return running.snapshot_said(from, said, &mut self.cuts_snapshot, context);
            }
            NodeEvent::SnapshotDue(partition, due) => return self.snapshot_due(partition, due, context),
        }
        Ok(())
    }

    /// Everything that is written becomes durable at this moment, and the logs are cut below it.
    fn flush(&mut self) -> Result<(), String> {
        let Some(running) = &mut self.running else { return Ok(()) };
        for batch in running.unflushed.drain(..) {
            self.flushed.write(&batch).map_err(|error| error.to_string())?;
        }
        self.checkpoint = running.directory.clone();
        for (partition, place) in &mut running.places {
            if let Some(truncated) = place.lane.state_durable(place.machine.applied()) {
                self.disk.ask(Write::Truncate(*partition, truncated));
            }
        }
        Ok(())
    }

    /// Does what the lanes ask for until they ask for nothing more.
    fn pump(&mut self, context: &mut Context<'_>) -> Result<(), String> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let now_ms = (EPOCH_MS + context.now_us / 1_000).saturating_add_signed(self.clock_ms);
        let partitions: Vec<PartitionId> = running.places.keys().copied().collect();
        for partition in partitions {
            loop {
                let mut outputs = LaneOutputs::default();
                let place = running.places.get_mut(&partition).filter(|place| !place.snapshots.is_installing());
                let Some(place) = place else { break };
                let more = place.lane.outputs(now_ms, &mut outputs).map_err(|error| error.to_string())?;
                let mut persists = std::mem::take(&mut outputs.persists);
                if let Some(install) = outputs.install.take() {
                    let early =
                        if context.bug == Some(Bug::ResetBeforeState) { persists.split_off(0) } else { Vec::new() };
                    running.begin_install(partition, install, std::mem::replace(&mut persists, early), context)?;
                }
                for persist in persists {
                    self.disk.ask(Write::Persist(partition, persist));
                }
                running.carry_out(self.id, partition, outputs, context)?;
                if !more {
                    break;
                }
            }
        }
        if self.disk.begin() {
            let mut takes = context.plan.sync_us / 2 + context.rng.below(context.plan.sync_us + 1);
            if self.slow_disk {
                takes += context.rng.between(50, 400) * 1_000;
                context.fired.count(Fault::SlowDisk);
            }
            context.actions.push(Action::After(takes, NodeEvent::Written));
        }
        Ok(())
    }

    /// How each partition is; nothing if it does not run.
    pub fn status(&self) -> Option<BTreeMap<PartitionId, PlaceStatus>> {
        let running = self.running.as_ref()?;
        let status = |place: &Place| {
            let status = place.lane.status();
            PlaceStatus {
                indexes: [status.last, status.committed, status.applied],
                idle: place.lane.is_idle() && place.committed.is_empty() && place.snapshots.is_idle(),
                leads: status.role == ReplicaRole::Leader,
            }
        };
        Some(running.places.iter().map(|(partition, place)| (*partition, status(place))).collect())
    }

    /// It has an empty disk, and the number that comes with this rebuild.
    pub fn begin_anew(&mut self, rebuild: u32, bug: Option<Bug>) {
        (self.disk, self.flushed, self.installed) = (LogDisk::new(bug), MemoryStore::new(), BTreeMap::new());
        self.checkpoint = self.blank.clone();
        self.quarantined = false;
        self.rebuild = rebuild;
        self.starts = 0;
    }

    /// Whether all groups are what `map` says, as far as it has applied their logs.
    pub fn follows(&mut self, map: &MemberMap) -> bool {
        self.running.as_mut().is_some_and(|running| {
            let mut places = running.places.iter_mut();
            places.all(|(partition, place)| follows(map, *partition, &place.lane.replica().group()))
        })
    }

    /// What readers see, if it runs.
    pub fn store(&self) -> Option<&MemoryStore> {
        self.running.as_ref().map(|running| &running.store)
    }
}

impl Running {
    fn peer(&mut self, from: NodeId, bytes: &Bytes) -> Result<(), String> {
        // The partition travels before the message.
        let Some((partition, message)) = bytes.split_first_chunk::<2>() else { return Ok(()) };
        let Ok(message) = PeerMessage::decode(message) else { return Ok(()) };
        let Some(place) = self.places.get_mut(&PartitionId(u16::from_be_bytes(*partition))) else { return Ok(()) };
        match place.lane.step(from, message) {
            Ok(()) | Err(StepError::Message(_)) => Ok(()),
            Err(StepError::Quarantine(reason)) => Err(reason.to_string()),
        }
    }

    fn carry_out(
        &mut self,
        id: NodeId,
        partition: PartitionId,
        outputs: LaneOutputs,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        for (to, message) in outputs.messages {
            let message = message.encode().map_err(|error| error.to_string())?;
            context.actions.push(Action::Raft(to, [&partition.0.to_be_bytes()[..], &message].concat().into()));
        }
        context.actions.extend(outputs.forwards.into_iter().map(|(to, forward)| Action::Forward(to, forward)));
        context.actions.extend(outputs.acks.into_iter().map(|(to, ack)| Action::Ack(to, ack)));
        for to in outputs.snapshots_wanted {
            self.want_snapshot(partition, to, context);
        }
        for envelope in outputs.given_up {
            self.give_up(id, partition, envelope.origin.ticket, context);
        }
        for (read, current) in outputs.reads {
            self.read_ready(read, current, context)?;
        }
        if let Some(place) = self.places.get_mut(&partition) {
            if outputs.leadership_changed && place.lane.leads() {
                let term = place.lane.status().term;
                context.record(Record::Leads { node: id, partition, term });
            }
            place.committed.extend(outputs.committed);
            if !place.applying && !place.committed.is_empty() {
                place.applying = true;
                context.actions.push(Action::After(context.rng.between(20, 2_000), NodeEvent::Apply(partition)));
            }
        }
        Ok(())
    }
}
