//! A server of a few hundred lines: it keeps the promises of the protocol, and breaks connections when told to.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{EndpointConfig, TokioRuntime};
use rove_protocol::frame::{RawFrame, datagram_frames};
use rove_protocol::ids::{
    AccountId, ConversationId, DeviceId, MessageId, NodeId, PartitionId, PostNo, Seq, SessionId, WriterId,
};
use rove_protocol::message::{
    Accounts, Alternative, Body, Closed, ControlUp, ConversationUp, DatagramUp, Event, FetchUp, GoAway, HeartbeatAck,
    InboxLine, InboxSynced, Limits, Message, Open, Opened, Page, Post, Posted, Refused, Response, Welcome,
};
use rove_protocol::registry::{ALPN, Anchor, ConversationKind, ErrorCode, EventKind, Role, StreamMode, StreamType};
use rove_protocol::transport::{Connection as _, FrameReader, SendStream as _};
use rove_protocol::wire::List;
use rove_quic::{Connection, RecvStream, SendStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ServerAddress;

pub(super) const ALICE: (AccountId, DeviceId) = (AccountId(1), DeviceId(10));
pub(super) const ROOM: ConversationId = ConversationId([7; 16]);

/// The bytes of a post and what became of it.
type Recorded = (Bytes, Result<u64, ErrorCode>);

/// What the server knows, and how it misbehaves.
#[derive(Default)]
pub(super) struct World {
    pub(super) log: Vec<Event>,
    writers: BTreeMap<WriterId, Vec<Recorded>>,
    /// Close the connection instead of answering every n-th post.
    pub(super) drop_every: Option<u64>,
    /// Refuse every n-th post as busy, without consuming its number.
    pub(super) busy_every: Option<u64>,
    /// Refuse `Hello` with this.
    pub(super) turn_away: Option<ErrorCode>,
    /// Tell of these other nodes in `Welcome`.
    pub(super) others: Vec<SocketAddr>,
    /// Refuse posts of this text for good.
    pub(super) forbidden: Option<&'static str>,
    posts: u64,
    pub(super) connections: u64,
    pub(super) sessions: u64,
    pub(super) heartbeats: u64,
}

pub(super) struct Fake {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) address: ServerAddress,
    endpoint: quinn::Endpoint,
    tls: rustls::ServerConfig,
    orders: Orders,
    _tasks: JoinSet<()>,
}

/// What sessions are told to do.
#[derive(Clone)]
struct Orders {
    go_away: watch::Sender<Option<GoAway>>,
    hang_up: watch::Sender<()>,
    /// Posts are taken and not answered while this is so; everything else is.
    hold: watch::Sender<bool>,
}

/// TLS sessions kept: more than a test has.
const TLS_SESSIONS: usize = 64;

