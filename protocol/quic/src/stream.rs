//! The two halves of a stream.

use bytes::Bytes;
use quinn::{ReadError, StoppedError, WriteError};
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::{self, TransportError};

use crate::connection::{from_wire, lost, to_wire};

/// The sending half of a stream. Dropping it ends the stream after what was written.
#[derive(Debug)]
pub struct SendStream(quinn::SendStream);

impl SendStream {
    /// quinn's own.
    pub fn quinn(&mut self) -> &mut quinn::SendStream {
        &mut self.0
    }
}

impl From<quinn::SendStream> for SendStream {
    fn from(stream: quinn::SendStream) -> Self {
        Self(stream)
    }
}

impl transport::SendStream for SendStream {
    async fn write(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        self.0.write_chunk(bytes).await.map_err(|error| match error {
            WriteError::Stopped(code) => TransportError::Stopped(from_wire(code)),
            WriteError::ConnectionLost(error) => lost(error),
            WriteError::ClosedStream => TransportError::Lost("the stream was ended before".to_owned()),
            WriteError::ZeroRttRejected => TransportError::EarlyDataRejected,
        })
    }

    fn finish(&mut self) {
        // Fails only on a stream that has ended already.
        let _ = self.0.finish();
    }

    fn reset(&mut self, code: ErrorCode) {
        let _ = self.0.reset(to_wire(code));
    }

    fn set_priority(&mut self, priority: i32) {
        let _ = self.0.set_priority(priority);
    }

    /// Also completes, with [`ErrorCode::None`], once the peer has acknowledged the whole of a finished stream.
    async fn stopped(&mut self) -> TransportError {
        match self.0.stopped().await {
            Ok(code) => TransportError::Stopped(code.map_or(ErrorCode::None, from_wire)),
            Err(StoppedError::ConnectionLost(error)) => lost(error),
            Err(StoppedError::ZeroRttRejected) => TransportError::EarlyDataRejected,
        }
    }
}

/// The receiving half of a stream. Dropping it stops the stream.
#[derive(Debug)]
pub struct RecvStream(quinn::RecvStream);

impl RecvStream {
    /// quinn's own.
    pub fn quinn(&mut self) -> &mut quinn::RecvStream {
        &mut self.0
    }
}

impl From<quinn::RecvStream> for RecvStream {
    fn from(stream: quinn::RecvStream) -> Self {
        Self(stream)
    }
}

impl transport::RecvStream for RecvStream {
    async fn read(&mut self) -> Result<Option<Bytes>, TransportError> {
        match self.0.read_chunk(usize::MAX, true).await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(ReadError::Reset(code)) => Err(TransportError::Reset(from_wire(code))),
            Err(ReadError::ConnectionLost(error)) => Err(lost(error)),
            // After our own stop, or after the end: there is nothing more.
            Err(ReadError::ClosedStream) => Ok(None),
            Err(ReadError::IllegalOrderedRead) => Err(TransportError::Lost("read out of order before".to_owned())),
            Err(ReadError::ZeroRttRejected) => Err(TransportError::EarlyDataRejected),
        }
    }

    fn stop(&mut self, code: ErrorCode) {
        let _ = self.0.stop(to_wire(code));
    }
}
