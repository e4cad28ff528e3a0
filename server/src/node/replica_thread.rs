//! The replica thread: owns every replica and never waits for a disk. It is a task of the [`ReplicaRuntime`](super::ReplicaRuntime), as is
//! the transport between nodes.
//!
//! What it hands to a writer it hands over with a credit, which comes back with the writer's report. As there are exactly as many
//! credits as places in a writer's channel, handing over never blocks; and as it always listens to reports, a writer's report never
//! blocks for long either. When a credit is missing, replicas are not asked for outputs: proposals gather, and batches grow.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rove_core::command::Envelope;
use rove_core::lane::{HandoverError, Lane, LaneOutputs, Mailing};
use rove_core::replica::StepError;
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::mpsc::{self, Receiver};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

use super::directory_writer::{DirectoryRound, DirectoryWork};
use super::error::FatalError;
use super::handle::{DIRECTORY, Phase, Shared};
use super::log_writer::LogRound;
use super::peers::{PeerSays, Peers};
use super::snapshots::{Sending, SnapshotEvent, Staged};
use super::state_writer::{ApplyRound, writer_of};
use super::stats::NodeStats;
use super::status::show_leadership;

/// Rounds that may be with a writer at once: one it works on, and enough behind it to merge.
pub(super) const CREDITS: usize = 8;

/// Reports that fit in the channel, with so many writers of the state: those of all credits, and a few of flushes and checkpoints.
pub(super) const fn room_for_reports(state_writers: usize) -> usize {
    (3 + state_writers) * CREDITS
}

/// Commands taken from the channel before the replicas are looked at again: a millisecond of decoding nothing.
const MAX_TAKEN: usize = 8_192;

/// Linearizable reads that may wait to be looked at: those of one round.
pub(super) const READS: usize = 1_024;

/// A command on its way into the log.
pub(super) struct Proposal {
    pub(super) partition: PartitionId,
    pub(super) envelope: Envelope,
}

/// Somebody wants to read what is acknowledged by now, and is told when the state here has it (true), or that nobody can tell.
pub(super) struct ReadRequest {
    pub(super) partition: PartitionId,
    pub(super) done: oneshot::Sender<bool>,
}

/// Leaderships that may wait to be handed over: those of every partition.
pub(super) const HANDOVERS: usize = 1 + super::MAX_PARTITIONS as usize;

/// Somebody wants another node to lead a partition that this one leads.
pub(super) struct HandoverRequest {
    pub(super) partition: PartitionId,
    pub(super) to: NodeId,
    pub(super) done: oneshot::Sender<Result<(), HandoverError>>,
}

/// How far a state machine has come, and which commands of this node it answered on the way, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) index: u64,
    /// The term of the entry at `index`.
    pub(super) term: u64,
    /// Of the state at `index`.
    pub(super) state_hash: u64,
    pub(super) answered: Vec<u64>,
}

/// What the writers say.
pub(super) enum Report {
    /// Up to these tickets everything is in the log.
    Persisted { tickets: Vec<(PartitionId, u64)>, rounds: usize },
    /// So far everything is in the conversation state, of those partitions of this writer in which something happened.
    Applied { writer: usize, partitions: Vec<(PartitionId, Applied)>, rounds: usize },
    /// A staged state is the partition's now, durably. What was handed out before has been reported.
    Installed { partition: PartitionId, state_hash: u64 },
    /// Up to these indexes the conversation state is durable.
    Flushed { indexes: Vec<(PartitionId, u64)> },
    /// So far everything is in the directory, if there was anything.
    DirectoryApplied(Option<Applied>),
    /// Up to this index the directory is durable.
    DirectoryDurable { index: Option<u64> },
}

/// Where writers say it. A thread may wait there: what is said is always heard.
pub(super) type Reports = mpsc::Sender<Report>;

/// Where the rounds go.
pub(super) struct Writers {
    pub(super) log: mpsc::Sender<LogRound>,
    /// [`writer_of`] says which is whose.
    pub(super) state: Vec<mpsc::Sender<ApplyRound>>,
    pub(super) directory: mpsc::Sender<DirectoryWork>,
    pub(super) flusher: crossbeam_channel::Sender<()>,
}

/// When things happen.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) tick: Duration,
    pub(super) flush_every: Duration,
    pub(super) flush_log_bytes: u64,
    pub(super) drain: Duration,
}

pub(super) struct ReplicaThread {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Vec<Lane>,
    pub(super) proposals: Receiver<Proposal>,
    pub(super) reads: Receiver<ReadRequest>,
    pub(super) from_peers: Receiver<(NodeId, PeerSays)>,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) handovers: Receiver<HandoverRequest>,
    pub(super) snapshots: Receiver<SnapshotEvent>,
    pub(super) sending: Sending,
    pub(super) reports: Receiver<Report>,
    pub(super) writers: Writers,
    pub(super) timing: Timing,
    pub(super) progress: Progress,
}

