//! What a client knows, in memory. All of it is behind one lock that is never held across an await.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use rove_client_core::inbox::InboxCursors;
use rove_client_core::outbox::{self, Effects, Outbox};
use rove_client_core::presence::PresenceTable;
use rove_client_core::receipts::Receipts;
use rove_client_core::streams::Streams;
use rove_client_core::sync::{Arrival, Opening};
use rove_client_core::timeline::{LocalId, UnavailableRange, is_line};
use rove_protocol::ids::{AccountId, ConversationId, PostNo, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{Body, ConversationInfo, Event, InboxLine, Mark, Opened, Receipt, Unavailable};
use rove_protocol::registry::{ConversationKind, ErrorCode, Role, StreamMode};
use rove_protocol::session::client as machines;
use tokio::sync::{Notify, oneshot, watch};

use crate::session::SessionHandle;
use crate::store::{AccountRow, Change, ConversationRow, Loaded};
use crate::types::{AccountInfo, ClientStats, Outcome, Version};

/// How long somebody's typing is believed without being repeated: what the protocol says.
pub(crate) const TYPING_MS: u64 = 6_000;
/// Time between two `Mark`s of one conversation: a reader of a fast log sends a few a second, not one an event, and each is
/// forwarded to every other member.
const MARK_EVERY_MS: u64 = 300;

/// Everything one client knows.
pub(crate) struct State {
    pub(crate) account: AccountRow,
    pub(crate) writer: WriterId,
    pub(crate) conversations: BTreeMap<ConversationId, Conv>,
    pub(crate) inbox: InboxCursors,
    pub(crate) inbox_version: u64,
    pub(crate) inbox_synced: bool,
    pub(crate) presence: PresenceTable,
    pub(crate) watched: Vec<AccountId>,
    pub(crate) names: HashMap<AccountId, AccountInfo>,
    /// Accounts to be named that the server has not been asked about.
    pub(crate) nameless: BTreeSet<AccountId>,
    pub(crate) streams: Streams,
    pub(crate) session: Option<SessionHandle>,
    pub(crate) stats: ClientStats,
    pub(crate) foreground: bool,
    last_local: u64,
    outbox_posts: usize,
    initial_events: u64,
    /// What is to be written to the store, in order, and how many times something was added.
    pub(crate) pending: Vec<Change>,
    pub(crate) ticket: u64,
    pub(crate) flushed: u64,
}

/// What is known of one conversation.
pub(crate) struct Conv {
    pub(crate) row: ConversationRow,
    pub(crate) outbox: Outbox,
    pub(crate) receipts: Receipts,
    pub(crate) typing: BTreeMap<AccountId, u64>,
    /// When this account's own typing was last told.
    pub(crate) typing_told_ms: Option<u64>,
    pub(crate) mode: StreamMode,
    /// The client's machine of the open stream.
    pub(crate) machine: Option<machines::Conversation>,
    pub(crate) last: Option<Event>,
    marked: Option<(Seq, Seq)>,
    marked_at_ms: u64,
    pub(crate) updates: watch::Sender<Version>,
    /// Wakes the stream's writer.
    pub(crate) wake: Arc<Notify>,
    waiting: HashMap<LocalId, oneshot::Sender<Outcome>>,
}

/// What is to be done with a stream after a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on.
    Continue,
    /// Close it and open it again from the cursor.
    Reopen,
}

impl Conv {
    fn new(row: ConversationRow, outbox: Outbox) -> Self {
        let last = (!row.last_event.is_empty()).then(|| Event::decode_body(row.last_event.clone()).ok()).flatten();
        Self {
            row,
            outbox,
            receipts: Receipts::default(),
            typing: BTreeMap::new(),
            typing_told_ms: None,
            mode: StreamMode::Live,
            machine: None,
            last,
            marked: None,
            marked_at_ms: 0,
            updates: watch::Sender::new(0),
            wake: Arc::new(Notify::new()),
            waiting: HashMap::new(),
        }
    }

    /// The stream is new: the server does not remember what it was marked on another.
    pub(crate) fn stream_opening(&mut self) {
        self.marked = None;
    }

