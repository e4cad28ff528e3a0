//! Sessions by hand: as few bytes and tasks as a session can have.

use std::net::SocketAddr;

use bytes::Bytes;
use quinn::{ClientConfig, Endpoint};
use rove_protocol::ids::{ConversationId, PostNo, RequestId, Seq, WriterId};
use rove_protocol::message::{
    Body, ChangeMembers, ControlDown, ConversationDown, ConversationInfo, CreateGroup, Fetch, Heartbeat, Hello,
    InboxOpen, MemberChange, Message, Open, Post, Request, Welcome,
};
use rove_protocol::registry::{ALPN, ClientState, ErrorCode, Method, Role, StreamType};
use rove_protocol::transport::{Connection as _, FrameReader, SendStream as _};
use rove_protocol::wire::{List, put_varint};
use rove_quic::{Connection, RecvStream, SendStream, Trust};

use super::accounts::Credentials;
use super::error::{LoadError, io};
use super::server::Server;
use super::socket;

/// One socket that many sessions share.
#[derive(Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    config: ClientConfig,
    server: SocketAddr,
    trust: Trust,
}

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With the certificate and its signature.
    Full,
    /// With what is remembered of an earlier one.
    Resumed,
    /// The same, and `Hello` goes in the first flight (0-RTT, D5).
    Early,
}

/// A device that has come back. Dropping it closes the connection, and what the server would give it to be remembered by is lost if it
/// has not come by then.
#[derive(Debug)]
pub struct Back {
    /// Of its post.
    pub seq: Seq,
    /// Whether it came to the handshake that was asked for.
    pub as_asked: bool,
    _connection: Connection,
}

/// A stream of a session.
#[derive(Debug)]
pub struct Stream {
    /// What goes up.
    pub send: SendStream,
    /// What comes down.
    pub frames: FrameReader<RecvStream>,
}

/// A session that was welcomed.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    control: Stream,
    heartbeats: u64,
    requests: u64,
    /// What the server said.
    pub welcome: Welcome,
}

/// An open conversation.
#[derive(Debug)]
pub struct Conversation {
    /// Its stream.
    pub stream: Stream,
    /// Its writer's last number.
    pub last_post_no: PostNo,
}

impl Dialer {
    /// A socket of its own.
    ///
    /// # Errors
    /// [`LoadError::Io`], [`LoadError::Connect`].
    pub fn new(server: &Server) -> Result<Self, LoadError> {
        Self::through(server, server.quic())
    }

    /// The same, to a server that is found somewhere else: at the near end of a [`Path`](super::Path).
    ///
    /// # Errors
    /// As [`Dialer::new`].
    pub fn through(server: &Server, address: SocketAddr) -> Result<Self, LoadError> {
        let endpoint = socket::endpoint(None)?;
        let trust = server.trust().clone();
        let config = rove_quic::client_tls(&trust, ALPN).map_err(connect_error)?;
        Ok(Self { endpoint, config, server: address, trust })
    }

    /// Goes on from another socket, as a phone that leaves its network does.
    ///
    /// # Errors
    /// [`LoadError::Io`].
    pub fn rebind(&self) -> Result<(), LoadError> {
        self.endpoint.rebind(socket::bind()?).map_err(io("changing the socket"))
    }

    /// Connects and is welcomed. Sessions of one dialer resume each other's TLS session.
    ///
    /// # Errors
    /// [`LoadError::Connect`] if there is no connection, and whatever the server answers but `Welcome`.
    pub async fn session(&self, credentials: &Credentials) -> Result<Session, LoadError> {
        let connection = self.connecting(&self.config)?.await.map_err(connect_error)?;
        hello(connection.into(), credentials).await
    }

    /// What a device remembers of the server, that has not been there yet.
    ///
    /// # Errors
    /// [`LoadError::Connect`].
    pub fn device(&self) -> Result<ClientConfig, LoadError> {
        rove_quic::client_tls(&self.trust, ALPN).map_err(connect_error)
    }

    /// As [`Dialer::session`], by a device that remembers this, with the handshake that is asked for; and whether it came to that, as a
    /// server may have forgotten the device.
    ///
    /// # Errors
    /// As [`Dialer::session`].
    pub async fn enter(
        &self,
        device: &ClientConfig,
        credentials: &Credentials,
        handshake: Handshake,
    ) -> Result<(Session, bool), LoadError> {
        let (connection, as_asked) = self.begin(device, handshake).await?;
        let session = hello(connection, credentials).await?;
        Ok((session, as_asked.said().await))
    }

