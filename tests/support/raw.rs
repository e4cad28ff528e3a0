//! A peer that can send anything: rove/1 by hand.

use bytes::Bytes;
use quinn::Endpoint;
use rove_protocol::ids::{ConversationId, DeviceId, RequestId, Seq, WriterId};
use rove_protocol::message::{
    Body, ControlDown, ConversationDown, ConversationInfo, CreateDirect, Hello, Message, Open, Post, Request,
};
use rove_protocol::registry::{ALPN, ClientState, ContentType, ErrorCode, EventKind, Method, StreamType};
use rove_protocol::transport::{Connection as _, FrameReader, SendStream as _, TransportError};
use rove_protocol::wire::put_varint;
use rove_quic::{Connection, RecvStream, SendStream, client_tls};

use crate::{Server, within_patience};

/// What a device proves itself with.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The account.
    pub account: rove_protocol::ids::AccountId,
    /// The device.
    pub device: DeviceId,
    /// Its secret.
    pub secret: Bytes,
}

impl Credentials {
    /// A `Hello` with them.
    pub fn hello(&self) -> Hello {
        Hello {
            device: self.device,
            secret: self.secret.clone(),
            minor: 0,
            state: ClientState::Foreground,
            client: "raw".to_owned(),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Raw {
    // Dropping the endpoint would end the connection.
    _endpoint: Endpoint,
    /// The connection.
    pub connection: Connection,
}

/// A stream of that connection.
#[derive(Debug)]
pub struct RawStream {
    /// What the server sends.
    pub frames: FrameReader<RecvStream>,
    /// What the server reads.
    pub send: SendStream,
}

impl Raw {
    /// Connects; says nothing yet.
    ///
    /// # Panics
    /// If there is no connection.
    pub async fn connect(server: &Server) -> Self {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
        let config = client_tls(&server.address().trust, ALPN).expect("pins make a configuration");
        let connecting = endpoint.connect_with(config, server.quic, "localhost").expect("a valid name");
        let connection = within_patience("the handshake", connecting).await.expect("the server accepts");
        Self { _endpoint: endpoint, connection: connection.into() }
    }

    /// Connects and is welcomed.
    ///
    /// # Panics
    /// If the server does not welcome it.
    pub async fn welcomed(server: &Server, credentials: &Credentials) -> (Self, RawStream) {
        let raw = Self::connect(server).await;
        let mut control = raw.stream(StreamType::Control, &credentials.hello().to_frame()).await;
        let frame = control.next().await.expect("an answer to Hello");
        assert!(matches!(ControlDown::decode(frame), Ok(Some(ControlDown::Welcome(_)))));
        (raw, control)
    }

    /// Opens a stream and sends its type and `bytes`.
    ///
    /// # Panics
    /// If the connection is gone.
    pub async fn stream(&self, stream_type: StreamType, bytes: &[u8]) -> RawStream {
        let mut start = Vec::new();
        put_varint(&mut start, u64::from(stream_type.0));
        start.extend_from_slice(bytes);
        let (mut send, recv) = self.connection.open().await.expect("a stream can be opened");
        send.write(start.into()).await.expect("the stream takes bytes");
        RawStream { frames: FrameReader::new(recv), send }
    }

    /// Opens a conversation, and waits for `Opened`.
    ///
    /// # Panics
    /// If it does not open.
    pub async fn open(&self, conversation: ConversationId, writer: WriterId) -> RawStream {
        let open = Open { conversation, after: Seq(0), seen: Seq(0), epoch: 0, writer };
        let mut stream = self.stream(StreamType::Conversation, &open.to_frame()).await;
        let opened = stream.next_of_conversation().await;
        assert!(matches!(opened, ConversationDown::Opened(_)), "{opened:?}");
        stream
    }

    /// The code the server closes the connection with.
    ///
    /// # Panics
    /// If it is lost in another way.
    pub async fn close_code(&self) -> ErrorCode {
        match within_patience("the close", self.connection.closed()).await {
            TransportError::Closed { code, .. } => code,
            other => panic!("not closed by the server: {other}"),
        }
    }
}

impl RawStream {
    /// Sends bytes.
    ///
    /// # Panics
    /// If the connection is gone.
    pub async fn write(&mut self, bytes: Vec<u8>) {
        self.send.write(bytes.into()).await.expect("the stream takes bytes");
    }

    /// The next frame; `None` if the stream or the connection ended.
    pub async fn next(&mut self) -> Option<rove_protocol::frame::RawFrame> {
        within_patience("a frame", self.frames.next()).await.ok().flatten()
    }

    /// The next frame of a conversation stream.
    ///
    /// # Panics
    /// If there is none, or it does not decode.
    pub async fn next_of_conversation(&mut self) -> ConversationDown {
        loop {
            let frame = self.next().await.expect("a frame");
            if let Some(message) = ConversationDown::decode(frame).expect("the server's frames decode") {
                return message;
            }
        }
    }

    /// The next answer to a post, passing over everything else.
    ///
    /// # Panics
    /// If the stream ends first.
    pub async fn next_answer(&mut self) -> ConversationDown {
        loop {
            let answer = self.next_of_conversation().await;
            if matches!(answer, ConversationDown::Posted(_) | ConversationDown::Refused(_)) {
                return answer;
            }
        }
    }

    /// Makes the direct conversation with the account of `peer` on a control stream.
    ///
    /// # Panics
    /// If the request fails.
    pub async fn create_direct(&mut self, peer: rove_protocol::ids::AccountId) -> ConversationId {
        let body = CreateDirect { peer }.encode_body().into();
        self.write(Request { id: RequestId(1), method: Method::CreateDirect, body }.to_frame()).await;
        let frame = self.next().await.expect("an answer");
        let Ok(Some(ControlDown::Response(response))) = ControlDown::decode(frame) else { panic!("no response") };
        assert_eq!(response.code, ErrorCode::None);
        ConversationInfo::decode_body(response.body).expect("a conversation").conversation
    }
}

/// A post of `text` under `number`.
pub fn text_post(number: u64, text: &str) -> Post {
    Post {
        post_no: rove_protocol::ids::PostNo(number),
        kind: EventKind::Message,
        refers_to: Seq(0),
        content_type: ContentType::Text,
        crypto_epoch: 0,
        mentions: Vec::new().into(),
        body: Bytes::copy_from_slice(text.as_bytes()),
        extensions: rove_protocol::extension::Extensions::default(),
    }
}
