//! Decoding what a stream or a datagram carries in one direction.

use bytes::Bytes;
use rove_protocol::extension::Extensions;
use rove_protocol::frame::{FrameDecoder, RawFrame};
use rove_protocol::registry::{ErrorCode, FrameType};
use rove_protocol::wire::Reader;

use crate::carriers::again;

/// A message encodes to the bytes it came from, less the unknown even extensions that were skipped. An error is one of
/// those a peer can earn by bytes alone.
pub fn check(data: &[u8]) {
    let [carrier, frame_type, body @ ..] = data else { return };
    let frame_type = FrameType(u32::from(*frame_type));
    match again(usize::from(*carrier), RawFrame { frame_type, body: Bytes::copy_from_slice(body) }) {
        Ok(None) => assert!(frame_type.name().is_none() && frame_type.0 % 2 == 0),
        Ok(Some(frame)) => {
            let mut decoder = FrameDecoder::new(usize::MAX);
            decoder.feed(&frame);
            let frame = decoder.next_frame().expect("our own frame").expect("a whole frame");
            assert_eq!(frame.frame_type, frame_type);
            assert!(body.starts_with(&frame.body));
            let skipped = Reader::new(Bytes::copy_from_slice(&body[frame.body.len()..]));
            let skipped = Extensions::take_rest(skipped).expect("what was skipped are extensions");
            assert!(skipped.iter().all(|extension| extension.id % 2 == 0));
        }
        Err(error) => assert!(matches!(
            error.code(),
            ErrorCode::Malformed
                | ErrorCode::NotCanonical
                | ErrorCode::CriticalExtension
                | ErrorCode::UnknownFrame
                | ErrorCode::FrameUnexpected
        )),
    }
}
