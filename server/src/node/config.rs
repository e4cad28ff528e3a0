//! What a node is told at start.

use std::path::PathBuf;
use std::time::Duration;

use rove_core::apply_version::ApplyVersions;
use rove_protocol::ids::NodeId;

/// Conversation partitions of a cluster unless told otherwise: two leaders for each of three nodes.
pub const DEFAULT_PARTITIONS: u16 = 6;

/// Most conversation partitions: each replica costs memory for its log and a share of every round.
pub const MAX_PARTITIONS: u16 = 256;

/// Entries kept for peers that are behind, unless told otherwise: a peer that was away for a minute at a hundred entries a second is
/// caught up from the log. Their bytes are bounded too.
pub const KEPT_FOR_PEERS: u64 = 6_000;

/// Where the node keeps its data, who it is, and how large its queues are.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Holds `raft/` (the log), `raft-synced` (how far it is synced), `state/` (RocksDB), `directory/` (SQLite) and `lock`.
    pub data_dir: PathBuf,
    /// This node. Not 0, below 2³².
    pub node_id: NodeId,
    /// The nodes that form the cluster, this one among them, all the same on each. Counts only while a data directory is new.
    pub members: Vec<NodeId>,
    /// Conversation partitions of the cluster; fixed when the data directory is made.
    pub partitions: u16,
    /// Unit of raft's timers: a heartbeat with each tick, elections after 5 to 10.
    pub tick: Duration,
    /// Cores that there are threads for.
    pub cores: usize,
    /// Commands a partition may have queued before it answers `Busy`.
    pub queue_commands: usize,
    /// Bytes of commands a partition may have queued before it answers `Busy`.
    pub queue_bytes: usize,
    /// How often the state is flushed at least, so that a restart replays little.
    pub flush_every: Duration,
    /// Bytes of log above what is durable in the state that force a flush earlier.
    pub flush_log_bytes: u64,
    /// Entries of the log kept for peers that are behind although the state has them durably. Beyond it they are sent a snapshot.
    pub keep_for_peers: u64,
    /// How long a graceful stop waits for what is queued.
    pub drain: Duration,
    /// The versions of apply that this binary has (D8). Another one than that of this program only in tests.
    pub applies: ApplyVersions,
}

impl NodeConfig {
    /// The defaults, with the reasons beside the values.
    pub fn new(data_dir: impl Into<PathBuf>, node_id: NodeId) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_id,
            members: vec![node_id],
            partitions: DEFAULT_PARTITIONS,
            // A leader is missed after 250 to 500 ms: well above a heartbeat that was late, well below what people notice.
            tick: Duration::from_millis(50),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            // At 100,000 posts a second this is 160 ms of work, what an election at full load may hold up: beyond it, waiting
            // only adds latency.
            queue_commands: 16_384,
            // A thousand bodies of the largest size.
            queue_bytes: 16 * 1024 * 1024,
            // A restart replays at most this much traffic; a flush of little costs a few milliseconds of a background thread.
            flush_every: Duration::from_secs(30),
            // The log above the durable state is also held in memory.
            flush_log_bytes: 64 * 1024 * 1024,
            keep_for_peers: KEPT_FOR_PEERS,
            // Long enough for any queue at any sane disk, short enough for a service manager's patience.
            drain: Duration::from_secs(5),
            applies: ApplyVersions::THIS,
        }
    }
}
