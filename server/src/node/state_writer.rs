//! The state writer: applies what is committed, writes it, then tells.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use rove_core::command::{ConversationOutcome, Effect};
use rove_core::replica::Committed;
use rove_core::store::WriteBatch;
use rove_protocol::ids::PartitionId;

use super::error::FatalError;
use super::handle::Shared;
use super::machine::{Applier, ConversationState};
use super::replica_thread::Report;
use super::sinks::EffectSink;
use super::stats::NodeStats;

/// Rows of one write. Rows gather so that a hot conversation's row is written once for many posts; beyond this the gain is gone and
/// those who wait for answers wait for nothing.
const MAX_ROWS: usize = 8_192;

/// What is committed, of any partitions, in the order of each.
#[derive(Default)]
pub(super) struct ApplyRound {
    pub(super) entries: Vec<(PartitionId, Vec<Committed>)>,
}

pub(super) struct StateWriter<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) state: Arc<S>,
    /// By partition: the first is partition 1.
    pub(super) appliers: Vec<Applier>,
    pub(super) sink: Arc<dyn EffectSink>,
}

impl<S: ConversationState> StateWriter<S> {
    /// Runs until the replica thread is gone; flushes then, unless the node was killed.
    pub(super) fn run(mut self, rounds: &Receiver<ApplyRound>, reports: &Sender<Report>) -> Result<(), FatalError> {
        while let Ok(first) = rounds.recv() {
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
                next = if rows < MAX_ROWS { rounds.try_recv().ok() } else { None };
            }
            self.write_out()?;
            let applied = self.appliers.iter_mut().map(|applier| (applier.partition, applier.report())).collect();
            NodeStats::add_time(&self.shared.stats.apply_nanos, begun.elapsed());
            let _ = reports.send(Report::Applied { partitions: applied, rounds: merged });
        }
        if !self.shared.killed.load(Ordering::Acquire) {
            self.state.flush().map_err(|error| FatalError::Flush(error.to_string()))?;
        }
        Ok(())
    }

    /// Applies entries; writes out whenever enough has gathered. Returns the rows that have gathered since.
    fn apply(&mut self, partition: PartitionId, entries: &[Committed], mut rows: usize) -> Result<usize, FatalError> {
        let failed = |message| FatalError::Apply { partition, message };
        for entry in entries {
            let applier = self
                .appliers
                .get_mut(usize::from(partition.0).wrapping_sub(1))
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
    let (mut answers, mut posts, mut events) = (0, 0, 0);
    for effect in effects {
        match effect {
            Effect::Answer { origin, outcome } => {
                posts += u64::from(matches!(outcome, ConversationOutcome::Posted(_)));
                if origin.node == shared.id {
                    answered.push(origin.ticket);
                    answers += u64::from(shared.tickets.answer_conversation(*origin, outcome.clone()));
                }
            }
            Effect::Event { .. } => events += 1,
            Effect::Members { .. } | Effect::Read { .. } => {}
        }
    }
    NodeStats::add(&shared.stats.answers, answers);
    NodeStats::add(&shared.stats.posts_applied, posts);
    NodeStats::add(&shared.stats.events_applied, events);
}
