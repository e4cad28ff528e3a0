//! One open conversation.
//!
//! The stream is a cursor. Whatever the log has after it goes out as far as the stream has room: from the ring if it is
//! recent, from the store if not, and an account of what may not be seen (D3). Replay and live are the same thing. Posts
//! go to the log in the order they come; their answers go out before waiting events. Reading never waits for writing, so a
//! client that does not read holds up its own events and nothing else (D6).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rove_core::command::{ConversationCommand, ConversationOutcome};
use rove_core::conversation::{MemberRow, read};
use rove_core::fanout::Held;
use rove_protocol::error::Violation;
use rove_protocol::frame::RawFrame;
use rove_protocol::ids::{AccountId, ConversationId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{Closed, ConversationUp, Mark, Message as _, Open, Opened, Posted, Receipt, Refused};
use rove_protocol::registry::{ErrorCode, StreamMode};
use rove_protocol::session::server::Conversation as Machine;
use rove_protocol::transport::ReadError;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::control;
use super::frames::{Duplex, Incoming, Outgoing};
use super::hub::OpenLive;
use super::session::{Session, until};
use super::stats::EdgeStats;
use super::view::{self, EPOCH, Next, Page, View};

/// How often a member's read watermark is replicated at most (D13): what people read one after the other becomes one
/// command, and others see it as soon as anybody could tell.
const READ_EVERY: Duration = Duration::from_millis(200);

/// A post that is not answered.
struct Pending {
    post_no: PostNo,
    answer: Answer,
}

enum Answer {
    Waiting(oneshot::Receiver<ConversationOutcome>),
    Refused(ErrorCode),
}

type PageRead = Pin<Box<dyn Future<Output = Result<Page, ErrorCode>> + Send>>;

/// Serves a conversation stream to its end.
pub(super) async fn serve(session: Arc<Session>, duplex: Box<Duplex>) -> Result<(), ReadError> {
    let Duplex { mut incoming, mut outgoing, counted: _counted } = *duplex;
    let mut machine = Machine::new(&session.limits);
    let open = loop {
        let Some(frame) = incoming.next().await? else { return Ok(()) };
        let Some(frame) = ConversationUp::decode(frame).map_err(Violation::from)? else { continue };
        match machine.on_frame(frame)? {
            ConversationUp::Open(open) => break open,
            // The machine lets nothing else through.
            ConversationUp::Post(_) | ConversationUp::Mark(_) => return Ok(()),
        }
    };
    match Box::pin(Stream::open(&session, &open)).await {
        Ok((mut stream, opened)) => {
            machine.opened();
            outgoing.event(opened.to_frame());
            Box::pin(stream.run(&mut machine, &mut incoming, &mut outgoing)).await
        }
        Err(code) => {
            outgoing.event(Closed { code, last_seq: open.after }.to_frame());
            // Both ends of the stream are over; what the client sent in the same flight is not read.
            let _ = outgoing.flush().await;
            outgoing.finish();
            incoming.stop(code);
            Ok(())
        }
    }
}

/// The state of an open stream.
struct Stream {
    session: Arc<Session>,
    live: OpenLive,
    changed: watch::Receiver<u64>,
    id: ConversationId,
    partition: PartitionId,
    writer: WriterId,
    member: MemberRow,
    mode: StreamMode,
    /// The last seq accounted for.
    cursor: Seq,
    /// The last seq known to be in the log.
    head: Seq,
    page: Option<PageRead>,
    pending: VecDeque<Pending>,
    /// Whether others' watermarks are told, and the newest that was.
    receipts: bool,
    receipts_version: u64,
    /// The account's own watermark: as replicated or on its way, and as marked.
    read_sent: Seq,
    read: Seq,
    read_due: Option<Instant>,
    /// The client has ended its side.
    ended: bool,
    /// `Closed` is queued.
    closed: bool,
}

impl Stream {
    async fn open(session: &Arc<Session>, open: &Open) -> Result<(Self, Opened), ErrorCode> {
        let (id, writer) = (open.conversation, open.writer);
        // First the tail, then the store: what happens in between is in both.
        let live = session.edge.hub.open(id);
        let mut changed = live.subscribe();
        let read_more = move |state: &crate::storage::state::StateDb, partition, view: &View| {
            let last_post_no = read::last_post_no(state, partition, id, writer)?;
            let members = if view.row.member_count <= limits::RECEIPT_MEMBERS {
                read::members(state, partition, id, AccountId(0), limits::RECEIPT_MEMBERS as usize)?
            } else {
                Vec::new()
            };
            Ok((last_post_no, members))
        };
        let seen = open.seen.max(open.after);
        let (view, (last_post_no, members)) = view::view_at(session, id, seen, &mut changed, read_more).await?;
        if open.epoch != 0 && open.epoch != EPOCH {
            return Err(ErrorCode::EpochChanged);
        }
        let partition = session.edge.node.partition_of(id);
        // For an account that has left, the log has an end: it is sent, however many the others are.
        let mode = if view.member.is_member() {
            session.edge.hub.mode(partition, id, view.row.member_count)
        } else {
            StreamMode::Live
        };
        let receipts = view.row.member_count <= limits::RECEIPT_MEMBERS && view.member.is_member();
        if receipts {
            live.want_receipts();
            for (account, row) in members {
                live.mark(account, row.read, row.read);
            }
        }
        let opened = Opened {
            head: view.end().max(open.after),
            last_post_no,
            mode,
            epoch: EPOCH,
            role: view.member.role,
            read: view.member.read,
            member_count: view.row.member_count,
        };
        session.subscriber.opened(id, if mode == StreamMode::Pull { Held::Pull } else { Held::Live });
        let stream = Self {
            session: session.clone(),
            live,
            changed,
            id,
            partition,
            writer,
            mode,
            cursor: open.after,
            head: view.row.head,
            page: None,
            pending: VecDeque::new(),
            receipts,
            receipts_version: 0,
            read_sent: view.member.read,
            read: view.member.read,
            read_due: None,
            member: view.member,
            ended: false,
            closed: false,
        };
        Ok((stream, opened))
    }

    async fn run(
        &mut self,
        machine: &mut Machine,
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
    ) -> Result<(), ReadError> {
        loop {
            self.fill(outgoing);
            if outgoing.is_empty() && (self.closed || (self.ended && self.pending.is_empty())) {
                outgoing.finish();
                return Ok(());
            }
            let answers_fit = outgoing.answers_waiting() < limits::UNANSWERED_POSTS;
            tokio::select! {
                frame = incoming.next(), if !self.ended => match frame? {
                    Some(frame) => self.frame(machine, frame)?,
                    None => self.ended = true,
                },
                written = outgoing.write_some(), if !outgoing.is_empty() => written?,
                (post_no, frame) = answered(&mut self.pending), if answers_fit => {
                    self.answer(machine, outgoing, post_no, frame);
                }
                page = read_of(&mut self.page) => {
                    self.page = None;
                    match page {
                        Ok(page) => {
                            self.cursor = page.last;
                            EdgeStats::add(&self.session.edge.stats().events_sent, page.events);
                            outgoing.event(page.frames);
                        }
                        Err(code) => self.close(outgoing, code),
                    }
                }
                // The sender is in `live`, which is ours.
                _ = self.changed.changed(), if !self.closed => {}
                () = until(self.read_due) => self.replicate_read(),
            }
        }
    }

    /// A frame from the client.
    fn frame(&mut self, machine: &mut Machine, frame: RawFrame) -> Result<(), ReadError> {
        let body = frame.body.clone();
        let Some(frame) = ConversationUp::decode(frame).map_err(Violation::from)? else { return Ok(()) };
        match machine.on_frame(frame)? {
            ConversationUp::Post(post) => self.post(post.post_no, body),
            ConversationUp::Mark(mark) => self.mark(&mark),
            // The machine lets no second one through.
            ConversationUp::Open(_) => {}
        }
        Ok(())
    }

    /// To the log, in the order of arrival.
    fn post(&mut self, post_no: PostNo, body: Bytes) {
        EdgeStats::add(&self.session.edge.stats().posts, 1);
        let command = ConversationCommand::Post {
            conversation: self.id,
            actor: self.session.actor(),
            writer: self.writer,
            post: body,
        };
        let answer = match self.session.edge.node.propose_conversation(self.partition, &command) {
            Ok(answer) => Answer::Waiting(answer),
            Err(error) => Answer::Refused(error.code()),
        };
        self.pending.push_back(Pending { post_no, answer });
    }

    /// An answer, and those that are there already behind it.
    fn answer(&mut self, machine: &mut Machine, outgoing: &mut Outgoing, post_no: PostNo, frame: Bytes) {
        if machine.answered(post_no) {
            outgoing.answer(frame);
        }
        while outgoing.answers_waiting() < limits::UNANSWERED_POSTS {
            let Some(front) = self.pending.front_mut() else { break };
            let Some(frame) = front.try_frame() else { break };
            let post_no = front.post_no;
            self.pending.pop_front();
            if machine.answered(post_no) {
                outgoing.answer(frame);
            }
        }
    }

    /// The client holds, and has read, up to here. Nobody can have more than there is.
    fn mark(&mut self, mark: &Mark) {
        self.head = self.head.max(self.live.head());
        let (delivered, read) = (mark.delivered.min(self.head), mark.read.min(self.head));
        if !self.member.is_member() {
            return;
        }
        if self.receipts {
            self.live.mark_and_wake(self.session.account(), delivered, Seq(0));
        }
        if read > self.read {
            self.read = read;
            self.read_due.get_or_insert_with(Instant::now);
        }
    }

    /// Proposes the newest read watermark. One that is refused is proposed again.
    fn replicate_read(&mut self) {
        self.read_due = None;
        if self.read <= self.read_sent {
            return;
        }
        let command =
            ConversationCommand::MarkRead { conversation: self.id, account: self.session.account(), read: self.read };
        if self.session.edge.node.propose_conversation(self.partition, &command).is_ok() {
            self.read_sent = self.read;
        }
        self.read_due = Some(Instant::now() + READ_EVERY);
    }

    /// Queues what follows the cursor, as far as there is room.
    fn fill(&mut self, outgoing: &mut Outgoing) {
        if self.closed || self.ended {
            return;
        }
        if self.live.has_ended() {
            // Here the log goes on further than what was told: the client opens it again where it is.
            self.close(outgoing, ErrorCode::Behind);
            return;
        }
        self.head = self.head.max(self.live.head());
        if let Some(left) = self.live.gone(self.session.account()) {
            self.member.left = Some(left);
        }
        if self.mode == StreamMode::Pull {
            if self.member.left.is_some() {
                self.close(outgoing, ErrorCode::Forbidden);
            }
            return;
        }
        let end = self.member.left.map_or(self.head, |left| left.min(self.head));
        while self.page.is_none() && outgoing.room() > 0 {
            match view::next(&self.member, self.cursor, end) {
                Next::Nothing => break,
                Next::Hidden(to) => {
                    outgoing.event(view::unavailable(self.cursor.next(), to));
                    self.cursor = to;
                }
                Next::Visible(to) => self.events(outgoing, to),
            }
        }
        if self.page.is_none() && self.cursor >= end && self.member.left.is_some() {
            self.close(outgoing, ErrorCode::Forbidden);
            return;
        }
        if self.receipts && outgoing.room() > 0 {
            let (marks, version) = self.live.marks_since(self.receipts_version, self.session.account());
            self.receipts_version = version;
            for (account, mark) in marks {
                outgoing.event(Receipt { account, delivered: mark.delivered, read: mark.read }.to_frame());
            }
        }
    }

    /// Events from the ring, or a read of the store begins.
    fn events(&mut self, outgoing: &mut Outgoing, to: Seq) {
        let tail = self.live.tail(self.cursor, outgoing.room());
        let due = usize::try_from(to.0 - self.cursor.0).unwrap_or(usize::MAX);
        if tail.frames.is_empty() {
            EdgeStats::add(&self.session.edge.stats().ring_misses, 1);
            let read = view::page(self.session.clone(), self.id, self.cursor.next(), to, outgoing.room());
            self.page = Some(Box::pin(read));
            return;
        }
        for frame in tail.frames.into_iter().take(due) {
            EdgeStats::add(&self.session.edge.stats().events_sent, 1);
            outgoing.event(frame);
            self.cursor = self.cursor.next();
        }
    }

    fn close(&mut self, outgoing: &mut Outgoing, code: ErrorCode) {
        outgoing.event(Closed { code, last_seq: self.cursor }.to_frame());
        self.closed = true;
        self.page = None;
    }
}

/// However the stream ends, what was read is not forgotten.
impl Drop for Stream {
    fn drop(&mut self) {
        self.session.subscriber.closed(self.id);
        self.replicate_read();
    }
}

impl Pending {
    /// The answer, if it is there.
    fn try_frame(&mut self) -> Option<Bytes> {
        let outcome = match &mut self.answer {
            Answer::Refused(code) => Err(*code),
            Answer::Waiting(receiver) => match receiver.try_recv() {
                Ok(outcome) => Ok(outcome),
                Err(oneshot::error::TryRecvError::Empty) => return None,
                Err(oneshot::error::TryRecvError::Closed) => Err(ErrorCode::Unavailable),
            },
        };
        Some(frame_of(self.post_no, &outcome))
    }
}

/// The answer to the oldest post, once it is there; never if there is none. Cancelling it loses nothing.
async fn answered(pending: &mut VecDeque<Pending>) -> (PostNo, Bytes) {
    let Some(front) = pending.front_mut() else { return std::future::pending().await };
    let outcome = match &mut front.answer {
        Answer::Refused(code) => Err(*code),
        Answer::Waiting(receiver) => receiver.await.map_err(|_| ErrorCode::Unavailable),
    };
    let post_no = front.post_no;
    pending.pop_front();
    (post_no, frame_of(post_no, &outcome))
}

/// The page that is being read; never if none is.
async fn read_of(page: &mut Option<PageRead>) -> Result<Page, ErrorCode> {
    match page {
        Some(page) => page.await,
        None => std::future::pending().await,
    }
}

/// The frame that answers a post. A code is a refusal that consumed nothing: the same post may come again.
fn frame_of(post_no: PostNo, outcome: &Result<ConversationOutcome, ErrorCode>) -> Bytes {
    let refused = |code, retry_after_ms| Refused { post_no, code, consumed: false, expected: post_no, retry_after_ms };
    let frame = match outcome {
        Ok(ConversationOutcome::Posted(posted)) => {
            Posted { post_no: posted.post_no, seq: posted.seq, message_id: posted.message_id, time_ms: posted.time_ms }
                .to_frame()
        }
        Ok(ConversationOutcome::Refused(outcome)) => Refused {
            post_no: outcome.post_no,
            code: outcome.code,
            consumed: outcome.consumed,
            expected: outcome.expected,
            retry_after_ms: 0,
        }
        .to_frame(),
        Ok(ConversationOutcome::Failed(code)) => refused(*code, 0).to_frame(),
        // Not what posts are answered with.
        Ok(ConversationOutcome::Conversation(_) | ConversationOutcome::Done) => {
            refused(ErrorCode::Internal, 0).to_frame()
        }
        Err(code) => refused(*code, control::RETRY_AFTER_MS).to_frame(),
    };
    frame.into()
}
