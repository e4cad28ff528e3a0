//! Cutting bytes into frames.

use bytes::Bytes;
use rove_protocol::frame::{FrameDecoder, RawFrame, datagram_frames, put_frame};
use rove_protocol::limits;

fn frame_bytes(frames: &[RawFrame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        put_frame(frame.frame_type, &frame.body, &mut out);
    }
    out
}

/// Feeds the bytes in pieces of `cut` bytes: the frames, and whether they ended with an error.
fn cut_up(bytes: &[u8], cut: usize) -> (Vec<RawFrame>, bool, bool) {
    let mut decoder = FrameDecoder::new(limits::FRAME);
    let mut frames = Vec::new();
    for piece in bytes.chunks(cut) {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true, decoder.is_mid_frame()),
            }
        }
    }
    (frames, false, decoder.is_mid_frame())
}

/// Frames are the same however the bytes arrive, encode to the bytes they came from, and keep to the limit.
pub fn check(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let cut = usize::from(*cut) + 1;
    let (frames, failed, mid_frame) = cut_up(bytes, cut);
    let (whole, whole_failed, _) = cut_up(bytes, bytes.len().max(1));
    assert_eq!(frames, whole);
    assert_eq!(failed, whole_failed);
    assert!(frames.iter().all(|frame| frame.body.len() <= limits::FRAME));
    let again = frame_bytes(&frames);
    assert!(bytes.starts_with(&again));
    if !failed {
        assert_eq!(mid_frame, again.len() < bytes.len());
    }
    if let Ok(frames) = datagram_frames(Bytes::copy_from_slice(bytes)) {
        assert_eq!(frame_bytes(&frames), bytes);
    }
}
