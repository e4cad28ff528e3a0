//! What can go wrong with a node, by who has to act on it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rove_core::apply_version::CannotApply;
use rove_core::replica::ReplicaError;
use rove_protocol::ids::{NodeId, PartitionId};
use rove_protocol::registry::ErrorCode;

use crate::storage::raft_log::RaftLogError;
use crate::storage::watermark::WatermarkError;

/// A command was not accepted. Nothing was consumed: the same command may be proposed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The partition's queue, or the table of those who wait for answers, is full.
    #[error("the partition has as much queued as it may")]
    Busy,
    /// No leader of the partition can be reached from here, and none was elected for a while: this node is without a majority.
    #[error("no leader of the partition can be reached")]
    NoLeader,
    /// The disk is almost full.
    #[error("the disk is almost full")]
    DiskLow,
    /// The node is draining.
    #[error("the node is stopping")]
    Stopping,
    /// There is no such partition.
    #[error("no partition {0}")]
    UnknownPartition(PartitionId),
    /// The encoded command is larger than a log entry may be.
    #[error("a command of {size} bytes; the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl ProposeError {
    /// The code a client is answered with.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Busy | Self::DiskLow => ErrorCode::Busy,
            Self::NoLeader => ErrorCode::Unavailable,
            Self::Stopping => ErrorCode::GoingAway,
            Self::UnknownPartition(_) => ErrorCode::Internal,
            Self::TooLarge { .. } => ErrorCode::BodyTooLarge,
        }
    }
}

/// A call did not come back with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was not accepted: nothing happened.
    #[error(transparent)]
    NotProposed(#[from] ProposeError),
    /// The read pool has as much queued as it may: nothing happened.
    #[error("the read pool has as much queued as it may")]
    ReadsBusy,
    /// It was accepted, and the answer was lost (leadership moved, or the node is stopping): it may or may not take effect.
    #[error("the outcome is not known")]
    Unknown,
}

impl CallError {
    /// The code a client is answered with.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::NotProposed(refused) => refused.code(),
            Self::ReadsBusy => ErrorCode::Busy,
            Self::Unknown => ErrorCode::Unavailable,
        }
    }
}

