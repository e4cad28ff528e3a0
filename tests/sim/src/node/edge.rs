//! Sessions: what the server's edge does, as far as the order and the completeness of what people see depend on it.

use bytes::Bytes;
use rove_core::command::{Actor, ConversationCommand, ConversationOutcome, Envelope, Origin};
use rove_core::conversation::{ReadError, read};
use rove_core::placement::ShardMap;
use rove_protocol::ids::{AccountId, ConversationId, NodeId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::message::{Posted, Refused};
use rove_protocol::registry::ErrorCode;

use super::{Action, Context, Running};
use crate::bugs::Bug;
use crate::history::Record;
use crate::wire::{SessionId, ToClient, ToNode};

/// Commands that a node takes for one partition before it says that it is busy. Small, so that it happens.
const MAX_WAITING: usize = 192;

/// How long an opening waits for this replica to reach what the client has been told already.
const BEHIND_US: u64 = 1_000_000;

/// Bytes of events read at once.
const READ_BYTES: usize = 1 << 20;

/// Who waits for the answer of a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waiter {
    /// A client: of a post with its number.
    Session { session: SessionId, post_no: Option<PostNo> },
    /// Who carries gates.
    Carrier,
    /// An operator, who looks what came of it.
    Operator,
}

/// Who waits for a linearizable read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reader {
    /// A client wants the head.
    Head(SessionId, u64),
    /// An opening found nothing, which a stale replica must not say.
    Open(SessionId),
}

/// One connection of a client.
#[derive(Debug, Clone)]
pub(super) struct Session {
    actor: Actor,
    conversation: ConversationId,
    writer: WriterId,
    seen: Seq,
    since_us: u64,
    /// The last seq that was sent.
    cursor: Seq,
    open: bool,
    /// A linearizable read has confirmed what this replica knows.
    confirmed: bool,
}

fn failed(error: &ReadError) -> String {
    error.to_string()
}

impl Running {
    pub(super) fn client(
        &mut self,
        id: NodeId,
        session: SessionId,
        message: ToNode,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        if let ToNode::Open { actor, conversation, writer, after, seen } = message {
            let since_us = context.now_us;
            let (open, confirmed) = (false, false);
            let new = Session { actor, conversation, writer, seen, since_us, cursor: after, open, confirmed };
            self.sessions.insert(session, new);
            return self.try_open(session, context);
        }
        let Some(Session { actor, conversation, writer, .. }) = self.sessions.get(&session).cloned() else {
            return Ok(());
        };
        let partition = ShardMap::even(context.plan.partitions).of_conversation(conversation);
        match message {
            ToNode::Open { .. } => {}
            ToNode::Post(post_no, post) => {
                let command = ConversationCommand::Post { conversation, actor, writer, post };
                let waiter = Waiter::Session { session, post_no: Some(post_no) };
                let taken = self.take(id, partition, command.encode().into(), waiter, context);
                if taken.is_some() && context.bug == Some(Bug::AckWhenTaken) {
                    self.acknowledge_early(partition, conversation, (session, post_no), context);
                }
            }
            ToNode::Request(command) => {
                self.take(id, partition, command.encode().into(), Waiter::Session { session, post_no: None }, context);
            }
            ToNode::Mark(read) => {
                let command = ConversationCommand::MarkRead { conversation, account: actor.account, read };
                self.take(id, partition, command.encode().into(), Waiter::Session { session, post_no: None }, context);
            }
            ToNode::ReadHead(call) if context.bug == Some(Bug::StaleRead) => {
                let row = read::conversation(&self.store, partition, conversation).map_err(|error| failed(&error))?;
                self.send(session, ToClient::Head(call, row.map(|row| row.head)), context);
            }
            ToNode::ReadHead(call) => self.ask(partition, Reader::Head(session, call), context),
        }
        Ok(())
    }

    fn send(&self, session: SessionId, message: ToClient, context: &mut Context<'_>) {
        if self.sessions.contains_key(&session) {
            context.actions.push(Action::Client(session, message));
        }
    }

    fn close(&mut self, session: SessionId, code: ErrorCode, context: &mut Context<'_>) {
        self.send(session, ToClient::Closed(code), context);
        self.sessions.remove(&session);
    }

