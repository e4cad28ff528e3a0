//! What the node counts. Plain atomics: `http/metrics` gives them names and units.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rove_protocol::ids::{NodeId, PartitionId};

/// Counters and gauges of one node. Every counter only rises from the start of the process.
#[derive(Debug, Default)]
pub struct NodeStats {
    /// Commands accepted into a queue.
    pub commands_queued: AtomicU64,
    /// Commands refused because a queue or the ticket table was full.
    pub commands_refused_busy: AtomicU64,
    /// Commands refused because no leader of the partition could be reached.
    pub commands_refused_no_leader: AtomicU64,
    /// Commands refused because the disk is almost full.
    pub commands_refused_disk: AtomicU64,
    /// Whether the disk is almost full, now: then commands are refused.
    pub disk_low: AtomicBool,
    /// Bytes that may still be written to the disk, now; 0 until it was looked at.
    pub disk_free_bytes: AtomicU64,
    /// Whether this node's clock is far from the others', now: then it leads nothing.
    pub clock_far: AtomicBool,
    /// Milliseconds by which this node's clock is ahead of the median of all nodes', now; 0 while nobody can tell.
    pub clock_ahead_ms: AtomicI64,
    /// Rounds of the replica thread: each takes what has come and says what is to be done.
    pub replica_rounds: AtomicU64,
    /// Rounds of the replica thread that passed on a unit of time.
    pub replica_ticks: AtomicU64,
    /// When the certificate for clients expires, in seconds of the Unix epoch; 0 if that is not known.
    pub certificate_expires: AtomicU64,
    /// The same of the node's certificate for the other nodes; 0 if there are none.
    pub node_certificate_expires: AtomicU64,
    /// Raft messages of peers that were dropped because they cannot be: another cluster's, or a bug.
    pub peer_messages_refused: AtomicU64,
    /// Events appended to conversations by applying (posts that were accepted, and changes of members).
    pub events_applied: AtomicU64,
    /// Posts answered with `Posted`, whoever waits for the answer.
    pub posts_applied: AtomicU64,
    /// Log entries proposed here; each carries a batch of commands.
    pub entries_proposed: AtomicU64,
    /// Log entries applied to conversation state.
    pub entries_applied: AtomicU64,
    /// Log entries applied to the directory.
    pub directory_entries_applied: AtomicU64,
    /// Writes of the raft log.
    pub log_writes: AtomicU64,
    /// Writes of the raft log that were synced.
    pub log_syncs: AtomicU64,
    /// Bytes written to the raft log.
    pub log_written_bytes: AtomicU64,
    /// Time spent in writes of the raft log that were synced, in nanoseconds.
    pub log_sync_nanos: AtomicU64,
    /// Time spent applying and writing conversation state, in nanoseconds.
    pub apply_nanos: AtomicU64,
    /// Rounds of the state writer: each is one write of RocksDB.
    pub apply_rounds: AtomicU64,
    /// Flushes of the conversation state.
    pub state_flushes: AtomicU64,
    /// Time spent in flushes of the conversation state, in nanoseconds.
    pub state_flush_nanos: AtomicU64,
    /// Answers given to those who waited.
    pub answers: AtomicU64,
    /// Who wait for an answer, now.
    pub tickets: AtomicUsize,
    /// Commands of this node that are not applied yet, now.
    pub proposals_queued: AtomicUsize,
    /// Reads queued or running, now.
    pub reads_queued: AtomicUsize,
    /// Reads done.
    pub reads_done: AtomicU64,
    /// Gates (D9) carried through to every partition.
    pub gates_done: AtomicU64,
    /// Snapshots that peers have taken.
    pub snapshots_sent: AtomicU64,
    /// Snapshots that were begun for a peer and did not get there.
    pub snapshots_failed: AtomicU64,
    /// Bytes of snapshots read for peers.
    pub snapshot_bytes_sent: AtomicU64,
    /// Snapshots of peers that took the place of a state here.
    pub snapshots_installed: AtomicU64,
    /// Bytes of snapshots that came from peers.
    pub snapshot_bytes_received: AtomicU64,
}

impl NodeStats {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    /// Adds a time to a counter of nanoseconds.
    pub(crate) fn add_time(counter: &AtomicU64, time: Duration) {
        Self::add(counter, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Reads a counter.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// What a replica is to its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader.
    Follower,
    /// Follows one and does not vote.
    Learner,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// One partition's replica on this node.
#[derive(Clone, Copy, Debug)]
pub struct PartitionStats {
    /// Which.
    pub partition: PartitionId,
    /// What this replica is.
    pub role: Role,
    /// Who leads, when that is known.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// Last index of the log.
    pub last: u64,
    /// Last index known to be committed.
    pub committed: u64,
    /// Last index applied.
    pub applied: u64,
    /// Last index that is durable in the state: the log below may go.
    pub durable: u64,
    /// The hash of the state at `applied`: the same on every replica that is there.
    pub state_hash: u64,
    /// Entries held in memory above the truncation point.
    pub log_entries: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Commands of this node that are not applied yet.
    pub queued: usize,
}
