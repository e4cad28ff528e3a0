//! Frames: `length, type, body`, where the length counts type and body.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::registry::FrameType;
use crate::wire::{Reader, Wire, put_varint, varint_len, varint_prefix};

/// A frame whose body has not been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Its type.
    pub frame_type: FrameType,
    /// Everything after the type: a struct and its extensions.
    pub body: Bytes,
}

/// Appends a frame whose body is already encoded.
pub fn put_frame(frame_type: FrameType, body: &[u8], out: &mut Vec<u8>) {
    put_varint(out, (varint_len(u64::from(frame_type.0)) + body.len()) as u64);
    frame_type.put(out);
    out.extend_from_slice(body);
}

/// Cuts a stream of bytes into frames. Holds at most one frame's bytes more than it was fed.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit: usize,
}

impl FrameDecoder {
    /// A decoder that refuses frames longer than `limit` bytes (type and body).
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    /// Changes the limit for frames not begun yet.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes in what was received.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the last frame has begun and not ended: the shell times this against
    /// [`crate::limits::FRAME_DEADLINE_MS`].
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The varint at the front, such as a stream's type, or `None` if it is not there yet.
    ///
    /// # Errors
    /// As [`varint_prefix`].
    pub fn next_varint(&mut self) -> Result<Option<u64>, DecodeError> {
        let Some((value, used)) = varint_prefix(&self.buffer)? else { return Ok(None) };
        self.buffer.advance(used);
        Ok(Some(value))
    }

    /// The next whole frame, or `None` if it is not there yet.
    ///
    /// # Errors
    /// [`DecodeError::FrameTooLarge`] as soon as the length is known, and those of the length and the type.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, DecodeError> {
        let Some((length, used)) = varint_prefix(&self.buffer)? else { return Ok(None) };
        let size = match usize::try_from(length) {
            Ok(size) if size <= self.limit => size,
            _ => return Err(DecodeError::FrameTooLarge { length, limit: self.limit }),
        };
        if self.buffer.len() < used + size {
            return Ok(None);
        }
        self.buffer.advance(used);
        let mut reader = Reader::new(self.buffer.split_to(size).freeze());
        if self.buffer.is_empty() {
            // An idle stream keeps no buffer.
            self.buffer = BytesMut::new();
        }
        let frame_type = FrameType::take(&mut reader)?;
        Ok(Some(RawFrame { frame_type, body: reader.into_rest() }))
    }
}

/// Cuts a datagram into frames; one that is not whole is an error, as nothing more will come.
///
/// # Errors
/// [`DecodeError::Truncated`] and those of the fields.
pub fn datagram_frames(datagram: Bytes) -> Result<Vec<RawFrame>, DecodeError> {
    let mut reader = Reader::new(datagram);
    let mut frames = Vec::new();
    while reader.remaining() > 0 {
        let length = reader.length()?;
        let mut frame = Reader::new(reader.take(length)?);
        let frame_type = FrameType::take(&mut frame)?;
        frames.push(RawFrame { frame_type, body: frame.into_rest() });
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_over_the_limit_is_refused_from_its_length_alone() {
        let mut decoder = FrameDecoder::new(100);
        decoder.feed(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(decoder.next_frame(), Err(DecodeError::FrameTooLarge { length: u64::from(u32::MAX), limit: 100 }));
    }

    #[test]
    fn a_frame_of_no_bytes_has_no_type() {
        let mut decoder = FrameDecoder::new(100);
        decoder.feed(&[0]);
        assert_eq!(decoder.next_frame(), Err(DecodeError::Truncated));
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_bytes_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..10),
            cut in 1usize..50,
        ) {
            let mut bytes = Vec::new();
            for (index, body) in (0u32..).zip(&bodies) {
                put_frame(FrameType(index * 50), body, &mut bytes);
            }
            let mut decoder = FrameDecoder::new(300);
            let mut seen = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.feed(chunk);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen.len(), bodies.len());
            for (index, (frame, body)) in (0u32..).zip(seen.iter().zip(&bodies)) {
                prop_assert_eq!(frame.frame_type, FrameType(index * 50));
                prop_assert_eq!(&frame.body[..], &body[..]);
            }
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = FrameDecoder::new(512);
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
            let _ = datagram_frames(bytes.into());
        }
    }
}
