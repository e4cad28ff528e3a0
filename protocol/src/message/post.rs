//! Posting: up goes a `Post`, down comes `Posted` or `Refused`.

use bytes::Bytes;

use super::message;
use crate::extension::Extensions;
use crate::ids::{MessageId, PostNo, Seq};
use crate::limits;
use crate::message::AccountRef;
use crate::registry::{ContentType, ErrorCode, EventKind};
use crate::wire::{List, wire_struct};

wire_struct! {
    /// Appends an event. A number is bound to these bytes for ever: a repeat must be the same.
    pub struct Post {
        /// The writer's next number in this conversation.
        pub post_no: PostNo,
        /// What it does: a message, edit, deletion, reaction or void.
        pub kind: EventKind,
        /// The event it replies to, edits, takes back or reacts to; 0: none.
        pub refers_to: Seq,
        /// What the body is.
        pub content_type: ContentType,
        /// The epoch of the end-to-end encryption; 0: none.
        pub crypto_epoch: u64,
        /// Accounts to be told, at most [`limits::MENTIONS`].
        pub mentions: List<AccountRef>,
        /// At most [`limits::BODY`] bytes; a longer one is refused, the session goes on.
        pub body: Bytes,
        /// Stored and forwarded verbatim. An unknown critical one has the post refused.
        #[serde(skip)]
        pub extensions: Extensions,
    }
}
message!(Post, |post| post.mentions.len() <= limits::MENTIONS && post.post_no.0 > 0);

wire_struct! {
    /// The post is in the log, durable on a majority.
    pub struct Posted {
        /// Which post.
        pub post_no: PostNo,
        /// Where it is.
        pub seq: Seq,
        /// Its name in the cluster.
        pub message_id: MessageId,
        /// When it was accepted, in milliseconds of the Unix epoch.
        pub time_ms: u64,
    }
}
message!(Posted);

wire_struct! {
    /// The post is not in the log.
    pub struct Refused {
        /// Which post.
        pub post_no: PostNo,
        /// Why.
        pub code: ErrorCode,
        /// Whether the number is used up: then the refusal is for good and the next post has the next number. Otherwise
        /// this post and its successors are to be sent again.
        pub consumed: bool,
        /// The number the server takes next.
        pub expected: PostNo,
        /// When to try again, in milliseconds; 0: no advice.
        pub retry_after_ms: u32,
    }
}
message!(Refused);