/// A server that knows no TLS session yet.
fn config(tls: &rustls::ServerConfig) -> quinn::ServerConfig {
    let mut tls = tls.clone();
    rove_quic::accept_early_data(&mut tls, Arc::new(rove_quic::SessionStore::new(TLS_SESSIONS)));
    rove_quic::server_config(tls).unwrap()
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

enum Answer {
    Posted(Posted),
    Refused(Refused),
    Drop,
}

impl World {
    fn post(&mut self, writer: WriterId, post: &Post) -> Answer {
        self.posts += 1;
        let refused = |code, consumed, expected| {
            Answer::Refused(Refused {
                post_no: post.post_no,
                code,
                consumed,
                expected: PostNo(expected),
                retry_after_ms: 1,
            })
        };
        let is_due = |every: Option<u64>| every.is_some_and(|every| self.posts.is_multiple_of(every));
        let (drop_it, busy) = (is_due(self.drop_every), is_due(self.busy_every));
        let outcomes = self.writers.entry(writer).or_default();
        let (number, last) = (post.post_no.0, outcomes.len() as u64);
        if number > last + 1 {
            return refused(ErrorCode::Gap, false, last + 1);
        }
        let bytes = Bytes::from(post.encode_body());
        let result = if number <= last {
            let (first, result) = &outcomes[index(number) - 1];
            if *first == bytes { *result } else { Err(ErrorCode::PostNoReused) }
        } else if busy {
            return refused(ErrorCode::Busy, false, number);
        } else {
            let text = std::str::from_utf8(&post.body).unwrap();
            let result = if post.kind == EventKind::Void {
                Err(ErrorCode::Cancelled)
            } else if self.forbidden == Some(text) {
                Err(ErrorCode::Forbidden)
            } else {
                let seq = self.log.len() as u64 + 1;
                self.log.push(Event {
                    seq: Seq(seq),
                    message_id: MessageId(seq * 100),
                    time_ms: seq,
                    kind: post.kind,
                    author: ALICE.0,
                    device: ALICE.1,
                    writer,
                    post_no: post.post_no,
                    refers_to: post.refers_to,
                    content_type: post.content_type,
                    crypto_epoch: 0,
                    mentions: List::default(),
                    body: post.body.clone(),
                    extensions: post.extensions.clone(),
                });
                Ok(seq)
            };
            outcomes.push((bytes, result));
            result
        };
        if drop_it {
            return Answer::Drop;
        }
        match result {
            Ok(seq) => Answer::Posted(Posted {
                post_no: post.post_no,
                seq: Seq(seq),
                message_id: MessageId(seq * 100),
                time_ms: seq,
            }),
            Err(code) => refused(code, true, number.max(last) + 1),
        }
    }

    fn last_post_no(&self, writer: WriterId) -> PostNo {
        PostNo(self.writers.get(&writer).map_or(0, |outcomes| outcomes.len() as u64))
    }

    fn line(&self) -> InboxLine {
        InboxLine {
            conversation: ROOM,
            partition: PartitionId(1),
            kind: ConversationKind::Group,
            role: Role::Member,
            title: "room".to_owned(),
            peer: AccountId(0),
            head: Seq(self.log.len() as u64),
            last_message_id: MessageId(self.log.len() as u64 * 100),
            read: Seq(0),
            event: self.log.last().map(|event| event.encode_body().into()),
        }
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.log.iter().map(|event| String::from_utf8(event.body.to_vec()).unwrap()).collect()
    }

    /// Somebody else posts.
    pub(super) fn others_post(&mut self, text: &str) {
        let writer = WriterId([0xee; 16]);
        let number = self.last_post_no(writer).next();
        let draft = rove_client_core::outbox::Draft::text(EventKind::Message, Seq(0), text);
        self.post(
            writer,
            &Post {
                post_no: number,
                kind: draft.kind,
                refers_to: Seq(0),
                content_type: draft.content_type,
                crypto_epoch: 0,
                mentions: List::default(),
                body: draft.body,
                extensions: rove_protocol::extension::Extensions::default(),
            },
        );
        if let Some(event) = self.log.last_mut() {
            (event.author, event.device) = (AccountId(2), DeviceId(20));
        }
    }
}

impl Fake {
    pub(super) fn start() -> Self {
        Self::with_world(Arc::default())
    }

    /// Another node in front of the same log.
    pub(super) fn with_world(world: Arc<Mutex<World>>) -> Self {
        let certificate = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
        let der = certificate.cert.der().clone();
        let pin = rove_quic::spki_pin(&der).unwrap();
        let provider = rove_quic::provider();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let runtime = Arc::new(TokioRuntime);
        let endpoint = quinn::Endpoint::new(EndpointConfig::default(), Some(config(&tls)), socket, runtime).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        let orders =
            Orders { go_away: watch::channel(None).0, hang_up: watch::channel(()).0, hold: watch::channel(false).0 };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(endpoint.clone(), world.clone(), orders.clone()));
        let address = ServerAddress::pinned("127.0.0.1", port, vec![pin]);
        Self { world, address, endpoint, tls, orders, _tasks: tasks }
    }

    pub(super) fn socket_address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// Trusts this node's key as well as the other's.
    pub(super) fn trusting(&self, other: &Self) -> ServerAddress {
        let (rove_quic::Trust::Pins(mut pins), rove_quic::Trust::Pins(more)) =
            (self.address.trust.clone(), other.address.trust.clone())
        else {
            panic!("pinned")
        };
        pins.extend(more);
        ServerAddress::pinned("127.0.0.1", self.address.port, pins)
    }

    /// Ends every connection.
    pub(super) fn hang_up(&self) {
        self.orders.hang_up.send_replace(());
    }

    /// Ends every connection and knows no TLS session any more, as after a restart.
    pub(super) fn restart(&self) {
        self.endpoint.set_server_config(Some(config(&self.tls)));
        self.hang_up();
    }

    /// Ends every connection and takes no other.
    pub(super) fn shut(&self) {
        self.endpoint.set_server_config(None);
        self.hang_up();
    }

    /// Is gone from one instant to the next, without a word, like a machine whose power fails: nothing that is sent to it arrives.
    pub(super) fn vanish(&self) {
        self.endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    }

    /// Is overloaded: answers no posts for as long as this is so, and heartbeats as ever.
    pub(super) fn hold_posts(&self, hold: bool) {
        self.orders.hold.send_replace(hold);
    }

    pub(super) fn leave_for(&self, other: SocketAddr) {
        self.leave_for_all(&[other]);
    }

    pub(super) fn leave_for_all(&self, others: &[SocketAddr]) {
        let alternative = |other: &SocketAddr| Alternative { address: other.to_string(), region: String::new() };
        self.orders.go_away.send_replace(Some(GoAway {
            code: ErrorCode::GoingAway,
            deadline_ms: 10_000,
            alternatives: others.iter().map(alternative).collect(),
        }));
    }
}

