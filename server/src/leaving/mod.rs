//! Sessions that are asked to go elsewhere: because the node is drained, stops, or cannot serve them.
//!
//! They are not all asked at once: the other nodes have to take them. Each session takes a place in the queue when it hears that it is to
//! go (or when it begins while that is so), and the place says when it is told. So the rate is bounded whatever the number of sessions,
//! and nobody keeps a list of them.

mod clock;
mod disk;
mod drain;
mod minority;
mod unfit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use clock::watch as watch_clock;
pub(crate) use disk::watch as watch_disk;
pub(crate) use drain::move_leaders;
pub use drain::{DrainError, DrainPhase, DrainProgress, Drainer};
pub(crate) use minority::watch as watch_minority;

/// Between two sessions that are told to go: 500 a second. Another node greets some thousands a second; with this it does it beside its
/// own work, and 30,000 sessions have moved within a minute.
const EACH: Duration = Duration::from_millis(2);

/// Why sessions are asked to go. What is further down weighs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No leader can be reached from here.
    Minority,
    /// The operator drains the node.
    Drain,
    /// The node stops.
    Stop,
}

/// The queue of sessions that are to go.
#[derive(Debug, Clone)]
pub struct Wave {
    /// Why.
    pub why: Why,
    began: Instant,
    pace: Pace,
    places: Arc<AtomicU64>,
}

/// The turn of a session in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// When it is told.
    pub at: Instant,
    /// How long it may stay then; `None`: as long as it likes. A node without a majority still serves history, which is more than a client
    /// has that can reach no other.
    pub stay: Option<Duration>,
}

impl Wave {
    fn new(why: Why, pace: Pace) -> Self {
        Self { why, began: Instant::now(), pace, places: Arc::default() }
    }

    /// Takes the next place in the queue.
    pub fn turn(&self) -> Turn {
        let after = self.pace.after(self.places.fetch_add(1, Ordering::Relaxed));
        Turn { at: self.began + after, stay: self.pace.stay(after) }
    }
}

/// How fast a queue is, and how long those may stay who were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    each: Duration,
    end: End,
}

/// When a session that was told is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Never,
    /// So long after it was told.
    Each(Duration),
    /// So long after the queue began, all at once.
    All(Duration),
}

impl Pace {
    /// For `sessions` of a node that is gone after `within`: nobody is told later than at half of it, so that the last has the other half
    /// to go in. Where that is too short for all of them, they are told faster.
    fn before(within: Duration, sessions: usize) -> Self {
        let sessions = u32::try_from(sessions.max(1)).unwrap_or(u32::MAX);
        Self { each: EACH.min(within / 2 / sessions), end: End::All(within) }
    }

    /// How long after the beginning place `place` is due.
    fn after(self, place: u64) -> Duration {
        let each = u64::try_from(self.each.as_nanos()).unwrap_or(u64::MAX);
        let after = Duration::from_nanos(each.saturating_mul(place));
        match self.end {
            // Sessions that begin meanwhile were not counted.
            End::All(within) => after.min(within / 2),
            End::Never | End::Each(_) => after,
        }
    }

    /// How long a session may stay that is told `after` so long.
    fn stay(self, after: Duration) -> Option<Duration> {
        match self.end {
            End::Never => None,
            End::Each(stay) => Some(stay),
            End::All(within) => Some(within.saturating_sub(after)),
        }
    }
}

/// Whether and how this node leaves.
#[derive(Debug)]
pub struct Leaving {
    draining: watch::Sender<bool>,
    wave: watch::Sender<Option<Wave>>,
}

impl Default for Leaving {
    fn default() -> Self {
        Self { draining: watch::Sender::new(false), wave: watch::Sender::new(None) }
    }
}

impl Leaving {
    /// Whether the node is about to leave: not ready, and the last to be recommended.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Says whether the node is about to leave.
    pub fn set_draining(&self, draining: bool) {
        self.draining.send_replace(draining);
    }

    /// No leader can be reached: sessions are asked to go, those that are there and those that come, and may stay.
    pub fn ask_for_want_of_a_majority(&self) {
        self.ask(Why::Minority, Pace { each: EACH, end: End::Never });
    }

    /// The node is drained: they are asked to go, and each is given `stay` from then on.
    pub fn ask_to_drain(&self, stay: Duration) {
        self.ask(Why::Drain, Pace { each: EACH, end: End::Each(stay) });
    }

    /// The node stops after `within`: the `sessions` that there are must be told before.
    pub fn ask_to_stop(&self, within: Duration, sessions: usize) {
        self.ask(Why::Stop, Pace::before(within, sessions));
    }

