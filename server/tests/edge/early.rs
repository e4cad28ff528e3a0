//! Early data (0-RTT): what a flight may do before its handshake is complete, and when somebody else sends it again (S18).
//!
//! A relay between client and server makes the moments long: it lets the first flight through in one piece, and holds back
//! whatever the client sends after that, so that the handshake is not complete until the test says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::ZeroRttAccepted;
use rove_core::command::Actor;
use rove_core::directory::DirectoryCommand;
use rove_protocol::frame::put_frame;
use rove_protocol::ids::{ConversationId, RequestId, Seq, WriterId};
use rove_protocol::message::{
    Body as _, ControlDown, ConversationDown, ConversationInfo, CreateGroup, Fetch, FetchDown, GetConversation, Mark,
    Message, Open, Request,
};
use rove_protocol::registry::{ALPN, Anchor, ClientState, ErrorCode, FrameType, Method, StreamType};
use rove_protocol::transport::{Connection as _, FrameReader, SendStream as _, TransportError};
use rove_protocol::wire::{List, put_varint};
use rove_quic::{Connection, SessionStore, Trust, accept_early_data, client_tls, server_config};
use rove_server::edge::{Edge, EdgeConfig};
use rustls::server::StoresServerSessions;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{Client, Stream, User, World, hello, open, post, soon, tls};

/// Sessions that any number of nodes share, and so do not take away from each other.
#[derive(Debug)]
struct Shared(SessionStore);

impl StoresServerSessions for Shared {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.put(key, value)
    }
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }
    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }
    fn can_cache(&self) -> bool {
        true
    }
}

/// How far the relay lets the client go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Let {
    Gather,
    FirstFlight,
    Everything,
}

/// A wire between one client and the server.
struct Relay {
    address: SocketAddr,
    pass: watch::Sender<Let>,
    /// What the client sent before the server was let have it.
    flight: Arc<Mutex<Vec<Vec<u8>>>>,
    _task: JoinSet<()>,
}

impl Relay {
    async fn to(server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(server).await.unwrap();
        let address = front.local_addr().unwrap();
        let (pass, passes) = watch::channel(Let::Gather);
        let flight = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(relay(front, back, passes, Arc::clone(&flight)));
        Self { address, pass, flight, _task: task }
    }