    /// A device that comes back with something to say: hello, its conversation and a post, all in the first flight that the handshake
    /// lets it send. Returns when the post is acknowledged.
    ///
    /// # Errors
    /// As [`Dialer::session`], and a post that is refused.
    pub async fn come_back(
        &self,
        device: &ClientConfig,
        credentials: &Credentials,
        handshake: Handshake,
        open: &Open,
        post: &Post,
    ) -> Result<Back, LoadError> {
        let (connection, as_asked) = self.begin(device, handshake).await?;
        let hello = says_hello(credentials).to_frame();
        // What is not read is not waited for.
        let _control = Stream::open(&connection, StreamType::Control, &hello).await?;
        let first = [open.to_frame(), post.to_frame()].concat();
        let mut stream = Stream::open(&connection, StreamType::Conversation, &first).await?;
        loop {
            match stream.next(ConversationDown::decode, "the conversation").await? {
                ConversationDown::Posted(posted) => {
                    let as_asked = as_asked.said().await;
                    return Ok(Back { seq: posted.seq, as_asked, _connection: connection });
                }
                ConversationDown::Refused(refused) => {
                    return Err(LoadError::Refused { what: "Post", code: refused.code });
                }
                ConversationDown::Closed(closed) => {
                    return Err(LoadError::Refused { what: "Open", code: closed.code });
                }
                _ => {}
            }
        }
    }

    /// Connects so far that something may be sent.
    async fn begin(&self, device: &ClientConfig, handshake: Handshake) -> Result<(Connection, AsAsked), LoadError> {
        let connecting = self.connecting(device)?;
        let begun = match handshake {
            Handshake::Full => Err(connecting),
            Handshake::Resumed | Handshake::Early => connecting.into_0rtt(),
        };
        match begun {
            Err(connecting) => {
                let connection = connecting.await.map_err(connect_error)?;
                Ok((connection.into(), AsAsked::Known(handshake == Handshake::Full)))
            }
            Ok((connection, accepted)) if handshake == Handshake::Early => {
                Ok((connection.into(), AsAsked::Open(accepted)))
            }
            Ok((connection, accepted)) => {
                // The keys are there, nothing is sent with them before the handshake is complete.
                let resumed = accepted.await;
                Ok((connection.into(), AsAsked::Known(resumed)))
            }
        }
    }

    fn connecting(&self, config: &ClientConfig) -> Result<quinn::Connecting, LoadError> {
        self.endpoint.connect_with(config.clone(), self.server, "localhost").map_err(connect_error)
    }
}

fn connect_error(error: impl std::fmt::Display) -> LoadError {
    LoadError::Connect(error.to_string())
}

/// Whether it comes to the handshake that was asked for: a server may have forgotten the device.
enum AsAsked {
    Known(bool),
    Open(quinn::ZeroRttAccepted),
}

impl AsAsked {
    async fn said(self) -> bool {
        match self {
            Self::Known(is) => is,
            Self::Open(accepted) => accepted.await,
        }
    }
}

fn says_hello(credentials: &Credentials) -> Hello {
    Hello {
        device: credentials.device,
        secret: credentials.secret.clone(),
        minor: 0,
        state: ClientState::Foreground,
        client: "rove-bench".to_owned(),
    }
}

async fn hello(connection: Connection, credentials: &Credentials) -> Result<Session, LoadError> {
    let hello = says_hello(credentials);
    let mut control = Stream::open(&connection, StreamType::Control, &hello.to_frame()).await?;
    let welcome = match control.next(ControlDown::decode, "the control stream").await? {
        ControlDown::Welcome(welcome) => welcome,
        ControlDown::Closed(closed) => return Err(LoadError::Refused { what: "Hello", code: closed.code }),
        ControlDown::Response(_) | ControlDown::GoAway(_) => return Err(LoadError::Ended("the session")),
    };
    Ok(Session { connection, control, heartbeats: 0, requests: 0, welcome })
}

impl Stream {
    async fn open(connection: &Connection, stream_type: StreamType, first: &[u8]) -> Result<Self, LoadError> {
        let mut start = Vec::with_capacity(first.len() + 1);
        put_varint(&mut start, u64::from(stream_type.0));
        start.extend_from_slice(first);
        let (mut send, recv) = connection.open().await?;
        send.write(start.into()).await?;
        Ok(Self { send, frames: FrameReader::new(recv) })
    }

    /// The next message, passing over frames to skip. `name` is of the stream, for errors.
    ///
    /// # Errors
    /// [`LoadError::Ended`], and those of reading.
    pub async fn next<T>(
        &mut self,
        decode: impl Fn(rove_protocol::frame::RawFrame) -> Result<Option<T>, rove_protocol::error::DecodeError>,
        name: &'static str,
    ) -> Result<T, LoadError> {
        loop {
            let frame = self.frames.next().await?.ok_or(LoadError::Ended(name))?;
            if let Some(message) = decode(frame)? {
                return Ok(message);
            }
        }
    }
}

