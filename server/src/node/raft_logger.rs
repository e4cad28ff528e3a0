//! What the raft crate has to say goes where everything else goes.

use rove_protocol::ids::PartitionId;
use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

/// A logger for the replica of `partition`.
pub(super) fn logger(partition: PartitionId) -> Logger {
    Logger::root(Tracing { partition }, o!())
}

struct Tracing {
    partition: PartitionId,
}

impl Drain for Tracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        let (message, partition) = (record.msg(), self.partition.0);
        // One step lower than the crate thinks: what it calls information is a detail of one partition to an operator.
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", partition, "{message}"),
            Level::Warning => tracing::warn!(target: "raft", partition, "{message}"),
            Level::Info => tracing::debug!(target: "raft", partition, "{message}"),
            Level::Debug | Level::Trace => tracing::trace!(target: "raft", partition, "{message}"),
        }
        Ok(())
    }
}
