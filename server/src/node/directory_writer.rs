//! The directory writer: applies partition 0 and tells who waits. What every partition must know (D9) is answered only once all have
//! applied it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use rove_core::command::Origin;
use rove_core::directory::{DirectoryEffect, DirectoryError, DirectoryOutcome, DirectoryRead as _};
use rove_core::replica::{Committed, Install};
use tokio::sync::mpsc::Receiver;

use super::crash_points::Point;
use super::error::FatalError;
use super::handle::{DIRECTORY, Shared};
use super::machine::DirectoryState;
use super::replica_thread::{Applied, Report, Reports};
use super::sinks::DirectorySink;
use super::stats::NodeStats;
use crate::storage::directory::StagedDirectory;

/// What is committed of the directory.
#[derive(Default)]
pub(super) struct DirectoryRound {
    pub(super) entries: Vec<Committed>,
    /// After these: a staged state that takes the directory's place.
    pub(super) install: Option<(Install, StagedDirectory)>,
}

/// What the directory writer is asked to do, in order.
pub(super) enum DirectoryWork {
    /// Apply these, then install that.
    Apply(DirectoryRound),
    /// Make what is applied durable, and report it.
    Checkpoint,
}

pub(super) struct DirectoryWriter<D> {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: D,
    pub(super) sink: Arc<dyn DirectorySink>,
    /// Wakes the carrier of gates; a second wake-up before it has looked changes nothing.
    pub(super) gates: Sender<()>,
    /// Who waits for which gate.
    pub(super) gated: BTreeMap<u64, Vec<(Origin, DirectoryOutcome)>>,
    /// Commands of this node that were applied and are not reported yet, by ticket.
    pub(super) answered: Vec<u64>,
}

impl<D: DirectoryState> DirectoryWriter<D> {
    /// Runs until the replica thread is gone; makes everything durable then, unless the node was killed.
    pub(super) fn run(mut self, mut work: Receiver<DirectoryWork>, reports: &Reports) -> Result<(), FatalError> {
        let failed = |error: DirectoryError| FatalError::Apply { partition: DIRECTORY, message: error.to_string() };
        while let Some(work) = work.blocking_recv() {
            if self.shared.killed.load(Ordering::Acquire) {
                return Ok(());
            }
            let report = match work {
                DirectoryWork::Apply(DirectoryRound { entries, install }) => {
                    let applied = self.apply(&entries).map_err(failed)?;
                    // While the replica still waits for what came before an install.
                    let _ = reports.blocking_send(Report::DirectoryApplied(applied));
                    let Some((install, staged)) = install else { continue };
                    self.install(staged, &install).map_err(failed)?;
                    self.shared.crash_points.passed(Point::Installed);
                    Report::Installed { partition: DIRECTORY, state_hash: self.directory.state_hash() }
                }
                DirectoryWork::Checkpoint => {
                    let index = self.directory.checkpoint().map_err(failed)?;
                    Report::DirectoryDurable { index }
                }
            };
            let _ = reports.blocking_send(report);
        }
        if !self.shared.killed.load(Ordering::Acquire) {
            // A reader in the way only means that the next start replays a little.
            self.directory.checkpoint().map_err(failed)?;
        }
        Ok(())
    }

    /// Applies entries, if there are any.
    fn apply(&mut self, entries: &[Committed]) -> Result<Option<Applied>, DirectoryError> {
        let Some(last) = entries.last() else { return Ok(None) };
        let mut effects = Vec::new();
        self.directory.apply(entries, &mut effects)?;
        self.shared.crash_points.passed(Point::DirectoryApplied);
        NodeStats::add(&self.shared.stats.directory_entries_applied, entries.len() as u64);
        for effect in &effects {
            self.tell(effect);
        }
        Ok(Some(Applied {
            index: self.directory.applied(),
            term: last.term,
            state_hash: self.directory.state_hash(),
            answered: std::mem::take(&mut self.answered),
        }))
    }

    /// Makes a staged state the directory, and tells what nobody has heard of it: what lies between was applied elsewhere.
    fn install(&mut self, staged: StagedDirectory, install: &Install) -> Result<(), DirectoryError> {
        self.directory.install(staged, install)?;
        self.count_revocation();
        let rows = self.directory.rows();
        let mut effects: Vec<DirectoryEffect> = rows.members()?.map(DirectoryEffect::Members).into_iter().collect();
        effects.push(DirectoryEffect::ApplyVersion(rows.meta()?.apply_version));
        for device in self.sink.devices() {
            if !rows.admits(device)? {
                effects.push(DirectoryEffect::DeviceRevoked(device));
            }
        }
        let pending = rows.outbox(1)?.first().map_or(u64::MAX, |row| row.number);
        effects.extend([DirectoryEffect::GatesDone(pending - 1), DirectoryEffect::OutboxGrew]);
        drop(rows);
        for effect in &effects {
            self.tell(effect);
        }
        NodeStats::add(&self.shared.stats.snapshots_installed, 1);
        tracing::info!(partition = %DIRECTORY, index = install.index, "a snapshot is installed");
        Ok(())
    }

    fn tell(&mut self, effect: &DirectoryEffect) {
        match *effect {
            // Others have their own node.
            DirectoryEffect::Answer { origin, .. } if origin.node != self.shared.id => {}
            DirectoryEffect::Answer { origin, outcome } => {
                self.answered.push(origin.ticket);
                match outcome {
                    DirectoryOutcome::Gated { number } => {
                        self.gated.entry(number).or_default().push((origin, outcome));
                    }
                    _ => self.answer(origin, outcome),
                }
            }
            DirectoryEffect::DeviceRevoked(device) => {
                self.count_revocation();
                self.sink.device_revoked(device);
            }
            DirectoryEffect::Members(ref map) => {
                self.shared.members.said.send_replace(Some(Arc::new(map.clone())));
            }
            DirectoryEffect::ApplyVersion(version) => _ = self.shared.apply_version.send_replace(version),
            DirectoryEffect::OutboxGrew => {
                let _ = self.gates.try_send(());
            }
            DirectoryEffect::GatesDone(number) => {
                let later = self.gated.split_off(&(number + 1));
                for (origin, outcome) in std::mem::replace(&mut self.gated, later).into_values().flatten() {
                    self.answer(origin, outcome);
                }
            }
        }
    }

    /// Devices may be revoked that were not. Before any session is told: one that registers meanwhile finds out by itself.
    fn count_revocation(&self) {
        self.shared.revocations.fetch_add(1, Ordering::AcqRel);
    }

    fn answer(&self, origin: Origin, outcome: DirectoryOutcome) {
        let answered = self.shared.tickets.answer_directory(origin, outcome);
        NodeStats::add(&self.shared.stats.answers, u64::from(answered));
    }
}