impl Session {
    /// Makes a group of this account and `members`.
    ///
    /// # Errors
    /// [`LoadError::Refused`], and those of reading.
    pub async fn create_group(
        &mut self,
        nonce: [u8; 16],
        members: impl IntoIterator<Item = &Credentials>,
    ) -> Result<ConversationId, LoadError> {
        let members = List::from(members.into_iter().map(as_member).collect::<Vec<_>>());
        let body = CreateGroup { nonce, title: "load".to_owned(), members }.encode_body().into();
        let answer = self.request(Method::CreateGroup, body, "CreateGroup").await?;
        Ok(ConversationInfo::decode_body(answer)?.conversation)
    }

    /// Takes members into a group, at most as many as one request may.
    ///
    /// # Errors
    /// [`LoadError::Refused`], and those of reading.
    pub async fn add_members(&mut self, group: ConversationId, members: &[Credentials]) -> Result<(), LoadError> {
        let changes = List::from(members.iter().map(as_member).collect::<Vec<_>>());
        let body = ChangeMembers { conversation: group, changes }.encode_body().into();
        self.request(Method::ChangeMembers, body, "ChangeMembers").await.map(drop)
    }

    async fn request(&mut self, method: Method, body: Bytes, what: &'static str) -> Result<Bytes, LoadError> {
        self.requests += 1;
        let request = Request { id: RequestId(self.requests), method, body };
        self.control.send.write(request.to_frame().into()).await?;
        loop {
            match self.control.next(ControlDown::decode, "the control stream").await? {
                ControlDown::Response(response) if response.code == ErrorCode::None => return Ok(response.body),
                ControlDown::Response(response) => return Err(LoadError::Refused { what, code: response.code }),
                ControlDown::Welcome(_) | ControlDown::GoAway(_) => {}
                ControlDown::Closed(closed) => {
                    return Err(LoadError::Refused { what: "the session", code: closed.code });
                }
            }
        }
    }

    /// Opens a conversation from its first event.
    ///
    /// # Errors
    /// [`LoadError::Refused`], and those of reading.
    pub async fn open(&self, conversation: ConversationId, writer: WriterId) -> Result<Conversation, LoadError> {
        self.open_after(conversation, writer, Seq(0), Seq(0)).await
    }

    /// Opens a conversation from what comes after an event, on a replica that has all that was `seen`.
    ///
    /// # Errors
    /// [`LoadError::Refused`], and those of reading.
    pub async fn open_after(
        &self,
        conversation: ConversationId,
        writer: WriterId,
        after: Seq,
        seen: Seq,
    ) -> Result<Conversation, LoadError> {
        let open = Open { conversation, after, seen, epoch: 0, writer };
        let mut stream = Stream::open(&self.connection, StreamType::Conversation, &open.to_frame()).await?;
        match stream.next(ConversationDown::decode, "the conversation").await? {
            ConversationDown::Opened(opened) => Ok(Conversation { stream, last_post_no: opened.last_post_no }),
            ConversationDown::Closed(closed) => Err(LoadError::Refused { what: "Open", code: closed.code }),
            _ => Err(LoadError::Ended("the conversation")),
        }
    }

    /// Opens the inbox, as every client does.
    ///
    /// # Errors
    /// Those of writing.
    pub async fn open_inbox(&self) -> Result<Stream, LoadError> {
        let open = InboxOpen { cursors: Vec::new().into() };
        Stream::open(&self.connection, StreamType::Inbox, &open.to_frame()).await
    }

    /// Opens a stream to fetch pages of history on; `first` is its first frame.
    ///
    /// # Errors
    /// Those of writing.
    pub async fn open_fetch(&self, first: &Fetch) -> Result<Stream, LoadError> {
        Stream::open(&self.connection, StreamType::Fetch, &first.to_frame()).await
    }

    /// Whether the connection is there, as far as anybody knows.
    pub fn is_alive(&self) -> bool {
        self.connection.quinn().close_reason().is_none()
    }

    /// Says that it is there.
    pub fn heartbeat(&mut self) {
        self.heartbeats += 1;
        let heartbeat = Heartbeat { number: self.heartbeats, inbox_version: 0, presence_version: 0 };
        self.connection.send_datagram(heartbeat.to_frame().into());
    }
}

fn as_member(account: &Credentials) -> MemberChange {
    MemberChange { account: account.account, role: Role::Member }
}
