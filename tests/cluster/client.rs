//! One device with one conversation open: the outbox and the cursor of the client library over a connection to whichever node, all of it
//! written down.
//!
//! It posts at a steady pace, goes to another node when its own is silent or lets it go, and sends again what was not answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::ClientConfig;
use rove_client_core::outbox::{Draft, Effects, Outbox, Outcome};
use rove_client_core::sync::{Arrival, Held};
use rove_client_core::timeline::LocalId;
use rove_protocol::ids::{ConversationId, PostNo, PostTag, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{
    Body as _, ControlDown, ConversationDown, Event, Heartbeat, Mark, Message as _, Open, Refused,
};
use rove_protocol::registry::{ALPN, ErrorCode, EventKind};
use rove_protocol::transport::{Connection as _, SendStream as _};
use rove_quic::client_tls;
use rove_sim::client::{digest, message_of};
use rove_sim::history::{ClientId, PostEnd, Record};
use rove_sim::rng::Rng;
use rove_tests::raw::Credentials;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::nodes::NODES;
use crate::recorder::Recorder;
use crate::session::{Lost, Session, Stream};
use crate::watch::Watch;

/// Posts queued at most: more than may be unanswered, so that the limit is met when nothing is answered for long.
const MAX_QUEUED: usize = limits::UNANSWERED_POSTS + 16;
/// Silence after which a client that waits for an answer tries another node.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts to connect, at most.
const RETRY_MS: u64 = 150;

/// How long a client stays where it was driven to before it goes home, if its own node is there again.
const AWAY: Duration = Duration::from_millis(500);

/// What clients are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Post.
    Load,
    /// Make no more posts; have every one answered, and read everything up to what is known.
    Finish,
}

/// What clients share.
pub(crate) struct World {
    pub(crate) nodes: Vec<SocketAddr>,
    pub(crate) tls: ClientConfig,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) watch: Watch,
    pub(crate) phase: Receiver<Phase>,
    /// Between two posts of a client.
    pub(crate) pace: Duration,
    /// Clients that may still have a post acknowledged.
    pub(crate) unanswered: AtomicUsize,
}

impl World {
    /// What a client needs to trust the nodes.
    pub(crate) fn tls(trust: &rove_client::Trust) -> ClientConfig {
        client_tls(trust, ALPN).expect("pins make a configuration")
    }
}

/// A client.
pub(crate) struct Client {
    id: ClientId,
    credentials: Credentials,
    conversation: ConversationId,
    world: Arc<World>,
    rng: Rng,
    outbox: Outbox,
    held: Held,
    next_local: u64,
    /// The numbers of posts that were sent and have not ended.
    numbers: BTreeMap<LocalId, PostNo>,
    sent: PostNo,
    /// Whether it has nothing more to be acknowledged, for ever.
    answered: bool,
    /// The node that it prefers, and the one that it is at, by their places among all.
    home: usize,
    at: usize,
    /// Why connections were lost, lately: for reports.
    /// The last refusal.
    refused: Option<Refused>,
    why: String,
}

impl Client {
    /// A client that has nothing yet.
    pub(crate) fn new(
        number: u64,
        credentials: Credentials,
        conversation: ConversationId,
        world: Arc<World>,
        seed: u64,
    ) -> Self {
        let mut writer = [0; 16];
        writer[..8].copy_from_slice(&number.to_be_bytes());
        writer[8..].copy_from_slice(&(seed | 1).to_be_bytes());
        let (client, account) = (ClientId(number), credentials.account);
        let home = usize::try_from(number).unwrap_or(0);
        world.recorder.record(&Record::Client { client, account, conversation });
        world.unanswered.fetch_add(1, Ordering::Relaxed);
        Self {
            id: client,
            credentials,
            conversation,
            world,
            rng: Rng::new(seed ^ (number << 32)),
            outbox: Outbox::new(WriterId(writer), MAX_QUEUED),
            held: Held::default(),
            next_local: 0,
            numbers: BTreeMap::new(),
            sent: PostNo(0),
            answered: false,
            home,
            at: home,
            refused: None,
            why: String::new(),
        }
    }

