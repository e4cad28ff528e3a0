//! The edge, spoken to in raw `rove/1`: a node on a directory of its own, an endpoint on loopback, and clients that write
//! frames by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rove_core::directory::{Credentials, Digest, DirectoryCommand, DirectoryOutcome, Handle, NewDevice, NewToken};
use rove_protocol::extension::Extensions;
use rove_protocol::frame::{RawFrame, datagram_frames, put_frame};
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PostNo, RequestId, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{
    AccountRef, Accounts, Body, ChangeMembers, Closed, ControlDown, ConversationDown, ConversationInfo, CreateDirect,
    CreateGroup, DatagramDown, Event, Fetch, FetchDown, FindAccounts, GetConversation, HandleRef, Heartbeat, Hello,
    InboxDown, InboxLine, InboxOpen, Mark, MemberChange, Message, Open, Opened, Post, Request, Response, Suspend,
    Typing, Watch, Welcome,
};
use rove_protocol::registry::{
    ALPN, Anchor, ClientState, ContentType, ErrorCode, EventKind, FrameType, Method, PresenceStatus, Role, StreamType,
};
use rove_protocol::transport::{Connection as _, FrameReader, ReadError, SendStream as _, TransportError};
use rove_protocol::wire::{List, put_varint};
use rove_quic::{Connection, RecvStream, SendStream, Trust, client_tls, server_config, spki_pin};
use rove_server::edge::{Edge, EdgeConfig, Hub, HubConfig};
use rove_server::node::{Node, NodeConfig, NodeRunner, Sinks};
use tokio_util::sync::CancellationToken;

/// Nothing here takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

struct World {
    node: Node,
    runner: Option<NodeRunner>,
    edge: Option<Edge>,
    hub: Arc<Hub>,
    address: std::net::SocketAddr,
    pin: [u8; 32],
    shutdown: CancellationToken,
    endpoint: quinn::Endpoint,
    _dir: tempfile::TempDir,
}

#[derive(Clone)]
struct User {
    account: AccountId,
    device: DeviceId,
    secret: [u8; 32],
}

impl World {
    async fn start() -> Self {
        Self::start_with(EdgeConfig { drain: Duration::from_millis(300), ..EdgeConfig::default() }).await
    }

