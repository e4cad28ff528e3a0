//! An open conversation, apart from posts and events.

use super::message;
use crate::ids::{AccountId, ConversationId, PostNo, Seq, WriterId};
use crate::registry::{ErrorCode, Role, StreamMode, UnavailableReason};
use crate::wire::wire_struct;

wire_struct! {
    /// The first frame of a conversation stream.
    pub struct Open {
        /// Which conversation.
        pub conversation: ConversationId,
        /// The client's cursor: events after it are sent.
        pub after: Seq,
        /// The highest seq the client has been told of; a replica that is not there yet waits, then says `Behind`.
        pub seen: Seq,
        /// The epoch the client's events are from; 0 if it has none.
        pub epoch: u64,
        /// The writer of this stream's posts.
        pub writer: WriterId,
    }
}
message!(Open);

wire_struct! {
    /// The conversation is open; everything after the cursor follows, then what happens.
    pub struct Opened {
        /// The last seq of the log.
        pub head: Seq,
        /// The last number used by the writer of [`Open`].
        pub last_post_no: PostNo,
        /// How events come.
        pub mode: StreamMode,
        /// The epoch of the log.
        pub epoch: u64,
        /// What the account is here.
        pub role: Role,
        /// How far the account has read, from whichever device.
        pub read: Seq,
        /// How many members there are.
        pub member_count: u32,
    }
}
message!(Opened);

wire_struct! {
    /// These seqs will never be sent on this stream; the cursor passes them (D3).
    pub struct Unavailable {
        /// The first.
        pub from: Seq,
        /// The last.
        pub to: Seq,
        /// Why.
        pub reason: UnavailableReason,
    }
}
message!(Unavailable, |range| range.from.0 > 0 && range.from <= range.to);

wire_struct! {
    /// How far the client has received and read. Lower values than before change nothing.
    pub struct Mark {
        /// The last seq it holds.
        pub delivered: Seq,
        /// The last seq its user has seen; at most `delivered`.
        pub read: Seq,
    }
}
message!(Mark, |mark| mark.read <= mark.delivered);

wire_struct! {
    /// How far another member has received and read.
    pub struct Receipt {
        /// Who.
        pub account: AccountId,
        /// The last seq one of its devices holds.
        pub delivered: Seq,
        /// The last seq it has read.
        pub read: Seq,
    }
}
message!(Receipt);

wire_struct! {
    /// The last frame of a stream that the server ends.
    pub struct Closed {
        /// Why.
        pub code: ErrorCode,
        /// The last seq sent on it.
        pub last_seq: Seq,
    }
}
message!(Closed);