async fn serve(endpoint: quinn::Endpoint, world: Arc<Mutex<World>>, orders: Orders) {
    let mut sessions = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let (world, orders) = (world.clone(), orders.clone());
        sessions.spawn(async move {
            // Posts and reads are all that it does: it need not wait for the handshake.
            if let Ok(Ok((connection, _))) = incoming.accept().map(quinn::Connecting::into_0rtt) {
                world.lock().connections += 1;
                session(connection.into(), world, orders).await;
            }
        });
    }
}

async fn session(connection: Connection, world: Arc<Mutex<World>>, orders: Orders) {
    let mut tasks = JoinSet::new();
    let mut hang_up = orders.hang_up.subscribe();
    // One writer of the log wakes everybody.
    loop {
        tokio::select! {
            _ = hang_up.changed() => return connection.close(ErrorCode::Internal, "hung up on purpose"),
            stream = connection.accept() => {
                let Ok((send, recv)) = stream else { return };
                let (connection, world, orders) = (connection.clone(), world.clone(), orders.clone());
                tasks.spawn(stream_of(connection, send, FrameReader::new(recv), world, orders));
            }
            datagram = connection.read_datagram() => {
                let Ok(datagram) = datagram else { return };
                for frame in datagram_frames(datagram).unwrap() {
                    if let Some(DatagramUp::Heartbeat(beat)) = DatagramUp::decode(frame).unwrap() {
                        world.lock().heartbeats += 1;
                        let ack = HeartbeatAck { number: beat.number, inbox_version: 0, presence_version: 0 };
                        connection.send_datagram(ack.to_frame().into());
                    }
                }
            }
        }
    }
}

async fn stream_of(
    connection: Connection,
    mut send: SendStream,
    mut reader: FrameReader<RecvStream>,
    world: Arc<Mutex<World>>,
    orders: Orders,
) {
    let Ok(Some(kind)) = reader.stream_type().await else { return };
    let result = match StreamType(u32::try_from(kind).unwrap()) {
        StreamType::Control => control(&connection, &mut send, &mut reader, &world, orders.go_away.subscribe()).await,
        StreamType::Inbox => inbox(&mut send, &mut reader, &world).await,
        StreamType::Conversation => {
            conversation(&connection, &mut send, &mut reader, &world, orders.hold.subscribe()).await
        }
        StreamType::Fetch => fetch(&mut send, &mut reader, &world).await,
        _ => None,
    };
    if result.is_none() {
        send.finish();
    }
}

async fn next(reader: &mut FrameReader<RecvStream>) -> Option<RawFrame> {
    reader.next().await.ok().flatten()
}

