//! The node: one process's replicas and the threads that serve them.
//!
//! ```text
//!  callers ──propose──▶ replica thread ──round──▶ log writer (raft-engine, one sync for all partitions)
//!                          │   ▲   ▲                   │
//!                          │   │   └────persisted──────┘
//!                      committed └────applied──────────────────┐
//!                          ├──────▶ state writer (RocksDB) ────┤──▶ effects, answers
//!                          └──────▶ directory writer (SQLite) ─┘──▶ revocations, answers
//! ```
//!
//! The replica thread owns every replica and never waits for a disk; the transport between nodes runs on it too. Batches form at each
//! stage from what queued up while the stage was busy. Every channel is bounded and the thread that could be blocked by two of them
//! holds credits instead: the replica thread hands out at most a fixed number of rounds, so that handing one out never blocks, and the
//! writers' reports always find it listening. On the way of a post the channels are tokio's, also between threads: a receiver sleeps at
//! once when there is nothing, and does not call `sched_yield` first (two or three times for each post, with those of crossbeam). A thread
//! that fails or panics takes the node down: [`NodeRunner::failed`] resolves and the process ends; the log holds whatever was
//! acknowledged.

mod admission;
mod config;
mod crash_points;
mod directory_writer;
mod error;
mod flusher;
mod gates;
mod handle;
mod handover;
mod layout;
mod log_writer;
mod machine;
mod members;
mod peers;
mod raft_logger;
mod read_pool;
mod replica_runtime;
mod replica_thread;
mod sinks;
mod snapshots;
mod start;
mod state_writer;
pub mod stats;
mod status;
mod supervisor;
mod surely;
#[cfg(test)]
mod tests;
mod tickets;
mod wall_clock;

pub use config::{DEFAULT_PARTITIONS, KEPT_FOR_PEERS, MAX_PARTITIONS, NodeConfig};
pub use error::{CallError, FatalError, ProposeError, StartError};
pub use handle::{Node, NodeRunner};
pub use handover::MoveError;
pub use peers::{NoPeers, PeerInbox, PeerMail, PeerSays, Peers, inbox};
pub use replica_runtime::ReplicaRuntime;
pub use sinks::{DirectorySink, EffectSink, NoSink, Sinks};
pub use start::Opened;
pub use stats::{NodeStats, PartitionStats, Role};