    /// Lives until everything is answered and read after the load has ended, or says what keeps it from that.
    pub(crate) async fn run(mut self, deadline: Receiver<Option<Instant>>) -> Result<(), String> {
        while !self.is_done() {
            if deadline.borrow().is_some_and(|deadline| Instant::now() > deadline) {
                return Err(self.trouble());
            }
            let node = self.world.nodes[self.at % self.world.nodes.len()];
            if let Err(why) = self.session(node, &deadline).await {
                if why.denies() {
                    let what = format!("client {} is denied what is there by {node}: {why}", self.id.0);
                    self.world.recorder.record(&Record::Wrong { what });
                }
                self.at = if self.may_go_home() { self.home } else { self.at + 1 };
                self.why = format!("{node}: {why}");
            }
            self.outbox.stream_lost();
            tokio::time::sleep(Duration::from_millis(20 + self.rng.below(RETRY_MS))).await;
        }
        self.world.recorder.record(&Record::ReadAll { client: self.id });
        Ok(())
    }

    /// Whether it is elsewhere although its own node serves. The load is to be on all nodes when a fault comes, as it is where there are
    /// many clients: so what is measured is the cluster, and not the patience of clients who happen to be all on the node that dies.
    fn may_go_home(&self) -> bool {
        let home = self.home % NODES.len();
        self.at % NODES.len() != home && self.world.watch.of(NODES[home]).is_some()
    }

    fn phase(&self) -> Phase {
        *self.world.phase.borrow()
    }

    /// Everybody's posts are answered, and it has read them.
    fn is_done(&mut self) -> bool {
        if !self.answered && self.phase() == Phase::Finish && self.outbox.is_empty() {
            self.answered = true;
            self.world.unanswered.fetch_sub(1, Ordering::AcqRel);
        }
        self.world.unanswered.load(Ordering::Acquire) == 0
            && self.held.cursor >= self.world.recorder.known(self.conversation)
    }

    fn trouble(&self) -> String {
        format!(
            "client {} of {}: {} posts queued, {} in flight, has seqs up to {}, {} known; last refused: {:?}; last lost: {}",
            self.id.0,
            self.conversation,
            self.outbox.queued(),
            self.outbox.in_flight(),
            self.held.cursor,
            self.world.recorder.known(self.conversation),
            self.refused,
            self.why,
        )
    }

    async fn session(&mut self, node: SocketAddr, deadline: &Receiver<Option<Instant>>) -> Result<(), Lost> {
        let mut session = Session::welcomed(node, &self.world.tls, &self.credentials).await?;
        // Every third time it asks for everything that anybody was told of: a node that does not have it must not answer.
        let read = self.rng.chance(333).then(|| self.world.recorder.begin_read(self.conversation));
        let seen = read.map_or(self.held.head, |(_, floor)| floor.max(self.held.head));
        self.outbox.stream_opening(limits::UNANSWERED_POSTS);
        let after = self.held.cursor;
        self.world.recorder.record(&Record::Opened { client: self.id, after });
        let (conversation, epoch, writer) = (self.conversation, self.held.epoch, self.outbox.open_writer());
        let mut stream = session.open(&Open { conversation, after, seen, epoch, writer }).await?;
        let mut read = read.map(|(call, _)| call);
        let mut post = interval(self.world.pace);
        post.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (begun, mut quiet_since, mut beats) = (Instant::now(), Instant::now(), 0);
        while !self.is_done() {
            tokio::select! {
                frame = stream.frames.next() => {
                    let frame = frame.map_err(Lost::gone)?.ok_or("the stream ended")?;
                    quiet_since = Instant::now();
                    if let Some(message) = ConversationDown::decode(frame).map_err(Lost::gone)? {
                        self.hear(message, &mut read)?;
                    }
                }
                frame = session.control.frames.next() => {
                    let frame = frame.map_err(Lost::gone)?.ok_or("the control stream ended")?;
                    match ControlDown::decode(frame).map_err(Lost::gone)? {
                        Some(ControlDown::GoAway(_)) => return Err("sent away".into()),
                        Some(ControlDown::Closed(closed)) => return Err(Lost::told("closed", closed.code)),
                        _ => {}
                    }
                }
                _ = post.tick() => {
                    beats += 1;
                    if beats % 100 == 0 {
                        let beat = Heartbeat { number: beats / 100, inbox_version: 0, presence_version: 0 };
                        session.connection.send_datagram(beat.to_frame().into());
                    }
                    let behind = self.held.cursor < self.world.recorder.known(self.conversation);
                    let waits = self.outbox.in_flight() > 0 || (self.phase() == Phase::Finish && behind);
                    if waits && quiet_since.elapsed() > PATIENCE {
                        return Err("silent".into());
                    }
                    if deadline.borrow().is_some_and(|deadline| Instant::now() > deadline) {
                        return Err(Lost::by(format!("out of time; {}", self.why)));
                    }
                    if begun.elapsed() > AWAY && self.may_go_home() {
                        return Err("goes home".into());
                    }
                    if self.phase() == Phase::Load {
                        self.enqueue();
                    }
                    if self.rng.chance(50) {
                        let mark = Mark { delivered: self.held.cursor, read: self.held.cursor };
                        stream.send.write(mark.to_frame().into()).await.map_err(Lost::gone)?;
                    }
                }
            }
            self.send_ready(&mut stream).await?;
        }
        Ok(())
    }

