//! An open conversation: the tail of its log, who was taken out of it, and how far its members have read.
//!
//! There is one [`Live`] for each conversation that somebody on this node has open. The state writer appends to it; each
//! stream copies out what its own window has room for, whenever it likes. Nothing is queued for anybody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rove_protocol::ids::{AccountId, Seq};
use rove_protocol::registry::Role;
use tokio::sync::watch;

/// Events kept of an open conversation: several rounds of a very busy one. Who is further behind reads from the store,
/// where the same events are still in memory.
const RING_EVENTS: usize = 256;
/// Their bytes: four replay queues ([`rove_protocol::limits::REPLAY_QUEUE`]), as no stream copies more at once.
const RING_BYTES: usize = 64 * 1024;

/// How far a member has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// The last seq one of its devices holds.
    pub(crate) delivered: Seq,
    /// The last seq it has read.
    pub(crate) read: Seq,
    /// The version of the conversation's watermarks at which this one last rose.
    version: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// Encoded `Event` frames; the last one's seq is `head`.
    ring: VecDeque<Bytes>,
    ring_bytes: usize,
    /// The last seq published since the conversation was opened here; 0: none yet.
    head: Seq,
    /// Members that were taken out, and by which event.
    gone: BTreeMap<AccountId, Seq>,
    watermarks: BTreeMap<AccountId, Watermark>,
    watermark_version: u64,
}

/// What a stream gets of the tail.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Encoded frames, in order, the first of them `after + 1`.
    pub(crate) frames: Vec<Bytes>,
    /// The last published seq; 0: none since the conversation was opened here.
    pub(crate) head: Seq,
    /// Whether `after + 1` is older than the ring: it has to be read from the store.
    pub(crate) missed: bool,
}

/// One open conversation.
#[derive(Debug)]
pub(crate) struct Live {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    /// Whether anybody wants watermarks: not in large groups.
    receipts: AtomicBool,
    /// Nothing follows: the partition's state has jumped.
    ended: AtomicBool,
}

impl Live {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
            receipts: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Something changed: a receiver learns it once, however often it happened.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes the streams.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// The partition's state has jumped: whoever has the conversation open must open it again.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether it must be opened again.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Appends an encoded `Event` frame.
    pub(super) fn push(&self, seq: Seq, frame: Bytes) {
        let inner = &mut *self.inner.lock();
        if !inner.ring.is_empty() && seq != inner.head.next() {
            // Never seen: rounds come in order. The store has everything, the ring begins anew.
            inner.ring.clear();
            inner.ring_bytes = 0;
        }
        inner.head = seq;
        inner.ring_bytes += frame.len();
        inner.ring.push_back(frame);
        while inner.ring.len() > RING_EVENTS || (inner.ring_bytes > RING_BYTES && inner.ring.len() > 1) {
            if let Some(oldest) = inner.ring.pop_front() {
                inner.ring_bytes -= oldest.len();
            }
        }
    }

    /// What follows `after`, at most `max_bytes` of it, but always one event if there is one.
    pub(crate) fn tail(&self, after: Seq, max_bytes: usize) -> Tail {
        let inner = self.inner.lock();
        if inner.head <= after {
            return Tail { head: inner.head, ..Tail::default() };
        }
        let first = inner.head.0 + 1 - inner.ring.len() as u64;
        if after.0 + 1 < first {
            return Tail { head: inner.head, missed: true, ..Tail::default() };
        }
        let mut bytes = 0;
        let skip = usize::try_from(after.0 + 1 - first).unwrap_or(usize::MAX);
        let frames = inner.ring.iter().skip(skip).take_while(|frame| {
            let fits = bytes == 0 || bytes + frame.len() <= max_bytes;
            bytes += frame.len();
            fits
        });
        Tail { frames: frames.cloned().collect(), head: inner.head, missed: false }
    }

    /// The last published seq; 0: none since the conversation was opened here.
    pub(crate) fn head(&self) -> Seq {
        self.inner.lock().head
    }

    /// Members changed by the event at `seq`.
    pub(super) fn members(&self, seq: Seq, changes: &[(AccountId, Role)]) {
        let inner = &mut *self.inner.lock();
        for (account, role) in changes {
            if *role == Role::None {
                inner.gone.insert(*account, seq);
                inner.watermarks.remove(account);
            } else {
                inner.gone.remove(account);
            }
        }
    }

    /// The event that took the account out, if one did since the conversation was opened here.
    pub(crate) fn gone(&self, account: AccountId) -> Option<Seq> {
        self.inner.lock().gone.get(&account).copied()
    }

