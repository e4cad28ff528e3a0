//! Leadership of partitions, from outside of the replica thread: who cannot be reached, and handing it over.

use std::time::Duration;

use crossbeam_channel::TrySendError;
use rove_core::lane::HandoverError;
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::oneshot;

use super::handle::{Node, Phase};
use super::replica_thread::HandoverRequest;
use super::stats::Role;

/// How long a handover may take: raft gives it up after an election time-out, and a loaded machine may be late with that.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether leadership has gone: the figures are refreshed with every tick.
const LOOK: Duration = Duration::from_millis(25);

/// Why leadership has not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// There is no such partition.
    #[error("there is no partition {partition}: the cluster has 0 (the directory) to {last}")]
    UnknownPartition {
        /// Which was asked for.
        partition: PartitionId,
        /// The last that there is.
        last: u16,
    },
    /// See there.
    #[error(transparent)]
    Refused(#[from] HandoverError),
    /// The new leader did not take over in time.
    #[error("node {0} has not taken over in time; this node leads on")]
    NotTaken(NodeId),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl Node {
    /// Hands leadership of `partition` to node `to`, and returns when it has taken over.
    ///
    /// # Errors
    /// [`MoveError`]; then this node leads on, if it did.
    pub async fn hand_over(&self, partition: PartitionId, to: NodeId) -> Result<(), MoveError> {
        if partition.0 > self.partitions() {
            return Err(MoveError::UnknownPartition { partition, last: self.partitions() });
        }
        let (done, answer) = oneshot::channel();
        match self.0.handovers.try_send(HandoverRequest { partition, to, done }) {
            Ok(()) => {}
            // One for each partition is under way: those end first.
            Err(TrySendError::Full(_)) => return Err(MoveError::NotTaken(to)),
            Err(TrySendError::Disconnected(_)) => return Err(MoveError::Stopping),
        }
        answer.await.map_err(|_| MoveError::Stopping)??;
        let taken = async {
            while self.leader(partition) != Some(to) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.map_err(|_| MoveError::NotTaken(to))
    }

    /// Who leads `partition`, as far as is known here.
    pub fn leader(&self, partition: PartitionId) -> Option<NodeId> {
        let status = self.0.shared.status.lock();
        status.get(usize::from(partition.0)).and_then(|replica| replica.leader)
    }

    /// The partitions that this node leads.
    pub fn led(&self) -> Vec<PartitionId> {
        let status = self.0.shared.status.lock();
        status.iter().filter(|replica| replica.role == Role::Leader).map(|replica| replica.partition).collect()
    }

    /// The partitions of which no leader can be reached from here: their commands are refused.
    pub fn unreachable(&self) -> Vec<PartitionId> {
        let doors = self.0.shared.doors.iter().zip(0..);
        doors.filter(|(door, _)| !door.is_open()).map(|(_, partition)| PartitionId(partition)).collect()
    }

    /// Whether the log that was there at start is replayed.
    pub fn has_caught_up(&self) -> bool {
        self.0.shared.phase() == Phase::Ready
    }
}
