//! The two kinds of state that snapshots are of: a range of rows in RocksDB, and a database of SQLite.

use bytes::Bytes;
use rove_protocol::ids::PartitionId;
use tokio_util::sync::CancellationToken;

use super::Snapshots;
use crate::cluster::registry;
use crate::node::handle::DIRECTORY;
use crate::storage::directory::{DirectoryCapture, DirectoryCopy, StagedDirectory};
use crate::storage::state::{Capture, Staging};

/// A state of one moment.
pub(super) enum Captured<'a> {
    Conversations(Capture<'a>),
    Directory(DirectoryCapture),
}

/// What is sent of it.
pub(super) enum Chunks<'a> {
    Conversations(Capture<'a>),
    Directory(DirectoryCopy),
}

/// A state that was staged, beside the one there is.
#[derive(Debug)]
pub(in crate::node) enum Staged {
    Conversations(Staging),
    Directory(StagedDirectory),
}

impl<'a> Captured<'a> {
    /// The last entry that it has applied.
    pub(super) fn applied(&self) -> u64 {
        match self {
            Self::Conversations(capture) => capture.applied(),
            Self::Directory(capture) => capture.applied(),
        }
    }

    /// Makes it ready to be sent, unless `stop` says that nobody wants it. Blocks.
    pub(super) fn chunks(self, stop: &CancellationToken) -> Result<Chunks<'a>, String> {
        match self {
            Self::Conversations(capture) => Ok(Chunks::Conversations(capture)),
            Self::Directory(capture) => {
                let copy = capture.copy(|| !stop.is_cancelled()).map_err(|error| error.to_string())?;
                copy.map(Chunks::Directory).ok_or_else(|| "it is not wanted any more".to_owned())
            }
        }
    }
}

impl Chunks<'_> {
    /// Chunk `number`, from 0; `None` after the last. The same bytes each time. Blocks.
    pub(super) fn chunk(&mut self, number: u64) -> std::io::Result<Option<Bytes>> {
        match self {
            Self::Conversations(capture) => capture.chunk(number, registry::CHUNK_BYTES).map_err(std::io::Error::other),
            Self::Directory(copy) => copy.chunk(number, registry::CHUNK_BYTES),
        }
    }
}

impl Staged {
    /// Of which partition.
    pub(super) fn partition(&self) -> PartitionId {
        match self {
            Self::Conversations(staging) => staging.partition(),
            Self::Directory(_) => DIRECTORY,
        }
    }
}

impl Snapshots {
    pub(super) fn capture(&self, partition: PartitionId) -> Result<Captured<'_>, String> {
        if partition == DIRECTORY {
            return self.directory.capture().map(Captured::Directory).map_err(|error| error.to_string());
        }
        self.state.capture(partition).map(Captured::Conversations).map_err(|error| error.to_string())
    }

    pub(super) fn stage(&self, partition: PartitionId) -> Result<Staged, String> {
        if partition == DIRECTORY {
            return self.directory.stage().map(Staged::Directory).map_err(|error| error.to_string());
        }
        self.state.stage(partition).map(Staged::Conversations).map_err(|error| error.to_string())
    }

    pub(super) fn write(&self, staged: &mut Staged, chunk: &[u8]) -> Result<(), String> {
        match staged {
            Staged::Conversations(staging) => self.state.stage_chunk(staging, chunk).map_err(|error| error.to_string()),
            Staged::Directory(staged) => staged.write(chunk).map_err(|error| error.to_string()),
        }
    }

    /// It must be what it is said to be: the state after `index`. Most of it is made durable here, so that the writer, which does the
    /// rest, is not held up.
    pub(super) fn check(&self, staged: &Staged, index: u64) -> Result<(), String> {
        let found = match staged {
            Staged::Conversations(staging) => {
                let found = self.state.staged_applied(staging);
                found.and_then(|found| self.state.flush().map(|()| found)).map_err(|error| error.to_string())?
            }
            Staged::Directory(staged) => staged.applied().map_err(|error| error.to_string())?,
        };
        if found == index { Ok(()) } else { Err(format!("its state has applied {found}, and it says {index}")) }
    }

    pub(super) fn discard(&self, staged: Staged) {
        match staged {
            Staged::Conversations(staging) => {
                if let Err(error) = self.state.discard(&staging) {
                    // What stays goes at the next start.
                    tracing::warn!(partition = %staging.partition(), %error, "a staged snapshot could not be deleted");
                }
            }
            Staged::Directory(staged) => staged.discard(),
        }
    }
}
