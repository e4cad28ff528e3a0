//! Which seqs of a conversation are held (D3).
//!
//! What is held is one range, `floor + 1 ..= cursor`: it grows at its upper end by what streams bring and at its lower
//! end by pages of history. An event that would leave a hole is never taken, so the range is a proof.

use rove_protocol::ids::Seq;

/// What to do with something that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is the next one: store it. The cursor is past it now.
    Append,
    /// It is held already: forget it.
    Duplicate,
    /// Something between is missing: open the stream again, from the cursor.
    Gap {
        /// The seq that was due.
        expected: Seq,
    },
}

/// What opening a conversation's stream showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The log is the one that is held: go on.
    Same,
    /// The log was rebuilt: forget every event and open again, from the beginning.
    Rebuilt,
}

/// The range that is held, and how far the log is known to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// The last seq below what is held.
    pub floor: Seq,
    /// The last seq held, or known to be unavailable.
    pub cursor: Seq,
    /// The last seq of the log, as far as known. Never below the cursor.
    pub head: Seq,
    /// The epoch of the log; 0 before it was opened for the first time.
    pub epoch: u64,
}

impl Held {
    /// Whether nothing is held, so that the range may still be placed anywhere.
    pub fn is_empty(&self) -> bool {
        self.floor == self.cursor
    }

    /// Whether everything up to the head is held.
    pub fn is_in_step(&self) -> bool {
        self.cursor >= self.head
    }

    /// Places an empty range so that the newest `events` seqs of the log will be filled in and older ones left to
    /// pages of history. Changes nothing once something is held.
    pub fn start_near_head(&mut self, events: u64) {
        let start = Seq(self.head.0.saturating_sub(events));
        if self.is_empty() && start > self.cursor {
            self.floor = start;
            self.cursor = start;
        }
    }

    /// The log goes at least this far.
    pub fn told_head(&mut self, head: Seq) {
        self.head = self.head.max(head);
    }

    /// The stream is open.
    pub fn opened(&mut self, head: Seq, epoch: u64) -> Opening {
        if self.epoch != 0 && self.epoch != epoch {
            self.rebuilt();
            self.head = head;
            self.epoch = epoch;
            return Opening::Rebuilt;
        }
        self.epoch = epoch;
        self.told_head(head);
        Opening::Same
    }

    /// Forgets what is held: the log starts again.
    pub fn rebuilt(&mut self) {
        *self = Self::default();
    }

    /// An event of a stream, or inside an inbox line.
    pub fn event(&mut self, seq: Seq) -> Arrival {
        self.range(seq, seq)
    }

    /// Seqs `from..=to` will never come. What of them is held already stays.
    pub fn unavailable(&mut self, from: Seq, to: Seq) -> Arrival {
        self.range(from, to)
    }

    fn range(&mut self, from: Seq, to: Seq) -> Arrival {
        self.told_head(to);
        if to <= self.cursor {
            return Arrival::Duplicate;
        }
        if from > self.cursor.next() {
            return Arrival::Gap { expected: self.cursor.next() };
        }
        self.cursor = to;
        Arrival::Append
    }

    /// A page `first..=last` of history. Whether it continues what is held downwards: only then is it to be stored.
    pub fn page(&mut self, first: Seq, last: Seq) -> bool {
        if first.0 == 0 || first > self.floor || last < self.floor {
            return false;
        }
        self.floor = Seq(first.0 - 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_next_one_appends_an_old_one_is_ignored_and_a_hole_is_an_error() {
        let mut held = Held::default();
        assert_eq!(held.event(Seq(1)), Arrival::Append);
        assert_eq!(held.event(Seq(1)), Arrival::Duplicate);
        assert_eq!(held.event(Seq(3)), Arrival::Gap { expected: Seq(2) });
        assert_eq!((held.cursor, held.head), (Seq(1), Seq(3)));
        assert_eq!(held.unavailable(Seq(1), Seq(4)), Arrival::Append);
        assert_eq!(held.cursor, Seq(4));
    }

    #[test]
    fn a_long_log_is_begun_near_its_head_and_filled_downwards() {
        let mut held = Held::default();
        held.told_head(Seq(5_000));
        held.start_near_head(100);
        assert_eq!((held.floor, held.cursor), (Seq(4_900), Seq(4_900)));
        assert_eq!(held.event(Seq(4_901)), Arrival::Append);
        assert!(!held.page(Seq(4_000), Seq(4_500)), "a page that leaves a hole is not taken");
        assert!(held.page(Seq(4_801), Seq(4_900)));
        assert_eq!(held.floor, Seq(4_800));
        held.start_near_head(1);
        assert_eq!(held.floor, Seq(4_800), "a range that holds something stays where it is");
    }

    #[test]
    fn a_rebuilt_log_starts_from_nothing() {
        let mut held = Held::default();
        assert_eq!(held.opened(Seq(9), 1), Opening::Same);
        held.event(Seq(1));
        assert_eq!(held.opened(Seq(2), 2), Opening::Rebuilt);
        assert_eq!(held, Held { head: Seq(2), epoch: 2, ..Held::default() });
    }

    proptest! {
        /// I5: contiguous, never back, never past what came.
        #[test]
        fn whatever_comes_the_cursor_proves_one_contiguous_range(
            arrivals in prop::collection::vec((1u64..40, 0u64..5), 0..200),
        ) {
            let mut held = Held::default();
            let mut have = std::collections::BTreeSet::new();
            for (from, extra) in arrivals {
                let before = held.cursor;
                let (from, to) = (Seq(from), Seq(from + extra));
                if held.unavailable(from, to) == Arrival::Append {
                    have.extend((from.0..=to.0).filter(|seq| *seq > before.0));
                }
                prop_assert!(held.cursor >= before);
                prop_assert!(held.head >= held.cursor);
                prop_assert!(have.iter().copied().eq(1..=held.cursor.0));
            }
        }
    }
}
