//! The inbox: one latest-wins line for each conversation that changed.
//!
//! What has changed while the device was away is found by walking the account's conversations, by ascending message id in
//! each partition; what changes from then on comes from the dirty set. How lines and cursors stay exact is told in
//! [`super::hub`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rove_core::conversation::{ReadError as StateError, read};
use rove_core::fanout::{Held, inline};
use rove_core::store::StateRead;
use rove_protocol::error::Violation;
use rove_protocol::ids::{AccountId, ConversationId, MessageId, PartitionId, Seq};
use rove_protocol::limits;
use rove_protocol::message::{Closed, InboxLine, InboxOpen, InboxSynced, InboxUp, Message as _};
use rove_protocol::registry::{ErrorCode, Role};
use rove_protocol::session::server::Inbox as Machine;
use rove_protocol::transport::ReadError;

use super::control;
use super::frames::{Duplex, Outgoing};
use super::session::Session;
use super::stats::EdgeStats;
use super::view::View;

/// Lines read at once: two replay queues if every one has an event inside.
const LINES: usize = 32;
/// How long to wait for a round that is being published: it takes microseconds, and its end wakes the session anyway.
const ROUND: Duration = Duration::from_millis(1);

/// Serves an inbox stream to its end.
pub(super) async fn serve(session: Arc<Session>, duplex: Box<Duplex>) -> Result<(), ReadError> {
    let Duplex { mut incoming, mut outgoing, counted: _counted } = *duplex;
    let mut machine = Machine::new();
    let mut inbox = loop {
        let Some(frame) = incoming.next().await? else { return Ok(()) };
        if let Some(frame) = InboxUp::decode(frame).map_err(Violation::from)? {
            let InboxUp::InboxOpen(open) = machine.on_frame(frame)?;
            break Inbox::new(session, &open);
        }
    };
    let told = async {
        let result = inbox.tell(&mut outgoing).await;
        if let Err(code) = result {
            outgoing.event(Closed { code, last_seq: Seq(0) }.to_frame());
            let _ = outgoing.flush().await;
        }
        outgoing.finish();
    };
    let heard = async {
        // Nothing more may come, but it has to be read to be refused.
        loop {
            match incoming.next().await {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => {
                    if let Some(frame) = InboxUp::decode(frame).map_err(Violation::from)? {
                        machine.on_frame(frame)?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    };
    tokio::select! {
        () = Box::pin(told) => Ok(()),
        heard = heard => heard,
    }
}

/// One inbox.
struct Inbox {
    session: Arc<Session>,
    /// By partition: everything up to here has been told.
    cursors: BTreeMap<PartitionId, MessageId>,
}

/// However the stream ends, nothing is kept for it any more.
impl Drop for Inbox {
    fn drop(&mut self) {
        self.session.subscriber.stop_listening();
    }
}

/// What was read: the lines that may go out, and what was newer than what is published.
#[derive(Default)]
struct Lines {
    frames: Vec<Bytes>,
    newer: Vec<ConversationId>,
}

impl Inbox {
    fn new(session: Arc<Session>, open: &InboxOpen) -> Self {
        let cursors = open.cursors.iter().map(|cursor| (cursor.partition, cursor.message_id)).collect();
        Self { session, cursors }
    }

    /// Tells what has changed, then what changes, until the stream cannot be written any more. What it looks up it does in boxes: an
    /// idle inbox is to be small.
    async fn tell(&mut self, outgoing: &mut Outgoing) -> Result<(), ErrorCode> {
        let subscriber = self.session.subscriber.clone();
        // From here on nothing is missed; what is marked meanwhile is told twice at worst.
        subscriber.listen();
        let mut all = true;
        loop {
            let published = self.published();
            let dirty = subscriber.take_dirty();
            let mut newer = Vec::new();
            if all || dirty.all {
                newer = Box::pin(self.tell_all(outgoing, &published)).await?;
            } else {
                let changed: Vec<ConversationId> = dirty.conversations.into_iter().collect();
                newer.append(&mut Box::pin(self.tell_some(outgoing, changed, &published, false)).await?);
            }
            all = false;
            self.cursors.extend(published);
            if newer.is_empty() {
                outgoing.event(InboxSynced { version: dirty.version }.to_frame());
            }
            if outgoing.flush().await.is_err() {
                return Ok(());
            }
            if newer.is_empty() {
                subscriber.inbox_wake.notified().await;
            } else {
                for conversation in newer {
                    subscriber.mark(conversation);
                }
                let _ = tokio::time::timeout(ROUND, subscriber.inbox_wake.notified()).await;
            }
        }
    }

    fn published(&self) -> BTreeMap<PartitionId, MessageId> {
        let hub = &self.session.edge.hub;
        (1..=self.session.edge.node.partitions()).map(PartitionId).map(|id| (id, hub.published(id))).collect()
    }

    /// Every conversation with an event after the cursors.
    async fn tell_all(
        &self,
        outgoing: &mut Outgoing,
        published: &BTreeMap<PartitionId, MessageId>,
    ) -> Result<Vec<ConversationId>, ErrorCode> {
        let mut newer = Vec::new();
        for partition in published.keys().copied() {
            let after = self.cursors.get(&partition).copied().unwrap_or_default();
            let account = self.session.account();
            let read = self.session.edge.node.read(move |state| changed_since(state, partition, account, after));
            let changed = control::state(read.await)?;
            newer.append(&mut self.tell_some(outgoing, changed, published, true).await?);
        }
        Ok(newer)
    }

    /// The lines of these conversations. What turns out to be newer than what is published comes back.
    async fn tell_some(
        &self,
        outgoing: &mut Outgoing,
        mut changed: Vec<ConversationId>,
        published: &BTreeMap<PartitionId, MessageId>,
        sorted: bool,
    ) -> Result<Vec<ConversationId>, ErrorCode> {
        let mut newer = Vec::new();
        let node = &self.session.edge.node;
        if !sorted {
            changed.sort_by_key(|id| node.partition_of(*id));
        }
        for chunk in changed.chunks(LINES) {
            let wanted: Vec<(PartitionId, ConversationId, Held)> =
                chunk.iter().map(|id| (node.partition_of(*id), *id, self.session.subscriber.held(*id))).collect();
            let (account, published) = (self.session.account(), published.clone());
            let read = node.read(move |state| lines(state, account, &wanted, &published));
            let mut lines = control::state(read.await)?;
            newer.append(&mut lines.newer);
            EdgeStats::add(&self.session.edge.stats().lines_sent, lines.frames.len() as u64);
            for frame in lines.frames {
                outgoing.event(frame);
                if outgoing.room() == 0 && outgoing.flush().await.is_err() {
                    return Ok(newer);
                }
            }
        }
        Ok(newer)
    }
}

/// The conversations of a partition whose last event is after the cursor, by ascending id of that event.
fn changed_since(
    store: &impl StateRead,
    partition: PartitionId,
    account: AccountId,
    after: MessageId,
) -> Result<Vec<ConversationId>, StateError> {
    let mut ids = Vec::new();
    read::memberships(store, partition, account, &mut |id| {
        ids.push(id);
        true
    })?;
    let mut changed = Vec::new();
    for id in ids {
        let Some(row) = read::conversation(store, partition, id)? else { continue };
        // An account that is out has seen the last of it; the walk that follows finds its own last event.
        if row.last_message_id > after {
            changed.push((row.last_message_id, id));
        }
    }
    changed.sort_unstable();
    Ok(changed.into_iter().map(|(_, id)| id).collect())
}

/// Reads lines, by ascending message id in each partition.
fn lines(
    store: &impl StateRead,
    account: AccountId,
    wanted: &[(PartitionId, ConversationId, Held)],
    published: &BTreeMap<PartitionId, MessageId>,
) -> Result<Lines, StateError> {
    let mut found = Vec::new();
    let mut newer = Vec::new();
    for (partition, id, held) in wanted {
        let Some(view) = View::read(store, *partition, *id, account)? else { continue };
        if view.row.last_message_id > published.get(partition).copied().unwrap_or_default() {
            newer.push(*id);
            continue;
        }
        let line = line(store, *partition, *id, account, view, *held)?;
        found.push((*partition, line.last_message_id, line));
    }
    found.sort_by_key(|(partition, id, _)| (*partition, *id));
    Ok(Lines { frames: found.into_iter().map(|(_, _, line)| line.to_frame().into()).collect(), newer })
}

/// The line of one conversation. An account that is out sees the log up to the event that took it out.
fn line(
    store: &impl StateRead,
    partition: PartitionId,
    id: ConversationId,
    account: AccountId,
    view: View,
    held: Held,
) -> Result<InboxLine, StateError> {
    let head = view.end();
    let event =
        if held == Held::Closed || head != view.row.head { read::event(store, partition, id, head)? } else { None };
    let last_message_id = match &event {
        Some(event) if head != view.row.head => read::EventPrefix::of(&event.body)?.message_id,
        _ => view.row.last_message_id,
    };
    let event =
        event.map(|event| event.body).filter(|body| inline(body.len(), held) && body.len() <= limits::INLINE_EVENT);
    Ok(InboxLine {
        conversation: id,
        partition,
        kind: view.row.kind,
        role: if view.member.is_member() { view.member.role } else { Role::None },
        peer: view.row.peer_of(account),
        title: view.row.title,
        head,
        last_message_id,
        read: view.member.read,
        event,
    })
}
