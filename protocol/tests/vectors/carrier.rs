//! Bytes as one side receives them: what a stream or a datagram carries in one direction, or a body by itself.

use bytes::Bytes;
use rove_protocol::error::DecodeError;
use rove_protocol::frame::{FrameDecoder, RawFrame, datagram_frames};
use rove_protocol::limits;
use rove_protocol::message::*;
use rove_protocol::registry::FrameType;
use serde_json::{Value, json};

use crate::common::annotate::Fields;

/// What was received, and how the same values are encoded.
pub struct Received {
    /// Each frame's message and fields, or its type if it is to be skipped.
    pub messages: Vec<Value>,
    /// The bytes this side would have sent.
    pub again: Vec<u8>,
}

/// Every carrier: where its vectors say they belong.
pub const STREAMS: &[&str] = &["control", "inbox", "conversation", "fetch", "datagram"];

/// Receives bytes that end there.
pub fn receive(stream: &str, direction: &str, bytes: Vec<u8>) -> Result<Received, DecodeError> {
    let mut received = Received { messages: Vec::new(), again: Vec::new() };
    for frame in frames(stream, bytes)? {
        let frame_type = frame.frame_type;
        let message = one(stream, direction, frame, &mut received.again)?;
        received.messages.push(message.unwrap_or_else(|| json!({ "skipped": frame_type.0 })));
    }
    Ok(received)
}

fn frames(stream: &str, bytes: Vec<u8>) -> Result<Vec<RawFrame>, DecodeError> {
    if stream == "datagram" {
        return datagram_frames(bytes.into());
    }
    let mut decoder = FrameDecoder::new(limits::FRAME);
    decoder.feed(&bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    if decoder.is_mid_frame() { Err(DecodeError::Truncated) } else { Ok(frames) }
}

macro_rules! carriers {
    ($($stream:literal $direction:literal $name:ident { $($message:ident),* })*) => {
        fn one(stream: &str, direction: &str, frame: RawFrame, again: &mut Vec<u8>) -> Result<Option<Value>, DecodeError> {
            match (stream, direction) {
                $( ($stream, $direction) => {
                    let Some(message) = $name::decode(frame)? else { return Ok(None) };
                    message.put_frame(again);
                    Ok(Some(match message {
                        $( $name::$message(message) => {
                            json!({ "message": stringify!($message), "fields": message.fields() })
                        } )*
                    }))
                } )*
                _ => panic!("no carrier {stream} {direction}"),
            }
        }

        /// Where a frame belongs: stream and direction.
        pub fn carriers_of(frame_type: FrameType) -> Vec<(&'static str, &'static str)> {
            let mut found = Vec::new();
            $( $( if <$message as Message>::TYPE == frame_type {
                found.push(($stream, $direction));
            } )* )*
            found
        }
    };
}

carriers! {
    "control" "up" ControlUp { Hello, Request, Suspend }
    "control" "down" ControlDown { Welcome, Response, GoAway, Closed }
    "inbox" "up" InboxUp { InboxOpen }
    "inbox" "down" InboxDown { InboxLine, InboxSynced, Closed }
    "conversation" "up" ConversationUp { Open, Post, Mark }
    "conversation" "down" ConversationDown { Opened, Event, Unavailable, Posted, Refused, Receipt, Closed }
    "fetch" "up" FetchUp { Fetch }
    "fetch" "down" FetchDown { Event, Unavailable, Page, Closed }
    "datagram" "up" DatagramUp { Heartbeat, Typing }
    "datagram" "down" DatagramDown { HeartbeatAck, Presence, Typing }
}

macro_rules! bodies {
    ($($name:ident),*) => {
        /// Receives the body of a request, an answer, an event or an item of a list.
        pub fn receive_body(name: &str, bytes: Vec<u8>) -> Result<Received, DecodeError> {
            match name {
                $( stringify!($name) => {
                    let body = $name::decode_body(Bytes::from(bytes))?;
                    let messages = vec![json!({ "message": stringify!($name), "fields": body.fields() })];
                    Ok(Received { messages, again: body.encode_body() })
                } )*
                _ => panic!("no body {name}"),
            }
        }

        /// Every body that has no frame of its own.
        pub const BODIES: &[&str] = &[$( stringify!($name) ),*];
    };
}

bodies!(
    CreateDirect,
    CreateGroup,
    ChangeMembers,
    GetConversation,
    FindAccounts,
    GetAccounts,
    Watch,
    ConversationInfo,
    Accounts,
    Created,
    MembersChanged,
    SettingsChanged
);
