//! A conversation an app has open.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rove_client_core::outbox::{CancelResult, Draft, Effects};
use rove_client_core::timeline::{self, LocalId, Source, TimelineItem, UnavailableRange};
use rove_protocol::ids::{AccountId, ConversationId, Seq};
use rove_protocol::limits;
use rove_protocol::message::{Body, Event, Fetch, Message, Typing};
use rove_protocol::registry::{Anchor, ErrorCode, EventKind};
use tokio::sync::watch;

use crate::inner::{REQUEST_TIMEOUT, SESSION_GAP, mint, mint_tag, overload_wait, wall_ms};
use crate::store::Change;
use crate::types::{Cancel, ConnectionState, PostHandle, ReceiptInfo, StoredEvent, Version};
use crate::{Client, Error};

/// How often typing is told again while it goes on: half of the time it is believed, so that one may be lost.
const TYPING_EVERY_MS: u64 = 3_000;
/// Events read from the store at once for a timeline.
const CHUNK: usize = 256;

/// A conversation an app has open. Clones are the same conversation; while one lives it is kept in step.
#[derive(Clone)]
pub struct Conversation {
    client: Client,
    id: ConversationId,
    _open: Arc<Open>,
    updates: watch::Receiver<Version>,
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Says that the app has it open, as long as it lives.
struct Open {
    client: Client,
    id: ConversationId,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.client.inner.state.lock().streams.dropped(self.id);
        self.client.inner.reselect.notify_one();
    }
}

impl Conversation {
    pub(crate) fn open(client: Client, id: ConversationId) -> Self {
        let updates = {
            let mut state = client.inner.state.lock();
            state.streams.opened(id);
            state.conv(id).updates.subscribe()
        };
        client.inner.reselect.notify_one();
        Self { _open: Arc::new(Open { client: client.clone(), id }), client, id, updates }
    }

    /// Its id.
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// Queues a message of text. It is durable in the outbox when this returns; it is sent as soon as there is a
    /// connection, in the order of these calls.
    ///
    /// # Errors
    /// [`Error::OutboxFull`], [`Error::TooLong`], [`Error::InvalidArgument`] for an empty text, [`Error::Store`],
    /// [`Error::Closed`]: in each case nothing was queued.
    pub async fn post(&self, text: &str) -> Result<PostHandle, Error> {
        self.queue(Draft::text(EventKind::Message, Seq(0), not_empty(text)?)).await
    }

    /// Queues a message that answers the event at `to`.
    ///
    /// # Errors
    /// As [`Conversation::post`].
    pub async fn reply(&self, to: Seq, text: &str) -> Result<PostHandle, Error> {
        self.queue(Draft::text(EventKind::Message, to, not_empty(text)?)).await
    }

    /// Queues a new text for the own message at `seq`.
    ///
    /// # Errors
    /// As [`Conversation::post`].
    pub async fn edit(&self, seq: Seq, text: &str) -> Result<PostHandle, Error> {
        self.queue(Draft::text(EventKind::Edit, seq, not_empty(text)?)).await
    }

    /// Queues taking back the own message at `seq`.
    ///
    /// # Errors
    /// As [`Conversation::post`].
    pub async fn delete(&self, seq: Seq) -> Result<PostHandle, Error> {
        self.queue(Draft::text(EventKind::Deletion, seq, "")).await
    }

    /// Queues a reaction to the event at `seq`; an empty one takes this account's reactions back.
    ///
    /// # Errors
    /// As [`Conversation::post`].
    pub async fn react(&self, seq: Seq, reaction: &str) -> Result<PostHandle, Error> {
        self.queue(Draft::text(EventKind::Reaction, seq, reaction)).await
    }

    async fn queue(&self, draft: Draft) -> Result<PostHandle, Error> {
        if draft.body.len() > limits::BODY {
            return Err(Error::TooLong { what: "the message", limit: limits::BODY });
        }
        let inner = &self.client.inner;
        if let ConnectionState::Closed { code } = *inner.connection.borrow() {
            return Err(Error::Closed(code));
        }
        let (local, outcome, numbered) = {
            let mut state = inner.state.lock();
            let local = state.next_local();
            let mut effects = Effects::default();
            let conv = state.conv(self.id);
            conv.outbox
                .enqueue((local, mint_tag()), draft, wall_ms(), &mut effects)
                .map_err(|full| Error::OutboxFull { limit: full.limit })?;
            let outcome = conv.wait_for(local);
            let numbered = conv.outbox.numbered();
            state.outbox_effects(self.id, effects, mint);
            state.streams.used(self.id);
            (local, outcome, numbered)
        };
        if let Err(error) = inner.flush().await {
            let mut state = inner.state.lock();
            let mut effects = Effects::default();
            let conv = state.conv(self.id);
            conv.forget_waiting(local);
            conv.outbox.cancel(local, &mut effects);
            state.outbox_effects(self.id, effects, mint);
            return Err(error);
        }
        {
            let mut state = inner.state.lock();
            let conv = state.conv(self.id);
            conv.outbox.stored(numbered);
            conv.wake.notify_one();
            if conv.machine.is_none() {
                inner.reselect.notify_one();
            }
        }
        inner.updated(self.id);
        Ok(PostHandle { local, outcome })
    }

