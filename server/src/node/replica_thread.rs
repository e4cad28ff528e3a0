//! The replica thread: owns every replica and never waits for a disk.
//!
//! What it hands to a writer it hands over with a credit, which comes back with the writer's report. As there are exactly as many
//! credits as places in a writer's channel, handing over never blocks; and as it always listens to reports, a writer's report never
//! blocks for long either. When a credit is missing, replicas are not asked for outputs: proposals gather, and batches grow.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, select};
use rove_core::command::Envelope;
use rove_core::replica::batcher::Batcher;
use rove_core::replica::{Committed, Outputs, ProposeError, Replica, ReplicaRole};
use rove_protocol::ids::{NodeId, PartitionId};

use super::directory_writer::DirectoryWork;
use super::error::FatalError;
use super::handle::{DIRECTORY, Phase, Shared};
use super::log_writer::LogRound;
use super::state_writer::ApplyRound;
use super::stats::{NodeStats, PartitionStats, Role};

/// Rounds that may be with a writer at once: one it works on, and enough behind it to merge.
pub(super) const CREDITS: usize = 8;

/// Reports that fit in the channel: those of all credits, and a few of flushes and checkpoints.
pub(super) const REPORTS: usize = 4 * CREDITS;

/// Commands taken from the channel before the replicas are looked at again: a millisecond of decoding nothing.
const MAX_TAKEN: usize = 8_192;

/// A command on its way into the log.
pub(super) struct Proposal {
    pub(super) partition: PartitionId,
    pub(super) envelope: Envelope,
}

/// What the writers say.
pub(super) enum Report {
    /// Up to these tickets everything is in the log.
    Persisted { tickets: Vec<(PartitionId, u64)>, rounds: usize },
    /// Up to these indexes everything is in the conversation state.
    Applied { indexes: Vec<(PartitionId, u64)>, rounds: usize },
    /// Up to these indexes the conversation state is durable.
    Flushed { indexes: Vec<(PartitionId, u64)> },
    /// Up to this index everything is in the directory.
    DirectoryApplied { index: u64 },
    /// Up to this index the directory is durable.
    DirectoryDurable { index: Option<u64> },
}

/// Where the rounds go.
pub(super) struct Writers {
    pub(super) log: Sender<LogRound>,
    pub(super) state: Sender<ApplyRound>,
    pub(super) directory: Sender<DirectoryWork>,
    pub(super) flusher: Sender<()>,
}

/// When things happen.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) tick: Duration,
    pub(super) flush_every: Duration,
    pub(super) flush_log_bytes: u64,
    pub(super) drain: Duration,
}

/// One replica and what belongs to it.
pub(super) struct Lane {
    replica: Replica,
    batcher: Batcher,
    leads: bool,
    durable: u64,
    /// The commit index when it first knew what is committed: applied up to there, it serves.
    target: Option<u64>,
}

impl Lane {
    pub(super) fn new(replica: Replica, durable: u64) -> Self {
        Self { replica, batcher: Batcher::default(), leads: false, durable, target: None }
    }

    fn partition(&self) -> PartitionId {
        self.replica.config().partition
    }

    /// Whether everything that was committed when the node started is applied.
    fn caught_up(&mut self) -> bool {
        let status = self.replica.status();
        if self.target.is_none() {
            let knows = match status.role {
                ReplicaRole::Leader => self.replica.leads_with_authority(),
                ReplicaRole::Follower => status.leader.is_some(),
                ReplicaRole::Candidate => false,
            };
            self.target = knows.then_some(status.committed);
        }
        self.target.is_some_and(|target| status.applied >= target)
    }
}

pub(super) struct ReplicaThread {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Vec<Lane>,
    pub(super) proposals: Receiver<Proposal>,
    pub(super) reports: Receiver<Report>,
    pub(super) writers: Writers,
    pub(super) timing: Timing,
    pub(super) progress: Progress,
}

/// What is on its way.
pub(super) struct Progress {
    log_credits: usize,
    state_credits: usize,
    directory_credits: usize,
    next_tick: Instant,
    flushing: bool,
    checkpointing: bool,
    last_flush: Instant,
    last_checkpoint: Instant,
    /// Bytes of entries handed out to be applied since the last flush began.
    unflushed: u64,
    /// Truncations for the next round of the log.
    truncations: LogRound,
    stop_at: Option<Instant>,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            log_credits: CREDITS,
            state_credits: CREDITS,
            directory_credits: CREDITS,
            next_tick: now,
            flushing: false,
            checkpointing: false,
            last_flush: now,
            last_checkpoint: now,
            unflushed: 0,
            truncations: LogRound::default(),
            stop_at: None,
        }
    }
}

