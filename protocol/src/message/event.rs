//! Events: what a conversation's log is made of.

use bytes::Bytes;

use super::{body, message};
use crate::extension::Extensions;
use crate::ids::{AccountId, DeviceId, MessageId, PostNo, Seq, WriterId};
use crate::message::AccountRef;
use crate::registry::{ContentType, ConversationKind, EventKind, Role};
use crate::wire::{List, wire_struct};

wire_struct! {
    /// One entry of a conversation's log. Its bytes are the same for every reader, for ever.
    pub struct Event {
        /// Its place in the log.
        pub seq: Seq,
        /// Its name in the cluster.
        pub message_id: MessageId,
        /// The leader's clock when it was accepted, in milliseconds of the Unix epoch; never goes back in a partition.
        pub time_ms: u64,
        /// What it does.
        pub kind: EventKind,
        /// Who did it.
        pub author: AccountId,
        /// From which device; 0 for what a request did.
        pub device: DeviceId,
        /// From which writer; zeroes for what a request did.
        pub writer: WriterId,
        /// The writer's number of it; 0 for what a request did.
        pub post_no: PostNo,
        /// The event it replies to, edits, takes back or reacts to; 0: none.
        pub refers_to: Seq,
        /// What the body is.
        pub content_type: ContentType,
        /// The epoch of the end-to-end encryption; 0: none.
        pub crypto_epoch: u64,
        /// Accounts to be told, as the author says.
        pub mentions: List<AccountRef>,
        /// Opaque to the server.
        pub body: Bytes,
        /// The extensions of the post, verbatim.
        #[serde(skip)]
        pub extensions: Extensions,
    }
}
message!(Event);

wire_struct! {
    /// The body of [`EventKind::Created`].
    pub struct Created {
        /// Direct or group.
        pub kind: ConversationKind,
        /// A group's title.
        pub title: String,
        /// The first members, the creator among them.
        pub members: List<MemberChange>,
    }
}
body!(Created);

wire_struct! {
    /// One member's new role.
    pub struct MemberChange {
        /// Who.
        pub account: AccountId,
        /// The new role; [`Role::None`] for who left or was removed.
        pub role: Role,
    }
}
body!(MemberChange);

wire_struct! {
    /// The body of [`EventKind::MembersChanged`].
    pub struct MembersChanged {
        /// What changed; no account twice.
        pub changes: List<MemberChange>,
    }
}
body!(MembersChanged);

wire_struct! {
    /// The body of [`EventKind::SettingsChanged`].
    pub struct SettingsChanged {
        /// The new title.
        pub title: String,
    }
}
body!(SettingsChanged);
