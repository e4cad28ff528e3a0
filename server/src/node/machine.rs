//! What the node needs of the state machines and of their stores, so that its threads can be tested with others.

use rove_core::apply_version::ApplyVersions;
use rove_core::command::Effect;
use rove_core::conversation::{ApplyError, PartitionMachine};
use rove_core::directory::{DirectoryEffect, DirectoryError, DirectoryMachine, DirectoryRead, OutboxRow};
use rove_core::replica::{Committed, Install};
use rove_core::store::{StateStore, StoreError, WriteBatch};
use rove_protocol::ids::PartitionId;

use super::replica_thread::Applied;
use crate::storage::directory::{DirectoryDb, DirectoryReader, StagedDirectory};
use crate::storage::state::{Staging, StateDb};

/// The conversation state of all partitions: one store, flushed as a whole.
pub(super) trait ConversationState: StateStore + Send + Sync + 'static {
    /// Makes everything written before durable.
    fn flush(&self) -> Result<(), StoreError>;
    /// Last index of `partition` that is durable.
    fn durable_applied(&self, partition: PartitionId) -> Result<u64, StoreError>;
    /// Makes a staged state the partition's, durably.
    fn install(&self, staging: &Staging, install: &Install) -> Result<(), StoreError>;
}

impl ConversationState for StateDb {
    fn flush(&self) -> Result<(), StoreError> {
        Self::flush(self)
    }

    fn durable_applied(&self, partition: PartitionId) -> Result<u64, StoreError> {
        Self::durable_applied(self, partition)
    }

    fn install(&self, staging: &Staging, install: &Install) -> Result<(), StoreError> {
        Self::install(self, staging, install)
    }
}

/// The directory: machine and store together.
pub(super) trait DirectoryState: Send + 'static {
    /// Last index applied.
    fn applied(&self) -> u64;
    /// The hash of the state at that index (I8).
    fn state_hash(&self) -> u64;
    /// Applies entries in one transaction: all of them are there with their index, or none.
    fn apply(&mut self, entries: &[Committed], effects: &mut Vec<DirectoryEffect>) -> Result<(), DirectoryError>;
    /// Makes what is applied durable. Says up to which index; nothing if a reader was in the way.
    fn checkpoint(&mut self) -> Result<Option<u64>, DirectoryError>;
    /// Makes a staged state the directory's, durably.
    fn install(&mut self, staged: StagedDirectory, install: &Install) -> Result<(), DirectoryError>;
    /// Reads what is applied.
    fn rows(&self) -> impl DirectoryRead;
}

/// The directory in SQLite.
pub(super) struct SqlDirectory {
    db: DirectoryDb,
    versions: ApplyVersions,
    machine: DirectoryMachine,
}

impl SqlDirectory {
    /// Continues where the database stands, as a binary that has `versions` of apply.
    pub(super) fn load(db: DirectoryDb, versions: ApplyVersions) -> Result<Self, DirectoryError> {
        let machine = DirectoryMachine::load_with(&db.committed(), versions)?;
        Ok(Self { db, versions, machine })
    }

    /// The version of apply that is in force.
    pub(super) fn apply_version(&self) -> u16 {
        self.machine.apply_version()
    }
}

impl DirectoryState for SqlDirectory {
    fn applied(&self) -> u64 {
        self.machine.applied()
    }

    fn state_hash(&self) -> u64 {
        self.machine.state_hash()
    }

    fn apply(&mut self, entries: &[Committed], effects: &mut Vec<DirectoryEffect>) -> Result<(), DirectoryError> {
        let mut rows = self.db.begin()?;
        for entry in entries {
            self.machine.apply(&mut rows, entry.index, &entry.data, effects)?;
        }
        rows.commit()
    }

    fn checkpoint(&mut self) -> Result<Option<u64>, DirectoryError> {
        self.db.checkpoint()
    }

    fn install(&mut self, staged: StagedDirectory, install: &Install) -> Result<(), DirectoryError> {
        self.db.install(staged, install)?;
        self.machine = DirectoryMachine::load_with(&self.db.committed(), self.versions)?;
        Ok(())
    }

    fn rows(&self) -> impl DirectoryRead {
        self.db.committed()
    }
}

/// Reads the directory's outbox.
pub(super) trait Outbox: Send + 'static {
    /// The oldest rows, at most `limit`.
    fn pending(&mut self, limit: usize) -> Result<Vec<OutboxRow>, DirectoryError>;
}

impl Outbox for DirectoryReader {
    fn pending(&mut self, limit: usize) -> Result<Vec<OutboxRow>, DirectoryError> {
        self.rows()?.outbox(limit)
    }
}

/// One partition's machine, and what it said since it was last written out.
pub(super) struct Applier {
    pub(super) partition: PartitionId,
    pub(super) machine: PartitionMachine,
    /// The term of the last entry applied since the start; 0 before the first.
    pub(super) term: u64,
    /// Last index that the replica was told of. That of a snapshot it counts itself, when its log has it.
    reported: u64,
    pub(super) effects: Vec<Effect>,
    /// Commands of this node that were written out and are not reported yet, by ticket.
    pub(super) answered: Vec<u64>,
}

impl Applier {
    /// Loads the machine of `partition`.
    pub(super) fn load(
        state: &impl ConversationState,
        partition: PartitionId,
        versions: ApplyVersions,
    ) -> Result<Self, ApplyError> {
        let machine = PartitionMachine::load_with(state, partition, versions)?;
        let reported = machine.applied();
        Ok(Self { partition, machine, term: 0, reported, effects: Vec::new(), answered: Vec::new() })
    }

    /// Whether something was applied since the last report.
    pub(super) fn has_news(&self) -> bool {
        self.machine.applied() != self.reported
    }

    /// Applies one entry.
    pub(super) fn apply(&mut self, state: &impl ConversationState, entry: &Committed) -> Result<(), String> {
        self.term = entry.term;
        self.machine.apply(state, entry.index, &entry.data, &mut self.effects).map_err(|error| error.to_string())
    }

    /// How far it is, for the replica.
    pub(super) fn report(&mut self) -> Applied {
        self.reported = self.machine.applied();
        Applied {
            index: self.machine.applied(),
            term: self.term,
            state_hash: self.machine.state_hash(),
            answered: std::mem::take(&mut self.answered),
        }
    }

    /// Appends what changed to `batch`.
    pub(super) fn take(&mut self, batch: &mut WriteBatch) {
        batch.ops.append(&mut self.machine.take_batch().ops);
    }
}