    /// A node that is drained is drained, whatever else befalls it, and one that stops stops.
    fn ask(&self, why: Why, pace: Pace) {
        self.wave.send_if_modified(|wave| {
            let news = wave.as_ref().is_none_or(|wave| wave.why < why);
            if news {
                *wave = Some(Wave::new(why, pace));
            }
            news
        });
    }

    /// Does not ask them any more, if it was for this reason.
    pub fn stop_asking(&self, why: Why) {
        self.wave.send_if_modified(|wave| {
            let ours = wave.as_ref().is_some_and(|wave| wave.why == why);
            if ours {
                *wave = None;
            }
            ours
        });
    }

    /// Why sessions are asked to go, if they are.
    pub fn why(&self) -> Option<Why> {
        self.wave.borrow().as_ref().map(|wave| wave.why)
    }

    /// For sessions: the queue, now and when there is another.
    pub(crate) fn wave(&self) -> watch::Receiver<Option<Wave>> {
        let mut wave = self.wave.subscribe();
        // Whoever begins now has to look too.
        wave.mark_changed();
        wave
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(5);

    #[test]
    fn a_drain_tells_five_hundred_a_second_whatever_their_number() {
        let pace = Pace { each: EACH, end: End::Each(DRAIN) };
        assert_eq!(pace.after(0), Duration::ZERO);
        assert_eq!(pace.after(1), Duration::from_millis(2));
        assert_eq!(pace.after(15_000), Duration::from_secs(30));
        assert_eq!(pace.stay(pace.after(15_000)), Some(DRAIN));
    }

    #[test]
    fn a_node_that_stops_tells_few_sessions_no_faster_than_a_drain() {
        for sessions in [0, 1, 1_000, 1_250] {
            let pace = Pace::before(DRAIN, sessions);
            assert_eq!(pace.each, EACH, "{sessions}");
            assert_eq!(pace.after(100), Duration::from_millis(200));
        }
    }

    #[test]
    fn a_node_that_stops_tells_many_sessions_evenly_and_all_of_them_by_half_of_its_time() {
        for sessions in [1_251, 10_000, 100_000] {
            let pace = Pace::before(DRAIN, sessions);
            assert!(pace.each < EACH && pace.each > Duration::ZERO, "{sessions}");
            let last = pace.after(sessions as u64 - 1);
            assert!(last <= DRAIN / 2 && last > DRAIN * 49 / 100, "{sessions}: {last:?}");
            // Whoever came meanwhile.
            assert_eq!(pace.after(2 * sessions as u64), DRAIN / 2);
        }
        assert_eq!(Pace::before(Duration::ZERO, 1_000).after(999), Duration::ZERO);
    }

    #[test]
    fn whoever_is_told_stays_until_the_node_is_gone_and_no_longer() {
        let pace = Pace::before(DRAIN, 10_000);
        for place in [0, 5_000, 9_999, 1_000_000] {
            let after = pace.after(place);
            assert_eq!(pace.stay(after).map(|stay| after + stay), Some(DRAIN));
        }
    }

    #[tokio::test]
    async fn sessions_take_places_one_after_the_other() {
        let wave = Wave::new(Why::Drain, Pace { each: EACH, end: End::Each(DRAIN) });
        let turns: Vec<_> = (0..3).map(|_| wave.turn().at).collect();
        assert!(turns[0] < turns[1] && turns[1] < turns[2]);
        // Clones are the same queue.
        assert!(wave.clone().turn().at > turns[2]);
    }

    #[tokio::test]
    async fn a_drain_goes_on_when_a_majority_is_lost_and_found_again_and_a_stop_whatever_comes() {
        let leaving = Leaving::default();
        leaving.ask_to_drain(DRAIN);
        leaving.ask_for_want_of_a_majority();
        assert_eq!(leaving.why(), Some(Why::Drain));
        leaving.stop_asking(Why::Minority);
        assert_eq!(leaving.why(), Some(Why::Drain));
        leaving.ask_to_stop(DRAIN, 1);
        leaving.ask_to_drain(DRAIN);
        leaving.stop_asking(Why::Drain);
        assert_eq!(leaving.why(), Some(Why::Stop));
    }

    #[tokio::test]
    async fn who_is_handed_over_for_want_of_a_majority_may_stay_and_who_is_drained_may_not() {
        let leaving = Leaving::default();
        let stay = |leaving: &Leaving| leaving.wave.borrow().as_ref().map(|wave| wave.turn().stay);
        leaving.ask_for_want_of_a_majority();
        assert_eq!(stay(&leaving), Some(None));
        leaving.ask_to_drain(DRAIN);
        assert_eq!(stay(&leaving), Some(Some(DRAIN)));
    }
}
