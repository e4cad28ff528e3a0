//! The outbox of one conversation: what to send under which number, and what became of it (D1, D7).
//!
//! A queued post gets a number when it is sent for the first time, and the number is stored before that: from then on
//! the two belong together for ever, so that sending it again, whenever and to whichever node, is harmless. The answer
//! may come as `Posted`, or as the event itself if the answer was lost.
//!
//! # When the store may be a copy
//!
//! A restored backup would give numbers to new posts that its own lost future has used already. So a post is only
//! numbered once the server has said, in this run of the program, that it knows of no number of this writer above
//! those in the store. If it does, or if the store was recognised as a copy when it was opened, a new writer is minted
//! ([`Outbox::set_writer`]) and the old one's posts are settled first:
//!
//! - numbered ones are sent again under the old writer, once everything up to the head at opening has been seen: their number is bound to their bytes, so the server either
//!   has them already, or takes them, or answers `PostNoReused`; then somebody else's bytes have the number, and they
//!   get another from the new writer;
//! - those without a number may have been posted in the lost future. The log says so: an event of this device with the same content and a number this store never gave was
//!   this one. The others move to the new writer, in their order.
//!
//! One stream has one writer, so a conversation's stream is opened for the old writer first
//! ([`Outbox::open_writer`]), and opened again for the new one when the old one's posts are settled.

mod answers;
mod item;

use std::collections::{BTreeMap, VecDeque};

use rove_protocol::ids::{PostNo, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::Post;
use rove_protocol::registry::ErrorCode;

use crate::timeline::{Delivery, LocalId};
pub use item::{Change, Draft, Effects, Item, Outcome};

/// Refused posts kept to be shown until the user dismisses them; older ones are forgotten.
pub const REFUSED_KEPT: usize = 100;

/// As many posts are queued as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} posts are queued already")]
pub struct OutboxFull {
    /// How many there may be.
    pub limit: usize,
}

/// What became of a wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelResult {
    /// It was not sent and never will be; or it was refused and is forgotten.
    Done,
    /// It was sent and not answered: its outcome will say.
    Requested,
    /// It is not in the outbox.
    Unknown,
}

/// An unanswered post and what is known of it in this run.
#[derive(Debug, Clone)]
struct Entry {
    item: Item,
    /// Queued in this run, so it cannot be in the log already.
    fresh: bool,
    /// Its number is on disk: it may be sent.
    stored: bool,
    /// Somebody else's bytes have its number; it waits until the log has been seen.
    disputed: bool,
    /// It was reported as refused already and only uses up its number.
    reported: bool,
    /// An event says the same under a number this store never gave: what became of it if its own number is disputed.
    seen: Option<Outcome>,
}

/// A post that was answered and is still shown.
#[derive(Debug, Clone)]
struct Kept {
    item: Item,
    outcome: Outcome,
}

/// The conversation's stream, as far as posts are concerned.
#[derive(Debug, Clone)]
struct Stream {
    writer: WriterId,
    /// The writer's last number and the head when it was opened, once it is.
    opened: Option<(PostNo, Seq)>,
    /// Every event up to that head has been seen.
    seen_all: bool,
    /// Numbers below were sent on this stream.
    next: PostNo,
    in_flight: usize,
    /// A post was held back: when everything in flight is answered, start again from the first unanswered one.
    rewinding: bool,
    retry_at_ms: u64,
    refusals: u32,
}

/// How a pending post looks in the timeline.
#[derive(Debug, Clone, Copy)]
pub struct Pending<'a> {
    /// Its name.
    pub local: LocalId,
    /// What it says.
    pub draft: &'a Draft,
    /// When it was queued, in milliseconds of the Unix epoch.
    pub created_ms: u64,
    /// How far it has come.
    pub delivery: Delivery,
    /// Its seq, if it is posted and its event has not come yet.
    pub seq: Option<Seq>,
}

/// The outbox of one conversation.
#[derive(Debug, Clone)]
pub struct Outbox {
    writer: WriterId,
    verified: bool,
    limit: usize,
    window: usize,
    last_numbers: BTreeMap<WriterId, PostNo>,
    entries: VecDeque<Entry>,
    kept: BTreeMap<LocalId, Kept>,
    stream: Option<Stream>,
}

impl Outbox {
    /// An empty outbox for the store's writer, of at most `limit` queued posts.
    pub fn new(writer: WriterId, limit: usize) -> Self {
        Self {
            writer,
            verified: false,
            limit,
            window: limits::UNANSWERED_POSTS,
            last_numbers: BTreeMap::new(),
            entries: VecDeque::new(),
            kept: BTreeMap::new(),
            stream: None,
        }
    }

