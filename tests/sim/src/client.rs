//! One device of one account, with one conversation open: the real outbox and the real cursor of the client library, a connection to
//! whichever node, and a little life.

use std::collections::BTreeMap;

use bytes::Bytes;
use rove_client_core::outbox::{Draft, Effects, Outbox, Outcome};
use rove_client_core::sync::Held;
use rove_client_core::timeline::LocalId;
use rove_core::command::{Actor, ConversationCommand};
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PostNo, PostTag, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{Body, Event};
use rove_protocol::registry::{ErrorCode, EventKind, Role};

use crate::history::{ClientId, Message, PostEnd, Record};
use crate::rng::Rng;
use crate::wire::{SessionId, ToClient, ToNode};

/// Posts queued at most: more than may be unanswered, so that the limit is met.
const MAX_QUEUED: usize = limits::UNANSWERED_POSTS + 16;

/// Silence after which a client that waits for an answer tries another node.
const PATIENCE_US: (u64, u64) = (400_000, 3_000_000);

/// Time between two attempts to connect.
const RETRY_US: u64 = 150_000;

/// The group that a client's conversation is.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its id.
    pub conversation: ConversationId,
    /// Who makes it.
    pub owner: AccountId,
    /// Everybody else.
    pub members: Vec<AccountId>,
    /// The owner's nonce.
    pub nonce: [u8; 16],
}

impl Group {
    /// The group of `number`, of these accounts; the first makes it.
    pub fn new(number: u8, accounts: &[AccountId]) -> Self {
        let owner = accounts.first().copied().unwrap_or_default();
        let nonce = [number; 16];
        let members = accounts.iter().skip(1).copied().filter(|account| *account != owner).collect();
        Self { conversation: ConversationId::group(owner, nonce), owner, members, nonce }
    }
}

/// What a client wants done.
#[derive(Debug)]
pub enum ClientAction {
    /// Connect to the node under this name.
    Connect(SessionId, NodeId),
    /// The connection is of no more use.
    Disconnect(SessionId),
    /// Send this, in order.
    Send(SessionId, ToNode),
    /// This happened.
    Record(Record),
}

/// What a client may know and use of the world.
pub struct ClientContext<'a> {
    /// Microseconds since the beginning.
    pub now_us: u64,
    /// Chance.
    pub rng: &'a mut Rng,
    /// Where it may connect to.
    pub nodes: &'a [NodeId],
    /// Names sessions and calls.
    pub next_name: &'a mut u64,
    /// Whether new posts are to be made.
    pub active: bool,
    /// Whether members may be put out and linearizable reads asked for.
    pub lively: bool,
    /// What is to be done.
    pub actions: Vec<ClientAction>,
}

impl ClientContext<'_> {
    fn name(&mut self) -> u64 {
        *self.next_name += 1;
        *self.next_name
    }

    fn record(&mut self, record: Record) {
        self.actions.push(ClientAction::Record(record));
    }
}

#[derive(Debug)]
struct Connected {
    session: SessionId,
    opened: bool,
    /// Heard something, or had nothing to wait for.
    quiet_since_us: u64,
    patience_us: u64,
}

/// A client.
pub struct Client {
    id: ClientId,
    actor: Actor,
    group: Group,
    outbox: Outbox,
    held: Held,
    connected: Option<Connected>,
    retry_at_us: u64,
    next_local: u64,
    /// The numbers of posts that were sent.
    numbers: BTreeMap<LocalId, PostNo>,
    sent: PostNo,
    /// Somebody is out of the group, as far as this client, its owner, knows.
    out: Option<AccountId>,
}

/// The digest of an event's body in the history.
pub fn digest(body: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(body)
}

/// An event as the history has it.
pub fn message_of(event: &Event) -> Message {
    Message { author: event.author, writer: event.writer, post_no: event.post_no, digest: digest(&event.body) }
}

impl Client {
    /// A client that has nothing yet.
    pub fn new(number: u64, account: AccountId, group: Group) -> Self {
        let mut writer = [0; 16];
        writer[..8].copy_from_slice(&number.to_be_bytes());
        writer[15] = 1;
        Self {
            id: ClientId(number),
            actor: Actor { account, device: DeviceId(number) },
            group,
            outbox: Outbox::new(WriterId(writer), MAX_QUEUED),
            held: Held::default(),
            connected: None,
            retry_at_us: 0,
            next_local: 0,
            numbers: BTreeMap::new(),
            sent: PostNo(0),
            out: None,
        }
    }

    /// Who it is.
    pub fn introduce(&self) -> Record {
        let (client, account) = (self.id, self.actor.account);
        Record::Client { client, account, conversation: self.group.conversation }
    }

    /// Its account.
    pub fn account(&self) -> AccountId {
        self.actor.account
    }

    /// Its conversation.
    pub fn conversation(&self) -> ConversationId {
        self.group.conversation
    }

    /// The last seq it has.
    pub fn cursor(&self) -> Seq {
        self.held.cursor
    }