    /// A stream wants watermarks.
    pub(crate) fn want_receipts(&self) {
        self.receipts.store(true, Ordering::Relaxed);
    }

    /// A member holds or has read more. True if that was not known.
    pub(crate) fn mark(&self, account: AccountId, delivered: Seq, read: Seq) -> bool {
        if !self.receipts.load(Ordering::Relaxed) {
            return false;
        }
        let inner = &mut *self.inner.lock();
        let mark = inner.watermarks.entry(account).or_default();
        let read = read.max(mark.read);
        let delivered = delivered.max(mark.delivered).max(read);
        if (delivered, read) == (mark.delivered, mark.read) {
            return false;
        }
        inner.watermark_version += 1;
        *mark = Watermark { delivered, read, version: inner.watermark_version };
        true
    }

    /// The watermarks that rose after `version`, except the account's own, and the newest version.
    pub(crate) fn marks_since(&self, version: u64, except: AccountId) -> (Vec<(AccountId, Watermark)>, u64) {
        let inner = self.inner.lock();
        if inner.watermark_version <= version {
            return (Vec::new(), inner.watermark_version);
        }
        let rose = inner.watermarks.iter().filter(|(account, mark)| mark.version > version && **account != except);
        (rose.map(|(account, mark)| (*account, *mark)).collect(), inner.watermark_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, length: usize) -> Bytes {
        Bytes::from(vec![byte; length])
    }

    #[test]
    fn a_stream_gets_what_follows_its_cursor_as_far_as_it_has_room() {
        let live = Live::new();
        for seq in 5..=9u8 {
            live.push(Seq(seq.into()), frame(seq, 10));
        }
        let tail = live.tail(Seq(6), 25);
        assert_eq!(tail, Tail { frames: vec![frame(7, 10), frame(8, 10)], head: Seq(9), missed: false });
        assert_eq!(live.tail(Seq(8), 1).frames, vec![frame(9, 10)], "one event always fits");
        assert_eq!(live.tail(Seq(9), 100), Tail { frames: Vec::new(), head: Seq(9), missed: false });
    }

    #[test]
    fn a_cursor_older_than_the_ring_is_told_so() {
        let live = Live::new();
        live.push(Seq(5), frame(5, 10));
        assert!(live.tail(Seq(3), 100).missed);
        assert!(!live.tail(Seq(4), 100).missed);
        assert!(!Live::new().tail(Seq(3), 100).missed);
    }

    #[test]
    fn the_ring_is_bounded_in_events_and_in_bytes() {
        let live = Live::new();
        for seq in 1..=1_000 {
            live.push(Seq(seq), frame(1, 1));
        }
        assert_eq!(live.inner.lock().ring.len(), RING_EVENTS);
        for seq in 1_001..=1_010 {
            live.push(Seq(seq), frame(1, 30_000));
        }
        let inner = live.inner.lock();
        assert!(inner.ring_bytes <= RING_BYTES);
        assert_eq!(inner.ring_bytes, inner.ring.iter().map(Bytes::len).sum::<usize>());
    }

    #[test]
    fn watermarks_only_rise_and_are_told_once_and_not_to_oneself() {
        let (live, alice, bob) = (Live::new(), AccountId(1), AccountId(2));
        assert!(!live.mark(alice, Seq(3), Seq(1)), "nobody wants them");
        live.want_receipts();
        assert!(live.mark(alice, Seq(3), Seq(1)));
        assert!(!live.mark(alice, Seq(2), Seq(1)));
        assert_eq!(live.marks_since(0, alice).0, Vec::new());
        let (marks, version) = live.marks_since(0, bob);
        assert_eq!((marks[0].0, marks[0].1.delivered, marks[0].1.read), (alice, Seq(3), Seq(1)));
        assert_eq!(live.marks_since(version, bob).0, Vec::new());
        live.mark(alice, Seq(0), Seq(7));
        assert_eq!(live.marks_since(version, bob).0[0].1.delivered, Seq(7), "read is delivered");
    }

    #[test]
    fn who_is_let_in_again_is_not_gone() {
        let (live, bob) = (Live::new(), AccountId(2));
        live.members(Seq(4), &[(bob, Role::None)]);
        assert_eq!(live.gone(bob), Some(Seq(4)));
        live.members(Seq(5), &[(bob, Role::Member)]);
        assert_eq!(live.gone(bob), None);
    }
}