/// What is on its way.
pub(super) struct Progress {
    log_credits: usize,
    /// By writer.
    state_credits: Vec<usize>,
    directory_credits: usize,
    flushing: bool,
    checkpointing: bool,
    last_flush: Instant,
    last_checkpoint: Instant,
    /// Bytes of entries handed out to be applied since the last flush began.
    unflushed: u64,
    /// Truncations for the next round of the log, and what waited for a state to be installed.
    truncations: LogRound,
    /// What is to be sent to peers.
    mailing: Mailing,
    /// Who waits for which read.
    reading: HashMap<u64, oneshot::Sender<bool>>,
    next_read: u64,
    /// The hash of each partition's state as it was last applied.
    pub(super) state_hashes: Vec<u64>,
    stop_at: Option<Instant>,
}

impl Progress {
    pub(super) fn new(now: Instant, state_hashes: Vec<u64>, state_writers: usize) -> Self {
        Self {
            log_credits: CREDITS,
            state_credits: vec![CREDITS; state_writers],
            directory_credits: CREDITS,
            flushing: false,
            checkpointing: false,
            last_flush: now,
            last_checkpoint: now,
            unflushed: 0,
            truncations: LogRound::default(),
            mailing: Mailing::default(),
            reading: HashMap::new(),
            next_read: 0,
            state_hashes,
            stop_at: None,
        }
    }

    /// The credits of every writer.
    fn credits(&self) -> impl Iterator<Item = usize> {
        [self.log_credits, self.directory_credits].into_iter().chain(self.state_credits.iter().copied())
    }
}

impl ReplicaThread {
    /// Runs until the node stops and everything accepted is done, or at once when it is killed.
    pub(super) async fn run(mut self) -> Result<(), FatalError> {
        // After a stall the missed ticks are not made up for: a leader would step down for a pause that nobody noticed.
        let mut tick = interval(self.timing.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.shared.killed.load(Ordering::Acquire) || self.drained(Instant::now()) {
                return Ok(());
            }
            self.collect()?;
            NodeStats::add(&self.shared.stats.replica_rounds, 1);
            // The transport sends what there is to be sent, and reads what has come: under load a round never finds nothing to do.
            yield_now().await;
            tokio::select! {
                Some(report) = self.reports.recv() => self.hear(report)?,
                Some((from, says)) = self.from_peers.recv() => self.listen(from, says)?,
                Some(proposal) = self.proposals.recv() => self.queue(proposal),
                Some(event) = self.snapshots.recv() => self.snapshot_event(event)?,
                Some(read) = self.reads.recv() => self.read(read),
                Some(handover) = self.handovers.recv() => self.move_leadership(handover),
                _ = tick.tick() => self.tick(Instant::now()),
            }
            self.hear_the_rest()?;
        }
    }

    /// Whatever else has come meanwhile is of the same round.
    fn hear_the_rest(&mut self) -> Result<(), FatalError> {
        while let Ok(report) = self.reports.try_recv() {
            self.hear(report)?;
        }
        for _ in 0..MAX_TAKEN {
            let Ok((from, says)) = self.from_peers.try_recv() else { break };
            self.listen(from, says)?;
        }
        for _ in 0..MAX_TAKEN {
            let Ok(proposal) = self.proposals.try_recv() else { break };
            self.queue(proposal);
        }
        for _ in 0..MAX_TAKEN {
            let Ok(read) = self.reads.try_recv() else { break };
            self.read(read);
        }
        Ok(())
    }

    /// Whether a graceful stop is complete, or has taken too long.
    fn drained(&mut self, now: Instant) -> bool {
        if self.shared.phase() != Phase::Stopping {
            return false;
        }
        let stop_at = *self.progress.stop_at.get_or_insert(now + self.timing.drain);
        let progress = &self.progress;
        let done = self.proposals.is_empty()
            && progress.credits().all(|credits| credits == CREDITS)
            && !self.sending.is_installing()
            && self.lanes.iter().all(Lane::is_idle);
        if now >= stop_at && !done {
            tracing::warn!("not everything that was queued could be finished in time");
        }
        done || now >= stop_at
    }

    fn tick(&mut self, now: Instant) {
        self.lanes.iter_mut().for_each(Lane::tick);
        self.progress.mailing.tick();
        NodeStats::add(&self.shared.stats.replica_ticks, 1);
        self.follow_members();
        self.bound_snapshots();
        self.flush_if_due(now);
        self.show_status();
        // A node that has applied everything already hears of nothing more that it could apply.
        self.ready_if_caught_up();
    }