    /// Once the first flight, of so many pieces of streams, has left the client and is here whole, the server gets it.
    async fn first_flight(&self, connection: &Connection, pieces: u64) {
        soon("a flight to be here whole", async {
            loop {
                let stats = connection.quinn().stats();
                let here = self.flight.lock().len() as u64;
                if stats.frame_tx.stream >= pieces && here >= stats.udp_tx.datagrams {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        self.pass.send_replace(Let::FirstFlight);
    }

    fn everything(&self) {
        self.pass.send_replace(Let::Everything);
    }
}

async fn relay(front: UdpSocket, back: UdpSocket, mut pass: watch::Receiver<Let>, flight: Arc<Mutex<Vec<Vec<u8>>>>) {
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut at = Let::Gather;
    loop {
        tokio::select! {
            received = front.recv_from(&mut from_client) => {
                let (length, address) = received.unwrap();
                client = Some(address);
                let datagram = from_client[..length].to_vec();
                match at {
                    Let::Gather => flight.lock().push(datagram),
                    Let::FirstFlight => held.push(datagram),
                    Let::Everything => {
                        back.send(&datagram).await.unwrap();
                    }
                }
            }
            received = back.recv(&mut from_server) => {
                let (Ok(length), Some(client)) = (received, client) else { continue };
                front.send_to(&from_server[..length], client).await.unwrap();
            }
            changed = pass.changed() => {
                if changed.is_err() {
                    return;
                }
                at = *pass.borrow_and_update();
                let datagrams = if at == Let::FirstFlight { flight.lock().clone() } else { std::mem::take(&mut held) };
                for datagram in datagrams {
                    back.send(&datagram).await.unwrap();
                }
            }
        }
    }
}

/// A world whose server keeps TLS sessions in `sessions`, and a client's configuration that has one of them.
async fn world(sessions: Arc<dyn StoresServerSessions>) -> (World, rustls::ServerConfig, quinn::ClientConfig) {
    let (mut tls, pin) = tls();
    accept_early_data(&mut tls, Arc::new(SessionStore::new(0)));
    tls.session_storage = sessions;
    let edge_config = EdgeConfig { drain: Duration::from_millis(300), ..EdgeConfig::default() };
    let world = World::start_on(edge_config, (tls.clone(), pin)).await;
    let client = client_tls(&Trust::Pins(vec![pin]), ALPN).unwrap();
    (world, tls, client)
}

/// A session on a complete handshake, after which the configuration has TLS sessions to resume.
async fn session(world: &World, config: &quinn::ClientConfig, user: &User) -> Client {
    let dialled = world.endpoint.connect_with(config.clone(), world.address, "rove.test").unwrap();
    let connection = Connection::from(soon("a handshake", dialled).await.unwrap());
    let mut control = Stream::open(&connection, StreamType::Control).await;
    control.send(&hello(user, ClientState::Foreground)).await;
    let ControlDown::Welcome(welcome) = control.control().await else { panic!("no Welcome") };
    Client { connection, control, welcome, requests: 0 }
}

fn dial_early(world: &World, config: &quinn::ClientConfig, to: SocketAddr) -> (Connection, ZeroRttAccepted) {
    let dialled = world.endpoint.connect_with(config.clone(), to, "rove.test").unwrap();
    let (connection, accepted) = dialled.into_0rtt().unwrap_or_else(|_| panic!("there is no TLS session to resume"));
    (connection.into(), accepted)
}

/// Appends a frame.
type Put<'a> = &'a dyn Fn(&mut Vec<u8>);

fn frames(stream_type: StreamType, messages: &[Put<'_>]) -> Bytes {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, u64::from(stream_type.0));
    for put in messages {
        put(&mut bytes);
    }
    bytes.into()
}

fn put<M: Message>(message: &M) -> impl Fn(&mut Vec<u8>) + '_ {
    |out| out.extend_from_slice(&message.to_frame())
}

/// One stream of a flight.
async fn stream(connection: &Connection, bytes: Bytes) -> Stream {
    let (mut send, recv) = soon("a stream", connection.open()).await.unwrap();
    send.write(bytes).await.unwrap();
    Stream { send, recv: FrameReader::new(recv) }
}

const NONCE: [u8; 16] = [6; 16];

fn create_group() -> Request {
    let create = CreateGroup { nonce: NONCE, title: "early".to_owned(), members: List::default() };
    Request { id: RequestId(1), method: Method::CreateGroup, body: create.encode_body().into() }
}

async fn get(client: &mut Client, conversation: ConversationId) -> Result<ConversationInfo, ErrorCode> {
    let get = GetConversation { conversation, after: rove_protocol::ids::AccountId(0) };
    let response = client.ask(Method::GetConversation, get.encode_body()).await;
    match response.code {
        ErrorCode::None => Ok(ConversationInfo::decode_body(response.body).unwrap()),
        code => Err(code),
    }
}

fn early_sessions(world: &World) -> u64 {
    world.hub.stats().early_sessions.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_3_7_4_before_the_handshake_is_complete_posts_and_reads_are_answered_and_nothing_else_happens() {
    let (world, _, config) = world(Arc::new(SessionStore::new(16))).await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut older = session(&world, &config, &alice).await;
    let conversation = older.direct(bob.account).await.conversation;
    let group = ConversationId::group(alice.account, NONCE);
    let b = world.session(&bob).await;
    let mut at_bob = Stream::open(&b.connection, StreamType::Conversation).await;
    at_bob.send(&Open { writer: WriterId([8; 16]), ..open(conversation, 0) }).await;
    at_bob.opened().await;
    at_bob.send(&post(1, "from bob")).await;
    assert_eq!(at_bob.posted().await.seq, Seq(2));

    let relay = Relay::to(world.address).await;
    let (connection, accepted) = dial_early(&world, &config, relay.address);
    let hello = hello(&alice, ClientState::Foreground);
    let mut control = stream(&connection, frames(StreamType::Control, &[&put(&hello), &put(&create_group())])).await;
    let (open, first, second) = (open(conversation, 0), post(1, "early"), post(2, "behind the mark"));
    let mark = Mark { delivered: Seq(2), read: Seq(2) };
    let flight = [&put(&open) as &dyn Fn(&mut Vec<u8>), &put(&first), &put(&mark), &put(&second)];
    let mut posts = stream(&connection, frames(StreamType::Conversation, &flight)).await;
    let fetch = Fetch { conversation, anchor: Anchor::Seq, at: 1, backward: false, limit: 1, seen: Seq(0) };
    let mut pages = stream(&connection, frames(StreamType::Fetch, &[&put(&fetch)])).await;
    relay.first_flight(&connection, 3).await;

    assert!(matches!(control.control().await, ControlDown::Welcome(_)));
    assert_eq!(posts.opened().await.read, Seq(1));
    assert_eq!(posts.posted().await.seq, Seq(3));
    assert!(matches!(pages.fetched().await, FetchDown::Event(event) if event.seq == Seq(1)));
    assert!(matches!(pages.fetched().await, FetchDown::Page(_)));
    assert_eq!(early_sessions(&world), 1);

    // The older session is there, what the mark holds up is not, nor is the group.
    assert_eq!(get(&mut older, conversation).await.unwrap().head, Seq(3));
    assert_eq!(get(&mut older, group).await.unwrap_err(), ErrorCode::NotFound);
    assert_eq!(older.open(conversation, 0).await.opened().await.read, Seq(1), "the mark has not been taken");
    assert_eq!(world.hub.stats().handshakes.load(Ordering::Relaxed), 1);

    relay.everything();
    assert!(soon("the end of the handshake", accepted).await, "it was early data, and taken");
    assert_eq!(older.closed().await, ErrorCode::Replaced);
    let ControlDown::Response(response) = control.control().await else { panic!("a response") };
    assert_eq!((response.id, response.code), (RequestId(1), ErrorCode::None));
    assert_eq!(posts.posted().await.seq, Seq(4));
    while !matches!(at_bob.conversation().await, ConversationDown::Receipt(receipt) if receipt.read == Seq(2)) {}
    assert_eq!(world.hub.stats().handshakes.load(Ordering::Relaxed), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_flight_that_somebody_else_sends_again_does_nothing() {
    let (world, tls, config) = world(Arc::new(Shared(SessionStore::new(16)))).await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut older = session(&world, &config, &alice).await;
    let conversation = older.direct(bob.account).await.conversation;

    let relay = Relay::to(world.address).await;
    let (connection, accepted) = dial_early(&world, &config, relay.address);
    let hello = hello(&alice, ClientState::Foreground);
    let mut control = stream(&connection, frames(StreamType::Control, &[&put(&hello)])).await;
    let (open, first) = (open(conversation, 0), post(1, "early"));
    let mut posts = stream(&connection, frames(StreamType::Conversation, &[&put(&open), &put(&first)])).await;
    relay.first_flight(&connection, 2).await;
    let ControlDown::Welcome(welcome) = control.control().await else { panic!("no Welcome") };
    posts.opened().await;
    let answered = posts.posted().await;
    relay.everything();
    assert!(soon("the end of the handshake", accepted).await);
    assert_eq!(older.closed().await, ErrorCode::Replaced);
    let mut client = Client { connection, control, welcome, requests: 0 };

    // Another node of the cluster, which knows the TLS session and has the same log.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = Edge::start(
        EdgeConfig::default(),
        world.hub.clone(),
        world.node.clone(),
        server_config(tls).unwrap(),
        socket,
        axum::Router::new(),
        world.shutdown.clone(),
    )
    .unwrap();
    let thief = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let flight = relay.flight.lock().clone();
    for datagram in &flight {
        thief.send_to(datagram, other.local_addr().unwrap()).await.unwrap();
    }
    let stats = world.hub.stats().clone();
    soon("the copy to be taken for a session", async {
        while early_sessions(&world) < 2 || stats.posts.load(Ordering::Relaxed) < 2 {
            let mut answer = [0; 2_048];
            thief.recv(&mut answer).await.unwrap();
        }
    })
    .await;

    // Nothing was appended, and the session that is really alice's goes on.
    posts.send(&post(2, "late")).await;
    let next = posts.posted().await;
    assert_eq!((answered.seq, next.seq), (Seq(2), Seq(3)));
    assert_eq!(get(&mut client, conversation).await.unwrap().head, Seq(3));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_3_7_5_what_is_skipped_before_hello_in_an_early_flight_holds_nothing_up() {
    let (world, _, config) = world(Arc::new(SessionStore::new(16))).await;
    let alice = world.user("alice").await;
    let older = session(&world, &config, &alice).await;
    let relay = Relay::to(world.address).await;
    let (connection, accepted) = dial_early(&world, &config, relay.address);
    let grease = |out: &mut Vec<u8>| put_frame(FrameType(0x7000), b"grease", out);
    let hello = hello(&alice, ClientState::Foreground);
    let mut control = stream(&connection, frames(StreamType::Control, &[&grease, &put(&hello)])).await;
    relay.first_flight(&connection, 1).await;
    assert!(matches!(control.control().await, ControlDown::Welcome(_)));
    assert_eq!(early_sessions(&world), 1);
    relay.everything();
    assert!(soon("the end of the handshake", accepted).await, "it was early data, and taken");
    assert_eq!(older.closed().await, ErrorCode::Replaced);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_revoked_before_the_handshake_is_complete_gets_no_session() {
    let (world, _, config) = world(Arc::new(SessionStore::new(16))).await;
    let alice = world.user("alice").await;
    let older = session(&world, &config, &alice).await;
    let relay = Relay::to(world.address).await;
    let (connection, _) = dial_early(&world, &config, relay.address);
    let hello = hello(&alice, ClientState::Foreground);
    let mut control = stream(&connection, frames(StreamType::Control, &[&put(&hello)])).await;
    relay.first_flight(&connection, 1).await;
    assert!(matches!(control.control().await, ControlDown::Welcome(_)));
    // The directory tells the sessions there are, and this one is not there yet.
    let actor = Actor { account: alice.account, device: alice.device };
    let revoke = DirectoryCommand::RevokeDevice { actor, device: alice.device };
    soon("a revocation", world.node.propose_directory(&revoke)).await.unwrap();
    assert_eq!(older.closed().await, ErrorCode::Revoked);
    relay.everything();
    let closed = soon("the close", connection.closed()).await;
    assert!(matches!(closed, TransportError::Closed { code: ErrorCode::Revoked, .. }), "{closed:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_is_not_completed_is_cut_off() {
    let (world, _, config) = world(Arc::new(SessionStore::new(16))).await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut older = session(&world, &config, &alice).await;
    let conversation = older.direct(bob.account).await.conversation;
    let relay = Relay::to(world.address).await;
    let (connection, _) = dial_early(&world, &config, relay.address);
    let hello = hello(&alice, ClientState::Foreground);
    let mut control = stream(&connection, frames(StreamType::Control, &[&put(&hello)])).await;
    relay.first_flight(&connection, 1).await;
    assert!(matches!(control.control().await, ControlDown::Welcome(_)));
    // The close itself may not reach the client: it has not proven its address, and gets little.
    soon("the connection to be cut off", async {
        while !world.hub.stats().closes().contains_key(&ErrorCode::Timeout) {
            assert_eq!(get(&mut older, conversation).await.unwrap().head, Seq(1), "the older session goes on");
        }
    })
    .await;
    assert_eq!(world.hub.stats().closes().get(&ErrorCode::Timeout), Some(&1));
    world.stop().await;
}

// One thread: the stream is opened before the handshake can go on.
#[tokio::test]
async fn a_session_is_resumed_once_and_what_was_rejected_can_be_sent_again_on_the_same_connection() {
    let (sessions, forgetful) = (Arc::new(SessionStore::new(16)), Arc::new(SessionStore::new(16)));
    let (world, mut tls, config) = world(sessions.clone()).await;
    let alice = world.user("alice").await;
    let _older = session(&world, &config, &alice).await;
    tls.session_storage = forgetful.clone();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = Edge::start(
        EdgeConfig { sessions: Some(forgetful.clone()), ..EdgeConfig::default() },
        world.hub.clone(),
        world.node.clone(),
        server_config(tls).unwrap(),
        socket,
        axum::Router::new(),
        world.shutdown.clone(),
    )
    .unwrap();
    let (connection, accepted) = dial_early(&world, &config, other.local_addr().unwrap());
    let hello = hello(&alice, ClientState::Foreground);
    let mut early = stream(&connection, frames(StreamType::Control, &[&put(&hello)])).await;
    assert!(!soon("the end of the handshake", accepted).await);
    let lost = soon("the early stream to fail", early.recv.next()).await.unwrap_err();
    assert_eq!(lost, TransportError::EarlyDataRejected.into());
    let mut control = stream(&connection, frames(StreamType::Control, &[&put(&hello)])).await;
    assert!(matches!(control.control().await, ControlDown::Welcome(_)));
    assert_eq!((forgetful.unknown(), other.stats().early_rejected(), early_sessions(&world)), (1, 1, 0));
    assert_eq!(sessions.unknown(), 0);
    world.stop().await;
}
