//! A node on a directory of its own, an endpoint on loopback, and clients that write frames by hand.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rove_core::directory::{Credentials, Digest, DirectoryCommand, DirectoryOutcome, Handle, NewDevice, NewToken};
use rove_protocol::extension::Extensions;
use rove_protocol::frame::{RawFrame, put_frame};
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PostNo, RequestId, Seq, WriterId};
use rove_protocol::message::{
    Body as _, ChangeMembers, ControlDown, ConversationDown, ConversationInfo, CreateDirect, CreateGroup, Event,
    FetchDown, Hello, InboxDown, InboxLine, InboxOpen, MemberChange, Message, Open, Opened, Post, Request, Response,
    Welcome,
};
use rove_protocol::registry::{
    ALPN, ClientState, ContentType, ErrorCode, EventKind, FrameType, Method, Role, StreamType,
};
use rove_protocol::transport::{Connection as _, FrameReader, SendStream as _, TransportError};
use rove_protocol::wire::{List, put_varint};
use rove_quic::{Connection, RecvStream, SendStream, Trust, client_tls, server_config, spki_pin};
use rove_server::edge::{Edge, EdgeConfig, Hub, HubConfig};
use rove_server::node::{Node, NodeConfig, NodeRunner, Sinks};
use tokio_util::sync::CancellationToken;

/// Nothing here takes nearly as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) runner: Option<NodeRunner>,
    pub(crate) edge: Option<Edge>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) pin: [u8; 32],
    pub(crate) shutdown: CancellationToken,
    pub(crate) endpoint: quinn::Endpoint,
    _dir: tempfile::TempDir,
}

