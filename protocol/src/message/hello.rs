//! The start and the end of a session.

use bytes::Bytes;

use super::{body, message};
use crate::ids::{AccountId, DeviceId, NodeId, SessionId};
use crate::limits;
use crate::registry::{ClientState, ErrorCode};
use crate::wire::{List, wire_struct};

wire_struct! {
    /// The client's first frame.
    pub struct Hello {
        /// The device that speaks.
        pub device: DeviceId,
        /// Its secret, exactly [`limits::SECRET`] bytes.
        pub secret: Bytes,
        /// The highest minor version of `rove/1` the client knows; 0 is the first.
        pub minor: u16,
        /// What the app is doing.
        pub state: ClientState,
        /// Name and version of the client, at most [`limits::CLIENT_NAME`] bytes, for the operator's logs.
        pub client: String,
    }
}
message!(Hello, |hello| hello.secret.len() == limits::SECRET && hello.client.len() <= limits::CLIENT_NAME);

wire_struct! {
    /// What a session may use at once. Never less than what a remembered session was told (D5).
    pub struct Limits {
        /// Bytes of a frame, type and body.
        pub frame: u32,
        /// Bytes of a post's body.
        pub body: u32,
        /// Conversation streams.
        pub conversation_streams: u16,
        /// Fetch streams.
        pub fetch_streams: u16,
        /// Unanswered posts of one conversation stream.
        pub unanswered_posts: u16,
        /// Unanswered requests.
        pub requests: u16,
    }
}

impl Default for Limits {
    #[allow(clippy::cast_possible_truncation, reason = "the limits are far below their fields' largest values")]
    fn default() -> Self {
        Self {
            frame: limits::FRAME as u32,
            body: limits::BODY as u32,
            conversation_streams: limits::CONVERSATION_STREAMS as u16,
            fetch_streams: limits::FETCH_STREAMS as u16,
            unanswered_posts: limits::UNANSWERED_POSTS as u16,
            requests: limits::REQUESTS_IN_FLIGHT as u16,
        }
    }
}

wire_struct! {
    /// Another node of the cluster.
    pub struct Alternative {
        /// `host:port` of its QUIC endpoint.
        pub address: String,
        /// The operator's name for where it stands; may be empty.
        pub region: String,
    }
}
body!(Alternative);

wire_struct! {
    /// The server's answer to a good `Hello`.
    pub struct Welcome {
        /// This session, for the logs of both sides.
        pub session: SessionId,
        /// The account of the device.
        pub account: AccountId,
        /// The node that serves the session.
        pub node: NodeId,
        /// The minor version both will speak.
        pub minor: u16,
        /// The server's clock, in milliseconds of the Unix epoch.
        pub server_time_ms: u64,
        /// How often to send a heartbeat while in the foreground, in milliseconds.
        pub heartbeat_ms: u32,
        /// What the session may use.
        pub limits: Limits,
        /// Where to go when this node does not answer, best first.
        pub alternatives: List<Alternative>,
    }
}
message!(Welcome);

wire_struct! {
    /// The node is leaving: open a session elsewhere, then close this one. It works until the deadline.
    pub struct GoAway {
        /// Why.
        pub code: ErrorCode,
        /// How long the session still works, in milliseconds.
        pub deadline_ms: u32,
        /// Where to go, best first; empty: the same address, a little later.
        pub alternatives: List<Alternative>,
    }
}
message!(GoAway);

wire_struct! {
    /// The app's state changed. `Leaving` makes the device offline at once instead of when its lease runs out.
    pub struct Suspend {
        /// The new state.
        pub state: ClientState,
    }
}
message!(Suspend);
