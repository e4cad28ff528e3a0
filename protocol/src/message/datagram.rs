//! What may be lost: heartbeats, presence, typing. Several frames may share a datagram.

use super::{body, message};
use crate::ids::{AccountId, ConversationId};
use crate::limits;
use crate::registry::PresenceStatus;
use crate::wire::{List, wire_struct};

wire_struct! {
    /// I am here. The only keep-alive, sent in the foreground every [`heartbeat_ms`](crate::message::Welcome).
    pub struct Heartbeat {
        /// Counts this session's heartbeats.
        pub number: u64,
        /// The newest inbox version the client has seen.
        pub inbox_version: u64,
        /// The newest presence version the client has seen.
        pub presence_version: u64,
    }
}
message!(Heartbeat);

wire_struct! {
    /// The answer to a heartbeat. A client that has seen less than it names has lost something, and the server sends it
    /// again without being asked.
    pub struct HeartbeatAck {
        /// Which heartbeat.
        pub number: u64,
        /// The newest inbox version.
        pub inbox_version: u64,
        /// The newest presence version.
        pub presence_version: u64,
    }
}
message!(HeartbeatAck);

wire_struct! {
    /// One account's presence. The higher (incarnation, version) wins, whatever the order of arrival.
    pub struct PresenceItem {
        /// Who.
        pub account: AccountId,
        /// Online or not.
        pub status: PresenceStatus,
        /// Rises when the server starts.
        pub incarnation: u64,
        /// Rises with each change of this account.
        pub version: u64,
        /// When it was last online, in milliseconds of the Unix epoch; 0: unknown or now.
        pub last_seen_ms: u64,
    }
}
body!(PresenceItem);

wire_struct! {
    /// The presence of watched accounts.
    pub struct Presence {
        /// As many as fit a datagram.
        pub items: List<PresenceItem>,
        /// The version of the watch set's state after these, for heartbeats to name.
        pub version: u64,
    }
}
message!(Presence, |presence| presence.items.len() <= limits::WATCHED_ACCOUNTS);

wire_struct! {
    /// Somebody is typing. Expires by itself after six seconds.
    pub struct Typing {
        /// Where.
        pub conversation: ConversationId,
        /// Who; a client sends 0.
        pub account: AccountId,
        /// False: stopped.
        pub typing: bool,
    }
}
message!(Typing);