    /// The `Mark` that is due, or when one will be.
    pub(crate) fn mark(&mut self, now_ms: u64) -> Result<Mark, Option<u64>> {
        let Some(marked) = self.marked else { return Err(None) };
        let delivered = self.row.held.cursor;
        let read = self.row.read.min(delivered);
        // Nobody is told what large groups receive.
        let told = self.row.member_count <= limits::RECEIPT_MEMBERS;
        if read <= marked.1 && (!told || delivered <= marked.0) {
            return Err(None);
        }
        let due_ms = self.marked_at_ms.saturating_add(MARK_EVERY_MS);
        if now_ms < due_ms {
            return Err(Some(due_ms));
        }
        self.marked_at_ms = now_ms;
        self.marked = Some((delivered, read));
        Ok(Mark { delivered, read })
    }

    /// Who is typing now.
    pub(crate) fn typing(&self, now_ms: u64) -> Vec<AccountId> {
        self.typing.iter().filter(|(_, until_ms)| now_ms < **until_ms).map(|(account, _)| *account).collect()
    }

    /// Remembers who waits for the end of a post.
    pub(crate) fn wait_for(&mut self, local: LocalId) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(local, sender);
        receiver
    }

    /// The client is closed: whoever waits is told so.
    pub(crate) fn nobody_answers(&mut self) {
        self.waiting.clear();
    }

    pub(crate) fn forget_waiting(&mut self, local: LocalId) {
        self.waiting.remove(&local);
    }
}

impl State {
    pub(crate) fn new(
        loaded: Loaded,
        account: AccountRow,
        outbox_posts: usize,
        initial_events: u64,
        foreground: bool,
    ) -> Self {
        let mut state = Self {
            account,
            writer: loaded.writer,
            conversations: BTreeMap::new(),
            inbox: InboxCursors::new(loaded.inbox),
            inbox_version: 0,
            inbox_synced: false,
            presence: PresenceTable::default(),
            watched: Vec::new(),
            names: loaded.names.into_iter().map(|info| (info.account, info)).collect(),
            nameless: BTreeSet::new(),
            streams: Streams::default(),
            session: None,
            stats: ClientStats { writers_minted: u64::from(loaded.was_copy), ..ClientStats::default() },
            foreground,
            last_local: loaded.last_local,
            outbox_posts,
            initial_events,
            pending: Vec::new(),
            ticket: 0,
            flushed: 0,
        };
        for row in loaded.conversations {
            let outbox = Outbox::new(state.writer, outbox_posts);
            state.conversations.insert(row.id, Conv::new(row, outbox));
        }
        for (id, writer, last) in loaded.numbers {
            state.conv(id).outbox.restore_number(writer, last);
        }
        for row in loaded.outbox {
            state.conv(row.conversation).outbox.restore_item(row.item, row.refused);
        }
        for (id, conv) in &state.conversations {
            if conv.outbox.queued() > 0 {
                state.streams.set_unsent(*id, true);
            }
        }
        state
    }

    /// The conversation, made if it was not known.
    pub(crate) fn conv(&mut self, id: ConversationId) -> &mut Conv {
        let (writer, limit) = (self.writer, self.outbox_posts);
        self.conversations.entry(id).or_insert_with(|| Conv::new(ConversationRow::new(id), Outbox::new(writer, limit)))
    }

    /// Adds something to what is to be written.
    pub(crate) fn change(&mut self, change: Change) {
        self.pending.push(change);
        self.ticket += 1;
    }

    pub(crate) fn next_local(&mut self) -> LocalId {
        self.last_local += 1;
        LocalId(self.last_local)
    }

    /// Writes the conversation's row with the batch.
    pub(crate) fn row_changed(&mut self, id: ConversationId) {
        if let Some(conv) = self.conversations.get(&id) {
            let row = Box::new(conv.row.clone());
            self.change(Change::Conversation(row));
        }
    }

    /// Carries out what an outbox decided. `mint` makes a writer.
    pub(crate) fn outbox_effects(&mut self, id: ConversationId, effects: Effects, mint: impl Fn() -> WriterId) {
        for change in effects.changes {
            self.change(Change::Outbox { conversation: id, change });
        }
        if let Some(conv) = self.conversations.get_mut(&id) {
            for (local, outcome) in effects.resolved {
                let outcome = match outcome {
                    outbox::Outcome::Posted { seq, message_id, time_ms } => {
                        self.stats.posted += 1;
                        Outcome::Posted { seq, message_id, time_ms }
                    }
                    outbox::Outcome::Refused(code) => Outcome::Refused(code),
                };
                if let Some(sender) = conv.waiting.remove(&local) {
                    // Nobody may be waiting any more.
                    let _ = sender.send(outcome);
                }
            }
            let unsent = conv.outbox.queued() > 0;
            self.streams.set_unsent(id, unsent);
        }
        if effects.needs_writer {
            self.mint_writer(mint());
        }
    }

