//! What happened, as anybody could have written it down who watched: the only thing the checker reads.
//!
//! The simulation writes one as it runs; a harness around real nodes writes one from what its clients saw and from what it read of
//! each node at the end. Records are in the order of time. Those that only a simulation can know (every entry applied, every
//! leader) may be missing: what they would prove is then not checked.

use rove_protocol::ids::{AccountId, ConversationId, NodeId, PartitionId, PostNo, Seq, WriterId};
use serde::{Deserialize, Serialize};

/// One device of one account, with one conversation open: whoever posts, reads and is told. A number of the harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub u64);

/// An event of a log, reduced to what says which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Whose.
    pub author: AccountId,
    /// From which writer; zeroes for what a request did.
    pub writer: WriterId,
    /// The writer's number of it; 0 for what a request did.
    pub post_no: PostNo,
    /// Any digest of its body, the same for equal bodies.
    pub digest: u64,
}

/// How a post ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PostEnd {
    /// Acknowledged: by `Posted`, or by its event.
    Posted(Seq),
    /// Refused for good.
    Refused,
    /// Refused for good, because its account or device may do nothing any more.
    Revoked,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// Who a client is. Before anything else of it.
    Client {
        /// The client.
        client: ClientId,
        /// Its account.
        account: AccountId,
        /// The conversation it has open.
        conversation: ConversationId,
    },
    /// A post is sent for the first time.
    PostSent {
        /// By whom.
        client: ClientId,
        /// Where.
        conversation: ConversationId,
        /// Whose number.
        writer: WriterId,
        /// Which number.
        post_no: PostNo,
        /// Of its body, as in [`Message`].
        digest: u64,
    },
    /// A post has ended. One that never does is unknown.
    PostEnded {
        /// For whom.
        client: ClientId,
        /// Where.
        conversation: ConversationId,
        /// Whose number.
        writer: WriterId,
        /// Which number.
        post_no: PostNo,
        /// How.
        end: PostEnd,
    },
    /// A linearizable read of a conversation's head is asked for.
    ReadSent {
        /// Unique in the history.
        call: u64,
        /// Where.
        conversation: ConversationId,
    },
    /// A linearizable read has ended. One that never does is unknown.
    ReadEnded {
        /// Which.
        call: u64,
        /// The head; nothing if it failed.
        head: Option<Seq>,
    },
    /// A client opens its conversation again from where it is.
    Opened {
        /// Who.
        client: ClientId,
        /// The last seq it has.
        after: Seq,
    },
    /// Seqs arrive at a client: an event, or a range that it will never get.
    Arrived {
        /// Where.
        client: ClientId,
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
        /// The event; nothing for a range that is unavailable.
        message: Option<Message>,
    },
    /// A receipt arrives at a client, or is made by a replica.
    Receipt {
        /// The client, or nothing.
        client: Option<ClientId>,
        /// The replica's node, or nothing. A replica that starts again is told again.
        node: Option<NodeId>,
        /// Where.
        conversation: ConversationId,
        /// Who has read.
        account: AccountId,
        /// How far.
        read: Seq,
        /// The head where it comes from.
        head: Seq,
    },
    /// The event at `seq` let an account in or put it out. Before any later seq arrives anywhere.
    Member {
        /// Where.
        conversation: ConversationId,
        /// The event.
        seq: Seq,
        /// Who.
        account: AccountId,
        /// In or out.
        inside: bool,
    },
    /// The directory wants an account shut out of all partitions, or let in again. Before any partition knows.
    Gate {
        /// Rises.
        number: u64,
        /// Who.
        account: AccountId,
        /// Out or in.
        shut: bool,
    },
    /// All partitions know of the gates up to this number.
    GatesDone {
        /// The last of them.
        number: u64,
    },
    /// A node believes that it leads.
    Leads {
        /// The node.
        node: NodeId,
        /// Of which partition.
        partition: PartitionId,
        /// Since which term.
        term: u64,
    },
    /// A replica has applied an entry.
    Applied {
        /// Where.
        node: NodeId,
        /// Of which partition.
        partition: PartitionId,
        /// The entry.
        index: u64,
        /// Its term.
        term: u64,
        /// Of its bytes.
        digest: u64,
        /// The hash of the state after it.
        state: u64,
    },
    /// A replica has the state of a snapshot in the place of its own.
    Installed {
        /// Where.
        node: NodeId,
        /// Of which partition.
        partition: PartitionId,
        /// The last entry that it has applied.
        index: u64,
        /// Its term.
        term: u64,
        /// The hash of the state.
        state: u64,
    },
    /// An entry that is applied for the first time anywhere holds this command.
    Command {
        /// Of which partition.
        partition: PartitionId,
        /// The node that took it.
        node: NodeId,
        /// Its ticket there.
        ticket: u64,
    },
    /// A node takes a command: it will be in the log, unless the node stops or says that it gave up.
    Taken {
        /// The node.
        node: NodeId,
        /// For which partition.
        partition: PartitionId,
        /// Its ticket there.
        ticket: u64,
    },
    /// A node lets go of a command that it took: its outcome is unknown.
    GivenUp {
        /// The node.
        node: NodeId,
        /// For which partition.
        partition: PartitionId,
        /// Its ticket there.
        ticket: u64,
    },
    /// A node stops; what it took is unknown.
    Down {
        /// The node.
        node: NodeId,
    },
    /// A replica finds that it cannot trust its disk, and takes no part any more.
    Quarantined {
        /// The node.
        node: NodeId,
        /// Whether its disk was damaged. Otherwise it has no reason to.
        damaged: bool,
        /// What it says.
        reason: String,
    },
    /// From now on there are no faults, and within this time everything is to be well.
    Healed {
        /// In microseconds.
        within_us: u64,
    },
    /// Every post is answered, every replica has applied everything.
    Settled,
    /// A client has had the time to read everything that it may.
    ReadAll {
        /// Who.
        client: ClientId,
    },
    /// What a replica's log holds at the end, from seq 1.
    FinalLog {
        /// Where.
        node: NodeId,
        /// Of which conversation.
        conversation: ConversationId,
        /// Each with its seq.
        messages: Vec<(Seq, Message)>,
    },
    /// Something that must not be, seen by whoever wrote the history.
    Wrong {
        /// What.
        what: String,
    },
}

/// A record and its time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamped {
    /// Microseconds since the beginning of the history.
    pub at_us: u64,
    /// What happened.
    pub record: Record,
}

/// A history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// In the order of time.
    pub records: Vec<Stamped>,
}
