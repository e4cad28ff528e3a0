//! The flusher: makes the conversation state durable beside the state writer, then lets go of old log files.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use rove_core::store::StoreError;
use rove_protocol::ids::PartitionId;

use super::error::FatalError;
use super::handle::Shared;
use super::machine::ConversationState;
use super::replica_thread::Report;
use super::stats::NodeStats;
use crate::storage::raft_log::RaftLog;

/// Runs until the replica thread is gone.
pub(super) fn run<S: ConversationState>(
    shared: &Shared,
    state: &Arc<S>,
    log: &Arc<RaftLog>,
    requests: &Receiver<()>,
    reports: &Sender<Report>,
) -> Result<(), FatalError> {
    for () in requests {
        if shared.killed.load(Ordering::Acquire) {
            return Ok(());
        }
        let begun = Instant::now();
        let flush = |error: StoreError| FatalError::Flush(error.to_string());
        state.flush().map_err(flush)?;
        let indexes = (1..=shared.partitions)
            .map(|number| Ok((PartitionId(number), state.durable_applied(PartitionId(number)).map_err(flush)?)))
            .collect::<Result<_, FatalError>>()?;
        NodeStats::add(&shared.stats.state_flushes, 1);
        NodeStats::add_time(&shared.stats.state_flush_nanos, begun.elapsed());
        let _ = reports.send(Report::Flushed { indexes });
        // What the last flush allowed to be truncated has been by now; what this one allows goes with the next.
        log.purge()?;
    }
    Ok(())
}
