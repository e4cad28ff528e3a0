//! The flusher: makes the conversation state durable beside the state writer, lets go of old log files, and writes down how far the log
//! is synced. None of it is in anybody's way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;
use rove_core::store::StoreError;
use rove_protocol::ids::PartitionId;

use super::error::FatalError;
use super::handle::Shared;
use super::machine::ConversationState;
use super::replica_thread::{Report, Reports};
use super::stats::NodeStats;
use crate::storage::raft_log::RaftLog;
use crate::storage::watermark::{Synced, Watermark};

/// How often it is written down how far the log is synced: one small sync a second costs the log's own syncs nothing that shows, and
/// what rots in the log is older than a second.
const WATERMARK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Flusher<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) state: Arc<S>,
    pub(super) log: Arc<RaftLog>,
    pub(super) watermark: Watermark,
    /// By partition, as the log writer has it.
    pub(super) synced: Arc<Mutex<Vec<Synced>>>,
    /// What the watermark says.
    pub(super) written: Vec<Synced>,
}

impl<S: ConversationState> Flusher<S> {
    /// Runs until the replica thread is gone.
    pub(super) fn run(mut self, requests: &Receiver<()>, reports: &Reports) -> Result<(), FatalError> {
        let mut last = Instant::now();
        loop {
            let request = requests.recv_timeout(WATERMARK_EVERY.saturating_sub(last.elapsed()));
            if self.shared.killed.load(Ordering::Acquire) {
                return Ok(());
            }
            match request {
                Ok(()) => self.flush(reports)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.write_watermark(),
            }
            if last.elapsed() >= WATERMARK_EVERY {
                last = Instant::now();
                self.write_watermark()?;
            }
        }
    }

    fn write_watermark(&mut self) -> Result<(), FatalError> {
        let synced = self.synced.lock().clone();
        if synced != self.written {
            self.watermark.write(&by_partition(&synced))?;
            self.written = synced;
        }
        Ok(())
    }

    fn flush(&self, reports: &Reports) -> Result<(), FatalError> {
        let begun = Instant::now();
        let failed = |error: StoreError| FatalError::Flush(error.to_string());
        self.state.flush().map_err(failed)?;
        let indexes = (1..=self.shared.partitions)
            .map(|number| Ok((PartitionId(number), self.state.durable_applied(PartitionId(number)).map_err(failed)?)))
            .collect::<Result<_, FatalError>>()?;
        NodeStats::add(&self.shared.stats.state_flushes, 1);
        NodeStats::add_time(&self.shared.stats.state_flush_nanos, begun.elapsed());
        let _ = reports.blocking_send(Report::Flushed { indexes });
        // What the last flush allowed to be truncated has been by now; what this one allows goes with the next.
        self.log.purge()?;
        Ok(())
    }
}

fn by_partition(synced: &[Synced]) -> Vec<(PartitionId, Synced)> {
    (0..).map(PartitionId).zip(synced.iter().copied()).collect()
}
