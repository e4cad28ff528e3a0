//! The state writer: applies what is committed, writes it, then tells.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::Sender;
use rove_core::command::{ConversationOutcome, Effect};
use rove_core::conversation::read;
use rove_core::replica::{Committed, Install};
use rove_core::store::WriteBatch;
use rove_protocol::ids::PartitionId;
use tokio::sync::mpsc::Receiver;

use super::crash_points::Point;
use super::error::FatalError;
use super::handle::Shared;
use super::machine::{Applier, ConversationState};
use super::replica_thread::{Report, Reports};
use super::sinks::EffectSink;
use super::stats::NodeStats;
use crate::storage::state::Staging;

/// Rows of one write. Rows gather so that a hot conversation's row is written once for many posts; beyond this the gain is gone and
/// those who wait for answers wait for nothing.
const MAX_ROWS: usize = 8_192;

/// What is committed, of any partitions, in the order of each.
#[derive(Default)]
pub(super) struct ApplyRound {
    pub(super) entries: Vec<(PartitionId, Vec<Committed>)>,
    /// After these: staged states that take the place of partitions' own.
    pub(super) installs: Vec<(Install, Staging)>,
}

/// Which of so many writers applies a partition of conversations.
pub(super) fn writer_of(partition: PartitionId, writers: usize) -> usize {
    usize::from(partition.0).wrapping_sub(1) % writers
}

/// One of the writers: each has partitions of its own, which share nothing but the store.
pub(super) struct StateWriter<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) state: Arc<S>,
    /// Which it is, and of how many.
    pub(super) number: usize,
    pub(super) of: usize,
    /// By partition.
    pub(super) appliers: Vec<Applier>,
    pub(super) sink: Arc<dyn EffectSink>,
    /// Where the space of states that were replaced is given back.
    pub(super) reclaims: Sender<PartitionId>,
}

impl<S: ConversationState> StateWriter<S> {
    /// Makes several of the one that has all partitions, from partition 1 on.
    pub(super) fn divide(self, writers: usize) -> Vec<Self> {
        let part = |number| Self {
            shared: Arc::clone(&self.shared),
            state: Arc::clone(&self.state),
            number,
            of: writers,
            appliers: Vec::new(),
            sink: Arc::clone(&self.sink),
            reclaims: self.reclaims.clone(),
        };
        let mut divided: Vec<Self> = (0..writers).map(part).collect();
        for applier in self.appliers {
            divided[writer_of(applier.partition, writers)].appliers.push(applier);
        }
        divided
    }

    /// Runs until the replica thread is gone; flushes then, unless the node was killed.
    pub(super) fn run(mut self, mut rounds: Receiver<ApplyRound>, reports: &Reports) -> Result<(), FatalError> {
        while let Some(first) = rounds.blocking_recv() {
            if self.shared.killed.load(Ordering::Acquire) {
                return Ok(());
            }
            let begun = Instant::now();
            let mut merged = 0;
            let mut rows = 0;
            let mut next = Some(first);
            while let Some(round) = next {
                merged += 1;
                for (partition, entries) in &round.entries {
                    rows = self.apply(*partition, entries, rows)?;
                }
                if !round.installs.is_empty() {
                    self.write_out()?;
                    rows = 0;
                    // While the replica still waits for what came before.
                    let _ = reports.blocking_send(self.report(0));
                    for (install, staging) in &round.installs {
                        let state_hash = self.install(install, staging)?;
                        self.shared.crash_points.passed(Point::Installed);
                        let _ = reports.blocking_send(Report::Installed { partition: staging.partition(), state_hash });
                    }
                }
                next = if rows < MAX_ROWS { rounds.try_recv().ok() } else { None };
            }
            self.write_out()?;
            let report = self.report(merged);
            NodeStats::add_time(&self.shared.stats.apply_nanos, begun.elapsed());
            let _ = reports.blocking_send(report);
        }
        if !self.shared.killed.load(Ordering::Acquire) {
            self.state.flush().map_err(|error| FatalError::Flush(error.to_string()))?;
        }
        Ok(())
    }

