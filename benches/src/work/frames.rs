//! Frames as a receiver takes them out.

use rove_protocol::frame::{FrameDecoder, RawFrame};
use rove_protocol::limits;

/// Decodes every frame of `bytes`; `each` gets what came of it.
///
/// # Panics
/// If they are no frames.
#[expect(clippy::expect_used, reason = "bytes of our own")]
pub fn decode_all<T>(bytes: &[u8], decode: impl Fn(RawFrame) -> T, mut each: impl FnMut(T)) {
    let mut decoder = FrameDecoder::new(limits::FRAME);
    decoder.feed(bytes);
    while let Some(frame) = decoder.next_frame().expect("frames") {
        each(decode(frame));
    }
}