    /// A new writer for the whole store (D1).
    fn mint_writer(&mut self, writer: WriterId) {
        tracing::info!(%writer, "somebody else uses this store's writer: it is a copy, and takes a new one");
        self.writer = writer;
        self.stats.writers_minted += 1;
        self.change(Change::Writer(writer));
        let ids: Vec<ConversationId> = self.conversations.keys().copied().collect();
        for id in ids {
            let mut effects = Effects::default();
            let conv = self.conv(id);
            conv.outbox.set_writer(writer, &mut effects);
            conv.wake.notify_one();
            // Nothing here asks for another writer.
            self.outbox_effects(id, effects, || writer);
        }
    }

    /// The place a conversation seen for the first time is begun at.
    pub(crate) fn place(&mut self, id: ConversationId) {
        let events = self.initial_events;
        let conv = self.conv(id);
        // What is queued may be in the part of the log that would be passed over, if the store is a copy.
        if conv.row.held.epoch == 0 && !conv.outbox.is_unchecked() {
            conv.row.held.start_near_head(events);
        }
    }

    /// `Opened` has come.
    pub(crate) fn opened(&mut self, id: ConversationId, opened: &Opened, mint: impl Fn() -> WriterId) -> Next {
        let Some(conv) = self.conversations.get_mut(&id) else { return Next::Reopen };
        let rebuilt = conv.row.held.opened(opened.head, opened.epoch) == Opening::Rebuilt;
        conv.row.role = opened.role;
        conv.row.member_count = opened.member_count;
        conv.row.read = conv.row.read.max(opened.read);
        conv.mode = if opened.mode == StreamMode::Pull { StreamMode::Pull } else { StreamMode::Live };
        conv.marked = Some((Seq(0), opened.read));
        let mut effects = Effects::default();
        if !rebuilt {
            conv.outbox.stream_opened(opened.last_post_no, opened.head, &mut effects);
            conv.outbox.caught_up(conv.row.held.cursor, &mut effects);
        }
        self.outbox_effects(id, effects, mint);
        if rebuilt {
            self.forget(id);
            return Next::Reopen;
        }
        self.row_changed(id);
        Next::Continue
    }

    /// The server ended the stream since the account is not a member, or there is no such conversation. Everything it
    /// may see has come before that, own posts included: what is still queued never will be posted.
    pub(crate) fn shut_out(&mut self, id: ConversationId, code: ErrorCode, mint: impl Fn() -> WriterId) {
        let Some(conv) = self.conversations.get_mut(&id) else { return };
        conv.row.role = Role::None;
        let mut effects = Effects::default();
        conv.outbox.refuse_all(code, &mut effects);
        self.outbox_effects(id, effects, mint);
        self.row_changed(id);
    }

    /// The log starts again.
    pub(crate) fn forget(&mut self, id: ConversationId) {
        let Some(conv) = self.conversations.get_mut(&id) else { return };
        conv.row.held.rebuilt();
        conv.row.last_event = Bytes::new();
        conv.row.read = Seq(0);
        conv.last = None;
        conv.receipts.clear();
        self.change(Change::Forget(id));
        self.row_changed(id);
    }

    /// An event has come, on a stream, in a page going forward, or inside an inbox line.
    pub(crate) fn event(&mut self, id: ConversationId, event: Event, mint: impl Fn() -> WriterId) -> Next {
        let (me, device) = (self.account.account, self.account.device);
        let Some(conv) = self.conversations.get_mut(&id) else { return Next::Reopen };
        match conv.row.held.event(event.seq) {
            Arrival::Gap { .. } => return Next::Reopen,
            Arrival::Duplicate => {
                self.stats.duplicates += 1;
                return Next::Continue;
            }
            Arrival::Append => {}
        }
        self.stats.events += 1;
        conv.typing.remove(&event.author);
        conv.row.last_message_id = conv.row.last_message_id.max(event.message_id);
        let mut effects = Effects::default();
        if event.author == me && event.post_no > PostNo(0) {
            conv.outbox.own_event(&event, &mut effects);
            // Who had read everything has also read what he wrote.
            if event.device == device && conv.row.read.next() == event.seq {
                conv.row.read = event.seq;
            }
        }
        let encoded = Bytes::from(event.encode_body());
        let change =
            Change::Event { conversation: id, seq: event.seq, refers_to: event.refers_to, encoded: encoded.clone() };
        if is_line(event.kind) {
            conv.row.last_event = encoded;
            conv.last = Some(event);
        }
        self.change(change);
        if !effects.changes.is_empty() || !effects.resolved.is_empty() || effects.needs_writer {
            self.outbox_effects(id, effects, mint);
        }
        Next::Continue
    }

