//! Whether a node's clock is good enough to say when something was posted (D10).
//!
//! Leaders stamp what they put into the log, and stamps never go back: one leader whose clock is an hour ahead would date everything that
//! follows an hour ahead. A node compares its clock with those of the others. It is not to lead while it is far from their median, its own
//! counted in: so of three nodes the one that is wrong is found, and there is always one that may lead, however wrong all of them are.
//! Of fewer than three nobody can tell which is wrong, and all may.

/// Milliseconds from the median at which a clock is far from it: a hundred times what a machine that is kept in time may be off, and as much
/// as people who look at a time to the minute would not miss.
pub const FAR_MS: u64 = 10_000;
/// Milliseconds within which it is near again: not back and forth around one number.
pub const NEAR_MS: u64 = 5_000;
/// Clocks, the node's own among them, of which a median says which is wrong.
const ENOUGH: usize = 3;

/// What a node thinks of its own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockWatch {
    far: bool,
}

/// What a look at the clocks has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockLook {
    /// Milliseconds by which the node's clock is ahead of the median; 0 while nobody can tell.
    pub ahead_ms: i64,
    /// Whether that is too much for it to lead.
    pub far: bool,
}

impl ClockWatch {
    /// The clocks of the other nodes are ahead of this one's by so many milliseconds, now.
    pub fn look(&mut self, others_ahead_ms: &[i64]) -> ClockLook {
        let mut all: Vec<i64> = others_ahead_ms.iter().copied().chain([0]).collect();
        all.sort_unstable();
        let enough = all.len() >= ENOUGH;
        // Of an even number the lower one of the two in the middle: it is somebody's, and all nodes take the same.
        let median = all.get((all.len() - 1) / 2).copied().filter(|_| enough).unwrap_or(0);
        let bound = if self.far { NEAR_MS } else { FAR_MS };
        self.far = median.unsigned_abs() > bound;
        ClockLook { ahead_ms: median.saturating_neg(), far: self.far }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(others: &[i64]) -> ClockLook {
        ClockWatch::default().look(others)
    }

    #[test]
    fn of_three_the_one_that_is_wrong_finds_it_out_and_the_others_go_on() {
        let hour = 3_600_000;
        assert_eq!(look(&[-hour, -hour - 3]), ClockLook { ahead_ms: hour, far: true });
        assert_eq!(look(&[hour, 3]), ClockLook { ahead_ms: -3, far: false });
        assert_eq!(look(&[3, -hour]), ClockLook { ahead_ms: 0, far: false });
    }

    #[test]
    fn of_two_nobody_can_tell_which_is_wrong_and_both_may_lead() {
        assert_eq!(look(&[60_000]), ClockLook::default());
        assert_eq!(look(&[]), ClockLook::default());
    }

    #[test]
    fn a_clock_that_was_far_is_near_again_only_well_within_the_bound() {
        let mut watch = ClockWatch::default();
        let offs = [10_000, 10_001, 10_000, 5_001, 5_000, 10_000];
        let far = offs.map(|off| watch.look(&[off, off]).far);
        assert_eq!(far, [false, true, true, true, false, false]);
    }

    #[test]
    fn a_clock_that_cannot_be_is_far_and_breaks_nothing() {
        assert!(look(&[i64::MAX, i64::MAX]).far && look(&[i64::MIN, i64::MIN]).far);
    }

    proptest! {
        #[test]
        fn whatever_the_clocks_say_somebody_may_lead(clocks in prop::collection::vec(-1_000_000_i64..1_000_000, 1..9)) {
            let may_lead = |own: usize| {
                let others = clocks.iter().enumerate().filter(|(node, _)| *node != own);
                let ahead: Vec<i64> = others.map(|(_, clock)| clock - clocks[own]).collect();
                !look(&ahead).far
            };
            prop_assert!((0..clocks.len()).any(may_lead));
        }
    }
}