    async fn start_with(edge_config: EdgeConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::new(dir.path(), NodeId(1));
        config.partitions = 2;
        config.tick = Duration::from_millis(10);
        let hub = Hub::new(&HubConfig {
            partitions: config.partitions,
            heartbeat: Duration::from_secs(20),
            pull: rove_core::fanout::PullThreshold::default(),
        });
        let sinks = Sinks { effects: hub.clone(), directory: hub.clone() };
        let (node, runner) = Node::start(config, sinks).unwrap();
        assert!(soon("the node to be ready", node.ready()).await);
        let (tls, pin) = tls();
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

    async fn user(&self, handle: &str) -> User {
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

    async fn dial(&self) -> Connection {
        let tls = client_tls(&Trust::Pins(vec![self.pin]), ALPN).unwrap();
        let dialled = self.endpoint.connect_with(tls, self.address, "rove.test").unwrap();
        soon("a handshake", dialled).await.unwrap().into()
    }

    async fn session(&self, user: &User) -> Client {
        let connection = self.dial().await;
        let mut control = Stream::open(&connection, StreamType::Control).await;
        control.send(&hello(user, ClientState::Foreground)).await;
        let ControlDown::Welcome(welcome) = control.control().await else { panic!("no Welcome") };
        Client { connection, control, welcome, requests: 0 }
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        soon("the edge to drain", self.edge.take().unwrap().drained()).await;
        soon("the node to stop", self.runner.take().unwrap().stop()).await.unwrap();
    }
}

fn tls() -> (rustls::ServerConfig, [u8; 32]) {
    let made = rcgen::generate_simple_self_signed(vec!["rove.test".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec(), b"h3".to_vec()];
    (tls, spki_pin(&certificate).unwrap())
}

fn hello(user: &User, state: ClientState) -> Hello {
    let secret = Bytes::copy_from_slice(&user.secret);
    Hello { device: user.device, secret, minor: 0, state, client: "edge test".to_owned() }
}

struct Stream {
    send: SendStream,
    recv: FrameReader<RecvStream>,
}

impl Stream {
    async fn open(connection: &Connection, stream_type: StreamType) -> Self {
        let (mut send, recv) = soon("a stream", connection.open()).await.unwrap();
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::from(stream_type.0));
        send.write(bytes.into()).await.unwrap();
        Self { send, recv: FrameReader::new(recv) }
    }

    async fn send(&mut self, message: &impl Message) {
        self.send.write(message.to_frame().into()).await.unwrap();
    }

    async fn raw(&mut self, frame_type: FrameType, body: &[u8]) {
        let mut bytes = Vec::new();
        put_frame(frame_type, body, &mut bytes);
        // The other end may close the connection before it has all of it.
        let _ = self.send.write(bytes.into()).await;
    }

    async fn frame(&mut self) -> RawFrame {
        soon("a frame", self.recv.next()).await.unwrap().expect("a frame, not the end")
    }

    async fn ended(&mut self) -> bool {
        soon("the end of a stream", self.recv.next()).await.unwrap().is_none()
    }

    async fn control(&mut self) -> ControlDown {
        ControlDown::decode(self.frame().await).unwrap().unwrap()
    }

    async fn conversation(&mut self) -> ConversationDown {
        ConversationDown::decode(self.frame().await).unwrap().unwrap()
    }

    async fn opened(&mut self) -> Opened {
        match self.conversation().await {
            ConversationDown::Opened(opened) => opened,
            other => panic!("{other:?}"),
        }
    }

    /// The next event; answers and receipts are passed over.
    async fn event(&mut self) -> Event {
        loop {
            match self.conversation().await {
                ConversationDown::Event(event) => return event,
                ConversationDown::Receipt(_) | ConversationDown::Posted(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn posted(&mut self) -> rove_protocol::message::Posted {
        loop {
            match self.conversation().await {
                ConversationDown::Posted(posted) => return posted,
                ConversationDown::Receipt(_) | ConversationDown::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn inbox(&mut self) -> InboxDown {
        InboxDown::decode(self.frame().await).unwrap().unwrap()
    }

    async fn line(&mut self) -> InboxLine {
        loop {
            match self.inbox().await {
                InboxDown::InboxLine(line) => return line,
                InboxDown::InboxSynced(_) => {}
                InboxDown::Closed(closed) => panic!("{closed:?}"),
            }
        }
    }

    async fn fetched(&mut self) -> FetchDown {
        FetchDown::decode(self.frame().await).unwrap().unwrap()
    }
}

struct Client {
    connection: Connection,
    control: Stream,
    welcome: Welcome,
    requests: u64,
}

impl Client {
    async fn ask(&mut self, method: Method, body: Vec<u8>) -> Response {
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

    async fn direct(&mut self, peer: AccountId) -> ConversationInfo {
        let response = self.ask(Method::CreateDirect, CreateDirect { peer }.encode_body()).await;
        assert_eq!(response.code, ErrorCode::None);
        ConversationInfo::decode_body(response.body).unwrap()
    }

    async fn group(&mut self, members: &[AccountId]) -> ConversationId {
        let members = members.iter().map(|account| MemberChange { account: *account, role: Role::Member }).collect();
        let create = CreateGroup { nonce: [5; 16], title: "group".to_owned(), members };
        let response = self.ask(Method::CreateGroup, create.encode_body()).await;
        assert_eq!(response.code, ErrorCode::None);
        ConversationInfo::decode_body(response.body).unwrap().conversation
    }

    async fn change(&mut self, conversation: ConversationId, account: AccountId, role: Role) {
        let change = ChangeMembers { conversation, changes: List::from(vec![MemberChange { account, role }]) };
        assert_eq!(self.ask(Method::ChangeMembers, change.encode_body()).await.code, ErrorCode::None);
    }

    async fn open(&self, conversation: ConversationId, after: u64) -> Stream {
        let mut stream = Stream::open(&self.connection, StreamType::Conversation).await;
        stream.send(&open(conversation, after)).await;
        stream
    }

    async fn inbox(&self) -> Stream {
        let mut inbox = Stream::open(&self.connection, StreamType::Inbox).await;
        inbox.send(&InboxOpen { cursors: List::default() }).await;
        inbox
    }

    async fn closed(&self) -> ErrorCode {
        closed(&self.connection).await
    }
}

async fn closed(connection: &Connection) -> ErrorCode {
    match soon("the connection to be closed", connection.closed()).await {
        TransportError::Closed { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

fn open(conversation: ConversationId, after: u64) -> Open {
    Open { conversation, after: Seq(after), seen: Seq(0), epoch: 0, writer: WriterId([9; 16]) }
}

fn post(number: u64, text: &str) -> Post {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_talk() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let b = world.session(&bob).await;
    assert_eq!((a.welcome.account, a.welcome.node), (alice.account, NodeId(1)));
    let mut inbox = b.inbox().await;
    assert!(matches!(inbox.inbox().await, InboxDown::InboxSynced(_)), "an empty inbox is in step at once");

    let info = a.direct(bob.account).await;
    assert_eq!((info.member_count, info.members.len()), (2, 2));
    let line = inbox.line().await;
    assert_eq!((line.conversation, line.peer, line.head), (info.conversation, alice.account, Seq(1)));

    let mut at_alice = a.open(info.conversation, 0).await;
    assert_eq!(at_alice.opened().await.head, Seq(1));
    assert_eq!(at_alice.event().await.kind, EventKind::Created);
    let mut at_bob = b.open(info.conversation, 1).await;
    assert_eq!(at_bob.opened().await.role, Role::Member);

    at_alice.send(&post(1, "hello")).await;
    at_alice.send(&post(2, "bob")).await;
    let mut answers = Vec::new();
    let mut events = Vec::new();
    while answers.len() < 2 || events.len() < 2 {
        match at_alice.conversation().await {
            ConversationDown::Posted(posted) => answers.push((posted.post_no.0, posted.seq.0)),
            ConversationDown::Event(event) => events.push(event.seq.0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((answers, events), (vec![(1, 2), (2, 3)], vec![2, 3]));
    for (seq, text) in [(2, "hello"), (3, "bob")] {
        let event = at_bob.event().await;
        assert_eq!((event.seq, event.author, &event.body[..]), (Seq(seq), alice.account, text.as_bytes()));
    }
    while inbox.line().await.head != Seq(3) {}

    // Bob reads; Alice is told.
    at_bob.send(&Mark { delivered: Seq(3), read: Seq(3) }).await;
    loop {
        if let ConversationDown::Receipt(receipt) = at_alice.conversation().await
            && receipt.read == Seq(3)
        {
            assert_eq!((receipt.account, receipt.delivered), (bob.account, Seq(3)));
            break;
        }
    }
    while inbox.line().await.read != Seq(3) {}

    // A repeated post has its first answer, and nothing happens.
    at_alice.send(&post(2, "bob")).await;
    let again = at_alice.posted().await;
    assert_eq!((again.post_no, again.seq), (PostNo(2), Seq(3)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_flight_with_hello_open_and_post_is_served_whole() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let conversation = world.session(&alice).await.direct(bob.account).await.conversation;
    let connection = world.dial().await;
    let mut control = Stream::open(&connection, StreamType::Control).await;
    let mut stream = Stream::open(&connection, StreamType::Conversation).await;
    stream.send(&open(conversation, 1)).await;
    stream.send(&post(1, "at once")).await;
    control.send(&hello(&bob, ClientState::Background)).await;
    assert!(matches!(control.control().await, ControlDown::Welcome(_)));
    assert_eq!(stream.opened().await.head, Seq(1));
    assert_eq!(&stream.event().await.body[..], b"at once");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_tells_what_changed_after_its_cursors_with_small_events_inside() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let direct = a.direct(bob.account).await.conversation;
    let group = a.group(&[bob.account]).await;
    let b = world.session(&bob).await;
    let mut inbox = b.inbox().await;
    let mut lines = [inbox.line().await, inbox.line().await];
    lines.sort_by_key(|line| line.conversation != direct);
    assert_eq!([lines[0].conversation, lines[1].conversation], [direct, group]);
    assert!(lines.iter().all(|line| line.event.is_some()));
    assert_eq!((lines[0].title.as_str(), lines[1].title.as_str()), ("", "group"));

    // Away, and something happens in one of them.
    drop((inbox, b));
    let mut stream = a.open(group, 1).await;
    stream.opened().await;
    stream.send(&post(1, "while you were away")).await;
    let posted = stream.posted().await;
    let cursors = lines.iter().map(|line| rove_protocol::message::PartitionCursor {
        partition: line.partition,
        message_id: lines.iter().map(|line| line.last_message_id).max().unwrap(),
    });
    let mut cursors: Vec<_> = cursors.collect();
    cursors.dedup();
    let b = world.session(&bob).await;
    let mut inbox = Stream::open(&b.connection, StreamType::Inbox).await;
    inbox.send(&InboxOpen { cursors: cursors.into() }).await;
    let InboxDown::InboxLine(line) = inbox.inbox().await else { panic!("no line") };
    assert_eq!((line.conversation, line.head, line.last_message_id), (group, Seq(2), posted.message_id));
    let event = Event::decode_body(line.event.unwrap()).unwrap();
    assert_eq!(&event.body[..], b"while you were away");
    assert!(matches!(inbox.inbox().await, InboxDown::InboxSynced(_)), "and nothing of the other one");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_replayed_and_fetched_from_any_anchor() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let mut stream = a.open(conversation, 1).await;
    stream.opened().await;
    let mut posted = Vec::new();
    let text = "x".repeat(1_000);
    for number in 1..=200 {
        stream.send(&post(number, &text)).await;
        posted.push(stream.posted().await);
    }

    // 200 kB of replay, from the store and the ring, without a hole.
    let mut replay = a.open(conversation, 0).await;
    assert_eq!(replay.opened().await.head, Seq(201));
    for seq in 1..=201 {
        assert_eq!(replay.event().await.seq, Seq(seq));
    }

    let mut fetch = Stream::open(&a.connection, StreamType::Fetch).await;
    let page = |anchor, at, backward| Fetch { conversation, anchor, at, backward, limit: 3, seen: Seq(0) };
    fetch.send(&page(Anchor::Seq, 10, false)).await;
    fetch.send(&page(Anchor::MessageId, posted[50].message_id.0, false)).await;
    fetch.send(&page(Anchor::Head, 0, true)).await;
    fetch.send(&page(Anchor::Time, posted[199].time_ms + 1, false)).await;
    for expected in [vec![10, 11, 12], vec![52, 53, 54], vec![199, 200, 201], vec![]] {
        let mut seqs = Vec::new();
        let end = loop {
            match fetch.fetched().await {
                FetchDown::Event(event) => seqs.push(event.seq.0),
                FetchDown::Page(page) => break page,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(seqs, expected);
        assert_eq!((end.first.0, end.head), (expected.first().copied().unwrap_or(0), Seq(201)));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_taken_out_sees_it_and_no_more() {
    let world = World::start().await;
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let (mut a, b, c) = (world.session(&alice).await, world.session(&bob).await, world.session(&carol).await);
    let group = a.group(&[bob.account]).await;

    // Never a member: as if there were no such conversation.
    let mut outside = c.open(group, 0).await;
    let closed = Closed { code: ErrorCode::NotFound, last_seq: Seq(0) };
    assert_eq!(outside.conversation().await, ConversationDown::Closed(closed));
    assert!(outside.ended().await);

    let mut stream = b.open(group, 0).await;
    stream.opened().await;
    assert_eq!(stream.event().await.seq, Seq(1));
    a.change(group, bob.account, Role::None).await;
    assert_eq!(stream.event().await.kind, EventKind::MembersChanged);
    let closed = Closed { code: ErrorCode::Forbidden, last_seq: Seq(2) };
    assert_eq!(stream.conversation().await, ConversationDown::Closed(closed));
    assert!(stream.ended().await);

    // Let in later: what was before is accounted for.
    a.change(group, carol.account, Role::Member).await;
    let mut inside = c.open(group, 0).await;
    inside.opened().await;
    match inside.conversation().await {
        ConversationDown::Unavailable(range) => assert_eq!((range.from, range.to), (Seq(1), Seq(2))),
        other => panic!("{other:?}"),
    }
    assert_eq!(inside.event().await.seq, Seq(3));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let handles = ["BOB", "nobody", "not@handle"].map(|text| HandleRef { handle: text.to_owned() }).to_vec();
    let response = a.ask(Method::FindAccounts, FindAccounts { handles: handles.into() }.encode_body()).await;
    let found = Accounts::decode_body(response.body).unwrap();
    let found: Vec<_> = found.accounts.iter().map(|info| (info.account, info.handle.as_str())).collect();
    assert_eq!(found, [(bob.account, "bob")]);
    let nowhere = GetConversation { conversation: ConversationId([7; 16]), after: AccountId(0) };
    for (method, body, code) in [
        (Method(0x7f02), Vec::new(), ErrorCode::Unsupported),
        (Method::CreateDirect, vec![0xff], ErrorCode::Malformed),
        (Method::CreateDirect, CreateDirect { peer: AccountId(999) }.encode_body(), ErrorCode::NotFound),
        (Method::GetConversation, nowhere.encode_body(), ErrorCode::NotFound),
    ] {
        assert_eq!(a.ask(method, body).await.code, code, "{method}");
    }
    world.stop().await;
}

async fn datagram(client: &Client) -> DatagramDown {
    let datagram = soon("a datagram", client.connection.read_datagram()).await.unwrap();
    let frame = datagram_frames(datagram).unwrap().remove(0);
    DatagramDown::decode(frame).unwrap().unwrap()
}

async fn wait_presence(client: &Client, account: AccountId, status: PresenceStatus, hidden: AccountId) {
    loop {
        if let DatagramDown::Presence(presence) = datagram(client).await {
            assert!(presence.items.iter().all(|item| item.account != hidden), "no conversation with them");
            if presence.items.iter().any(|item| item.account == account && item.status == status) {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_goes_to_those_who_share_a_conversation_and_typing_to_members() {
    let world = World::start().await;
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let accounts: Vec<_> = [bob.account, carol.account].map(|account| AccountRef { account }).to_vec();
    let watch = Watch { accounts: accounts.into() };
    assert_eq!(a.ask(Method::Watch, watch.encode_body()).await.code, ErrorCode::None);
    let _c = world.session(&carol).await;
    let mut b = world.session(&bob).await;
    wait_presence(&a, bob.account, PresenceStatus::Online, carol.account).await;

    a.connection.send_datagram(Heartbeat { number: 4, inbox_version: 0, presence_version: 0 }.to_frame().into());
    loop {
        if let DatagramDown::HeartbeatAck(ack) = datagram(&a).await {
            assert_eq!(ack.number, 4);
            break;
        }
    }
    let typing = Typing { conversation, account: AccountId(0), typing: true };
    b.connection.send_datagram(typing.to_frame().into());
    loop {
        if let DatagramDown::Typing(typing) = datagram(&a).await {
            assert_eq!(typing.account, bob.account);
            break;
        }
    }
    b.control.send(&Suspend { state: ClientState::Leaving }).await;
    wait_presence(&a, bob.account, PresenceStatus::Offline, carol.account).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_and_an_unknown_device_look_the_same() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let wrong = User { secret: [1; 32], ..alice.clone() };
    let unknown = User { device: DeviceId(999), ..alice };
    for user in [wrong, unknown] {
        let connection = world.dial().await;
        let mut control = Stream::open(&connection, StreamType::Control).await;
        control.send(&hello(&user, ClientState::Foreground)).await;
        assert_eq!(closed(&connection).await, ErrorCode::Unauthenticated);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_session_closes_the_older_and_a_revoked_device_is_cut_off() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let older = world.session(&alice).await;
    let newer = world.session(&alice).await;
    assert_eq!(older.closed().await, ErrorCode::Replaced);
    let actor = rove_core::command::Actor { account: alice.account, device: alice.device };
    let revoke = DirectoryCommand::RevokeDevice { actor, device: alice.device };
    soon("a revocation", world.node.propose_directory(&revoke)).await.unwrap();
    assert_eq!(newer.closed().await, ErrorCode::Revoked);
    let connection = world.dial().await;
    let mut control = Stream::open(&connection, StreamType::Control).await;
    control.send(&hello(&alice, ClientState::Foreground)).await;
    assert_eq!(closed(&connection).await, ErrorCode::Revoked);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_violation_before_hello_closes_the_connection_with_its_code() {
    let world = World::start().await;
    let request = Request { id: RequestId(1), method: Method::Watch, body: Bytes::new() };
    for (frame_type, body, code) in [
        (FrameType::Request, request.encode_body(), ErrorCode::FrameUnexpected),
        (FrameType::Hello, vec![0; limits::FRAME_BEFORE_WELCOME + 1], ErrorCode::FrameTooLarge),
        (FrameType::Hello, vec![0xff], ErrorCode::Malformed),
        (FrameType(0x77), Vec::new(), ErrorCode::UnknownFrame),
    ] {
        let connection = world.dial().await;
        let mut control = Stream::open(&connection, StreamType::Control).await;
        control.raw(frame_type, &body).await;
        assert_eq!(closed(&connection).await, code, "{frame_type}");
    }
    let connection = world.dial().await;
    let _stream = Stream::open(&connection, StreamType::Inbox).await;
    assert_eq!(closed(&connection).await, ErrorCode::FrameUnexpected, "the first stream is the control stream");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_violation_on_an_open_stream_closes_the_connection_with_its_code() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let conversation = world.session(&alice).await.direct(bob.account).await.conversation;
    let critical = [Mark { delivered: Seq(1), read: Seq(1) }.encode_body(), vec![3, 0]].concat();
    for (frame_type, body, code) in [
        (FrameType::Post, vec![0; limits::FRAME + 1], ErrorCode::FrameTooLarge),
        (FrameType(0x77), Vec::new(), ErrorCode::UnknownFrame),
        (FrameType::Open, open(conversation, 0).encode_body(), ErrorCode::FrameUnexpected),
        (FrameType::Hello, hello(&alice, ClientState::Foreground).encode_body(), ErrorCode::FrameUnexpected),
        (FrameType::Mark, critical, ErrorCode::CriticalExtension),
        (FrameType::Mark, vec![0x80, 0x00, 0x00], ErrorCode::NotCanonical),
    ] {
        let client = world.session(&alice).await;
        let mut stream = client.open(conversation, 0).await;
        stream.opened().await;
        stream.raw(frame_type, &body).await;
        assert_eq!(client.closed().await, code, "{frame_type}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unknown_but_not_critical_leaves_the_connection_alone() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut client = world.session(&alice).await;
    let mut stream = Stream::open(&client.connection, StreamType(0x7e)).await;
    let stopped = soon("the stream to be stopped", stream.send.stopped()).await;
    assert_eq!(stopped, TransportError::Stopped(ErrorCode::UnknownStreamType));
    let read = soon("the stream to be reset", stream.recv.next()).await;
    assert_eq!(read, Err(ReadError::Transport(TransportError::Reset(ErrorCode::UnknownStreamType))));

    let conversation = client.direct(bob.account).await.conversation;
    let mut stream = client.open(conversation, 0).await;
    stream.raw(FrameType(0x7e), b"grease").await;
    assert_eq!(stream.opened().await.head, Seq(1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_holds_up_only_itself() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let busy = a.direct(bob.account).await.conversation;
    let quiet = a.group(&[bob.account]).await;
    let b = world.session(&bob).await;
    let mut stuck = b.open(busy, 1).await;
    stuck.opened().await;
    let mut stream = a.open(busy, 1).await;
    stream.opened().await;
    let text = "x".repeat(16_000);
    for number in 1..=40 {
        stream.send(&post(number, &text)).await;
        stream.posted().await;
    }
    let mut other = b.open(quiet, 0).await;
    assert_eq!(other.opened().await.head, Seq(1));
    assert_eq!(other.event().await.seq, Seq(1));
    for seq in 2..=41 {
        assert_eq!(stuck.event().await.seq, Seq(seq), "all of it is there when it is read");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_says_so_first_and_leaves_nothing_behind() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let mut a = world.session(&alice).await;
    let stats = world.hub.stats().clone();
    world.shutdown.cancel();
    match a.control.control().await {
        ControlDown::GoAway(away) => assert_eq!(away.code, ErrorCode::GoingAway),
        other => panic!("{other:?}"),
    }
    assert_eq!(a.closed().await, ErrorCode::GoingAway);
    world.stop().await;
    let gauge = |gauge: &std::sync::atomic::AtomicUsize| gauge.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((gauge(&stats.sessions), gauge(&stats.connections)), (0, 0));
    assert_eq!(stats.closes().get(&ErrorCode::GoingAway), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_before_hello_is_cut() {
    let world = World::start().await;
    let (silent, half) = (world.dial().await, world.dial().await);
    let mut control = Stream::open(&half, StreamType::Control).await;
    control.send.write(Bytes::from_static(&[40, 1])).await.unwrap();
    assert_eq!(closed(&silent).await, ErrorCode::Timeout);
    assert_eq!(closed(&half).await, ErrorCode::Timeout);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_not_what_the_client_knows_is_not_opened() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    for (seen, epoch, code) in [(100, 0, ErrorCode::Behind), (1, 7, ErrorCode::EpochChanged)] {
        let mut stream = Stream::open(&a.connection, StreamType::Conversation).await;
        stream.send(&Open { seen: Seq(seen), epoch, ..open(conversation, 1) }).await;
        let closed = Closed { code, last_seq: Seq(1) };
        assert_eq!(stream.conversation().await, ConversationDown::Closed(closed));
        assert!(stream.ended().await);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_too_many_is_stopped_and_the_others_go_on() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let mut open = Vec::new();
    for _ in 0..limits::CONVERSATION_STREAMS {
        let mut stream = a.open(conversation, 1).await;
        stream.opened().await;
        open.push(stream);
    }
    let mut one_more = a.open(conversation, 1).await;
    let stopped = soon("the stream to be stopped", one_more.send.stopped()).await;
    assert_eq!(stopped, TransportError::Stopped(ErrorCode::LimitExceeded));
    open[0].send(&post(1, "still here")).await;
    for stream in &mut open {
        assert_eq!(&stream.event().await.body[..], b"still here");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_handshakes_have_to_prove_their_address_and_too_many_connections_are_refused() {
    let drain = Duration::from_millis(300);
    let world =
        World::start_with(EdgeConfig { retry_above: 0, max_connections: 1, drain, ..EdgeConfig::default() }).await;
    let alice = world.user("alice").await;
    let session = world.session(&alice).await;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(count(&world.hub.stats().retried), 1);
    let tls = client_tls(&Trust::Pins(vec![world.pin]), ALPN).unwrap();
    let refused = world.endpoint.connect_with(tls, world.address, "rove.test").unwrap();
    assert!(soon("a refusal", refused).await.is_err());
    assert_eq!(count(&world.hub.stats().refused_total), 1);
    drop(session);
    world.stop().await;
}