    /// Seqs that will never come.
    pub(crate) fn unavailable(&mut self, id: ConversationId, range: &Unavailable) -> Next {
        let Some(conv) = self.conversations.get_mut(&id) else { return Next::Reopen };
        let from = range.from.max(conv.row.held.cursor.next());
        match conv.row.held.unavailable(range.from, range.to) {
            Arrival::Gap { .. } => Next::Reopen,
            Arrival::Duplicate => Next::Continue,
            Arrival::Append => {
                let range = UnavailableRange { from, to: range.to, reason: range.reason };
                self.change(Change::Unavailable { conversation: id, range });
                Next::Continue
            }
        }
    }

    /// The end of a batch of frames that moved the cursor.
    pub(crate) fn batch_ended(&mut self, id: ConversationId, mint: impl Fn() -> WriterId) {
        let Some(conv) = self.conversations.get_mut(&id) else { return };
        let mut effects = Effects::default();
        conv.outbox.caught_up(conv.row.held.cursor, &mut effects);
        self.outbox_effects(id, effects, mint);
        self.row_changed(id);
    }

    /// A receipt has come.
    pub(crate) fn receipt(&mut self, id: ConversationId, receipt: &Receipt) {
        if let Some(conv) = self.conversations.get_mut(&id) {
            conv.receipts.update(receipt.account, receipt.delivered, receipt.read);
        }
    }

    /// An inbox line has come: whether the conversation's stream, if it has one, has something to do.
    pub(crate) fn line(&mut self, line: InboxLine, mint: impl Fn() -> WriterId) {
        let id = line.conversation;
        self.inbox.line(line.partition, line.last_message_id);
        if line.peer.0 > 0 && !self.names.contains_key(&line.peer) {
            self.nameless.insert(line.peer);
        }
        let place = !self.conversations.contains_key(&id);
        let row = &mut self.conv(id).row;
        row.partition = line.partition;
        row.kind = if line.kind == ConversationKind::Direct { line.kind } else { ConversationKind::Group };
        row.role = line.role;
        row.title = line.title;
        row.peer = line.peer;
        row.last_message_id = row.last_message_id.max(line.last_message_id);
        row.read = row.read.max(line.read);
        row.held.told_head(line.head);
        if place {
            self.place(id);
        }
        let event = line.event.and_then(|event| Event::decode_body(event).ok());
        if let Some(event) = event {
            let conv = self.conv(id);
            if event.seq == conv.row.held.cursor.next() {
                self.event(id, event, mint);
            } else if event.seq > conv.row.held.cursor && is_line(event.kind) {
                // Not held, since something before it is missing; shown in the list all the same.
                conv.row.last_event = Bytes::from(event.encode_body());
                conv.last = Some(event);
            }
        }
    }

    /// A request's answer describes a conversation.
    pub(crate) fn described(&mut self, info: &ConversationInfo, peer: Option<AccountId>) {
        let me = self.account.account;
        let row = &mut self.conv(info.conversation).row;
        row.kind = if info.kind == ConversationKind::Direct { info.kind } else { ConversationKind::Group };
        row.title.clone_from(&info.title);
        row.member_count = info.member_count;
        row.held.told_head(info.head);
        if let Some(mine) = info.members.iter().find(|member| member.account == me) {
            row.role = mine.role;
        } else if row.role == Role::None {
            row.role = Role::Member;
        }
        if row.kind == ConversationKind::Direct {
            let other = peer.or_else(|| info.members.iter().map(|member| member.account).find(|other| *other != me));
            row.peer = other.unwrap_or(row.peer);
        }
        self.row_changed(info.conversation);
    }

    /// Remembers an account's names.
    pub(crate) fn named(&mut self, info: AccountInfo) {
        self.nameless.remove(&info.account);
        if self.names.get(&info.account) != Some(&info) {
            self.names.insert(info.account, info.clone());
            self.change(Change::Name(info));
        }
    }
}
