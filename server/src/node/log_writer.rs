//! The log writer: everything that queued up while the last sync was running becomes one write and one sync.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rove_core::replica::{Persist, Truncated};
use rove_protocol::ids::PartitionId;
use tokio::sync::mpsc::Receiver;

use super::crash_points::Point;
use super::error::FatalError;
use super::handle::Shared;
use super::replica_thread::{Report, Reports};
use super::stats::NodeStats;
use crate::storage::raft_log::{RaftLog, Round, persist_bytes};
use crate::storage::watermark::Synced;

/// Bytes after which no further round is merged into a write: a disk that syncs 100 MB/s is busy with it for a third of a second,
/// and a round that finds more waiting gains nothing from it.
const MAX_WRITE_BYTES: usize = 32 * 1024 * 1024;

/// What all partitions of one round want written.
#[derive(Default)]
pub(super) struct LogRound {
    pub(super) persists: Vec<(PartitionId, Persist)>,
    pub(super) truncations: Vec<(PartitionId, Truncated)>,
}

impl LogRound {
    pub(super) fn is_empty(&self) -> bool {
        self.persists.is_empty() && self.truncations.is_empty()
    }
}

/// Runs until the replica thread is gone; syncs what is left then, unless the node was killed.
///
/// `synced`, by partition, is kept up to what is known to be on disk.
pub(super) fn run(
    shared: &Shared,
    log: &Arc<RaftLog>,
    synced: &Mutex<Vec<Synced>>,
    rounds: &mut Receiver<LogRound>,
    reports: &Reports,
) -> Result<(), FatalError> {
    let mut written_to = synced.lock().clone();
    while let Some(first) = rounds.blocking_recv() {
        if shared.killed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut write = Round::default();
        let mut tickets: Vec<(PartitionId, u64)> = Vec::new();
        let mut merged = 0;
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(round) = next {
            merged += 1;
            for (partition, persist) in &round.persists {
                bytes += persist_bytes(persist);
                if let Some(written) = written_to.get_mut(usize::from(partition.0)) {
                    written.advance(persist);
                }
                write.persist(*partition, persist)?;
                match tickets.iter_mut().find(|(of, _)| of == partition) {
                    Some((_, ticket)) => *ticket = persist.ticket,
                    None => tickets.push((*partition, persist.ticket)),
                }
            }
            for (partition, truncated) in &round.truncations {
                write.truncate(*partition, *truncated)?;
            }
            next = if bytes < MAX_WRITE_BYTES { rounds.try_recv().ok() } else { None };
        }
        let written = log.write(write)?;
        NodeStats::add(&shared.stats.log_writes, 1);
        NodeStats::add(&shared.stats.log_written_bytes, written.bytes as u64);
        if let Some(time) = written.synced {
            synced.lock().clone_from(&written_to);
            NodeStats::add(&shared.stats.log_syncs, 1);
            NodeStats::add_time(&shared.stats.log_sync_nanos, time);
            shared.crash_points.passed(Point::Persisted);
        }
        // Nobody listens only when the replica thread has ended: then the channel of rounds ends as well.
        let _ = reports.blocking_send(Report::Persisted { tickets, rounds: merged });
    }
    if !shared.killed.load(Ordering::Acquire) {
        log.sync()?;
        *synced.lock() = written_to;
    }
    Ok(())
}