    fn flush_if_due(&mut self, now: Instant) {
        let due = |since: Instant| now.duration_since(since) >= self.timing.flush_every;
        let behind = |lane: &Lane| lane.status().applied > lane.durable();
        let Some((directory, conversations)) = self.lanes.split_first() else { return };
        let progress = &mut self.progress;
        let much = progress.unflushed >= self.timing.flush_log_bytes;
        if !progress.flushing && (much || due(progress.last_flush)) && conversations.iter().any(behind) {
            // The flusher takes one request at a time, and this is the only one.
            progress.flushing = self.writers.flusher.try_send(()).is_ok();
            progress.last_flush = now;
            progress.unflushed = 0;
        }
        let due = due(progress.last_checkpoint) || directory.status().log_bytes >= self.timing.flush_log_bytes;
        if !progress.checkpointing && due && behind(directory) && progress.directory_credits > 0 {
            progress.checkpointing = self.writers.directory.try_send(DirectoryWork::Checkpoint).is_ok();
            progress.directory_credits -= usize::from(progress.checkpointing);
            progress.last_checkpoint = now;
        }
    }

    fn queue(&mut self, proposal: Proposal) {
        if let Some(lane) = self.lanes.get_mut(usize::from(proposal.partition.0)) {
            lane.queue(proposal.envelope);
        }
    }

    fn read(&mut self, request: ReadRequest) {
        let Some(lane) = self.lanes.get_mut(usize::from(request.partition.0)) else { return };
        self.progress.next_read += 1;
        if lane.read_index(self.progress.next_read) {
            self.progress.reading.insert(self.progress.next_read, request.done);
        }
    }

    fn move_leadership(&mut self, request: HandoverRequest) {
        let Some(lane) = self.lanes.get_mut(usize::from(request.partition.0)) else { return };
        // Whoever asked may have gone; leadership goes all the same.
        let _ = request.done.send(lane.hand_over(request.to));
    }

    /// A peer says something about any of its replicas.
    fn listen(&mut self, from: NodeId, says: PeerSays) -> Result<(), FatalError> {
        match says {
            PeerSays::Raft(messages) => {
                for (partition, message) in messages {
                    self.progress.mailing.heard(&message);
                    let Some(lane) = self.lanes.get_mut(usize::from(partition.0)) else { continue };
                    match lane.step(from, message) {
                        Ok(()) => {}
                        // A peer that sends what cannot be is the peer's operator's concern; here it has no effect.
                        Err(StepError::Message(error)) => {
                            NodeStats::add(&self.shared.stats.peer_messages_refused, 1);
                            tracing::debug!(%partition, peer = %from, %error, "a message of a peer is dropped");
                        }
                        Err(StepError::Quarantine(reason)) => return Err(FatalError::Replica { partition, reason }),
                    }
                }
            }
            PeerSays::Forward(forward) => {
                if let Some(lane) = self.lanes.get_mut(usize::from(forward.partition.0)) {
                    let mut outputs = LaneOutputs::default();
                    lane.forwarded(from, forward, &mut outputs);
                    outputs.acks.into_iter().for_each(|(to, ack)| self.peers.send_forward_ack(to, ack));
                }
            }
            PeerSays::ForwardAck(ack) => {
                if let Some(lane) = self.lanes.get_mut(usize::from(ack.partition.0)) {
                    lane.forward_acked(from, ack);
                }
            }
            PeerSays::LinkUp => self.lanes.iter_mut().for_each(|lane| lane.link_up(from)),
        }
        Ok(())
    }

    /// Asks the lanes what is to be done and hands it over, if the writers have room for a round.
    fn collect(&mut self) -> Result<(), FatalError> {
        if self.progress.credits().any(|credits| credits == 0) {
            return Ok(());
        }
        let mut log = std::mem::take(&mut self.progress.truncations);
        let writers = self.writers.state.len();
        let mut state: Vec<ApplyRound> = (0..writers).map(|_| ApplyRound::default()).collect();
        let mut directory = DirectoryRound::default();
        for lane in &mut self.lanes {
            let partition = lane.partition();
            if self.sending.installs(partition) {
                continue;
            }
            let mut outputs = LaneOutputs::default();
            let quarantined = |reason| FatalError::Replica { partition, reason };
            while lane.outputs(self.shared.clock.now_ms(), &mut outputs).map_err(quarantined)? {}
            outputs.snapshots_wanted.into_iter().for_each(|to| self.sending.want(partition, to));
            if let Some(install) = outputs.install {
                match self.sending.install(partition, install, std::mem::take(&mut outputs.persists))? {
                    (install, Staged::Conversations(staging)) => {
                        state[writer_of(partition, writers)].installs.push((install, staging));
                    }
                    (install, Staged::Directory(staged)) => directory.install = Some((install, staged)),
                }
            }
            log.persists.extend(outputs.persists.into_iter().map(|persist| (partition, persist)));
            for (to, message) in outputs.messages {
                self.progress.mailing.add(to, partition, message);
            }
            outputs.forwards.into_iter().for_each(|(to, forward)| self.peers.send_forward(to, forward));
            outputs.acks.into_iter().for_each(|(to, ack)| self.peers.send_forward_ack(to, ack));
            for (context, seen) in outputs.reads {
                // Whoever asked may have gone.
                let _ = self.progress.reading.remove(&context).map(|done| done.send(seen));
            }
            give_up(&self.shared, partition, &outputs.given_up);
            NodeStats::add(&self.shared.stats.entries_proposed, outputs.proposed);
            show_leadership(&self.shared, lane, outputs.leadership_changed);
            if partition == DIRECTORY {
                directory.entries = outputs.committed;
            } else if !outputs.committed.is_empty() {
                self.progress.unflushed += outputs.committed.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
                state[writer_of(partition, writers)].entries.push((partition, outputs.committed));
            }
        }
        for (to, messages) in self.progress.mailing.take() {
            self.peers.send_raft(to, messages);
        }
        self.give_rounds(log, state, directory);
        Ok(())
    }

