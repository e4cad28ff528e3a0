//! Frames in and out of one QUIC stream, and what can go wrong with a link.

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use rove_protocol::error::DecodeError;
use rove_protocol::frame::FrameDecoder;
use rove_protocol::wire::put_varint;

use super::frame::{Body, FrameError};
use super::registry::{CloseCode, FrameType, StreamType};

/// Bytes taken out of QUIC at once.
const READ_CHUNK: usize = 64 * 1_024;

/// Why a link ends, or one stream of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] ConnectionError),
    /// The other end sent what it must not.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame longer than its stream allows; nothing was allocated for it.
    #[error("a frame of {length} bytes where {limit} are allowed")]
    TooLarge { length: u64, limit: usize },
    /// Framing that does not decode.
    #[error("a frame's length or type: {0}")]
    Framing(DecodeError),
    /// A stream that does not belong there.
    #[error("a stream of type {0} is not allowed here")]
    StreamType(StreamType),
    /// A stream ended where it must not.
    #[error("the {0} stream ended")]
    Ended(StreamType),
    /// The other end does not want this stream any more.
    #[error("a stream was given up by the other end ({0})")]
    GivenUp(VarInt),
    /// What was due did not come.
    #[error("{0} did not come in time")]
    Timeout(&'static str),
    /// There is no way to the other end.
    #[error("{0}")]
    Unreachable(String),
    /// A defect of ours.
    #[error("a task of the link failed: {0}")]
    Task(String),
}

impl LinkError {
    /// What the other end closed the connection with, if it did.
    pub(super) fn closed_with(&self) -> Option<CloseCode> {
        match self {
            Self::Lost(ConnectionError::ApplicationClosed(close)) => {
                u32::try_from(close.error_code.into_inner()).ok().map(CloseCode)
            }
            _ => None,
        }
    }

    /// What the connection is closed with.
    pub(super) fn close_code(&self) -> CloseCode {
        match self {
            Self::Lost(_) | Self::Ended(_) | Self::GivenUp(_) | Self::Unreachable(_) | Self::Task(_) => {
                CloseCode::BROKEN
            }
            Self::Frame(FrameError::Unexpected(_)) | Self::StreamType(_) => CloseCode::UNEXPECTED,
            Self::Frame(FrameError::Limit(..)) | Self::TooLarge { .. } => CloseCode::TOO_LARGE,
            Self::Frame(_) | Self::Framing(_) => CloseCode::MALFORMED,
            Self::Timeout(_) => CloseCode::TIMEOUT,
        }
    }

    /// Whether the other end broke the rules, and is to be left alone for a while.
    pub(super) fn is_violation(&self) -> bool {
        match self {
            Self::Frame(_) | Self::TooLarge { .. } | Self::Framing(_) | Self::StreamType(_) => true,
            // QUIC itself was violated, for example with more streams than allowed. TLS's alerts are not meant.
            Self::Lost(ConnectionError::TransportError(error)) => !(0x100..0x200).contains(&u64::from(error.code)),
            _ => false,
        }
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::GivenUp(code),
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Lost(ConnectionError::LocallyClosed),
        }
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::GivenUp(code),
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Lost(ConnectionError::LocallyClosed)
            }
        }
    }
}

/// Closes a connection with a code and the reason for people.
pub(super) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(VarInt::from_u32(code.0), reason.as_bytes());
}

/// The frames of a stream as they come.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: RecvStream,
    decoder: FrameDecoder,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream, limit: usize) -> Self {
        Self { stream, decoder: FrameDecoder::new(limit) }
    }

    /// Takes frames of up to `limit` bytes from here on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.decoder.set_limit(limit);
    }

    /// The stream's type; `None` if the stream ends before it.
    pub(super) async fn stream_type(&mut self) -> Result<Option<StreamType>, LinkError> {
        loop {
            if let Some(number) = self.decoder.next_varint().map_err(LinkError::Framing)? {
                return Ok(Some(StreamType(number)));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// The next frame; `None` at the end of the stream. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<(FrameType, Bytes)>, LinkError> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(Some((FrameType(frame.frame_type.0), frame.body))),
                Ok(None) => {}
                Err(DecodeError::FrameTooLarge { length, limit }) => {
                    return Err(LinkError::TooLarge { length, limit });
                }
                Err(error) => return Err(LinkError::Framing(error)),
            }
            if !self.more().await? {
                let whole = !self.decoder.is_mid_frame();
                return if whole { Ok(None) } else { Err(LinkError::Framing(DecodeError::Truncated)) };
            }
        }
    }

    /// The next frame, which must be of one type; unknown even ones are skipped.
    pub(super) async fn expect<B: Body>(&mut self) -> Result<Option<B>, LinkError> {
        while let Some((frame_type, body)) = self.next().await? {
            if frame_type == B::TYPE {
                return Ok(Some(B::from_body(body)?));
            }
            skip(frame_type)?;
        }
        Ok(None)
    }

    /// Tells the other end not to send more.
    pub(super) fn stop(&mut self, code: CloseCode) {
        // A stream that is at its end needs no stopping.
        let _ = self.stream.stop(VarInt::from_u32(code.0));
    }

    async fn more(&mut self) -> Result<bool, LinkError> {
        let Some(chunk) = self.stream.read_chunk(READ_CHUNK, true).await? else { return Ok(false) };
        self.decoder.feed(&chunk.bytes);
        Ok(true)
    }
}

/// A frame that is not one of those which belong here: skipped if it is unknown and even.
pub(super) fn skip(frame_type: FrameType) -> Result<(), FrameError> {
    let known = FrameType::ALL.iter().any(|(known, _)| *known == frame_type);
    if known || frame_type.0 % 2 == 1 { Err(FrameError::Unexpected(frame_type)) } else { Ok(()) }
}

/// Writes the type of a stream that was just opened, and how urgent it is.
pub(super) async fn begin(stream: &mut SendStream, stream_type: StreamType, priority: i32) -> Result<(), LinkError> {
    // Only a stream that is closed has no priority, and writing to it says so.
    let _ = stream.set_priority(priority);
    let mut bytes = Vec::new();
    put_varint(&mut bytes, stream_type.0);
    stream.write_chunk(bytes.into()).await?;
    Ok(())
}