    /// Whether every post has ended.
    pub fn is_done(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Why it is not done, for reports.
    pub fn trouble(&self) -> String {
        format!(
            "client {}: {} queued, {} in flight, cursor {}, head {}, connected: {}",
            self.id.0,
            self.outbox.queued(),
            self.outbox.in_flight(),
            self.held.cursor,
            self.held.head,
            self.connected.as_ref().is_some_and(|connected| connected.opened),
        )
    }

    /// Time for something new.
    pub fn wake(&mut self, context: &mut ClientContext<'_>) {
        if self.connected.is_none() {
            self.connect(context);
            return;
        }
        if context.active && self.held.cursor > Seq(0) {
            for _ in 0..context.rng.between(1, 3) {
                self.enqueue(context);
            }
        }
        self.send_ready(context);
        self.lose_patience(context);
        if context.lively {
            self.live(context);
        } else {
            self.let_back_in(context);
        }
    }

    fn connect(&mut self, context: &mut ClientContext<'_>) {
        if context.now_us < self.retry_at_us {
            return;
        }
        let Some(node) = context.rng.pick(context.nodes) else { return };
        let session = context.name();
        let patience_us = context.rng.between(PATIENCE_US.0, PATIENCE_US.1);
        self.connected = Some(Connected { session, opened: false, quiet_since_us: context.now_us, patience_us });
        context.actions.push(ClientAction::Connect(session, node));
        self.outbox.stream_opening(limits::UNANSWERED_POSTS);
        let open = ToNode::Open {
            actor: self.actor,
            conversation: self.group.conversation,
            writer: self.outbox.open_writer(),
            after: self.held.cursor,
            seen: self.held.head,
        };
        context.record(Record::Opened { client: self.id, after: self.held.cursor });
        context.actions.push(ClientAction::Send(session, open));
    }

    /// The connection is gone.
    pub fn lost(&mut self, session: SessionId, context: &mut ClientContext<'_>) {
        if self.connected.as_ref().is_some_and(|connected| connected.session == session) {
            self.disconnect(context);
        }
    }

    /// Lets go of the connection, as when the network is gone. Whether there was one.
    pub fn disconnect(&mut self, context: &mut ClientContext<'_>) -> bool {
        let Some(connected) = self.connected.take() else { return false };
        self.outbox.stream_lost();
        self.retry_at_us = context.now_us + context.rng.below(RETRY_US);
        context.actions.push(ClientAction::Disconnect(connected.session));
        true
    }

    fn enqueue(&mut self, context: &mut ClientContext<'_>) {
        self.next_local += 1;
        let local = LocalId(self.next_local);
        let draft = Draft::text(EventKind::Message, Seq(0), &format!("{}/{local}", self.id.0));
        let mut effects = Effects::default();
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&self.id.0.to_be_bytes());
        tag[8..].copy_from_slice(&local.0.to_be_bytes());
        let _ = self.outbox.enqueue((local, PostTag(tag)), draft, context.now_us / 1_000, &mut effects);
        self.settle(effects, context);
    }

    fn send_ready(&mut self, context: &mut ClientContext<'_>) {
        let Some(session) = self.connected.as_ref().map(|connected| connected.session) else { return };
        while let Some(post) = self.outbox.next_to_send(context.now_us / 1_000) {
            if post.post_no > self.sent {
                self.sent = post.post_no;
                if let Some(local) = local_of(&post.body) {
                    self.numbers.insert(local, post.post_no);
                }
                context.record(Record::PostSent {
                    client: self.id,
                    conversation: self.group.conversation,
                    writer: self.outbox.writer(),
                    post_no: post.post_no,
                    digest: digest(&post.body),
                });
            }
            let message = ToNode::Post(post.post_no, Bytes::from(post.encode_body()));
            context.actions.push(ClientAction::Send(session, message));
        }
    }

    /// What the outbox says: numbers are on this device's disk at once, and ends are written down.
    fn settle(&mut self, effects: Effects, context: &mut ClientContext<'_>) {
        self.outbox.stored(self.outbox.numbered());
        if effects.needs_writer {
            let what = format!("client {} is told of numbers or bodies that it never sent", self.id.0);
            context.record(Record::Wrong { what });
        }
        for (local, outcome) in effects.resolved {
            let end = match outcome {
                Outcome::Posted { seq, .. } => PostEnd::Posted(seq),
                Outcome::Refused(ErrorCode::Revoked) => PostEnd::Revoked,
                Outcome::Refused(_) => PostEnd::Refused,
            };
            if let Some(post_no) = self.numbers.remove(&local) {
                context.record(Record::PostEnded {
                    client: self.id,
                    conversation: self.group.conversation,
                    writer: self.outbox.writer(),
                    post_no,
                    end,
                });
            }
        }
    }

    fn lose_patience(&mut self, context: &mut ClientContext<'_>) {
        let waits = self.outbox.in_flight() > 0;
        let Some(connected) = &mut self.connected else { return };
        if connected.opened && !waits {
            connected.quiet_since_us = context.now_us;
        } else if context.now_us > connected.quiet_since_us + connected.patience_us {
            self.disconnect(context);
        }
    }