    /// Gives the writers their round. One that is gone has failed: its supervisor stops this thread as well.
    fn give_rounds(&mut self, log: LogRound, state: Vec<ApplyRound>, directory: DirectoryRound) {
        if !log.is_empty() {
            self.progress.log_credits -= 1;
            let _ = self.writers.log.try_send(log);
        }
        for (writer, round) in state.into_iter().enumerate() {
            if !round.entries.is_empty() || !round.installs.is_empty() {
                self.progress.state_credits[writer] -= 1;
                let _ = self.writers.state[writer].try_send(round);
            }
        }
        if !directory.entries.is_empty() || directory.install.is_some() {
            self.progress.directory_credits -= 1;
            let _ = self.writers.directory.try_send(DirectoryWork::Apply(directory));
        }
    }

    fn hear(&mut self, report: Report) -> Result<(), FatalError> {
        match report {
            Report::Persisted { tickets, rounds } => {
                self.progress.log_credits += rounds;
                for (partition, ticket) in tickets {
                    self.lane(partition).persisted(ticket);
                }
            }
            Report::Applied { writer, partitions, rounds } => {
                self.progress.state_credits[writer] += rounds;
                for (partition, applied) in partitions {
                    self.applied(partition, &applied)?;
                }
                self.ready_if_caught_up();
            }
            Report::Installed { partition, state_hash } => {
                self.progress.state_hashes[usize::from(partition.0)] = state_hash;
                let persists = self.sending.installed(partition).into_iter().map(|persist| (partition, persist));
                self.progress.truncations.persists.extend(persists);
            }
            Report::Flushed { indexes } => {
                self.progress.flushing = false;
                for (partition, index) in indexes {
                    self.durable(partition, index);
                }
            }
            Report::DirectoryApplied(applied) => {
                self.progress.directory_credits += 1;
                applied.map_or(Ok(()), |applied| self.applied(DIRECTORY, &applied))?;
                self.ready_if_caught_up();
            }
            Report::DirectoryDurable { index } => {
                self.progress.directory_credits += 1;
                self.progress.checkpointing = false;
                if let Some(index) = index {
                    self.durable(DIRECTORY, index);
                }
            }
        }
        Ok(())
    }

    fn applied(&mut self, partition: PartitionId, applied: &Applied) -> Result<(), FatalError> {
        let shared = Arc::clone(&self.shared);
        self.progress.state_hashes[usize::from(partition.0)] = applied.state_hash;
        let lane = self.lane(partition);
        let sizes: Vec<usize> = applied.answered.iter().filter_map(|ticket| lane.answered(*ticket)).collect();
        shared.doors[usize::from(partition.0)].leave(sizes.len(), sizes.iter().sum());
        lane.applied(applied.index, applied.term).map_err(|reason| FatalError::Replica { partition, reason })
    }

    fn durable(&mut self, partition: PartitionId, index: u64) {
        if let Some(truncated) = self.lane(partition).state_durable(index) {
            self.progress.truncations.truncations.push((partition, truncated));
        }
    }

    fn ready_if_caught_up(&mut self) {
        if self.shared.phase() == Phase::Starting && self.lanes.iter().all(Lane::caught_up) {
            self.show_status();
            self.shared.enter(Phase::Ready);
            tracing::info!("every partition has caught up");
        }
    }

    pub(super) fn lane(&mut self, partition: PartitionId) -> &mut Lane {
        // Reports name only partitions that were handed out from here.
        &mut self.lanes[usize::from(partition.0)]
    }
}

/// Lets go of those who wait for what nobody can answer.
fn give_up(shared: &Shared, partition: PartitionId, envelopes: &[Envelope]) {
    for envelope in envelopes {
        shared.doors[usize::from(partition.0)].leave(1, envelope.command.len());
        shared.tickets.take(envelope.origin);
    }
}
