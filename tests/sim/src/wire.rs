//! What clients and nodes say to each other: the conversation stream and a few requests, as messages in memory.

use bytes::Bytes;
use rove_core::command::{Actor, ConversationCommand};
use rove_protocol::ids::{AccountId, ConversationId, PostNo, Seq, WriterId};
use rove_protocol::message::{Posted, Refused};
use rove_protocol::registry::ErrorCode;

/// Names one connection of a client to a node. Never used again.
pub type SessionId = u64;

/// From a client.
#[derive(Debug, Clone)]
pub enum ToNode {
    /// Opens the conversation. The first message.
    Open {
        /// Who.
        actor: Actor,
        /// What.
        conversation: ConversationId,
        /// Who will post.
        writer: WriterId,
        /// The client's cursor.
        after: Seq,
        /// The head it has been told.
        seen: Seq,
    },
    /// The body of a `Post` frame.
    Post(PostNo, Bytes),
    /// Read up to here.
    Mark(Seq),
    /// Asks for the head, linearizably.
    ReadHead(u64),
    /// A request.
    Request(Box<ConversationCommand>),
}

/// From a node.
#[derive(Debug, Clone)]
pub enum ToClient {
    /// The conversation is open.
    Opened {
        /// The writer's last number.
        last: PostNo,
        /// The last seq of the log.
        head: Seq,
    },
    /// An event.
    Event(Seq, Bytes),
    /// Seqs that will not come.
    Unavailable(Seq, Seq),
    /// A post is in the log.
    Posted(Posted),
    /// A post is not.
    Refused(Refused),
    /// What [`ToNode::ReadHead`] asked for; nothing if nobody can tell.
    Head(u64, Option<Seq>),
    /// A member has read up to here; and the head.
    Receipt(AccountId, Seq, Seq),
    /// The session is over.
    Closed(ErrorCode),
}
