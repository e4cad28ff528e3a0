//! The connection.

use bytes::Bytes;
use quinn::{ConnectionError, VarInt};
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::{self, TransportError};

use crate::stream::{RecvStream, SendStream};

/// A QUIC connection. Clones are the same connection.
#[derive(Debug, Clone)]
pub struct Connection(quinn::Connection);

impl Connection {
    /// quinn's own, for what the seam does not have: addresses, windows, statistics.
    pub fn quinn(&self) -> &quinn::Connection {
        &self.0
    }
}

impl From<quinn::Connection> for Connection {
    fn from(connection: quinn::Connection) -> Self {
        Self(connection)
    }
}

impl transport::Connection for Connection {
    type Send = SendStream;
    type Recv = RecvStream;

    async fn open(&self) -> Result<(SendStream, RecvStream), TransportError> {
        let (send, recv) = self.0.open_bi().await.map_err(lost)?;
        Ok((send.into(), recv.into()))
    }

    async fn accept(&self) -> Result<(SendStream, RecvStream), TransportError> {
        let (send, recv) = self.0.accept_bi().await.map_err(lost)?;
        Ok((send.into(), recv.into()))
    }

    fn send_datagram(&self, datagram: Bytes) {
        // Datagrams may be lost; one that cannot even be sent is lost early.
        let _ = self.0.send_datagram(datagram);
    }

    async fn read_datagram(&self) -> Result<Bytes, TransportError> {
        self.0.read_datagram().await.map_err(lost)
    }

    fn max_datagram(&self) -> usize {
        self.0.max_datagram_size().unwrap_or(0)
    }

    fn close(&self, code: ErrorCode, reason: &str) {
        self.0.close(to_wire(code), reason.as_bytes());
    }

    async fn closed(&self) -> TransportError {
        lost(self.0.closed().await)
    }
}

/// A code of ours as QUIC carries it.
pub(crate) fn to_wire(code: ErrorCode) -> VarInt {
    VarInt::from_u32(code.0)
}

/// A code as QUIC carried it. One beyond our registry's range is nothing we could name.
pub(crate) fn from_wire(code: VarInt) -> ErrorCode {
    u32::try_from(code.into_inner()).map_or(ErrorCode::Internal, ErrorCode)
}

/// Why the connection is gone.
pub(crate) fn lost(error: ConnectionError) -> TransportError {
    match error {
        ConnectionError::ApplicationClosed(close) => TransportError::Closed {
            code: from_wire(close.error_code),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => TransportError::Lost(error.to_string()),
    }
}