    fn enqueue(&mut self) {
        self.next_local += 1;
        let local = LocalId(self.next_local);
        let draft = Draft::text(EventKind::Message, Seq(0), &format!("{}/{}", self.id.0, local.0));
        let mut effects = Effects::default();
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&self.id.0.to_be_bytes());
        tag[8..].copy_from_slice(&local.0.to_be_bytes());
        // A full outbox takes no more: the load waits, as people would.
        let _ = self.outbox.enqueue((local, PostTag(tag)), draft, self.now_ms(), &mut effects);
        self.settle(effects);
    }

    fn now_ms(&self) -> u64 {
        self.world.recorder.now_ms()
    }

    async fn send_ready(&mut self, stream: &mut Stream) -> Result<(), Lost> {
        let now_ms = self.now_ms();
        while let Some(post) = self.outbox.next_to_send(now_ms) {
            if post.post_no > self.sent {
                self.sent = post.post_no;
                if let Some(local) = local_of(&post.body) {
                    self.numbers.insert(local, post.post_no);
                }
                self.world.recorder.record(&Record::PostSent {
                    client: self.id,
                    conversation: self.conversation,
                    writer: self.outbox.writer(),
                    post_no: post.post_no,
                    digest: digest(&post.body),
                });
            }
            let sending = stream.send.write(post.to_frame().into());
            timeout(PATIENCE, sending).await.map_err(|_| "takes no bytes")?.map_err(Lost::gone)?;
        }
        Ok(())
    }

    fn hear(&mut self, message: ConversationDown, read: &mut Option<u64>) -> Result<(), Lost> {
        let mut effects = Effects::default();
        let node = NODES[self.at % NODES.len()];
        match message {
            ConversationDown::Opened(opened) => {
                if let Some(call) = read.take() {
                    self.world.recorder.record(&Record::ReadEnded { call, head: Some(opened.head) });
                }
                self.held.opened(opened.head, opened.epoch);
                self.outbox.stream_opened(opened.last_post_no, opened.head, &mut effects);
                self.outbox.caught_up(self.held.cursor, &mut effects);
            }
            ConversationDown::Event(event) => self.event(&event, &mut effects),
            ConversationDown::Unavailable(range) => {
                let (from, to) = (range.from, range.to);
                self.world.recorder.record(&Record::Arrived { client: self.id, from, to, message: None });
                self.held.unavailable(from, to);
                self.outbox.caught_up(self.held.cursor, &mut effects);
            }
            ConversationDown::Posted(posted) => {
                self.world.recorder.answered(node, ErrorCode::None);
                self.outbox.posted(&posted, &mut effects);
            }
            ConversationDown::Refused(refused) => {
                self.world.recorder.answered(node, refused.code);
                self.refused = Some(refused.clone());
                self.outbox.refused(&refused, self.now_ms(), self.rng.any(), &mut effects);
            }
            ConversationDown::Receipt(receipt) => {
                // What its own stream has told of the head may be behind the receipt: the order of receipts is judged, not the end.
                self.world.recorder.record(&Record::Receipt {
                    client: Some(self.id),
                    node: None,
                    conversation: self.conversation,
                    account: receipt.account,
                    read: receipt.read,
                    head: self.held.head.max(receipt.read),
                });
            }
            ConversationDown::Closed(closed) => return Err(Lost::told("the conversation was closed", closed.code)),
        }
        self.outbox.number(&mut effects);
        self.settle(effects);
        Ok(())
    }

    fn event(&mut self, event: &Event, effects: &mut Effects) {
        let (client, seq) = (self.id, event.seq);
        self.world.recorder.record(&Record::Arrived { client, from: seq, to: seq, message: Some(message_of(event)) });
        if self.held.event(seq) != Arrival::Append {
            let what = format!("client {} got seq {seq} after {}", client.0, self.held.cursor);
            self.world.recorder.record(&Record::Wrong { what });
        }
        if event.device == self.credentials.device {
            self.outbox.own_event(event, effects);
        }
        self.outbox.caught_up(self.held.cursor, effects);
    }

    /// What the outbox says: numbers are stored at once (nothing here outlives the process), and ends are written down.
    fn settle(&mut self, effects: Effects) {
        self.outbox.stored(self.outbox.numbered());
        if effects.needs_writer {
            let what = format!("client {} is told of numbers or bodies that it never sent", self.id.0);
            self.world.recorder.record(&Record::Wrong { what });
        }
        for (local, outcome) in effects.resolved {
            let end = match outcome {
                Outcome::Posted { seq, .. } => PostEnd::Posted(seq),
                Outcome::Refused(code) => {
                    self.world.recorder.given_up(code);
                    PostEnd::Refused
                }
            };
            let Some(post_no) = self.numbers.remove(&local) else { continue };
            self.world.recorder.record(&Record::PostEnded {
                client: self.id,
                conversation: self.conversation,
                writer: self.outbox.writer(),
                post_no,
                end,
            });
        }
    }
}

