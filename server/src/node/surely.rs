//! Reads after which something may be said not to exist (D11).
//!
//! A replica that is behind knows less than its peers, so a "no" of its own says nothing: before one, it asks the leader how far it
//! would have to be, waits until it is there, and looks again.

use rove_core::directory::DirectoryRead;
use rove_protocol::ids::PartitionId;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::error::{CallError, ProposeError};
use super::handle::{DIRECTORY, Node};
use super::replica_thread::ReadRequest;
use crate::storage::state::StateDb;

impl Node {
    /// Waits until the state here has everything of the directory that was acknowledged, by any node, before the call.
    ///
    /// # Errors
    /// As [`Node::catch_up`].
    pub async fn catch_up_directory(&self) -> Result<(), CallError> {
        self.catch_up(DIRECTORY).await
    }

    /// Waits until the state here has everything of `partition` that was acknowledged, by any node, before the call.
    ///
    /// # Errors
    /// [`CallError::Unknown`] if no leader can be reached, [`CallError::ReadsBusy`].
    pub async fn catch_up(&self, partition: PartitionId) -> Result<(), CallError> {
        if usize::from(partition.0) >= self.0.shared.doors.len() {
            return Err(ProposeError::UnknownPartition(partition).into());
        }
        let (done, seen) = oneshot::channel();
        match self.0.linearizable.try_send(ReadRequest { partition, done }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(CallError::ReadsBusy),
            Err(TrySendError::Closed(_)) => return Err(ProposeError::Stopping.into()),
        }
        match seen.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(CallError::Unknown),
        }
    }

    /// Runs a read of the conversation state; if `absent` says that something was not found, again once the state here has everything
    /// acknowledged before: what is not there then does not exist (D11).
    ///
    /// # Errors
    /// [`CallError`]; then nothing may be said not to exist.
    pub async fn read_surely<T: Send + 'static>(
        &self,
        partition: PartitionId,
        absent: impl Fn(&T) -> bool,
        f: impl FnOnce(&StateDb) -> T + Clone + Send + 'static,
    ) -> Result<T, CallError> {
        let found = self.read(f.clone()).await?;
        if !absent(&found) {
            return Ok(found);
        }
        self.catch_up(partition).await?;
        self.read(f).await
    }

    /// The same for the directory.
    ///
    /// # Errors
    /// As [`Node::read_surely`].
    pub async fn read_directory_surely<T: Send + 'static>(
        &self,
        absent: impl Fn(&T) -> bool,
        f: impl FnOnce(&dyn DirectoryRead) -> T + Clone + Send + 'static,
    ) -> Result<T, CallError> {
        let found = self.read_directory(f.clone()).await?;
        if !absent(&found) {
            return Ok(found);
        }
        self.catch_up(DIRECTORY).await?;
        self.read_directory(f).await
    }
}