    /// Takes a queued post back, or dismisses a refused one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn cancel(&self, local: LocalId) -> Result<Cancel, Error> {
        let inner = &self.client.inner;
        let result = {
            let mut state = inner.state.lock();
            let mut effects = Effects::default();
            let result = state.conv(self.id).outbox.cancel(local, &mut effects);
            state.outbox_effects(self.id, effects, mint);
            result
        };
        inner.flush().await?;
        inner.wake(self.id);
        inner.updated(self.id);
        Ok(match result {
            CancelResult::Done => Cancel::Done,
            CancelResult::Requested => Cancel::Requested,
            CancelResult::Unknown => Cancel::TooLate,
        })
    }

    /// The last items, oldest first, own pending posts at the end (and beyond `last`).
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn timeline(&self, last: usize) -> Result<Vec<TimelineItem>, Error> {
        self.items(Seq(u64::MAX), last, true).await
    }

    /// Up to `limit` items before `before`, oldest first, from the store.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn timeline_before(&self, before: Seq, limit: usize) -> Result<Vec<TimelineItem>, Error> {
        self.items(before, limit, false).await
    }

    async fn items(&self, before: Seq, limit: usize, with_pending: bool) -> Result<Vec<TimelineItem>, Error> {
        let inner = &self.client.inner;
        // What is taken in is in the store before it is shown, so that nothing is in neither place.
        inner.flush().await?;
        let mut events: Vec<Event> = Vec::new();
        let mut upto = before;
        let mut lines = 0;
        let complete = loop {
            if lines >= limit {
                break false;
            }
            let chunk = inner.store.events_before(self.id, upto, CHUNK.max(limit.min(4 * CHUNK))).await?;
            let Some((first, _)) = chunk.first() else { break true };
            upto = *first;
            let mut older = decode_all(&chunk)?;
            lines += older.iter().filter(|event| timeline::is_line(event.kind)).count();
            older.append(&mut events);
            events = older;
        };
        if !complete {
            // Cut at the oldest line that is wanted.
            let surplus = lines - limit;
            let cut = events.iter().enumerate().filter(|(_, event)| timeline::is_line(event.kind)).nth(surplus);
            let cut = cut.map_or(events.len(), |(index, _)| index);
            events.drain(..cut);
        }
        let from = if complete { Seq(0) } else { events.first().map_or(before, |event| event.seq) };
        let last = if before == Seq(u64::MAX) { before } else { Seq(before.0.saturating_sub(1)) };
        let references = decode_all(&inner.store.referring(self.id, from, last).await?)?;
        let unavailable = inner.store.unavailable(self.id, from, last).await?;
        let state = inner.state.lock();
        let Some(conv) = state.conversations.get(&self.id) else { return Ok(Vec::new()) };
        let pending = if with_pending { conv.outbox.pending() } else { Vec::new() };
        let source = Source {
            me: state.account.account,
            events: &events,
            references: &references,
            unavailable: &unavailable,
            pending: &pending,
        };
        Ok(timeline::fold(&source))
    }

    /// Up to `limit` events after `seq`, in the order of the log, from the store.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn events_after(&self, seq: Seq, limit: usize) -> Result<Vec<StoredEvent>, Error> {
        let inner = &self.client.inner;
        inner.flush().await?;
        let cursor = self.cursor();
        let mut stored = Vec::new();
        for (seq, encoded) in inner.store.events_after(self.id, seq, limit).await? {
            if seq <= cursor {
                stored.push(StoredEvent { seq, event: decode(&encoded)?, encoded });
            }
        }
        Ok(stored)
    }

    /// Up to where every seq is held or known to be unavailable.
    pub fn cursor(&self) -> Seq {
        self.client.inner.state.lock().conv(self.id).row.held.cursor
    }

    /// The last seq of the log, as far as known.
    pub fn head(&self) -> Seq {
        self.client.inner.state.lock().conv(self.id).row.held.head
    }

    /// How far this account has read.
    pub fn read(&self) -> Seq {
        self.client.inner.state.lock().conv(self.id).row.read
    }

    /// Changes when there is something new to look at: events, outbox states, receipts, typing.
    pub fn updates(&self) -> watch::Receiver<Version> {
        self.updates.clone()
    }

    /// Makes sure up to `limit` seqs before `before` are in the store; returns the first seq held then. 1 means that
    /// the whole log is.
    ///
    /// # Errors
    /// [`Error::Timeout`] without a connection, [`Error::Server`] with why the server refuses, [`Error::Store`].
    pub async fn fetch_older(&self, before: Seq, limit: u32) -> Result<Seq, Error> {
        tokio::time::timeout(REQUEST_TIMEOUT, self.fetch_pages(before, limit))
            .await
            .map_err(|_| Error::Timeout("a page of history"))?
    }

    async fn fetch_pages(&self, before: Seq, limit: u32) -> Result<Seq, Error> {
        let inner = &self.client.inner;
        // The last seq that need not be held. Whatever lies between that and what is held is fetched too.
        let wanted = before.0.saturating_sub(1).saturating_sub(u64::from(limit));
        loop {
            let (floor, head) = {
                let mut state = inner.state.lock();
                let held = state.conv(self.id).row.held;
                (held.floor, held.head)
            };
            if floor.0 <= wanted {
                return Ok(floor.next());
            }
            inner.wait_connected().await?;
            let Some(session) = inner.state.lock().session.clone() else {
                tokio::time::sleep(SESSION_GAP).await;
                continue;
            };
            let fetch = Fetch {
                conversation: self.id,
                anchor: Anchor::Seq,
                at: floor.next().0,
                backward: true,
                limit: u32::try_from(floor.0 - wanted).unwrap_or(u32::MAX).clamp(1, limits::PAGE_EVENTS),
                seen: head,
            };
            let page = match session.fetch(fetch).await {
                None => continue,
                Some(Err(ErrorCode::Busy | ErrorCode::Behind | ErrorCode::Unavailable)) => {
                    tokio::time::sleep(overload_wait(0)).await;
                    continue;
                }
                Some(Err(code)) => {
                    return Err(Error::Server { code, message: "no page of history".to_owned(), retry_after_ms: 0 });
                }
                Some(Ok(page)) => page,
            };
            let taken = {
                let mut state = inner.state.lock();
                let end = page.page.as_ref().map(|end| (end.first, end.last));
                let held = &mut state.conv(self.id).row.held;
                let taken = end.is_some_and(|(first, last)| held.page(first, last));
                if taken {
                    for event in page.events {
                        let encoded = Bytes::from(event.encode_body());
                        let (seq, refers_to) = (event.seq, event.refers_to);
                        state.change(Change::Event { conversation: self.id, seq, refers_to, encoded });
                    }
                    for range in page.unavailable {
                        let range = UnavailableRange { from: range.from, to: range.to, reason: range.reason };
                        state.change(Change::Unavailable { conversation: self.id, range });
                    }
                    state.row_changed(self.id);
                }
                taken
            };
            inner.flush().await?;
            inner.updated(self.id);
            if !taken {
                // An empty page: there is nothing older.
                return Ok(floor.next());
            }
        }
    }

    /// The user has seen everything up to `seq`. What is not held yet does not count as read.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn mark_read(&self, seq: Seq) -> Result<(), Error> {
        let inner = &self.client.inner;
        {
            let mut state = inner.state.lock();
            let row = &mut state.conv(self.id).row;
            let read = seq.min(row.held.cursor);
            if read <= row.read {
                return Ok(());
            }
            row.read = read;
            state.row_changed(self.id);
        }
        inner.flush().await?;
        inner.wake(self.id);
        inner.updated(self.id);
        Ok(())
    }

    /// The user types (call it with every key), or has stopped. Lost if there is no connection.
    pub fn set_typing(&self, typing: bool) {
        let inner = &self.client.inner;
        let now_ms = inner.now_ms();
        let mut state = inner.state.lock();
        let conv = state.conv(self.id);
        let told = conv.typing_told_ms.is_some_and(|told_ms| now_ms < told_ms + TYPING_EVERY_MS);
        if typing == told || (!typing && conv.typing_told_ms.is_none()) {
            return;
        }
        conv.typing_told_ms = typing.then_some(now_ms);
        if let Some(session) = &state.session {
            let frame = Typing { conversation: self.id, account: AccountId(0), typing };
            session.datagram(Bytes::from(frame.to_frame()));
        }
    }

    /// Who is typing.
    pub fn typing(&self) -> Vec<AccountId> {
        let inner = &self.client.inner;
        let now_ms = inner.now_ms();
        inner.state.lock().conv(self.id).typing(now_ms)
    }

    /// How far the other members have received and read, ascending by account.
    pub fn receipts(&self) -> Vec<ReceiptInfo> {
        let mut state = self.client.inner.state.lock();
        let receipts = state.conv(self.id).receipts.iter();
        receipts.map(|(account, marks)| ReceiptInfo { account, delivered: marks.delivered, read: marks.read }).collect()
    }

    /// Posts that wait in the outbox.
    pub fn queued(&self) -> usize {
        self.client.inner.state.lock().conv(self.id).outbox.queued()
    }
}

fn not_empty(text: &str) -> Result<&str, Error> {
    if text.is_empty() { Err(Error::InvalidArgument("the text is empty".to_owned())) } else { Ok(text) }
}

fn decode(encoded: &Bytes) -> Result<Event, Error> {
    Event::decode_body(encoded.clone()).map_err(|error| Error::Store(format!("a stored event: {error}")))
}

fn decode_all(stored: &[(Seq, Bytes)]) -> Result<Vec<Event>, Error> {
    stored.iter().map(|(_, encoded)| decode(encoded)).collect()
}
