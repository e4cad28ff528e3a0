//! Which node to connect to next.
//!
//! Any node of a cluster serves any session, so a client whose node does not serve it goes to another: the best one it was told of,
//! at once, as waiting would only be silence for the user. After that it takes its time ([`Backoff`]), one place after the other
//! and round again: a node that is down for all its clients at once must not be met by all of them at once.
//!
//! Places are `host:port`. A client knows those the app gave it and those that nodes told it in `Welcome` and `GoAway`; the latter
//! outlive the process, so that a client finds its cluster even if the address it was given is gone.

use std::collections::BTreeSet;

use crate::reconnect::{Backoff, STABLE_MS};

/// Most places that are remembered of what nodes told: a cluster has three to nine nodes, and another's answer may name others.
pub const MAX_TOLD: usize = 16;

/// Where to connect, and after how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `host:port`.
    pub place: String,
    /// The wait before it, in milliseconds.
    pub wait_ms: u64,
}

/// Decides where a client connects. See the [module](self).
#[derive(Debug, Clone)]
pub struct Places {
    backoff: Backoff,
    /// As the app gave them; never empty.
    given: Vec<String>,
    /// As nodes told, best first.
    told: Vec<String>,
    /// Where the present session is, or the last one was.
    home: Option<String>,
    /// Tried in vain since the last good session, or since all had been tried.
    tried: BTreeSet<String>,
    /// Another place may be tried without a wait.
    at_once: bool,
}

impl Places {
    /// The places an app gave (at least one), and those remembered. Waits are at most `cap_ms`.
    pub fn new(given: Vec<String>, mut told: Vec<String>, cap_ms: u64) -> Self {
        told.truncate(MAX_TOLD);
        Self { backoff: Backoff::new(cap_ms), given, told, home: None, tried: BTreeSet::new(), at_once: true }
    }

    /// Where to begin. What the app gave comes first: it may be newer than what is remembered.
    pub fn first(&self) -> String {
        self.order().into_iter().next().unwrap_or_default()
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.order().len()
    }

    /// Where the last session was, if there was one.
    pub fn home(&self) -> Option<&str> {
        self.home.as_deref()
    }

    /// The places other than the one where the session is, in the order in which they are tried.
    pub fn elsewhere(&self) -> Vec<String> {
        self.order().into_iter().filter(|place| self.home.as_ref() != Some(place)).collect()
    }

    /// `place` has said `Welcome` and told of these others, best first. Returns what is to be remembered, if that has changed.
    pub fn welcomed(&mut self, place: &str, others: impl IntoIterator<Item = String>) -> Option<Vec<String>> {
        self.home = Some(place.to_owned());
        self.tried.clear();
        self.tell(others)
    }

    /// A node tells of others, best first. Returns what is to be remembered, if that has changed.
    ///
    /// Those told of before stay, after these: a node that is not named today may be back tomorrow.
    pub fn tell(&mut self, others: impl IntoIterator<Item = String>) -> Option<Vec<String>> {
        let mut told: Vec<String> = Vec::new();
        let home = self.home.clone();
        for place in others.into_iter().take(MAX_TOLD).chain(home).chain(self.told.iter().cloned()) {
            if !place.is_empty() && !told.contains(&place) {
                told.push(place);
            }
        }
        told.truncate(MAX_TOLD);
        if told == self.told {
            return None;
        }
        self.told = told;
        Some(self.told.clone())
    }

    /// The session is over that had lived for `lived_ms` since `Welcome`: its node is not the one to go to next.
    pub fn lost(&mut self, lived_ms: u64) {
        self.backoff.session_ended(lived_ms);
        if lived_ms >= STABLE_MS {
            self.at_once = true;
        }
        if let Some(home) = &self.home {
            self.tried.insert(home.clone());
        }
    }

    /// The session is over for a reason that holds on every node: the same place again, not before `floor_ms`.
    pub fn stay(&mut self, lived_ms: u64, floor_ms: u64, random: u64) -> Attempt {
        self.backoff.session_ended(lived_ms);
        self.backoff.at_least(floor_ms);
        let place = self.home.clone().unwrap_or_else(|| self.first());
        Attempt { place, wait_ms: self.backoff.next_ms(random) }
    }

    /// There was no session at `place`.
    pub fn failed(&mut self, place: &str) {
        self.tried.insert(place.to_owned());
    }

    /// Where to go now. `random` is any uniformly distributed number.
    pub fn next(&mut self, random: u64) -> Attempt {
        let mut order = self.order();
        if let Some(place) = order.iter().find(|place| !self.tried.contains(*place)) {
            let place = place.clone();
            let free = std::mem::take(&mut self.at_once) && !self.tried.is_empty();
            let wait_ms = if free { 0 } else { self.backoff.next_ms(random) };
            return Attempt { place, wait_ms };
        }
        // All have been tried: from the beginning.
        self.tried.clear();
        self.at_once = false;
        Attempt { place: order.swap_remove(0), wait_ms: self.backoff.next_ms(random) }
    }

    /// The network changed or the app asks: every place is worth a try, and the next attempt is due at once.
    pub fn hurry(&mut self) {
        self.backoff.reset();
        self.tried.clear();
        self.at_once = true;
    }

