//! What a node keeps on disk: the raft log, the conversation state, the directory. They share no file, batch or lock (D12).

pub mod directory;
pub mod formation;
mod installed;
pub mod quarantine;
pub mod raft_log;
pub mod space;
pub mod state;
pub mod watermark;

/// What to do about a disk that is not what it was, for the ends of errors. Never a backup for a node of a cluster: it would have forgotten
/// what it promised to the others, and they refuse it.
pub(crate) const REBUILD: &str = "start a node of a cluster with an empty data_dir, and say on another one: rove-server cluster replace; \
                                  for a node on its own, restore the data directory from a backup";
