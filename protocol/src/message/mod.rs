//! The messages, one file a group, and which of them each stream carries in each direction.

mod conversation;
mod datagram;
mod event;
mod fetch;
mod hello;
mod inbox;
mod post;
mod request;

use bytes::Bytes;

use crate::error::DecodeError;
use crate::extension::Extensions;
use crate::frame::{RawFrame, put_frame};
use crate::registry::FrameType;
use crate::wire::{Reader, Wire};

pub use conversation::{Closed, Mark, Open, Opened, Receipt, Unavailable};
pub use datagram::{Heartbeat, HeartbeatAck, Presence, PresenceItem, Typing};
pub use event::{Created, Event, MemberChange, MembersChanged, SettingsChanged};
pub use fetch::{Fetch, Page};
pub use hello::{Alternative, GoAway, Hello, Limits, Suspend, Welcome};
pub use inbox::{InboxLine, InboxOpen, InboxSynced, PartitionCursor};
pub use post::{Post, Posted, Refused};
pub use request::{
    AccountInfo, AccountRef, Accounts, ChangeMembers, ConversationInfo, CreateDirect, CreateGroup, FindAccounts,
    GetAccounts, GetConversation, HandleRef, MemberInfo, Request, Response, Watch,
};

/// A struct that is the body of a frame, a request or an answer: its fields, then its extensions.
pub trait Body: Wire {
    /// The fields and no extensions.
    fn encode_body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.put(&mut body);
        body
    }

    /// Reads the fields, skips unknown extensions, refuses unknown critical ones, checks the limits of the fields.
    ///
    /// # Errors
    /// What was wrong with the bytes.
    fn decode_body(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let value = Self::take(&mut reader)?;
        Extensions::take_rest(reader)?.refuse_critical(&[])?;
        value.check()?;
        Ok(value)
    }

    /// The limits of single fields.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`].
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// A body with a frame type of its own.
pub trait Message: Body {
    /// The type of its frame.
    const TYPE: FrameType;

    /// Appends the whole frame.
    fn put_frame(&self, out: &mut Vec<u8>) {
        put_frame(Self::TYPE, &self.encode_body(), out);
    }

    /// The whole frame.
    fn to_frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put_frame(&mut out);
        out
    }
}

/// `Ok` if a limit holds.
fn within(holds: bool) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(DecodeError::OutOfRange) }
}

/// The rule for a frame that a stream does not carry: known elsewhere or odd is an error, unknown even is skipped.
fn not_carried(frame_type: FrameType) -> Result<(), DecodeError> {
    if frame_type.name().is_some() {
        Err(DecodeError::FrameUnexpected(frame_type))
    } else if frame_type.0 % 2 == 1 {
        Err(DecodeError::UnknownFrame(frame_type))
    } else {
        Ok(())
    }
}

macro_rules! carried {
    ($(#[$meta:meta])* $name:ident { $($message:ident),* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $( #[doc = concat!("See [`", stringify!($message), "`].")] $message($message), )*
        }

        impl $name {
            /// Reads a frame; `None` is one to skip.
            ///
            /// # Errors
            /// What was wrong with it, or that it does not belong here.
            pub fn decode(frame: RawFrame) -> Result<Option<Self>, DecodeError> {
                $( if frame.frame_type == <$message as Message>::TYPE {
                    return <$message as Body>::decode_body(frame.body).map(|message| Some(Self::$message(message)));
                } )*
                not_carried(frame.frame_type).map(|()| None)
            }

            /// The type of the frame.
            pub fn frame_type(&self) -> FrameType {
                match self { $( Self::$message(_) => <$message as Message>::TYPE, )* }
            }

            /// Appends the whole frame.
            pub fn put_frame(&self, out: &mut Vec<u8>) {
                match self { $( Self::$message(message) => message.put_frame(out), )* }
            }
        }

        $( impl From<$message> for $name {
            fn from(message: $message) -> Self {
                Self::$message(message)
            }
        } )*
    };
}

carried! {
    /// Client to server on the control stream.
    ControlUp { Hello, Request, Suspend }
}
carried! {
    /// Server to client on the control stream.
    ControlDown { Welcome, Response, GoAway, Closed }
}
carried! {
    /// Client to server on the inbox stream.
    InboxUp { InboxOpen }
}
carried! {
    /// Server to client on the inbox stream.
    InboxDown { InboxLine, InboxSynced, Closed }
}
carried! {
    /// Client to server on a conversation stream.
    ConversationUp { Open, Post, Mark }
}
carried! {
    /// Server to client on a conversation stream.
    ConversationDown { Opened, Event, Unavailable, Posted, Refused, Receipt, Closed }
}
carried! {
    /// Client to server on a fetch stream.
    FetchUp { Fetch }
}
carried! {
    /// Server to client on a fetch stream.
    FetchDown { Event, Unavailable, Page, Closed }
}
carried! {
    /// Client to server in a datagram.
    DatagramUp { Heartbeat, Typing }
}
carried! {
    /// Server to client in a datagram.
    DatagramDown { HeartbeatAck, Presence, Typing }
}

/// Declares that a struct is a body, with the limits of its fields.
macro_rules! body {
    ($name:ident) => {
        impl $crate::message::Body for $name {}
    };
    ($name:ident, |$value:ident| $check:expr) => {
        impl $crate::message::Body for $name {
            fn check(&self) -> Result<(), $crate::error::DecodeError> {
                let $value = self;
                $crate::message::within($check)
            }
        }
    };
}
pub(crate) use body;

/// Declares that a struct is the body of a frame of the type with the same name.
macro_rules! message {
    ($name:ident $(, |$value:ident| $check:expr)?) => {
        $crate::message::body!($name $(, |$value| $check)?);
        impl $crate::message::Message for $name {
            const TYPE: $crate::registry::FrameType = $crate::registry::FrameType::$name;
        }
    };
}
pub(crate) use message;