/// The node did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that can never work.
    #[error("configuration: {0}")]
    Config(String),
    /// The data directory cannot be used.
    #[error("data directory {path}: {source}; check that it exists, is a directory, and may be written by this user")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing may be written to its disk.
    #[error(
        "data directory {path} is on a file system that is read-only; mount it writable. If the system itself did that, the disk \
         has failed: see `dmesg`, and rebuild the node on another one"
    )]
    ReadOnly {
        /// Which.
        path: PathBuf,
    },
    /// There is no room to start in. Nothing is damaged by that.
    #[error(
        "data directory {path}: the disk is full: {free_mib} MiB are free, and a start takes {needed_mib}; free some space and start again. \
         Nothing is damaged: do not delete files of the data directory"
    )]
    DiskFull {
        /// Which.
        path: PathBuf,
        /// What is free.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// Another process has the directory open.
    #[error(
        "data directory {path} is in use by another process; stop it first, or give this node a directory of its own"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The directory was written by another node.
    #[error(
        "data directory {path} belongs to node {found}, this is node {expected}; point the node at its own directory (never copy one)"
    )]
    OtherNode {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who tried.
        expected: NodeId,
    },
    /// The directory was laid out for another number of partitions.
    #[error(
        "the data directory has {found} conversation partitions, the configuration says {expected}; the number cannot be changed"
    )]
    OtherPartitions {
        /// As on disk.
        found: u16,
        /// As configured.
        expected: u16,
    },
    /// The directory belonged to a cluster, and does not know any more to which.
    #[error(
        "data directory {path} belonged to a cluster, and its cluster.json does not say any more to which; put that file back as it was \
         last, or, if it is lost, start with an empty data directory and say on a node that serves: rove-server cluster replace {node}"
    )]
    Forgotten {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        node: NodeId,
    },
    /// The raft log cannot be opened or read.
    #[error(transparent)]
    RaftLog(#[from] RaftLogError),
    /// The raft log has less than was synced, or nobody can tell.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// A replica must not vote with what it found on disk.
    #[error(
        "partition {partition} is quarantined: {reason}; this copy of the partition cannot be trusted: {}",
        crate::storage::REBUILD
    )]
    Quarantined {
        /// Which.
        partition: PartitionId,
        /// Why.
        reason: ReplicaError,
    },
    /// It was seen while the node ran that the data directory has forgotten something.
    #[error(
        "data directory {path} is quarantined: {reason}; it cannot be trusted, whatever it looks like now: {}",
        crate::storage::REBUILD
    )]
    Distrusted {
        /// Which directory.
        path: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// The binary is too old, or too new, for what was applied with the data directory.
    #[error("data directory {path}: {why}. Nothing is damaged: do not delete anything")]
    CannotApply {
        /// Which directory.
        path: PathBuf,
        /// Why, and what to do.
        why: CannotApply,
    },
    /// The conversation state (RocksDB) cannot be opened or read.
    #[error("conversation state: {0}; if its files are damaged or gone, check the disk, and {rebuild}", rebuild = crate::storage::REBUILD)]
    State(String),
    /// The directory (SQLite) cannot be opened or read.
    #[error("directory: {0}; if its files are damaged or gone, check the disk, and {rebuild}", rebuild = crate::storage::REBUILD)]
    Directory(String),
    /// A thread could not be started.
    #[error("thread {name}: {source}; the system is out of threads or memory")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StartError {
    /// The data directory cannot be used. A file system that turned read-only by itself does not always say so before it is written to.
    pub fn data_dir(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == ErrorKind::ReadOnlyFilesystem {
            Self::ReadOnly { path }
        } else {
            Self::DataDir { path, source }
        }
    }
}

/// Why a running node cannot go on. The process must end: what is durable is replayed at the next start. Its text says what happened,
/// [`FatalError::advice`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum FatalError {
    /// A write or a sync of the raft log failed: nobody knows what reached the disk, so nothing may be acknowledged any more.
    #[error("raft log: {0}")]
    RaftLog(#[from] RaftLogError),
    /// What is synced could not be written down.
    #[error("watermark: {0}")]
    Watermark(#[from] WatermarkError),
    /// A replica found its log or its peers' messages impossible.
    #[error("partition {partition}: {reason}")]
    Replica {
        /// Which.
        partition: PartitionId,
        /// Why.
        reason: ReplicaError,
    },
    /// A committed entry could not be applied, or the state could not be written.
    #[error("apply of partition {partition}: {message}")]
    Apply {
        /// Which.
        partition: PartitionId,
        /// What the machine or its store said.
        message: String,
    },
    /// The state could not be flushed.
    #[error("flush: {0}")]
    Flush(String),
    /// A thread panicked.
    #[error("thread {name} panicked: {message}")]
    Panicked {
        /// Its name.
        name: &'static str,
        /// The panic's message.
        message: String,
    },
}

/// What was being done is done again by the next start.
const START_AGAIN: &str =
    "check the disk (`dmesg`, free space), then start the node again: what it had acknowledged is in its log";

impl FatalError {
    /// What whoever runs the node does about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::RaftLog(_) | Self::Watermark(_) | Self::Apply { .. } | Self::Flush(_) => START_AGAIN,
            Self::Replica { reason, .. } if reason.is_of_the_disk() => crate::storage::REBUILD,
            Self::Replica { .. } => {
                "look at the logs of the other nodes: one of them may have lost something; keep this data directory until that is known"
            }
            Self::Panicked { .. } => {
                "a bug, or a disk that failed a write (`dmesg`); start the node again: what it had acknowledged is in its log"
            }
        }
    }
}
