//! The conversations of one partition.
//!
//! [`PartitionMachine`] applies committed entries one after the other and says what happened; it reads only its
//! partition's rows, the entry and the entry's time (D8), so every replica comes to the same rows, and its state hash
//! proves it. [`read`] is how the edge reads the same rows.

mod cache;
mod keys;
mod machine;
mod members;
mod post;
pub mod read;
mod rows;
#[cfg(test)]
mod tests;

use crate::apply_version::CannotApply;
use crate::command::CommandError;
use crate::store::StoreError;
use crate::versioned::VersionedError;

pub use keys::{partition as partition_key, partition_range};
pub use machine::PartitionMachine;
pub use rows::{ConversationRow, EARLIER_STAYS, MemberRow, PartitionRow};

/// State that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row that is not what this program wrote.
    #[error("a {table} row is corrupt: {error}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What is wrong.
        error: VersionedError,
    },
    /// A row that must be there is not, or rows contradict each other.
    #[error("the state is inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// An entry that cannot be applied. The replica stops: what it cannot apply exactly it must not apply at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The entry could not be read.
    #[error("entry {index}: {error}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        error: CommandError,
    },
    /// An entry is missing.
    #[error("entry {got} where {expected} was due")]
    Hole {
        /// The index that was due.
        expected: u64,
        /// The index that came.
        got: u64,
    },
    /// This binary does not have the version of apply that the state was made with, or that the log raises it to (D8).
    #[error(transparent)]
    ApplyVersion(#[from] CannotApply),
    /// An earlier entry failed; the machine is of no more use.
    #[error("an earlier entry could not be applied")]
    Failed,
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Read(ReadError::Store(error))
    }
}
