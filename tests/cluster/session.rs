//! A connection to a node, and why it ends.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ClientConfig, Endpoint};
use rove_protocol::ids::RequestId;
use rove_protocol::message::{ControlDown, ConversationDown, Message as _, Open, Opened, Request};
use rove_protocol::registry::{ErrorCode, Method, StreamType};
use rove_protocol::transport::{Connection as _, FrameReader, ReadError, SendStream as _, TransportError};
use rove_protocol::wire::put_varint;
use rove_quic::{Connection, RecvStream, SendStream};
use rove_tests::raw::Credentials;
use tokio::time::timeout;

/// A node that is well shakes hands and welcomes within this; another one is tried then.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// What a node says if something is not there, or not for whoever asks. Here everything that is asked for is there, so that no node may say
/// so: one that is behind must find out first (D11).
const DENIALS: [ErrorCode; 4] =
    [ErrorCode::NotFound, ErrorCode::Forbidden, ErrorCode::Unauthenticated, ErrorCode::Revoked];

/// Why a connection is of no more use: in words, for reports, and what the node said, if it did.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    why: String,
    code: Option<ErrorCode>,
}

impl Lost {
    /// The node says so.
    pub(crate) fn told(what: &str, code: ErrorCode) -> Self {
        Self { why: format!("{what}: {code}"), code: Some(code) }
    }

    /// A stream or the connection gave out.
    pub(crate) fn gone(error: impl Into<ReadError>) -> Self {
        let error = error.into();
        let code = match &error {
            ReadError::Transport(
                TransportError::Closed { code, .. } | TransportError::Reset(code) | TransportError::Stopped(code),
            ) => Some(*code),
            ReadError::Transport(_) | ReadError::Violation(_) => None,
        };
        Self { why: error.to_string(), code }
    }

    /// Something else went wrong.
    pub(crate) fn by(error: impl fmt::Display) -> Self {
        Self { why: error.to_string(), code: None }
    }

    /// Whether the node denies what is there.
    pub(crate) fn denies(&self) -> bool {
        self.code.is_some_and(|code| DENIALS.contains(&code))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<&str> for Lost {
    fn from(why: &str) -> Self {
        Self::by(why)
    }
}

impl From<Lost> for String {
    fn from(lost: Lost) -> Self {
        lost.why
    }
}

/// A stream of a connection.
pub(crate) struct Stream {
    pub(crate) send: SendStream,
    pub(crate) frames: FrameReader<RecvStream>,
}

impl Stream {
    /// Waits for the answer to `Open`.
    pub(crate) async fn opened(&mut self) -> Result<Opened, Lost> {
        loop {
            let frame = self.frames.next().await.map_err(Lost::gone)?.ok_or("the stream ended")?;
            match ConversationDown::decode(frame).map_err(Lost::gone)? {
                Some(ConversationDown::Opened(opened)) => return Ok(opened),
                Some(ConversationDown::Closed(closed)) => {
                    return Err(Lost::told("the conversation was closed", closed.code));
                }
                _ => {}
            }
        }
    }
}

/// A session that was welcomed.
pub(crate) struct Session {
    // Dropping the endpoint would end the connection.
    endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) control: Stream,
}

impl Drop for Session {
    fn drop(&mut self) {
        // At once: the node should not wait for a device that has gone elsewhere.
        self.endpoint.close(0_u32.into(), b"");
    }
}

impl Session {
    /// Connects to a node and is welcomed.
    pub(crate) async fn welcomed(node: SocketAddr, tls: &ClientConfig, who: &Credentials) -> Result<Self, Lost> {
        timeout(CONNECT_WITHIN, Self::connect(node, tls, who)).await.map_err(|_| "no welcome in time")?
    }

    async fn connect(node: SocketAddr, tls: &ClientConfig, who: &Credentials) -> Result<Self, Lost> {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).map_err(Lost::by)?;
        let connecting = endpoint.connect_with(tls.clone(), node, "localhost").map_err(Lost::by)?;
        let connection: Connection = connecting.await.map_err(Lost::by)?.into();
        let mut control = open(&connection, StreamType::Control, &who.hello().to_frame()).await?;
        loop {
            let frame = control.frames.next().await.map_err(Lost::gone)?.ok_or("the control stream ended")?;
            match ControlDown::decode(frame).map_err(Lost::gone)? {
                Some(ControlDown::Welcome(_)) => return Ok(Self { endpoint, connection, control }),
                Some(ControlDown::Closed(closed)) => return Err(Lost::told("not welcomed", closed.code)),
                _ => {}
            }
        }
    }

    /// Opens a conversation.
    pub(crate) async fn open(&self, open_frame: &Open) -> Result<Stream, Lost> {
        open(&self.connection, StreamType::Conversation, &open_frame.to_frame()).await
    }

    /// Asks for something. The answers come in any order.
    pub(crate) async fn ask(&mut self, number: u64, method: Method, body: Bytes) -> Result<(), Lost> {
        let request = Request { id: RequestId(number), method, body };
        self.control.send.write(request.to_frame().into()).await.map_err(Lost::gone)
    }

    /// Waits for the next answer.
    pub(crate) async fn answer(&mut self) -> Result<Bytes, Lost> {
        loop {
            let frame = self.control.frames.next().await.map_err(Lost::gone)?.ok_or("the control stream ended")?;
            match ControlDown::decode(frame).map_err(Lost::gone)? {
                Some(ControlDown::Response(response)) if response.code == ErrorCode::None => return Ok(response.body),
                Some(ControlDown::Response(response)) => return Err(Lost::told("refused", response.code)),
                Some(ControlDown::Closed(closed)) => return Err(Lost::told("closed", closed.code)),
                _ => {}
            }
        }
    }
}

async fn open(connection: &Connection, stream_type: StreamType, first: &[u8]) -> Result<Stream, Lost> {
    let mut start = Vec::with_capacity(first.len() + 1);
    put_varint(&mut start, u64::from(stream_type.0));
    start.extend_from_slice(first);
    let (mut send, recv) = connection.open().await.map_err(Lost::gone)?;
    send.write(start.into()).await.map_err(Lost::gone)?;
    Ok(Stream { send, frames: FrameReader::new(recv) })
}
