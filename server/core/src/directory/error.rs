//! Why the directory could not apply or read. None of these is a client's fault.

use crate::apply_version::CannotApply;
use crate::command::CommandError;

/// A failure of the store or of the log. The caller rolls its transaction back and stops the partition.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store failed.
    #[error("directory store: {0}")]
    Store(String),
    /// The store holds something this program never wrote.
    #[error("directory store is corrupt: {0}")]
    Corrupt(String),
    /// The schema was written by a newer program.
    #[error("directory schema {found} is newer than {known}, the newest this program knows")]
    SchemaTooNew {
        /// In the file.
        found: u64,
        /// Of this program.
        known: u64,
    },
    /// An entry of the log does not decode.
    #[error("directory entry {index}: {source}")]
    Entry {
        /// Its index.
        index: u64,
        /// What was wrong.
        source: CommandError,
    },
    /// This binary does not have the version of apply that the directory was made with, or that the log raises it to (D8).
    #[error(transparent)]
    ApplyVersion(#[from] CannotApply),
    /// An entry of the log is missing.
    #[error("directory entry {got} where {expected} was due")]
    Gap {
        /// The index that was due.
        expected: u64,
        /// The index that came.
        got: u64,
    },
}