    /// Puts back what the store held: a row, in the order of their local ids.
    pub fn restore_item(&mut self, item: Item, refused: Option<ErrorCode>) {
        if let Some(code) = refused {
            self.kept.insert(item.local, Kept { item, outcome: Outcome::Refused(code) });
            return;
        }
        // Reported as refused, and its number is still to be used up.
        let refused = item.void.filter(|code| *code != ErrorCode::Cancelled);
        if let Some(code) = refused {
            self.kept.insert(item.local, Kept { item: item.clone(), outcome: Outcome::Refused(code) });
        }
        let reported = refused.is_some();
        self.entries.push_back(Entry { item, fresh: false, stored: true, disputed: false, reported, seen: None });
    }

    /// Puts back what the store held: the last number of a writer here.
    pub fn restore_number(&mut self, writer: WriterId, last: PostNo) {
        self.last_numbers.insert(writer, last);
    }

    /// A new writer was minted for the whole store: the old one is settled from here on.
    pub fn set_writer(&mut self, writer: WriterId, effects: &mut Effects) {
        if writer == self.writer {
            return;
        }
        self.writer = writer;
        self.verified = false;
        for entry in &mut self.entries {
            if entry.fresh && entry.item.number.is_none() {
                entry.item.writer = writer;
                effects.changes.push(Change::Put(entry.item.clone()));
            }
        }
        // Nothing more may come that would have this looked at again.
        if self.stream.as_ref().is_some_and(|stream| stream.seen_all) {
            self.settle(effects);
        }
    }

    /// The writer of new posts.
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// Queues a post. It may be numbered at once if it is going to be sent at once, so that one commit does both.
    ///
    /// # Errors
    /// [`OutboxFull`]; nothing was queued.
    pub fn enqueue(
        &mut self,
        local: LocalId,
        draft: Draft,
        now_ms: u64,
        effects: &mut Effects,
    ) -> Result<(), OutboxFull> {
        if self.entries.len() >= self.limit {
            return Err(OutboxFull { limit: self.limit });
        }
        let item = Item { local, writer: self.writer, number: None, draft, created_ms: now_ms, void: None };
        self.entries.push_back(Entry {
            item,
            fresh: true,
            stored: false,
            disputed: false,
            reported: false,
            seen: None,
        });
        self.number(effects);
        // Numbering stores it; otherwise it waits without a number.
        if let Some(entry) = self.entries.back().filter(|entry| entry.item.number.is_none()) {
            effects.changes.push(Change::Put(entry.item.clone()));
        }
        Ok(())
    }

    /// Takes a post back, or forgets a refused one.
    pub fn cancel(&mut self, local: LocalId, effects: &mut Effects) -> CancelResult {
        if self.kept.get(&local).is_some_and(|kept| matches!(kept.outcome, Outcome::Refused(_))) {
            self.kept.remove(&local);
            effects.changes.push(Change::Remove(local));
            return CancelResult::Done;
        }
        let Some(index) = self.entries.iter().position(|entry| entry.item.local == local) else {
            return CancelResult::Unknown;
        };
        if self.entries[index].item.number.is_none() {
            self.entries.remove(index);
            effects.changes.push(Change::Remove(local));
            effects.resolved.push((local, Outcome::Refused(ErrorCode::Cancelled)));
            return CancelResult::Done;
        }
        let item = &mut self.entries[index].item;
        if item.void.is_none() {
            item.void = Some(ErrorCode::Cancelled);
            effects.changes.push(Change::Put(item.clone()));
        }
        CancelResult::Requested
    }

    /// The writer to open the stream with: that of the oldest unanswered post.
    pub fn open_writer(&self) -> WriterId {
        self.entries.front().map_or(self.writer, |entry| entry.item.writer)
    }

    /// `Open` is being sent, for [`Outbox::open_writer`]. `window` is the server's limit of unanswered posts.
    pub fn stream_opening(&mut self, window: usize) {
        self.window = window.clamp(1, limits::UNANSWERED_POSTS);
        self.stream = Some(Stream {
            writer: self.open_writer(),
            opened: None,
            seen_all: false,
            next: PostNo(0),
            in_flight: 0,
            rewinding: false,
            retry_at_ms: 0,
            refusals: 0,
        });
    }

    /// The stream is gone: what was sent and not answered is sent again on the next one.
    pub fn stream_lost(&mut self) {
        self.stream = None;
    }