/// The name of a post, which its body bears.
fn local_of(body: &Bytes) -> Option<LocalId> {
    std::str::from_utf8(body).ok()?.split_once('/')?.1.parse().ok().map(LocalId)
}

/// Reads a conversation from its first event to `head` on one node: its log there.
pub(crate) async fn full_read(
    node: SocketAddr,
    tls: &ClientConfig,
    who: &Credentials,
    conversation: ConversationId,
    head: Seq,
) -> Result<Vec<(Seq, rove_sim::history::Message)>, String> {
    let session = Session::welcomed(node, tls, who).await?;
    let open = Open { conversation, after: Seq(0), seen: head, epoch: 0, writer: WriterId([0xff; 16]) };
    let mut stream = session.open(&open).await?;
    let mut messages = Vec::new();
    let mut end = head;
    while messages.last().is_none_or(|(seq, _)| *seq < end) {
        let next = timeout(PATIENCE, stream.frames.next()).await.map_err(|_| format!("silent before {end}"))?;
        let frame = next.map_err(Lost::gone)?.ok_or("the stream ended")?;
        match ConversationDown::decode(frame).map_err(Lost::gone)? {
            // Events that nobody was told of are of its log as well.
            Some(ConversationDown::Opened(opened)) => end = opened.head,
            Some(ConversationDown::Event(event)) => messages.push((event.seq, message_of(&event))),
            Some(ConversationDown::Unavailable(range)) => return Err(format!("{range:?} is withheld")),
            Some(ConversationDown::Closed(closed)) => return Err(format!("closed: {}", closed.code)),
            _ => {}
        }
    }
    Ok(messages)
}

/// A conversation's id, decoded from an answer.
pub(crate) fn conversation_of(body: Bytes) -> Result<ConversationId, String> {
    rove_protocol::message::ConversationInfo::decode_body(body)
        .map(|info| info.conversation)
        .map_err(|error| error.to_string())
}
