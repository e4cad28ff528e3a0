//! Sessions that are asked to go elsewhere: because the node is drained, stops, or cannot serve them.
//!
//! They are not all asked at once: the other nodes have to take them. Each session takes a place in the queue when it hears that it is to
//! go (or when it begins while that is so), and the place says when it is told. So the rate is bounded whatever the number of sessions,
//! and nobody keeps a list of them.

mod disk;
mod drain;
mod minority;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use disk::watch as watch_disk;
pub(crate) use drain::move_leaders;
pub use drain::{DrainError, DrainPhase, DrainProgress, Drainer};
pub(crate) use minority::watch as watch_minority;

/// Sessions told to go in a second. Another node greets some thousands a second; with this it does it beside its own work, and 30,000
/// sessions have moved within a minute.
pub const PER_SECOND: u32 = 500;

/// Why sessions are asked to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The operator drains the node.
    Drain,
    /// No leader can be reached from here.
    Minority,
}

/// The queue of sessions that are to go.
#[derive(Debug, Clone)]
pub struct Wave {
    /// Why.
    pub why: Why,
    began: Instant,
    places: Arc<AtomicU64>,
}

impl Wave {
    fn new(why: Why) -> Self {
        Self { why, began: Instant::now(), places: Arc::default() }
    }

    /// Takes the next place in the queue: when its session is told.
    pub fn place(&self) -> Instant {
        let place = self.places.fetch_add(1, Ordering::Relaxed);
        self.began + spread(place, PER_SECOND)
    }

    /// How long sessions may stay that were told; `None`: as long as they like. A node without a majority still serves history, which is
    /// more than a client has that can reach no other.
    pub fn cut_after(&self, drain: Duration) -> Option<Duration> {
        match self.why {
            Why::Drain => Some(drain),
            Why::Minority => None,
        }
    }
}

/// When place `place` is due in a queue of `per_second`.
fn spread(place: u64, per_second: u32) -> Duration {
    Duration::from_micros(place.saturating_mul(1_000_000) / u64::from(per_second.max(1)))
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

    /// Asks sessions to go, those that are there and those that come. A node that is drained is drained, whatever else befalls it.
    pub fn ask(&self, why: Why) {
        self.wave.send_if_modified(|wave| {
            let asked = wave.as_ref().map(|wave| wave.why);
            let news = asked.is_none() || (asked != Some(why) && why == Why::Drain);
            if news {
                *wave = Some(Wave::new(why));
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

    #[test]
    fn places_are_spread_evenly_over_the_time_it_takes() {
        assert_eq!(spread(0, PER_SECOND), Duration::ZERO);
        assert_eq!(spread(1, 500), Duration::from_millis(2));
        assert_eq!(spread(15_000, 500), Duration::from_secs(30));
    }

    #[tokio::test]
    async fn sessions_take_places_one_after_the_other() {
        let wave = Wave::new(Why::Drain);
        let places: Vec<_> = (0..3).map(|_| wave.place()).collect();
        assert!(places[0] < places[1] && places[1] < places[2]);
        // Clones are the same queue.
        assert!(wave.clone().place() > places[2]);
    }

    #[tokio::test]
    async fn a_drain_goes_on_when_a_majority_is_lost_and_found_again() {
        let leaving = Leaving::default();
        leaving.ask(Why::Drain);
        leaving.ask(Why::Minority);
        assert_eq!(leaving.why(), Some(Why::Drain));
        leaving.stop_asking(Why::Minority);
        assert_eq!(leaving.why(), Some(Why::Drain));
        leaving.stop_asking(Why::Drain);
        assert_eq!(leaving.why(), None);
    }

    #[tokio::test]
    async fn who_is_handed_over_for_want_of_a_majority_may_stay_and_who_is_drained_may_not() {
        let drain = Duration::from_secs(5);
        assert_eq!(Wave::new(Why::Minority).cut_after(drain), None);
        assert_eq!(Wave::new(Why::Drain).cut_after(drain), Some(drain));
    }
}