impl ReplicaThread {
    /// Runs until the node stops and everything accepted is done, or at once when it is killed.
    pub(super) fn run(mut self) -> Result<(), FatalError> {
        let (proposals, reports) = (self.proposals.clone(), self.reports.clone());
        loop {
            let now = Instant::now();
            if self.shared.killed.load(Ordering::Acquire) || self.drained(now) {
                return Ok(());
            }
            self.tick_if_due(now);
            self.propose();
            self.collect()?;
            let timeout = self.progress.next_tick.saturating_duration_since(Instant::now());
            select! {
                recv(reports) -> report => if let Ok(report) = report { self.hear(report)? },
                recv(proposals) -> proposal => if let Ok(proposal) = proposal { self.queue(proposal) },
                default(timeout) => {}
            }
            // Whatever else has come meanwhile is of the same round.
            while let Ok(report) = reports.try_recv() {
                self.hear(report)?;
            }
            for _ in 0..MAX_TAKEN {
                match proposals.try_recv() {
                    Ok(proposal) => self.queue(proposal),
                    Err(_) => break,
                }
            }
        }
    }

    /// Whether a graceful stop is complete, or has taken too long.
    fn drained(&mut self, now: Instant) -> bool {
        if self.shared.phase() != Phase::Stopping {
            return false;
        }
        let stop_at = *self.progress.stop_at.get_or_insert(now + self.timing.drain);
        let progress = &self.progress;
        let done = self.proposals.is_empty()
            && [progress.log_credits, progress.state_credits, progress.directory_credits] == [CREDITS; 3]
            && self.lanes.iter().all(|lane| {
                let status = lane.replica.status();
                lane.batcher.is_empty() && (!lane.leads || status.last == status.applied)
            });
        if now >= stop_at && !done {
            tracing::warn!("not everything that was queued could be finished in time");
        }
        done || now >= stop_at
    }

    fn tick_if_due(&mut self, now: Instant) {
        if now < self.progress.next_tick {
            return;
        }
        // After a stall the missed ticks are not made up for: a leader would step down for a pause that nobody noticed.
        self.progress.next_tick = now + self.timing.tick;
        self.lanes.iter_mut().for_each(|lane| lane.replica.tick());
        self.flush_if_due(now);
        self.show_status();
    }

    fn flush_if_due(&mut self, now: Instant) {
        let due = |since: Instant| now.duration_since(since) >= self.timing.flush_every;
        let behind = |lane: &Lane| lane.replica.status().applied > lane.durable;
        let Some((directory, conversations)) = self.lanes.split_first() else { return };
        let progress = &mut self.progress;
        let much = progress.unflushed >= self.timing.flush_log_bytes;
        if !progress.flushing && (much || due(progress.last_flush)) && conversations.iter().any(behind) {
            // The flusher takes one request at a time, and this is the only one.
            progress.flushing = self.writers.flusher.try_send(()).is_ok();
            progress.last_flush = now;
            progress.unflushed = 0;
        }
        let due = due(progress.last_checkpoint) || directory.replica.status().log_bytes >= self.timing.flush_log_bytes;
        if !progress.checkpointing && due && behind(directory) && progress.directory_credits > 0 {
            progress.checkpointing = self.writers.directory.try_send(DirectoryWork::Checkpoint).is_ok();
            progress.directory_credits -= usize::from(progress.checkpointing);
            progress.last_checkpoint = now;
        }
    }

    fn show_status(&self) {
        let status = |lane: &Lane| {
            let status = lane.replica.status();
            PartitionStats {
                partition: lane.partition(),
                role: match status.role {
                    ReplicaRole::Follower => Role::Follower,
                    ReplicaRole::Candidate => Role::Candidate,
                    ReplicaRole::Leader => Role::Leader,
                },
                leader: status.leader.map(NodeId),
                term: status.term,
                last: status.last,
                committed: status.committed,
                applied: status.applied,
                durable: lane.durable,
                log_entries: status.log_entries,
                log_bytes: status.log_bytes,
                queued: self.shared.doors[usize::from(lane.partition().0)].queued(),
            }
        };
        *self.shared.status.lock() = self.lanes.iter().map(status).collect();
        let queued = self.shared.doors.iter().map(super::admission::Admission::queued).sum();
        self.shared.stats.proposals_queued.store(queued, Ordering::Relaxed);
        self.shared.stats.tickets.store(self.shared.tickets.waiting(), Ordering::Relaxed);
    }

    fn queue(&mut self, proposal: Proposal) {
        let Some(lane) = self.lanes.get_mut(usize::from(proposal.partition.0)) else { return };
        if lane.leads {
            lane.batcher.push(proposal.envelope);
        } else {
            refuse(&self.shared, proposal.partition, std::iter::once(proposal.envelope));
        }
    }

    /// Makes entries of what queued up.
    fn propose(&mut self) {
        for lane in &mut self.lanes {
            while let Some(taken) = lane.batcher.take(now_ms(), lane.replica.uncommitted()) {
                match lane.replica.propose(taken.batch.encode()) {
                    Ok(()) => {
                        let door = &self.shared.doors[usize::from(lane.partition().0)];
                        door.leave(taken.batch.commands.len(), taken.bytes);
                        NodeStats::add(&self.shared.stats.entries_proposed, 1);
                    }
                    Err(ProposeError::Busy) => {
                        lane.batcher.put_back(taken);
                        break;
                    }
                    Err(ProposeError::NotLeader { .. }) => {
                        refuse(&self.shared, lane.partition(), taken.batch.commands);
                        break;
                    }
                }
            }
        }
    }