    /// Reads, receipts, and now and then a change of members.
    fn live(&mut self, context: &mut ClientContext<'_>) {
        let Some(connected) = self.connected.as_ref().filter(|connected| connected.opened) else { return };
        let session = connected.session;
        let conversation = self.group.conversation;
        if context.rng.chance(200) {
            let call = context.name();
            context.record(Record::ReadSent { call, conversation });
            context.actions.push(ClientAction::Send(session, ToNode::ReadHead(call)));
        }
        if context.rng.chance(150) {
            // Sometimes beyond what there is: a receipt must not follow.
            let read = Seq(self.held.cursor.0 + context.rng.below(2) * 1_000);
            context.actions.push(ClientAction::Send(session, ToNode::Mark(read)));
        }
        if self.actor.account == self.group.owner && context.rng.chance(30) {
            if self.out.is_some() {
                self.let_back_in(context);
            } else if let Some(account) = context.rng.pick(&self.group.members) {
                self.out = Some(account);
                self.change(session, account, Role::None, context);
            }
        }
    }

    fn let_back_in(&mut self, context: &mut ClientContext<'_>) {
        let Some(connected) = self.connected.as_ref().filter(|connected| connected.opened) else { return };
        let session = connected.session;
        if let Some(account) = self.out.take() {
            self.change(session, account, Role::Member, context);
        }
    }

    fn change(&self, session: SessionId, account: AccountId, role: Role, context: &mut ClientContext<'_>) {
        let command = ConversationCommand::ChangeMembers {
            actor: self.actor,
            conversation: self.group.conversation,
            changes: vec![(account, role)],
        };
        context.actions.push(ClientAction::Send(session, ToNode::Request(Box::new(command))));
    }

    /// A node says something on this session.
    pub fn hear(&mut self, session: SessionId, message: ToClient, context: &mut ClientContext<'_>) {
        let Some(connected) = self.connected.as_mut().filter(|connected| connected.session == session) else { return };
        connected.quiet_since_us = context.now_us;
        let mut effects = Effects::default();
        let now_ms = context.now_us / 1_000;
        match message {
            ToClient::Opened { last, head } => {
                connected.opened = true;
                self.held.opened(head, 1);
                self.outbox.stream_opened(last, head, &mut effects);
                self.outbox.caught_up(self.held.cursor, &mut effects);
                self.outbox.number(&mut effects);
            }
            ToClient::Event(seq, body) => self.event(seq, body, &mut effects, context),
            ToClient::Unavailable(from, to) => {
                context.record(Record::Arrived { client: self.id, from, to, message: None });
                self.held.unavailable(from, to);
                self.outbox.caught_up(self.held.cursor, &mut effects);
            }
            ToClient::Posted(posted) => {
                self.outbox.posted(&posted, &mut effects);
                self.outbox.number(&mut effects);
            }
            ToClient::Refused(refused) => {
                self.outbox.refused(&refused, now_ms, context.rng.any(), &mut effects);
                self.outbox.number(&mut effects);
            }
            ToClient::Head(call, head) => context.record(Record::ReadEnded { call, head }),
            ToClient::Receipt(account, read, head) => {
                let (client, conversation) = (Some(self.id), self.group.conversation);
                context.record(Record::Receipt { client, node: None, conversation, account, read, head });
            }
            ToClient::Closed(code) => self.closed(session, code, context),
        }
        self.settle(effects, context);
        self.send_ready(context);
    }

    fn event(&mut self, seq: Seq, body: Bytes, effects: &mut Effects, context: &mut ClientContext<'_>) {
        let event = match Event::decode_body(body) {
            Ok(event) if event.seq == seq => event,
            other => {
                context.record(Record::Wrong { what: format!("client {} got {other:?} as seq {seq}", self.id.0) });
                return;
            }
        };
        let message = Some(message_of(&event));
        context.record(Record::Arrived { client: self.id, from: seq, to: seq, message });
        self.held.event(seq);
        if event.device == self.actor.device {
            self.outbox.own_event(&event, effects);
        }
        self.outbox.caught_up(self.held.cursor, effects);
        self.outbox.number(effects);
    }

    fn closed(&mut self, session: SessionId, code: ErrorCode, context: &mut ClientContext<'_>) {
        if code == ErrorCode::NotFound && self.actor.account == self.group.owner {
            // It is there when the next attempt comes, or the one after that.
            let command = ConversationCommand::CreateGroup {
                actor: self.actor,
                nonce: self.group.nonce,
                title: "simulated".to_owned(),
                members: self.group.members.iter().map(|account| (*account, Role::Member)).collect(),
            };
            context.actions.push(ClientAction::Send(session, ToNode::Request(Box::new(command))));
        }
        self.outbox.stream_lost();
        self.connected = None;
        self.retry_at_us = context.now_us + RETRY_US;
        context.actions.push(ClientAction::Disconnect(session));
    }
}

/// The name of a post, which its body bears.
fn local_of(body: &[u8]) -> Option<LocalId> {
    std::str::from_utf8(body).ok()?.split_once('/')?.1.parse().ok().map(LocalId)
}