    /// How far the partitions are in which something happened, after so many rounds.
    fn report(&mut self, rounds: usize) -> Report {
        let news = self.appliers.iter_mut().filter(|applier| applier.has_news());
        let partitions = news.map(|applier| (applier.partition, applier.report())).collect();
        Report::Applied { writer: self.number, partitions, rounds }
    }

    /// Makes a staged state the partition's, durably, and tells those who have it open. Returns its hash.
    fn install(&mut self, install: &Install, staging: &Staging) -> Result<u64, FatalError> {
        let partition = staging.partition();
        let failed = |message| FatalError::Apply { partition, message };
        self.state.install(staging, install).map_err(|error| failed(error.to_string()))?;
        let applier = Applier::load(self.state.as_ref(), partition, self.shared.applies);
        let mut applier = applier.map_err(|error| failed(error.to_string()))?;
        applier.term = install.term;
        let hash = applier.machine.state_hash();
        let row = read::partition(self.state.as_ref(), partition).map_err(|error| failed(error.to_string()))?;
        let place = self.appliers.iter_mut().find(|applier| applier.partition == partition);
        *place.ok_or_else(|| failed("there is no such partition".to_owned()))? = applier;
        self.sink.reset(partition, row.map_or(0, |row| row.last_hi));
        NodeStats::add(&self.shared.stats.snapshots_installed, 1);
        tracing::info!(%partition, index = install.index, "a snapshot is installed");
        // Full only if every partition waits for it already: then it goes with the next one.
        let _ = self.reclaims.try_send(partition);
        Ok(hash)
    }

    /// Applies entries; writes out whenever enough has gathered. Returns the rows that have gathered since.
    fn apply(&mut self, partition: PartitionId, entries: &[Committed], mut rows: usize) -> Result<usize, FatalError> {
        let failed = |message| FatalError::Apply { partition, message };
        for entry in entries {
            let applier = self
                .appliers
                .get_mut(usize::from(partition.0).wrapping_sub(1) / self.of)
                .ok_or_else(|| failed("there is no such partition".to_owned()))?;
            let before = applier.machine.pending_rows();
            applier.apply(self.state.as_ref(), entry).map_err(failed)?;
            rows += applier.machine.pending_rows().saturating_sub(before);
            NodeStats::add(&self.shared.stats.entries_applied, 1);
            if rows >= MAX_ROWS {
                self.write_out()?;
                rows = 0;
            }
        }
        Ok(rows)
    }

    /// One write for everything that has gathered, then the answers, then the effects.
    fn write_out(&mut self) -> Result<(), FatalError> {
        let mut batch = WriteBatch::default();
        self.appliers.iter_mut().for_each(|applier| applier.take(&mut batch));
        if batch.is_empty() {
            return Ok(());
        }
        let partition = self.appliers.first().map_or(PartitionId(0), |applier| applier.partition);
        self.state.write(&batch).map_err(|error| FatalError::Apply { partition, message: error.to_string() })?;
        NodeStats::add(&self.shared.stats.apply_rounds, 1);
        self.shared.crash_points.passed(Point::Applied);
        for applier in &mut self.appliers {
            if !applier.effects.is_empty() {
                answer(&self.shared, &applier.effects, &mut applier.answered);
                self.sink.publish(applier.partition, &applier.effects);
                applier.effects.clear();
            }
        }
        Ok(())
    }
}

/// Tells those who wait here, and appends the tickets of this node's commands to `answered`.
fn answer(shared: &Shared, effects: &[Effect], answered: &mut Vec<u64>) {
    // Counted first: whoever has an answer finds it in the figures.
    let count = |counted: fn(&Effect) -> bool| effects.iter().filter(|effect| counted(effect)).count() as u64;
    let posts = count(|effect| matches!(effect, Effect::Answer { outcome: ConversationOutcome::Posted(_), .. }));
    NodeStats::add(&shared.stats.posts_applied, posts);
    NodeStats::add(&shared.stats.events_applied, count(|effect| matches!(effect, Effect::Event { .. })));
    let mut answers = 0;
    for effect in effects {
        if let Effect::Answer { origin, outcome } = effect
            && origin.node == shared.id
        {
            answered.push(origin.ticket);
            answers += u64::from(shared.tickets.answer_conversation(*origin, outcome.clone()));
        }
    }
    NodeStats::add(&shared.stats.answers, answers);
}
