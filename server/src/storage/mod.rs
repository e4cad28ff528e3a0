//! What a node keeps on disk: the raft log, the conversation state, the directory. They share no file, batch or lock (D12).

pub mod directory;
pub mod formation;
mod installed;
pub mod raft_log;
pub mod space;
pub mod state;
pub mod watermark;