async fn control(
    connection: &Connection,
    send: &mut SendStream,
    reader: &mut FrameReader<RecvStream>,
    world: &Mutex<World>,
    mut go_away: watch::Receiver<Option<GoAway>>,
) -> Option<()> {
    let Some(ControlUp::Hello(_)) = ControlUp::decode(next(reader).await?).unwrap() else { return None };
    let (refused, others) = {
        let mut world = world.lock();
        world.sessions += 1;
        (world.turn_away, world.others.clone())
    };
    if let Some(code) = refused {
        connection.close(code, "turned away");
        return None;
    }
    let welcome = Welcome {
        session: SessionId(1),
        account: ALICE.0,
        node: NodeId(u64::from(connection.quinn().remote_address().port())),
        minor: 0,
        server_time_ms: 0,
        heartbeat_ms: 20_000,
        limits: Limits::default(),
        alternatives: others
            .iter()
            .map(|other| Alternative { address: other.to_string(), region: String::new() })
            .collect(),
    };
    send.write(welcome.to_frame().into()).await.ok()?;
    loop {
        tokio::select! {
            going = async { go_away.wait_for(Option::is_some).await.ok().and_then(|going| going.clone()) } => {
                send.write(going?.to_frame().into()).await.ok()?;
                std::future::pending::<()>().await;
            }
            frame = next(reader) => {
                if let Some(ControlUp::Request(request)) = ControlUp::decode(frame?).unwrap() {
                    let body = Accounts { accounts: List::default() }.encode_body().into();
                    let response = Response { id: request.id, code: ErrorCode::None, retry_after_ms: 0, body };
                    send.write(response.to_frame().into()).await.ok()?;
                }
            }
        }
    }
}

async fn inbox(send: &mut SendStream, reader: &mut FrameReader<RecvStream>, world: &Mutex<World>) -> Option<()> {
    next(reader).await?;
    let mut out = Vec::new();
    world.lock().line().put_frame(&mut out);
    InboxSynced { version: 1 }.put_frame(&mut out);
    send.write(out.into()).await.ok()?;
    next(reader).await.map(|_| ())
}

async fn conversation(
    connection: &Connection,
    send: &mut SendStream,
    reader: &mut FrameReader<RecvStream>,
    world: &Mutex<World>,
    mut hold: watch::Receiver<bool>,
) -> Option<()> {
    let Some(ConversationUp::Open(Open { after, writer, conversation, .. })) =
        ConversationUp::decode(next(reader).await?).unwrap()
    else {
        return None;
    };
    if conversation != ROOM {
        send.write(Closed { code: ErrorCode::NotFound, last_seq: after }.to_frame().into()).await.ok()?;
        return None;
    }
    let mut told = index(after.0);
    let mut out = Vec::new();
    {
        let world = world.lock();
        let opened = Opened {
            head: Seq(world.log.len() as u64),
            last_post_no: world.last_post_no(writer),
            mode: StreamMode::Live,
            epoch: 1,
            role: Role::Member,
            read: Seq(0),
            member_count: 2,
        };
        opened.put_frame(&mut out);
    }
    loop {
        {
            let world = world.lock();
            for event in &world.log[told..] {
                event.put_frame(&mut out);
            }
            told = world.log.len();
        }
        send.write(std::mem::take(&mut out).into()).await.ok()?;
        let frame = next(reader).await?;
        if let Some(ConversationUp::Post(post)) = ConversationUp::decode(frame).unwrap() {
            hold.wait_for(|hold| !hold).await.ok()?;
            let answer = world.lock().post(writer, &post);
            match answer {
                Answer::Posted(posted) => posted.put_frame(&mut out),
                Answer::Refused(refused) => refused.put_frame(&mut out),
                Answer::Drop => {
                    // Earlier answers arrive, this one does not: otherwise the same posts would meet the same end for ever.
                    send.finish();
                    send.stopped().await;
                    connection.close(ErrorCode::Internal, "dropped on purpose");
                    return None;
                }
            }
        }
    }
}

async fn fetch(send: &mut SendStream, reader: &mut FrameReader<RecvStream>, world: &Mutex<World>) -> Option<()> {
    loop {
        let Some(FetchUp::Fetch(fetch)) = FetchUp::decode(next(reader).await?).unwrap() else { return None };
        assert!(fetch.backward && fetch.anchor == Anchor::Seq, "all that the client asks here");
        let mut out = Vec::new();
        {
            let world = world.lock();
            let last = (fetch.at - 1).min(world.log.len() as u64);
            let first = last.saturating_sub(u64::from(fetch.limit)) + 1;
            for event in &world.log[index(first) - 1..index(last)] {
                event.put_frame(&mut out);
            }
            let head = Seq(world.log.len() as u64);
            Page { conversation: fetch.conversation, first: Seq(first), last: Seq(last), head }.put_frame(&mut out);
        }
        send.write(out.into()).await.ok()?;
    }
}
