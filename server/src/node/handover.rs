//! Handing the leadership of a partition over, from outside of the replica thread.

use std::time::Duration;

use rove_core::lane::HandoverError;
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::handle::Node;
use super::replica_thread::HandoverRequest;

/// How long a handover may take: raft gives it up after an election time-out, and a loaded machine may be late with that.
const PATIENCE: Duration = Duration::from_secs(5);

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
            Err(TrySendError::Closed(_)) => return Err(MoveError::Stopping),
        }
        answer.await.map_err(|_| MoveError::Stopping)??;
        let mut leaders = self.leaders();
        let taken =
            leaders.wait_for(|leaders| leaders.get(usize::from(partition.0)).is_some_and(|one| *one == Some(to)));
        match tokio::time::timeout(PATIENCE, taken).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MoveError::Stopping),
            Err(_) => Err(MoveError::NotTaken(to)),
        }
    }
}
