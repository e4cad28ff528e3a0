//! What a stream or a datagram carries in one direction, decoded and encoded again. The fuzz targets include this file by
//! its path: the protocol ships no code for tests.

use rove_protocol::error::DecodeError;
use rove_protocol::frame::RawFrame;
use rove_protocol::message::{
    ControlDown, ControlUp, ConversationDown, ConversationUp, DatagramDown, DatagramUp, FetchDown, FetchUp, InboxDown,
    InboxUp,
};

/// How many there are.
pub const CARRIERS: usize = 10;

/// The frame's message encoded again, if it is one.
pub fn again(carrier: usize, frame: RawFrame) -> Result<Option<Vec<u8>>, DecodeError> {
    macro_rules! again {
        ($type:ident) => {
            $type::decode(frame).map(|message| {
                message.map(|message| {
                    let mut out = Vec::new();
                    message.put_frame(&mut out);
                    out
                })
            })
        };
    }
    match carrier % CARRIERS {
        0 => again!(ControlUp),
        1 => again!(ControlDown),
        2 => again!(InboxUp),
        3 => again!(InboxDown),
        4 => again!(ConversationUp),
        5 => again!(ConversationDown),
        6 => again!(FetchUp),
        7 => again!(FetchDown),
        8 => again!(DatagramUp),
        _ => again!(DatagramDown),
    }
}
