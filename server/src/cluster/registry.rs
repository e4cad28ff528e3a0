//! Every number of `rove-cluster/1`, and every bound with its reason. `docs/cluster-protocol.md` says what they mean.
//!
//! The rule is the client protocol's: a receiver skips an unknown even number and closes the connection for an unknown odd one.

use std::fmt;
use std::time::Duration;

/// The protocol's name in TLS. Clients' connections never have it, nor does a node take one without it.
pub const ALPN: &[u8] = b"rove-cluster/1";
/// The lowest version of frames that this program speaks.
pub const LOWEST_VERSION: u32 = 1;
/// The highest version of frames that this program speaks.
pub const HIGHEST_VERSION: u32 = 1;

macro_rules! numbers {
    ($(#[$meta:meta])* $name:ident($type:ty) { $( $(#[$item_meta:meta])* $item:ident = $number:literal, $text:literal; )* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $type);

        #[allow(dead_code, reason = "a registry has all numbers, also those only the other end uses")]
        impl $name {
            $( $(#[$item_meta])* pub const $item: Self = Self($number); )*

            /// Every number with a meaning, and its name.
            pub const ALL: &[(Self, &str)] = &[$( (Self($number), $text), )*];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match Self::ALL.iter().find(|(number, _)| number == self) {
                    Some((_, name)) => f.write_str(name),
                    None => write!(f, "{:#x}", self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

numbers! {
    /// The type of a stream: the first varint on it.
    StreamType(u64) {
        /// Bidirectional, opened by the node that dialled, lives as long as the connection: `Hello` both ways, then `Formation`.
        CONTROL = 1, "control";
        /// Unidirectional: presence.
        PRESENCE = 2, "presence";
        /// Unidirectional: raft messages without entries.
        URGENT = 3, "urgent";
        /// Unidirectional: raft messages with entries.
        APPEND = 5, "append";
        /// Unidirectional: commands on their way to a leader, and its answers.
        FORWARD = 7, "forward";
        /// Bidirectional: one question and its answer.
        CALL = 9, "call";
        /// Bidirectional: one snapshot.
        SNAPSHOT = 11, "snapshot";
    }
}

numbers! {
    /// The type of a frame.
    FrameType(u32) {
        /// Who one is.
        HELLO = 1, "Hello";
        /// What one knows of the cluster's formation, anew.
        FORMATION = 2, "Formation";
        /// Raft messages.
        RAFT = 3, "Raft";
        /// One node's presence.
        PRESENCE = 4, "Presence";
        /// Commands for a leader.
        FORWARD = 5, "Forward";
        /// Which command is due.
        FORWARD_ACK = 7, "ForwardAck";
        /// A question.
        CALL = 9, "Call";
        /// Its answer.
        CALL_REPLY = 11, "CallReply";
        /// What snapshot follows.
        SNAPSHOT_HEADER = 13, "SnapshotHeader";
        /// Where to begin.
        SNAPSHOT_BEGIN = 15, "SnapshotBegin";
        /// A piece.
        SNAPSHOT_CHUNK = 17, "SnapshotChunk";
        /// That was all.
        SNAPSHOT_END = 19, "SnapshotEnd";
        /// All of it is here.
        SNAPSHOT_DONE = 21, "SnapshotDone";
        /// It is not wanted, or not any more, and why.
        SNAPSHOT_REFUSED = 23, "SnapshotRefused";
    }
}

numbers! {
    /// With which a connection is closed.
    CloseCode(u32) {
        /// The node stops.
        LEAVING = 0, "the node stops";
        /// Another connection of this pair of nodes is kept.
        DUPLICATE = 1, "another connection is kept";
        /// The other end is of another cluster.
        OTHER_CLUSTER = 2, "another cluster";
        /// The certificate is not that of the node which `Hello` claims.
        OTHER_NODE = 3, "the certificate is another node's";
        /// The node is not among the peers.
        UNKNOWN_NODE = 4, "the node is not among the peers";
        /// The node claims the id of the one it speaks to.
        OWN_ID = 5, "two nodes have one id";
        /// No version of the protocol is common to both.
        VERSIONS = 6, "no common version";
        /// The node may not come back as it is.
        NOT_ALLOWED = 7, "not allowed";
        /// Bytes that are not what they should be.
        MALFORMED = 8, "malformed";
        /// A frame longer than its stream allows.
        TOO_LARGE = 9, "a frame is too large";
        /// A frame or a stream that does not belong there.
        UNEXPECTED = 10, "unexpected";
        /// What was due did not come.
        TIMEOUT = 11, "time-out";
        /// The node broke the rules a moment ago, and is to wait.
        RESTING = 12, "cut off a moment ago";
        /// The connection is of no use any more; a new one will be made.
        BROKEN = 13, "broken";
        /// The node that is told so was a member of the cluster, and was taken out.
        REMOVED = 14, "removed from the cluster";
    }
}

/// The largest node id: replica ids have 32 bits for it.
pub const LARGEST_NODE: u64 = u32::MAX as u64;

// --- Frames ---------------------------------------------------------------------------------------------------------------

/// Formation state: who the nodes are, up to nine with addresses and all that were ever removed, and which of them hold each of 256
/// partitions (see `rove_core::membership`).
pub const FORMATION_BYTES: usize = 24 * 1_024;
/// A cluster's name is a label of a DNS name.
pub const NAME_BYTES: usize = 63;
/// The program's version in `Hello`.
pub const PROGRAM_BYTES: usize = 64;
/// A frame of the control stream: a `Hello` with all it may have, and room for extensions.
pub const CONTROL_FRAME: usize = FORMATION_BYTES + NAME_BYTES + PROGRAM_BYTES + 1_024;
/// Raft messages without entries: those of 257 partitions are some 26 KiB.
pub const URGENT_FRAME: usize = 128 * 1_024;
/// Raft messages with entries: the largest one message may be (3 MiB), and a little for what is around it. Several share a frame.
pub const APPEND_FRAME: usize = 3 * 1_024 * 1_024 + 1_024;
/// Commands for a leader: a batch is at most 512 KiB of commands, 4,096 of them with at most 20 bytes around each; one command
/// alone may be larger.
pub const FORWARD_FRAME: usize = 2 * 1_024 * 1_024;
/// Commands in one `Forward`: as many as in a batch.
pub const FORWARD_COMMANDS: usize = 4_096;
/// A delta of presence. More is sent in several.
pub const PRESENCE_BYTES: usize = 64 * 1_024;
/// A question or its answer: small things.
pub const CALL_BYTES: usize = 64 * 1_024;
/// A piece of a snapshot: what one read of the store and one write of it have at a time.
pub const CHUNK_BYTES: usize = 256 * 1_024;
/// What a snapshot says of itself (the raft snapshot's metadata, the boundaries of its ranges).
pub const SNAPSHOT_META_BYTES: usize = 64 * 1_024;
/// Why something is refused, as text.
pub const REASON_BYTES: usize = 512;
/// What a frame has around its longest field.
pub const AROUND: usize = 64;

// --- Queues, for each peer. Together less than 54 MiB for a peer that takes nothing -----------------------------------------

/// Frames of the urgent class that wait: of one tick each, 50 s of them; what is older than an election is worth nothing.
pub const URGENT_QUEUE_FRAMES: usize = 1_024;
/// Bytes of them: 40 frames of all partitions.
pub const URGENT_QUEUE_BYTES: usize = 1_024 * 1_024;
/// Frames with entries that wait: a round of the replica thread makes one.
pub const APPEND_QUEUE_FRAMES: usize = 1_024;
/// Bytes of them: half a second of half a gigabit. Raft sends what was dropped again, at the follower's pace.
pub const APPEND_QUEUE_BYTES: usize = 32 * 1_024 * 1_024;
/// Forwards that wait: one for each partition and round.
pub const FORWARD_QUEUE_FRAMES: usize = 4_096;
/// Bytes of them: as much as a node admits for one partition.
pub const FORWARD_QUEUE_BYTES: usize = 16 * 1_024 * 1_024;
/// Deltas of presence that wait; the oldest are dropped beyond it, as digests repair what is missing.
pub const PRESENCE_QUEUE_FRAMES: usize = 256;
/// Bytes of them.
pub const PRESENCE_QUEUE_BYTES: usize = 1_024 * 1_024;
/// Bytes handed to QUIC at once; a frame that is larger goes alone.
pub const WRITE_BATCH: usize = 64 * 1_024;

// --- Streams and windows ----------------------------------------------------------------------------------------------------

/// Questions to one peer that wait for their answers.
pub const CALLS_AT_ONCE: usize = 32;
/// Snapshots to one peer at a time: the disk is the limit, and one partition must not wait for all others.
pub const SNAPSHOTS_AT_ONCE: usize = 2;
/// Unidirectional streams a peer may open: one for each class, and as many for later versions.
pub const UNI_STREAMS: u32 = 8;
/// Bidirectional streams a peer may open: control, questions, snapshots, and as many snapshots that are just ending.
#[allow(clippy::cast_possible_truncation, reason = "a few dozen")]
pub const BIDI_STREAMS: u32 = 1 + CALLS_AT_ONCE as u32 + 2 * SNAPSHOTS_AT_ONCE as u32;
/// Window of a stream: at a round trip of 1 ms a gigabyte a second, at 100 ms 10 MiB/s. Frames are taken out as they come.
pub const STREAM_WINDOW: u32 = 1_024 * 1_024;
/// Window of a connection, and what is kept of it unacknowledged: full windows of all classes and of all snapshots, and the largest
/// question on every other stream. So a snapshot that nobody reads leaves room for everything else (F26), and a peer that is read
/// slowly costs no more memory than this.
pub const CONNECTION_WINDOW: u32 = 16 * 1_024 * 1_024;

// --- Times ------------------------------------------------------------------------------------------------------------------

/// Silence after which a connection is gone: three keep-alives, and a few elections.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that has nothing to say is kept alive so often; heartbeats of raft usually do it.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The round trip assumed until one is measured: between machines of one cluster it is less.
pub const INITIAL_RTT: Duration = Duration::from_millis(50);
/// How long a dialled node has to shake hands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long `Hello` may take, of either side. Longer than [`CONNECT_TIMEOUT`], as a node answers a duplicate only once it knows what
/// became of the connection it dials itself.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer to a question may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The first wait before a node is dialled again is random up to this, and doubles each time.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// And is random up to this at most: three nodes dial each other less than once a second.
pub const BACKOFF_MOST: Duration = Duration::from_secs(5);
/// A connection that lived so long was a good one: the next wait is a first one.
pub const PROVEN: Duration = Duration::from_secs(5);
/// How much longer the node with the higher id waits: the lower one's connection is the one that is kept, so it usually dials alone.
pub const HIGHER_WAITS: Duration = Duration::from_millis(300);
/// A peer that broke the rules is not heard so long.
pub const REST: Duration = Duration::from_secs(5);
/// Handshakes under way; more are refused. A cluster has a handful of nodes.
pub const HANDSHAKES: usize = 32;
/// Handshakes under way above which the address has to be proven first.
pub const RETRY_ABOVE: usize = 8;
/// How long the last packets are given to leave.
pub const LINGER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_number_means_two_things() {
        let unique = |numbers: Vec<u64>| numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len();
        assert!(unique(StreamType::ALL.iter().map(|(number, _)| number.0).collect()));
        assert!(unique(FrameType::ALL.iter().map(|(number, _)| number.0.into()).collect()));
        assert!(unique(CloseCode::ALL.iter().map(|(number, _)| number.0.into()).collect()));
    }

    #[test]
    fn what_nobody_reads_leaves_room_for_every_other_stream() {
        let classes = u64::from(UNI_STREAMS) / 2 * u64::from(STREAM_WINDOW);
        let snapshots = 2 * SNAPSHOTS_AT_ONCE as u64 * u64::from(STREAM_WINDOW);
        let calls = (CALLS_AT_ONCE + 1) as u64 * (CALL_BYTES + AROUND) as u64;
        assert!(classes + snapshots + calls <= u64::from(CONNECTION_WINDOW));
    }

    #[test]
    fn a_queue_takes_the_largest_frame_of_its_class() {
        for (frame, queue) in [
            (URGENT_FRAME, URGENT_QUEUE_BYTES),
            (APPEND_FRAME, APPEND_QUEUE_BYTES),
            (FORWARD_FRAME, FORWARD_QUEUE_BYTES),
            (PRESENCE_BYTES + AROUND, PRESENCE_QUEUE_BYTES),
        ] {
            assert!(frame < queue);
        }
    }
}