    /// All places, in the order in which they are tried: before the first session as the app gave them and then as remembered;
    /// after it as told, then the one where it was, then as given.
    fn order(&self) -> Vec<String> {
        let others = self.told.iter().filter(|place| self.home.as_ref() != Some(*place));
        let all: Vec<&String> = if self.home.is_some() {
            others.chain(&self.home).chain(&self.given).collect()
        } else {
            self.given.iter().take(1).chain(others).chain(self.given.iter().skip(1)).collect()
        };
        let mut seen = BTreeSet::new();
        all.into_iter().filter(|place| seen.insert(place.as_str())).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(given: &[&str], told: &[&str]) -> Places {
        let text = |places: &[&str]| places.iter().map(|place| (*place).to_owned()).collect();
        Places::new(text(given), text(told), 30_000)
    }

    fn told(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_first_alternative_is_tried_at_once_and_the_next_after_a_wait() {
        let mut places = places(&["a"], &[]);
        assert_eq!(places.first(), "a");
        places.welcomed("a", told(&["b", "c"]));
        places.lost(STABLE_MS);
        assert_eq!(places.next(100), Attempt { place: "b".into(), wait_ms: 0 });
        places.failed("b");
        assert_eq!(places.next(100), Attempt { place: "c".into(), wait_ms: 100 });
        places.failed("c");
        // It may be back, and it is all that is left.
        assert_eq!(places.next(100), Attempt { place: "b".into(), wait_ms: 100 });
    }

    #[test]
    fn the_node_that_was_lost_comes_after_the_others_and_not_before_a_wait() {
        let mut places = places(&["a"], &[]);
        places.welcomed("a", told(&["b"]));
        places.lost(STABLE_MS);
        assert_eq!(places.next(7).place, "b");
        places.failed("b");
        let next = places.next(7);
        assert_eq!((next.place.as_str(), next.wait_ms), ("b", 7), "a round has ended: the best first");
        places.failed("b");
        assert_eq!(places.next(7).place, "a");
    }

    #[test]
    fn a_client_alone_with_one_node_waits_before_it_tries_again() {
        let mut places = places(&["a"], &[]);
        places.welcomed("a", told(&[]));
        places.lost(STABLE_MS);
        assert_eq!(places.next(9), Attempt { place: "a".into(), wait_ms: 9 });
    }

    #[test]
    fn nodes_that_accept_and_drop_are_not_tried_without_waits() {
        let mut places = places(&["a"], &[]);
        places.welcomed("a", told(&["b", "c"]));
        places.lost(STABLE_MS);
        assert_eq!(places.next(50).wait_ms, 0);
        places.welcomed("b", told(&["c", "a"]));
        places.lost(STABLE_MS - 1);
        let next = places.next(50);
        assert_eq!((next.place.as_str(), next.wait_ms), ("c", 50));
    }

    #[test]
    fn what_was_told_is_remembered_best_first_and_the_old_after_it() {
        let mut places = places(&["a"], &["x", "b"]);
        assert_eq!(places.welcomed("a", told(&["c", "b"])), Some(told(&["c", "b", "a", "x"])));
        assert_eq!(places.welcomed("a", told(&["c", "b"])), None, "nothing new");
        let many = (0..100).map(|number| format!("n{number}"));
        assert_eq!(places.tell(many).map(|told| told.len()), Some(MAX_TOLD));
    }

    #[test]
    fn a_new_start_begins_with_what_the_app_gave_and_goes_on_with_what_is_remembered() {
        let mut places = places(&["gone", "too"], &["b", "c"]);
        let mut order = vec![places.first()];
        for _ in 0..4 {
            places.failed(order.last().unwrap());
            order.push(places.next(0).place);
        }
        assert_eq!(order, ["gone", "b", "c", "too", "gone"]);
    }

    #[test]
    fn a_device_that_was_replaced_stays_where_it_was() {
        let mut places = places(&["a"], &[]);
        places.welcomed("b", told(&["c"]));
        let attempt = places.stay(0, 5_000, 1);
        assert_eq!((attempt.place.as_str(), attempt.wait_ms), ("b", 5_001));
    }

    #[test]
    fn a_change_of_the_network_makes_every_place_worth_a_try() {
        let mut places = places(&["a"], &[]);
        places.welcomed("a", told(&["b"]));
        places.lost(STABLE_MS);
        places.next(1);
        places.failed("b");
        places.hurry();
        assert_eq!(places.next(0).place, "b");
    }

    proptest! {
        #[test]
        fn every_place_is_tried_once_in_every_round(told_of in prop::collection::vec("[a-f]", 0..8), home in "[a-h]") {
            let mut places = places(&["a", "g"], &[]);
            places.welcomed(&home, told_of);
            places.lost(STABLE_MS);
            let count = places.count();
            // What is left of the round in which the session was lost.
            for _ in 1..count {
                let place = places.next(0).place;
                prop_assert_ne!(&place, &home);
                places.failed(&place);
            }
            let mut round = BTreeSet::new();
            for _ in 0..count {
                let place = places.next(0).place;
                places.failed(&place);
                round.insert(place);
            }
            prop_assert_eq!(round.len(), count);
        }
    }
}
