//! Every number on the wire.
//!
//! What would be an enum is an integer with names here and a rule for values without one. `spec/registry.toml` is the
//! same table for other implementations; a test holds the two equal. Values `62 + 64·n` (n ≥ 1) of frame types, stream
//! types, extension ids and methods are grease: never assigned, sent now and then to keep receivers honest.

use std::fmt;

use crate::error::DecodeError;
use crate::wire::{Reader, Wire};

/// The ALPN name of the protocol.
pub const ALPN: &[u8] = b"rove/1";

/// Whether `value` is reserved to be sent without meaning.
pub const fn is_grease(value: u64) -> bool {
    value > 62 && value % 64 == 62
}

macro_rules! registry {
    (
        $(#[$meta:meta])*
        $name:ident($int:ty) {
            $( $(#[doc = $doc:literal])+ $const:ident = $value:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        #[allow(non_upper_case_globals, reason = "they read like the variants they stand for")]
        impl $name {
            $( $(#[doc = $doc])+ pub const $const: Self = Self($value); )*

            /// Every assigned value with its name and meaning, in the order of the registry.
            pub const ALL: &[(Self, &'static str, &'static str)] =
                &[$( (Self::$const, stringify!($const), concat!($($doc),+)), )*];

            /// The name of an assigned value.
            pub fn name(self) -> Option<&'static str> {
                Self::ALL.iter().find(|(value, ..)| *value == self).map(|(_, name, _)| *name)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({:#x})"), self.0),
                }
            }
        }
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
                <$int>::take(reader).map(Self)
            }
        }
    };
}

registry! {
    /// What a bidirectional stream is for: the first varint the client writes on it. The server stops a stream of an
    /// unknown type with [`ErrorCode::UnknownStreamType`]; the connection goes on.
    StreamType(u32) {
        /// Hello and Welcome, then requests. The first stream of a connection.
        Control = 0x01,
        /// One line for each conversation that changed.
        Inbox = 0x02,
        /// One open conversation.
        Conversation = 0x03,
        /// Pages of history.
        Fetch = 0x04,
    }
}

registry! {
    /// The type of a frame. Unknown even types are skipped, unknown odd ones close the connection.
    FrameType(u32) {
        /// Client, control: who I am.
        Hello = 0x01,
        /// Server, control: you are in.
        Welcome = 0x02,
        /// Client, control: do this.
        Request = 0x03,
        /// Server, control: the answer to a request.
        Response = 0x04,
        /// Server, control: go elsewhere before the deadline.
        GoAway = 0x05,
        /// Client, control: foreground, background, or leaving.
        Suspend = 0x06,
        /// Client, inbox: send lines of what changed after these cursors.
        InboxOpen = 0x10,
        /// Server, inbox: the newest state of one conversation.
        InboxLine = 0x11,
        /// Server, inbox: every line that had changed has been sent.
        InboxSynced = 0x12,
        /// Client, conversation: open it after this seq.
        Open = 0x20,
        /// Server, conversation: it is open.
        Opened = 0x21,
        /// Server, conversation or fetch: an event of the log.
        Event = 0x22,
        /// Server, conversation or fetch: seqs that will never be sent, and why.
        Unavailable = 0x23,
        /// Client, conversation: append this.
        Post = 0x24,
        /// Server, conversation: appended, durable.
        Posted = 0x25,
        /// Server, conversation: not appended.
        Refused = 0x26,
        /// Client, conversation: I have received and read up to here.
        Mark = 0x27,
        /// Server, conversation: how far a member has received and read.
        Receipt = 0x28,
        /// Server, any stream: the last frame before the end of the stream.
        Closed = 0x29,
        /// Client, fetch: send this page.
        Fetch = 0x30,
        /// Server, fetch: the end of a page.
        Page = 0x31,
        /// Client, datagram: I am here, and this is the newest I have seen.
        Heartbeat = 0x40,
        /// Server, datagram: seen, and this is the newest there is.
        HeartbeatAck = 0x41,
        /// Server, datagram: who is online.
        Presence = 0x42,
        /// Both, datagram: somebody is typing.
        Typing = 0x43,
    }
}

registry! {
    /// What a request asks for. An unknown method is answered with [`ErrorCode::Unsupported`].
    Method(u32) {
        /// Makes (or finds) the direct conversation with an account.
        CreateDirect = 0x01,
        /// Makes (or finds) a group.
        CreateGroup = 0x02,
        /// Adds members to a group, changes their roles, removes them.
        ChangeMembers = 0x03,
        /// Describes a conversation and a page of its members.
        GetConversation = 0x04,
        /// Finds accounts by handle.
        FindAccounts = 0x05,
        /// Names accounts by id.
        GetAccounts = 0x06,
        /// Replaces the set of accounts whose presence this session is told.
        Watch = 0x07,
    }
}

registry! {
    /// Why something failed or ended. A receiver treats an unknown code as [`ErrorCode::Internal`].
    ErrorCode(u32) {
        /// No error: a clean end.
        None = 0x00,
        /// The server's fault; try again later.
        Internal = 0x01,
        /// Bytes that are not a frame or not its fields.
        Malformed = 0x02,
        /// A varint longer than needed.
        NotCanonical = 0x03,
        /// A frame longer than the limit.
        FrameTooLarge = 0x04,
        /// A known frame where it is not allowed.
        FrameUnexpected = 0x05,
        /// An unknown frame of an odd type.
        UnknownFrame = 0x06,
        /// An unknown extension with an odd id.
        CriticalExtension = 0x07,
        /// An unknown stream type.
        UnknownStreamType = 0x08,
        /// More of something than the limits in Welcome.
        LimitExceeded = 0x09,
        /// No Hello in time, or a frame that did not arrive whole in time.
        Timeout = 0x0a,
        /// Hello failed: no such device, or another secret.
        Unauthenticated = 0x0b,
        /// The device was revoked or its account suspended.
        Revoked = 0x0c,
        /// A newer session of the same device took over.
        Replaced = 0x0d,
        /// The node is leaving; resume elsewhere or a little later.
        GoingAway = 0x0e,
        /// The method or version is not supported.
        Unsupported = 0x20,
        /// A field has a value that is never right.
        InvalidArgument = 0x21,
        /// No such conversation or account, or none that may be seen.
        NotFound = 0x22,
        /// Not a member, or not with this role.
        Forbidden = 0x23,
        /// The handle is taken.
        NameTaken = 0x24,
        /// Overloaded; try again after the time given.
        Busy = 0x25,
        /// This replica cannot serve it now; try again, here or elsewhere.
        Unavailable = 0x26,
        /// The replica has not reached what the client has been told already.
        Behind = 0x27,
        /// A post number beyond the next one; go back to the one expected.
        Gap = 0x28,
        /// A post number used before for another body.
        PostNoReused = 0x29,
        /// A body larger than the limit.
        BodyTooLarge = 0x2a,
        /// A group with as many members as there may be.
        TooManyMembers = 0x2b,
        /// The log was rebuilt; start again from its first event.
        EpochChanged = 0x2c,
        /// The post was cancelled by its writer.
        Cancelled = 0x2d,
        /// Too often; try again after the time given.
        RateLimited = 0x2e,
        /// The writer belongs to another device.
        WriterTaken = 0x2f,
        /// The client's outbox is full; nothing was sent.
        OutboxFull = 0x40,
    }
}

registry! {
    /// What an event does. A client shows an unknown kind as a line it does not understand, and counts its seq.
    EventKind(u32) {
        /// A message.
        Message = 0x01,
        /// Replaces the body of the message it refers to.
        Edit = 0x02,
        /// Takes back the message it refers to.
        Deletion = 0x03,
        /// A reaction to the message it refers to.
        Reaction = 0x04,
        /// The conversation was made: always seq 1.
        Created = 0x05,
        /// Members came, went or changed role.
        MembersChanged = 0x06,
        /// The title or another setting changed.
        SettingsChanged = 0x07,
        /// As a post: cancelled, its number is used up and nothing is appended. Never an event.
        Void = 0x08,
    }
}

registry! {
    /// The extensions of a post, which are those of its event too. Even: kept, and skipped by who does not know it. Odd: a
    /// server that does not know it refuses the post with [`ErrorCode::CriticalExtension`].
    PostExtension(u32) {
        /// Sixteen random bytes that are this post's alone, under whichever writer and number it is sent.
        Tag = 0x02,
    }
}

registry! {
    /// What the body of an event is. Unknown types are stored and forwarded like any other.
    ContentType(u32) {
        /// No body.
        None = 0x00,
        /// UTF-8 text.
        Text = 0x01,
        /// A structure of the system events' own, see the kind.
        System = 0x02,
        /// An MLS message (RFC 9420), opaque to the server.
        Mls = 0x03,
    }
}

registry! {
    /// A direct conversation or a group. Unknown kinds are treated as groups.
    ConversationKind(u32) {
        /// Two accounts, for ever.
        Direct = 0x01,
        /// Members come and go.
        Group = 0x02,
    }
}

registry! {
    /// What a member may do. An unknown role may do what [`Role::ReadOnly`] may.
    Role(u32) {
        /// Not a member.
        None = 0x00,
        /// Reads.
        ReadOnly = 0x01,
        /// Reads and posts.
        Member = 0x02,
        /// Also adds and removes members.
        Admin = 0x03,
        /// Also makes admins and owners.
        Owner = 0x04,
    }
}

registry! {
    /// How events reach an open conversation. Unknown modes are treated as [`StreamMode::Live`].
    StreamMode(u32) {
        /// Every event is sent.
        Live = 0x01,
        /// Only the head is told; the client fetches.
        Pull = 0x02,
    }
}

registry! {
    /// Why seqs are unavailable. Unknown reasons are treated as [`UnavailableReason::Hidden`].
    UnavailableReason(u32) {
        /// Older than what the conversation keeps.
        Retention = 0x01,
        /// Before one joined, or after one left.
        NotMember = 0x02,
        /// Taken away by an operator.
        Hidden = 0x03,
    }
}

registry! {
    /// Whether an account is there. Unknown values are treated as [`PresenceStatus::Offline`].
    PresenceStatus(u32) {
        /// No device is connected.
        Offline = 0x00,
        /// At least one device is connected.
        Online = 0x01,
    }
}

registry! {
    /// What the app is doing. Unknown values are treated as [`ClientState::Background`].
    ClientState(u32) {
        /// On screen: heartbeats, presence, typing.
        Foreground = 0x01,
        /// Not on screen.
        Background = 0x02,
        /// About to close the connection: offline at once.
        Leaving = 0x03,
    }
}

registry! {
    /// Where a page starts. Unknown anchors are refused with [`ErrorCode::InvalidArgument`].
    Anchor(u32) {
        /// At a seq.
        Seq = 0x01,
        /// At a message id.
        MessageId = 0x02,
        /// At a time, in milliseconds of the Unix epoch.
        Time = 0x03,
        /// After the last event.
        Head = 0x04,
    }
}

impl Role {
    /// Whether the role may post.
    pub fn may_post(self) -> bool {
        self >= Self::Member && self <= Self::Owner
    }

    /// Whether the role may add and remove members.
    pub fn may_manage(self) -> bool {
        self >= Self::Admin && self <= Self::Owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_keep_their_number_and_show_it() {
        let code = ErrorCode(0x7777);
        assert_eq!(code.name(), None);
        assert_eq!(code.to_string(), "ErrorCode(0x7777)");
        assert_eq!(ErrorCode::Gap.to_string(), "Gap");
    }

    #[test]
    fn no_number_is_given_twice_and_none_is_grease() {
        fn check(all: &mut Vec<u64>) {
            all.sort_unstable();
            assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:x?}");
            assert!(all.iter().all(|value| !is_grease(*value)));
        }
        check(&mut FrameType::ALL.iter().map(|(value, ..)| u64::from(value.0)).collect());
        check(&mut ErrorCode::ALL.iter().map(|(value, ..)| u64::from(value.0)).collect());
        check(&mut Method::ALL.iter().map(|(value, ..)| u64::from(value.0)).collect());
        check(&mut EventKind::ALL.iter().map(|(value, ..)| u64::from(value.0)).collect());
        check(&mut StreamType::ALL.iter().map(|(value, ..)| u64::from(value.0)).collect());
        check(&mut PostExtension::ALL.iter().map(|(value, ..)| u64::from(value.0)).collect());
    }

    #[test]
    fn an_unknown_role_may_neither_post_nor_manage() {
        assert!(!Role(99).may_post() && !Role(99).may_manage());
        assert!(Role::Member.may_post() && !Role::Member.may_manage());
        assert!(Role::Owner.may_manage());
    }
}