#[derive(Clone)]
pub(crate) struct User {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) secret: [u8; 32],
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(EdgeConfig { drain: Duration::from_millis(300), ..EdgeConfig::default() }).await
    }

    pub(crate) async fn start_with(edge_config: EdgeConfig) -> Self {
        Self::start_on(edge_config, tls()).await
    }

    /// With a TLS configuration of the test's own, and the pin of its certificate.
    pub(crate) async fn start_on(edge_config: EdgeConfig, tls: (rustls::ServerConfig, [u8; 32])) -> Self {
        Self::start_node(|_| {}, edge_config, tls).await
    }

    /// On a node whose configuration is changed before it starts, with a TLS configuration and the pin of its certificate.
    pub(crate) async fn start_node(
        change: impl FnOnce(&mut NodeConfig),
        edge_config: EdgeConfig,
        (tls, pin): (rustls::ServerConfig, [u8; 32]),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::new(dir.path(), NodeId(1));
        config.partitions = 2;
        config.tick = Duration::from_millis(10);
        change(&mut config);
        let hub = Hub::new(&HubConfig {
            partitions: config.partitions,
            heartbeat: Duration::from_secs(20),
            pull: rove_core::fanout::PullThreshold::default(),
        });
        let sinks = Sinks { effects: hub.clone(), directory: hub.clone() };
        let (node, runner) = Node::start(config, sinks).unwrap();
        assert!(soon("the node to be ready", node.ready()).await);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let shutdown = CancellationToken::new();
        let server = server_config(tls).unwrap();
        let router = axum::Router::new();
        let edge =
            Edge::start(edge_config, hub.clone(), node.clone(), server, socket, router, shutdown.clone()).unwrap();
        let address = edge.local_addr().unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { node, runner: Some(runner), edge: Some(edge), hub, address, pin, shutdown, endpoint, _dir: dir }
    }

    pub(crate) async fn user(&self, handle: &str) -> User {
        let secret = Digest::of(handle.as_bytes()).0;
        let token = |kind: &[u8]| NewToken { token: Digest::of_parts(&[kind, handle.as_bytes()]), lifetime_ms: 60_000 };
        let credentials =
            Credentials { secret: Digest::of(&secret), access: token(b"access"), refresh: token(b"refresh") };
        let command = DirectoryCommand::SignUp {
            handle: Handle::parse(handle).unwrap(),
            name: String::new(),
            password_hash: "none".to_owned(),
            device: NewDevice { name: String::new(), credentials },
            idempotency: None,
        };
        match soon("a sign-up", self.node.propose_directory(&command)).await.unwrap() {
            DirectoryOutcome::SignedIn { account, device } => User { account, device, secret },
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn dial(&self) -> Connection {
        let tls = client_tls(&Trust::Pins(vec![self.pin]), ALPN).unwrap();
        let dialled = self.endpoint.connect_with(tls, self.address, "rove.test").unwrap();
        soon("a handshake", dialled).await.unwrap().into()
    }

    pub(crate) async fn session(&self, user: &User) -> Client {
        let connection = self.dial().await;
        let mut control = Stream::open(&connection, StreamType::Control).await;
        control.send(&hello(user, ClientState::Foreground)).await;
        let ControlDown::Welcome(welcome) = control.control().await else { panic!("no Welcome") };
        Client { connection, control, welcome, requests: 0 }
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        soon("the edge to drain", self.edge.take().unwrap().drained()).await;
        soon("the node to stop", self.runner.take().unwrap().stop()).await.unwrap();
    }
}

pub(crate) fn tls() -> (rustls::ServerConfig, [u8; 32]) {
    let made = rcgen::generate_simple_self_signed(vec!["rove.test".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(rove_quic::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec(), b"h3".to_vec()];
    (tls, spki_pin(&certificate).unwrap())
}

pub(crate) fn hello(user: &User, state: ClientState) -> Hello {
    let secret = Bytes::copy_from_slice(&user.secret);
    Hello { device: user.device, secret, minor: 0, state, client: "edge test".to_owned() }
}

pub(crate) struct Stream {
    pub(crate) send: SendStream,
    pub(crate) recv: FrameReader<RecvStream>,
}

impl Stream {
    pub(crate) async fn open(connection: &Connection, stream_type: StreamType) -> Self {
        let (mut send, recv) = soon("a stream", connection.open()).await.unwrap();
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::from(stream_type.0));
        send.write(bytes.into()).await.unwrap();
        Self { send, recv: FrameReader::new(recv) }
    }

    pub(crate) async fn send(&mut self, message: &impl Message) {
        self.send.write(message.to_frame().into()).await.unwrap();
    }

    pub(crate) async fn raw(&mut self, frame_type: FrameType, body: &[u8]) {
        let mut bytes = Vec::new();
        put_frame(frame_type, body, &mut bytes);
        // The other end may close the connection before it has all of it.
        let _ = self.send.write(bytes.into()).await;
    }

    pub(crate) async fn frame(&mut self) -> RawFrame {
        soon("a frame", self.recv.next()).await.unwrap().expect("a frame, not the end")
    }

    pub(crate) async fn ended(&mut self) -> bool {
        soon("the end of a stream", self.recv.next()).await.unwrap().is_none()
    }

    pub(crate) async fn control(&mut self) -> ControlDown {
        ControlDown::decode(self.frame().await).unwrap().unwrap()
    }

    pub(crate) async fn conversation(&mut self) -> ConversationDown {
        ConversationDown::decode(self.frame().await).unwrap().unwrap()
    }

    pub(crate) async fn opened(&mut self) -> Opened {
        match self.conversation().await {
            ConversationDown::Opened(opened) => opened,
            other => panic!("{other:?}"),
        }
    }

    /// The next event; answers and receipts are passed over.
    pub(crate) async fn event(&mut self) -> Event {
        loop {
            match self.conversation().await {
                ConversationDown::Event(event) => return event,
                ConversationDown::Receipt(_) | ConversationDown::Posted(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn posted(&mut self) -> rove_protocol::message::Posted {
        loop {
            match self.conversation().await {
                ConversationDown::Posted(posted) => return posted,
                ConversationDown::Receipt(_) | ConversationDown::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next answer to a post, whatever it is; events and receipts are passed over.
    pub(crate) async fn answer(&mut self) -> ConversationDown {
        loop {
            let answer = self.conversation().await;
            if matches!(answer, ConversationDown::Posted(_) | ConversationDown::Refused(_)) {
                return answer;
            }
        }
    }

    pub(crate) async fn inbox(&mut self) -> InboxDown {
        InboxDown::decode(self.frame().await).unwrap().unwrap()
    }

    pub(crate) async fn line(&mut self) -> InboxLine {
        loop {
            match self.inbox().await {
                InboxDown::InboxLine(line) => return line,
                InboxDown::InboxSynced(_) => {}
                InboxDown::Closed(closed) => panic!("{closed:?}"),
            }
        }
    }

    pub(crate) async fn fetched(&mut self) -> FetchDown {
        FetchDown::decode(self.frame().await).unwrap().unwrap()
    }
}

pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) control: Stream,
    pub(crate) welcome: Welcome,
    pub(crate) requests: u64,
}

impl Client {
    pub(crate) async fn ask(&mut self, method: Method, body: Vec<u8>) -> Response {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.control.send(&Request { id, method, body: body.into() }).await;
        match self.control.control().await {
            ControlDown::Response(response) => {
                assert_eq!(response.id, id);
                response
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn direct(&mut self, peer: AccountId) -> ConversationInfo {
        let response = self.ask(Method::CreateDirect, CreateDirect { peer }.encode_body()).await;
        assert_eq!(response.code, ErrorCode::None);
        ConversationInfo::decode_body(response.body).unwrap()
    }

    pub(crate) async fn group(&mut self, members: &[AccountId]) -> ConversationId {
        let members = members.iter().map(|account| MemberChange { account: *account, role: Role::Member }).collect();
        let create = CreateGroup { nonce: [5; 16], title: "group".to_owned(), members };
        let response = self.ask(Method::CreateGroup, create.encode_body()).await;
        assert_eq!(response.code, ErrorCode::None);
        ConversationInfo::decode_body(response.body).unwrap().conversation
    }

    pub(crate) async fn change(&mut self, conversation: ConversationId, account: AccountId, role: Role) {
        let change = ChangeMembers { conversation, changes: List::from(vec![MemberChange { account, role }]) };
        assert_eq!(self.ask(Method::ChangeMembers, change.encode_body()).await.code, ErrorCode::None);
    }

    pub(crate) async fn open(&self, conversation: ConversationId, after: u64) -> Stream {
        let mut stream = Stream::open(&self.connection, StreamType::Conversation).await;
        stream.send(&open(conversation, after)).await;
        stream
    }

    pub(crate) async fn inbox(&self) -> Stream {
        let mut inbox = Stream::open(&self.connection, StreamType::Inbox).await;
        inbox.send(&InboxOpen { cursors: List::default() }).await;
        inbox
    }

    pub(crate) async fn closed(&self) -> ErrorCode {
        closed(&self.connection).await
    }
}

pub(crate) async fn closed(connection: &Connection) -> ErrorCode {
    match soon("the connection to be closed", connection.closed()).await {
        TransportError::Closed { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn open(conversation: ConversationId, after: u64) -> Open {
    Open { conversation, after: Seq(after), seen: Seq(0), epoch: 0, writer: WriterId([9; 16]) }
}

pub(crate) fn post(number: u64, text: &str) -> Post {
    Post {
        post_no: PostNo(number),
        kind: EventKind::Message,
        refers_to: Seq(0),
        content_type: ContentType::Text,
        crypto_epoch: 0,
        mentions: List::default(),
        body: Bytes::copy_from_slice(text.as_bytes()),
        extensions: Extensions::default(),
    }
}