    /// Takes a command and says under which ticket, or says why not to whose post it is.
    pub(super) fn take(
        &mut self,
        id: NodeId,
        partition: PartitionId,
        command: Bytes,
        waiter: Waiter,
        context: &mut Context<'_>,
    ) -> Option<u64> {
        let place = self.places.get_mut(&partition)?;
        let refusal = if !place.lane.is_open() {
            Some(ErrorCode::Unavailable)
        } else if place.lane.waiting() >= MAX_WAITING {
            Some(ErrorCode::Busy)
        } else {
            None
        };
        if let Some(code) = refusal {
            if let Waiter::Session { session, post_no: Some(post_no) } = waiter {
                let refused = Refused { post_no, code, consumed: false, expected: post_no, retry_after_ms: 50 };
                self.send(session, ToClient::Refused(refused), context);
            }
            return None;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        place.lane.queue(Envelope { origin: Origin { node: id, ticket }, command });
        context.record(Record::Taken { node: id, partition, ticket });
        self.tickets.insert(ticket, waiter);
        Some(ticket)
    }

    /// The planted bug: a guess where the post will be.
    fn acknowledge_early(
        &self,
        partition: PartitionId,
        conversation: ConversationId,
        (session, post_no): (SessionId, PostNo),
        context: &mut Context<'_>,
    ) {
        let Ok(Some(row)) = read::conversation(&self.store, partition, conversation) else { return };
        let waiting = self.places.get(&partition).map_or(0, |place| place.lane.waiting() as u64);
        let seq = Seq(row.head.0 + waiting);
        let posted = Posted { post_no, seq, message_id: row.last_message_id, time_ms: 0 };
        self.send(session, ToClient::Posted(posted), context);
    }

    pub(super) fn give_up(&mut self, id: NodeId, partition: PartitionId, ticket: u64, context: &mut Context<'_>) {
        context.record(Record::GivenUp { node: id, partition, ticket });
        match self.tickets.remove(&ticket) {
            Some(Waiter::Session { session, .. }) => self.close(session, ErrorCode::Unavailable, context),
            Some(Waiter::Carrier) => self.not_carried(ticket),
            Some(Waiter::Operator) | None => {}
        }
    }

    /// A command of a client was decided.
    pub(super) fn tell(&self, session: SessionId, outcome: &ConversationOutcome, context: &mut Context<'_>) {
        match outcome {
            ConversationOutcome::Posted(posted) => {
                let posted = Posted {
                    post_no: posted.post_no,
                    seq: posted.seq,
                    message_id: posted.message_id,
                    time_ms: posted.time_ms,
                };
                self.send(session, ToClient::Posted(posted), context);
            }
            ConversationOutcome::Refused(refused) => {
                let refused = Refused {
                    post_no: refused.post_no,
                    code: refused.code,
                    consumed: refused.consumed,
                    expected: refused.expected,
                    retry_after_ms: 0,
                };
                self.send(session, ToClient::Refused(refused), context);
            }
            ConversationOutcome::Conversation(_) | ConversationOutcome::Done | ConversationOutcome::Failed(_) => {}
        }
    }

    pub(super) fn receipt(
        &self,
        conversation: ConversationId,
        account: AccountId,
        read: Seq,
        head: Seq,
        context: &mut Context<'_>,
    ) {
        let open = self.sessions.iter().filter(|(_, session)| session.open && session.conversation == conversation);
        for (session, _) in open {
            context.actions.push(Action::Client(*session, ToClient::Receipt(account, read, head)));
        }
    }

    fn ask(&mut self, partition: PartitionId, reader: Reader, context: &mut Context<'_>) {
        let name = self.next_ticket;
        self.next_ticket += 1;
        let asked = self.places.get_mut(&partition).is_some_and(|place| place.lane.read_index(name));
        if asked {
            self.reads.insert(name, reader);
        } else if let Reader::Head(session, call) = reader {
            self.send(session, ToClient::Head(call, None), context);
        }
    }

    /// A linearizable read may be done now, or nobody can tell.
    pub(super) fn read_ready(&mut self, name: u64, current: bool, context: &mut Context<'_>) -> Result<(), String> {
        let Some(reader) = self.reads.remove(&name) else { return Ok(()) };
        let (Reader::Head(session, _) | Reader::Open(session)) = reader;
        let Some(found) = self.sessions.get_mut(&session) else { return Ok(()) };
        match reader {
            Reader::Head(session, call) => {
                let conversation = found.conversation;
                let partition = ShardMap::even(context.plan.partitions).of_conversation(conversation);
                let row = read::conversation(&self.store, partition, conversation).map_err(|error| failed(&error))?;
                let head = row.filter(|_| current).map(|row| row.head);
                self.send(session, ToClient::Head(call, head), context);
                Ok(())
            }
            Reader::Open(session) if current => {
                found.confirmed = true;
                self.try_open(session, context)
            }
            Reader::Open(session) => {
                self.close(session, ErrorCode::Unavailable, context);
                Ok(())
            }
        }
    }

    /// Opens the conversation if this replica may say how it is (D11).
    fn try_open(&mut self, id: SessionId, context: &mut Context<'_>) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id).cloned() else { return Ok(()) };
        let partition = ShardMap::even(context.plan.partitions).of_conversation(session.conversation);
        let row = read::conversation(&self.store, partition, session.conversation).map_err(|error| failed(&error))?;
        let member = read::member(&self.store, partition, session.conversation, session.actor.account);
        let (Some(row), Some(_)) = (row, member.map_err(|error| failed(&error))?) else {
            if session.confirmed {
                // It stays, so that the one who makes the conversation can do so.
                self.send(id, ToClient::Closed(ErrorCode::NotFound), context);
            } else {
                self.ask(partition, Reader::Open(id), context);
            }
            return Ok(());
        };
        if row.head < session.seen {
            // Tried again when more is applied.
            return Ok(());
        }
        let last = read::last_post_no(&self.store, partition, session.conversation, session.writer);
        let last = last.map_err(|error| failed(&error))?;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.open = true;
        }
        self.send(id, ToClient::Opened { last, head: row.head }, context);
        self.feed(id, partition, context)
    }

