//! The outbox of one conversation: what to send under which number, and what became of it (D1, D7).
//!
//! A queued post gets a number when it is sent for the first time, and the number is stored before that: from then on
//! the two belong together for ever, so that sending it again, whenever and to whichever node, is harmless. The answer
//! may come as `Posted`, or as the event itself if the answer was lost.
//!
//! # When the store may be a copy
//!
//! A store that was put back from an old copy has queued what its lost future may have posted, under numbers it gave
//! later or under another writer; and it would give numbers to new posts that the lost future has used. The rules that
//! make "nothing lost, nothing doubled, in order" exact all the same:
//!
//! - Each post has a tag, random, stored with it, and sent with it whatever writer and number it goes out under. An event
//!   of this account with the tag of a queued post *is* that post ([`Outbox::own_event`]).
//! - What was in the store when this run of the program began is not sent before everything up to the head of `Opened`
//!   has been seen ([`Outbox::caught_up`]): what any other future posted has been found by then. Outbox and cursor are of
//!   one copy, and a post leaves the store with the cursor that passes its event, so its event comes after the cursor.
//!   Posts queued in this run cannot be in the log; with none from before in front of them, they wait for nothing.
//! - A number is only given once the server has said, in this run, that it knows of none of this writer above those in the
//!   store. If it does, or if the store was recognised as a copy when it was opened, a new writer is minted
//!   ([`Outbox::set_writer`]). Posts without a number are the new writer's at once.
//! - A post with a number is asked about under that number first, also under a writer that was given up: its number is
//!   bound to its bytes, tag included, so the answer is that post's or `PostNoReused`. Repeats append nothing, and until
//!   they are answered nothing is sent that could ([`Outbox::next_to_send`]). If somebody else's bytes have one's number,
//!   it and all after it, whose numbers are unused, move to the current writer, in their order.
//!
//! One stream has one writer, so a conversation's stream is opened for the oldest post's ([`Outbox::open_writer`]), and
//! again for the next one's.
//!
//! What these rules cannot see: an event that the server will not send any more (`Unavailable`). Then the answer to the
//! post's number decides, and a post without a number is posted again: doubled rather than lost. In pull mode the events
//! come in pages, and the rules are the same. Two stores in use at once (a cloned phone) both post what both have queued.

mod answers;
mod item;
mod sending;
mod settling;

use std::collections::{BTreeMap, VecDeque};

use rove_protocol::ids::{PostNo, PostTag, Seq, WriterId};
use rove_protocol::limits;
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
    /// It was sent and not answered, or may have been before the store was put back: its outcome will say.
    Requested,
    /// It is not in the outbox.
    Unknown,
}

/// An unanswered post and what is known of it in this run.
#[derive(Debug, Clone)]
struct Entry {
    item: Item,
    /// In the store when this run began, and another future of that store may have posted it for all that is known yet.
    unchecked: bool,
    /// Its number is on disk: it may be sent.
    stored: bool,
    /// Its number is of no use: somebody else's bytes have it, or it can never follow on the one before.
    disputed: bool,
    /// It is void, but its number is used up, perhaps by itself: it is asked about as it was.
    as_it_was: bool,
    /// It was reported as refused already and only uses up its number.
    reported: bool,
}

impl Entry {
    fn new(item: Item) -> Self {
        Self { item, unchecked: false, stored: false, disputed: false, as_it_was: false, reported: false }
    }

    /// Forgets its number: it is the next of `writer`'s to be numbered.
    fn unbind(&mut self, writer: WriterId) {
        self.item.writer = writer;
        self.item.number = None;
        (self.unchecked, self.stored, self.disputed, self.as_it_was) = (false, false, false, false);
    }
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
    /// Sent and not answered, in order.
    in_flight: VecDeque<InFlight>,
    /// A post was held back: when everything in flight is answered, start again from the first unanswered one.
    rewinding: bool,
    retry_at_ms: u64,
    refusals: u32,
}

/// A post on its way.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    number: PostNo,
    /// The first number that was unanswered when it was sent: those below are in the log before it, whatever is said of it.
    first: PostNo,
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
    pub fn restore_item(&mut self, mut item: Item, refused: Option<ErrorCode>) {
        if let Some(code) = refused {
            self.kept.insert(item.local, Kept { item, outcome: Outcome::Refused(code) });
            return;
        }
        if item.number.is_none() {
            item.writer = self.writer;
        }
        // Reported as refused, and its number is still to be used up.
        let refused = item.void.filter(|code| *code != ErrorCode::Cancelled);
        if let Some(code) = refused {
            self.kept.insert(item.local, Kept { item: item.clone(), outcome: Outcome::Refused(code) });
        }
        let reported = refused.is_some();
        self.entries.push_back(Entry { unchecked: true, stored: true, reported, ..Entry::new(item) });
    }

    /// Puts back what the store held: the last number of a writer here.
    pub fn restore_number(&mut self, writer: WriterId, last: PostNo) {
        self.last_numbers.insert(writer, last);
    }

    /// A new writer was minted for the whole store: the old one's numbers are only asked about from here on.
    pub fn set_writer(&mut self, writer: WriterId, effects: &mut Effects) {
        if writer == self.writer {
            return;
        }
        self.writer = writer;
        self.verified = false;
        for entry in &mut self.entries {
            // A number that is not known to be on disk was never sent.
            let unsent = entry.item.number.is_some() && !entry.stored;
            if unsent {
                entry.unbind(writer);
                effects.changes.push(Change::Put(entry.item.clone()));
            } else if entry.item.number.is_none() {
                entry.item.writer = writer;
            }
        }
        // Nothing more may come that would have this looked at again.
        self.settle(effects);
    }

    /// The writer of new posts.
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// Queues a post under a name in the store and a tag that no other post has or had. It may be numbered at once if it is
    /// going to be sent at once, so that one commit does both.
    ///
    /// # Errors
    /// [`OutboxFull`]; nothing was queued.
    pub fn enqueue(
        &mut self,
        (local, tag): (LocalId, PostTag),
        draft: Draft,
        now_ms: u64,
        effects: &mut Effects,
    ) -> Result<(), OutboxFull> {
        if self.entries.len() >= self.limit {
            return Err(OutboxFull { limit: self.limit });
        }
        let (tag, writer) = (Some(tag), self.writer);
        let item = Item { local, tag, writer, number: None, draft, created_ms: now_ms, void: None };
        self.entries.push_back(Entry::new(item));
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
        if self.entries[index].item.number.is_none() && !self.entries[index].unchecked {
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

    /// How many posts are queued, and nobody has been told how they ended.
    pub fn queued(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.reported).count()
    }

    /// Whether every post is answered and every number used up.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it holds a post that another future of this store may have posted, so that the log must be read on from where
    /// it was left.
    pub fn is_unchecked(&self) -> bool {
        self.entries.iter().any(|entry| entry.unchecked)
    }

    /// How many posts are sent and unanswered on the current stream.
    pub fn in_flight(&self) -> usize {
        self.stream.as_ref().map_or(0, |stream| stream.in_flight.len())
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