    /// Whether the stream is to be closed and opened again for another writer.
    pub fn wants_reopen(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.in_flight == 0 && stream.writer != self.open_writer())
    }

    /// Numbers as many posts as may be in flight. They may be sent when the changes are durable and
    /// [`Outbox::stored`] has been called.
    pub fn number(&mut self, effects: &mut Effects) {
        let Some(stream) = &self.stream else { return };
        if !self.verified || stream.writer != self.writer {
            return;
        }
        let mut last = self.last_numbers.get(&self.writer).copied().unwrap_or_default();
        for entry in self.entries.iter_mut().take(self.window) {
            if entry.item.writer != self.writer || entry.disputed {
                break;
            }
            if entry.item.number.is_none() {
                last = last.next();
                entry.item.number = Some(last);
                entry.stored = false;
                effects.changes.push(Change::Put(entry.item.clone()));
            }
        }
        self.last_numbers.insert(self.writer, last);
    }

    /// The last number given, to be remembered before the changes are stored and handed to [`Outbox::stored`] after.
    pub fn numbered(&self) -> (WriterId, PostNo) {
        (self.writer, self.last_numbers.get(&self.writer).copied().unwrap_or_default())
    }

    /// Whether a number was given that nobody has said is durable: whoever gave it was cut off before it could.
    pub fn awaits_storing(&self) -> bool {
        let writer = self.writer;
        self.entries
            .iter()
            .take(self.window)
            .any(|entry| entry.item.writer == writer && entry.item.number.is_some() && !entry.stored)
    }

    /// Numbers up to this one are durable.
    pub fn stored(&mut self, (writer, last): (WriterId, PostNo)) {
        for entry in self.entries.iter_mut().take(self.window) {
            if entry.item.writer == writer && entry.item.number.is_some_and(|number| number <= last) {
                entry.stored = true;
            }
        }
    }

    /// The next post to send, if one may be sent now. It counts as sent.
    pub fn next_to_send(&mut self, now_ms: u64) -> Option<Post> {
        let stream = self.stream.as_mut()?;
        if stream.rewinding || now_ms < stream.retry_at_ms || stream.in_flight >= self.window {
            return None;
        }
        if stream.writer != self.writer && !stream.seen_all {
            return None;
        }
        let entry = self
            .entries
            .iter()
            .take_while(|entry| entry.item.writer == stream.writer && (entry.stored || entry.disputed))
            .find(|entry| !entry.disputed && entry.item.number.is_some_and(|number| number >= stream.next))?;
        let number = entry.item.number?;
        stream.next = number.next();
        stream.in_flight += 1;
        Some(entry.item.post(number))
    }

    /// When [`Outbox::next_to_send`] is to be asked again although nothing has happened, in milliseconds.
    pub fn retry_at_ms(&self, now_ms: u64) -> Option<u64> {
        let stream = self.stream.as_ref()?;
        (!stream.rewinding && stream.retry_at_ms > now_ms && !self.entries.is_empty()).then_some(stream.retry_at_ms)
    }

    /// How many posts are queued, and nobody has been told how they ended.
    pub fn queued(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.reported).count()
    }

    /// Whether every post is answered and every number used up.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many posts are sent and unanswered on the current stream.
    pub fn in_flight(&self) -> usize {
        self.stream.as_ref().map_or(0, |stream| stream.in_flight)
    }

    /// What is to be shown after the events of the log, in the order it was queued.
    pub fn pending(&self) -> Vec<Pending<'_>> {
        let mut pending: Vec<Pending<'_>> = Vec::new();
        for entry in self.entries.iter().filter(|entry| !entry.reported && entry.item.void.is_none()) {
            let delivery = if entry.item.number.is_some() { Delivery::Sent } else { Delivery::Queued };
            pending.push(item_view(&entry.item, delivery, None));
        }
        for kept in self.kept.values() {
            let (delivery, seq) = match kept.outcome {
                Outcome::Posted { seq, .. } => (Delivery::Posted, Some(seq)),
                Outcome::Refused(code) => (Delivery::Refused(code), None),
            };
            pending.push(item_view(&kept.item, delivery, seq));
        }
        pending.sort_by_key(|item| item.local);
        pending
    }

    /// The cursor has passed this seq: posts whose events have come are not pending any more.
    pub fn passed(&mut self, cursor: Seq, effects: &mut Effects) {
        self.kept.retain(|local, kept| match kept.outcome {
            Outcome::Posted { seq, .. } if seq <= cursor => {
                effects.changes.push(Change::Remove(*local));
                false
            }
            _ => true,
        });
    }
}

fn item_view(item: &Item, delivery: Delivery, seq: Option<Seq>) -> Pending<'_> {
    Pending { local: item.local, draft: &item.draft, created_ms: item.created_ms, delivery, seq }
}