    /// Openings that have waited too long for this replica.
    pub(super) fn time_out_opens(&mut self, context: &mut Context<'_>) {
        let late = |session: &Session| !session.open && context.now_us > session.since_us + BEHIND_US;
        let late: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| late(session)).map(|(id, _)| *id).collect();
        for id in late {
            self.close(id, ErrorCode::Behind, context);
        }
    }

    /// The partition's state has moved on.
    pub(super) fn serve(&mut self, partition: PartitionId, context: &mut Context<'_>) -> Result<(), String> {
        let sessions: Vec<(SessionId, bool)> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                ShardMap::even(context.plan.partitions).of_conversation(session.conversation) == partition
            })
            .map(|(id, session)| (*id, session.open))
            .collect();
        for (id, open) in sessions {
            if open {
                self.feed(id, partition, context)?;
            } else if self.sessions.get(&id).is_some_and(|session| session.seen > Seq(0)) {
                self.try_open(id, context)?;
            }
        }
        Ok(())
    }

    /// Sends a session everything after its cursor: every seq is accounted for (D3).
    fn feed(&mut self, id: SessionId, partition: PartitionId, context: &mut Context<'_>) -> Result<(), String> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let conversation = session.conversation;
        let row = read::conversation(&self.store, partition, conversation).map_err(|error| failed(&error))?;
        let member = read::member(&self.store, partition, conversation, session.actor.account);
        let (Some(row), Some(member)) = (row, member.map_err(|error| failed(&error))?) else { return Ok(()) };
        let mut out: Vec<ToClient> = Vec::new();
        for (first, last) in read::visible(&member, row.head) {
            if last <= session.cursor {
                continue;
            }
            let first = first.max(session.cursor.next());
            if first > session.cursor.next() {
                out.push(ToClient::Unavailable(session.cursor.next(), Seq(first.0 - 1)));
            }
            let mut from = first;
            while from <= last {
                let events = read::events(&self.store, partition, conversation, from, last, READ_BYTES);
                let events = events.map_err(|error| failed(&error))?;
                let Some(end) = events.last().map(|event| event.seq) else {
                    return Err(format!("events {from} to {last} of {conversation} are missing"));
                };
                out.extend(events.into_iter().map(|event| ToClient::Event(event.seq, event.body)));
                from = end.next();
            }
            session.cursor = last;
        }
        if session.cursor < row.head {
            out.push(ToClient::Unavailable(session.cursor.next(), row.head));
            session.cursor = row.head;
        }
        context.actions.extend(out.into_iter().map(|message| Action::Client(id, message)));
        Ok(())
    }
}
