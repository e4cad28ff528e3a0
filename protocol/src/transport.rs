//! The transport seam: what Rove needs of whatever carries it, and frames on top of that.
//!
//! QUIC today; WebTransport and a TCP fallback have the same shape. Nothing here needs a runtime: the futures are the
//! transport's own.

use std::future::Future;

use bytes::Bytes;

use crate::error::{DecodeError, Violation};
use crate::frame::{FrameDecoder, RawFrame};
use crate::limits;
use crate::registry::ErrorCode;

/// Why a stream or a connection gave out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The peer reset the stream it was sending on.
    #[error("the peer reset the stream: {0}")]
    Reset(ErrorCode),
    /// The peer asked us to stop sending on the stream.
    #[error("the peer stopped the stream: {0}")]
    Stopped(ErrorCode),
    /// The peer closed the connection.
    #[error("the peer closed the connection: {code} {reason}")]
    Closed {
        /// Its code.
        code: ErrorCode,
        /// Its words, for logs.
        reason: String,
    },
    /// The connection is gone without a word: timed out, reset, or closed by ourselves.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// 0-RTT was refused: what was sent must be sent again.
    #[error("0-RTT was refused")]
    EarlyDataRejected,
}

/// The sending half of a stream.
pub trait SendStream: Send + 'static {
    /// Sends all of it; waits for the peer's flow control.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), TransportError>> + Send;
    /// Ends the stream after what was written.
    fn finish(&mut self);
    /// Drops what was not delivered and ends the stream.
    fn reset(&mut self, code: ErrorCode);
    /// Higher goes first when streams compete.
    fn set_priority(&mut self, priority: i32);
    /// Completes when the peer has stopped the stream, or the connection is gone.
    fn stopped(&mut self) -> impl Future<Output = TransportError> + Send;
}

/// The receiving half of a stream.
pub trait RecvStream: Send + 'static {
    /// What has come, or `None` at the end of the stream. Cancelling it loses nothing.
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>, TransportError>> + Send;
    /// Tells the peer not to send more.
    fn stop(&mut self, code: ErrorCode);
}

/// A connection. Clones are the same connection.
pub trait Connection: Clone + Send + Sync + 'static {
    /// Its sending halves.
    type Send: SendStream;
    /// Its receiving halves.
    type Recv: RecvStream;

    /// Opens a stream; waits for the peer's limit of streams.
    fn open(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv), TransportError>> + Send;
    /// The next stream the peer opened.
    fn accept(&self) -> impl Future<Output = Result<(Self::Send, Self::Recv), TransportError>> + Send;
    /// Sends a datagram, or drops it: too large for the path, no room, connection gone.
    fn send_datagram(&self, datagram: Bytes);
    /// The next datagram.
    fn read_datagram(&self) -> impl Future<Output = Result<Bytes, TransportError>> + Send;
    /// The largest datagram the path takes now.
    fn max_datagram(&self) -> usize;
    /// Closes the connection at once.
    fn close(&self, code: ErrorCode, reason: &str);
    /// Completes when the connection is gone.
    fn closed(&self) -> impl Future<Output = TransportError> + Send;
}

/// What reading frames can end with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The transport gave out.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The peer sent what it must not.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        Self::Violation(error.into())
    }
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    decoder: FrameDecoder,
}

impl<R: RecvStream> FrameReader<R> {
    /// A reader that takes frames of up to [`limits::FRAME`].
    pub fn new(stream: R) -> Self {
        Self { stream, decoder: FrameDecoder::new(limits::FRAME) }
    }

    /// Takes frames of up to `limit` from here on.
    pub fn set_limit(&mut self, limit: usize) {
        self.decoder.set_limit(limit);
    }

    /// The stream's type, which comes before its first frame; `None` if the stream ends instead.
    ///
    /// # Errors
    /// The transport's, and [`DecodeError`]s.
    pub async fn stream_type(&mut self) -> Result<Option<u64>, ReadError> {
        loop {
            if let Some(value) = self.decoder.next_varint()? {
                return Ok(Some(value));
            }
            match self.stream.read().await? {
                Some(bytes) => self.decoder.feed(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// The next frame, or `None` at the end of the stream. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The transport's, [`DecodeError`]s, and [`DecodeError::Truncated`] for a stream that ends inside a frame.
    pub async fn next(&mut self) -> Result<Option<RawFrame>, ReadError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read().await? {
                Some(bytes) => self.decoder.feed(&bytes),
                None if self.decoder.is_mid_frame() => return Err(DecodeError::Truncated.into()),
                None => return Ok(None),
            }
        }
    }

    /// A frame that has arrived whole already, without waiting.
    ///
    /// # Errors
    /// [`DecodeError`]s.
    pub fn buffered(&mut self) -> Result<Option<RawFrame>, ReadError> {
        Ok(self.decoder.next_frame()?)
    }

    /// Whether a frame has begun and not ended; a shell times that against [`limits::FRAME_DEADLINE_MS`].
    pub fn is_mid_frame(&self) -> bool {
        self.decoder.is_mid_frame()
    }

    /// Tells the peer not to send more.
    pub fn stop(&mut self, code: ErrorCode) {
        self.stream.stop(code);
    }
}
