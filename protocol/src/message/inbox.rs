//! The inbox: one latest-wins line for each conversation that changed.

use bytes::Bytes;

use super::{body, message};
use crate::ids::{AccountId, ConversationId, MessageId, PartitionId, Seq};
use crate::limits;
use crate::registry::{ConversationKind, Role};
use crate::wire::{List, wire_struct};

wire_struct! {
    /// The newest message id a device has seen in one partition (D10).
    pub struct PartitionCursor {
        /// Which partition.
        pub partition: PartitionId,
        /// The newest id.
        pub message_id: MessageId,
    }
}
body!(PartitionCursor);

wire_struct! {
    /// Asks for the lines of what changed after the cursors, then of what changes. No cursors: every conversation.
    pub struct InboxOpen {
        /// One for each partition seen so far.
        pub cursors: List<PartitionCursor>,
    }
}
message!(InboxOpen);

wire_struct! {
    /// The newest state of one conversation for this account. A later line replaces an earlier one.
    pub struct InboxLine {
        /// Which conversation.
        pub conversation: ConversationId,
        /// The partition its ids are compared in.
        pub partition: PartitionId,
        /// Direct or group.
        pub kind: ConversationKind,
        /// What the account is in it; [`Role::None`] once it is out.
        pub role: Role,
        /// A group's title.
        pub title: String,
        /// The other account of a direct conversation; 0 in a group.
        pub peer: AccountId,
        /// The last seq of its log.
        pub head: Seq,
        /// The name of that event.
        pub last_message_id: MessageId,
        /// How far the account has read, from whichever device.
        pub read: Seq,
        /// The event at `head`, encoded as in its frame, if it is at most [`limits::INLINE_EVENT`] bytes.
        pub event: Option<Bytes>,
    }
}
message!(InboxLine, |line| line.event.as_ref().is_none_or(|event| event.len() <= limits::INLINE_EVENT));

wire_struct! {
    /// Every line that had changed when the inbox was opened has been sent.
    pub struct InboxSynced {
        /// Counts the changes of this account's inbox on this node; heartbeats name it to find a loss.
        pub version: u64,
    }
}
message!(InboxSynced);