    /// Asks the replicas what is to be done and hands it over, if the writers have room for a round.
    fn collect(&mut self) -> Result<(), FatalError> {
        if self.progress.log_credits == 0 || self.progress.state_credits == 0 || self.progress.directory_credits == 0 {
            return Ok(());
        }
        let mut log = std::mem::take(&mut self.progress.truncations);
        let mut state = ApplyRound::default();
        let mut directory: Vec<Committed> = Vec::new();
        for lane in &mut self.lanes {
            let partition = lane.partition();
            let mut committed: Vec<Committed> = Vec::new();
            while let Some(outputs) =
                lane.replica.outputs().map_err(|reason| FatalError::Replica { partition, reason })?
            {
                // Messages to peers go nowhere yet: a group of one has none.
                let Outputs { persist, committed: entries, leadership_changed, messages: _ } = outputs;
                log.persists.extend(persist.map(|persist| (partition, persist)));
                committed.extend(entries);
                if leadership_changed {
                    leadership(&self.shared, lane);
                }
            }
            if partition == DIRECTORY {
                directory = committed;
            } else if !committed.is_empty() {
                self.progress.unflushed += committed.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
                state.entries.push((partition, committed));
            }
        }
        // A writer that is gone has failed: its supervisor stops this thread as well.
        if !log.is_empty() {
            self.progress.log_credits -= 1;
            let _ = self.writers.log.try_send(log);
        }
        if !state.entries.is_empty() {
            self.progress.state_credits -= 1;
            let _ = self.writers.state.try_send(state);
        }
        if !directory.is_empty() {
            self.progress.directory_credits -= 1;
            let _ = self.writers.directory.try_send(DirectoryWork::Apply(directory));
        }
        Ok(())
    }

    fn hear(&mut self, report: Report) -> Result<(), FatalError> {
        match report {
            Report::Persisted { tickets, rounds } => {
                self.progress.log_credits += rounds;
                for (partition, ticket) in tickets {
                    self.lane(partition).replica.persisted(ticket);
                }
            }
            Report::Applied { indexes, rounds } => {
                self.progress.state_credits += rounds;
                for (partition, index) in indexes {
                    self.applied(partition, index)?;
                }
                self.ready_if_caught_up();
            }
            Report::Flushed { indexes } => {
                self.progress.flushing = false;
                for (partition, index) in indexes {
                    self.durable(partition, index);
                }
            }
            Report::DirectoryApplied { index } => {
                self.progress.directory_credits += 1;
                self.applied(DIRECTORY, index)?;
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

    fn applied(&mut self, partition: PartitionId, index: u64) -> Result<(), FatalError> {
        self.lane(partition).replica.applied(index).map_err(|reason| FatalError::Replica { partition, reason })
    }

    fn durable(&mut self, partition: PartitionId, index: u64) {
        let lane = self.lane(partition);
        lane.durable = lane.durable.max(index);
        if let Some(truncated) = lane.replica.state_durable(index) {
            self.progress.truncations.truncations.push((partition, truncated));
        }
    }

    fn ready_if_caught_up(&mut self) {
        if self.shared.phase() == Phase::Starting && self.lanes.iter_mut().all(Lane::caught_up) {
            self.show_status();
            self.shared.enter(Phase::Ready);
            tracing::info!("every partition has caught up");
        }
    }

    fn lane(&mut self, partition: PartitionId) -> &mut Lane {
        // Reports name only partitions that were handed out from here.
        &mut self.lanes[usize::from(partition.0)]
    }
}

/// Opens or closes the partition's door, and lets go of those who wait when it closes: what they wait for may or may not happen.
fn leadership(shared: &Shared, lane: &mut Lane) {
    let partition = lane.partition();
    let status = lane.replica.status();
    let leads = status.role == ReplicaRole::Leader;
    shared.doors[usize::from(partition.0)].set_leader(leads, status.leader.map(NodeId));
    if lane.leads && !leads {
        let queued: Vec<Envelope> = lane.batcher.drain().collect();
        refuse(shared, partition, queued);
        shared.tickets.abandon(partition);
    }
    lane.leads = leads;
    tracing::info!(%partition, leads, leader = ?status.leader, term = status.term, "leadership");
}

/// Lets go of those who wait for commands that will not be proposed.
fn refuse(shared: &Shared, partition: PartitionId, envelopes: impl IntoIterator<Item = Envelope>) {
    for envelope in envelopes {
        shared.doors[usize::from(partition.0)].leave(1, envelope.command.len());
        shared.tickets.take(envelope.origin);
    }
}

/// The wall clock, for the stamp of a batch. It may jump: a batch's stamp never goes back, and no decision rests on it.
#[allow(clippy::disallowed_methods, reason = "the shell reads the clock so that the core need not")]
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
