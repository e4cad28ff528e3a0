//! The TLS sessions a server remembers, which is what makes 0-RTT possible.
//!
//! rustls gives early data only to sessions that are kept here: a ticket it could decrypt by itself could be used any
//! number of times. Its own cache looks through a list on each hand-shake; this is a map and the order of arrival.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustls::server::StoresServerSessions;

/// A bounded store of TLS sessions. Each can be used once; the oldest are forgotten first.
///
/// A session that is not here costs its client a round trip and nothing else, so losing them all is no harm.
pub struct SessionStore {
    sessions: Mutex<Sessions>,
    capacity: usize,
    unknown: AtomicU64,
}

#[derive(Default)]
struct Sessions {
    /// With the number it came as.
    by_key: HashMap<Vec<u8>, (u64, Vec<u8>)>,
    /// Oldest first. Some have been used or replaced since: their number is another by then, or gone.
    arrival: VecDeque<(u64, Vec<u8>)>,
    last: u64,
}

impl SessionStore {
    /// A store of at most `capacity` sessions, [`crate::config::TLS_SESSIONS`] say.
    pub fn new(capacity: usize) -> Self {
        Self { sessions: Mutex::default(), capacity, unknown: AtomicU64::new(0) }
    }

    /// Sessions there are.
    pub fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a client wanted to resume a session that is not here (any more). What it sent as early data was
    /// rejected.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sessions> {
        // Nothing in here panics half-way.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, capacity: usize) {
        self.last += 1;
        self.arrival.push_back((self.last, key.clone()));
        self.by_key.insert(key, (self.last, value));
        while self.by_key.len() > capacity {
            let Some((number, key)) = self.arrival.pop_front() else { return };
            self.forget(number, &key);
        }
        // Used ones leave their place in the queue behind: half of it at most.
        if self.arrival.len() > 2 * capacity.max(1) {
            let by_key = &self.by_key;
            self.arrival.retain(|(number, key)| by_key.get(key).is_some_and(|(current, _)| current == number));
        }
    }

    fn forget(&mut self, number: u64, key: &[u8]) {
        if self.by_key.get(key).is_some_and(|(current, _)| *current == number) {
            self.by_key.remove(key);
        }
    }
}

impl StoresServerSessions for SessionStore {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if self.capacity == 0 {
            return false;
        }
        self.lock().put(key, value, self.capacity);
        true
    }

    /// TLS 1.2 asks in this way, which QUIC does not have.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().by_key.get(key).map(|(_, value)| value.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let taken = self.lock().by_key.remove(key).map(|(_, value)| value);
        if taken.is_none() {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn can_cache(&self) -> bool {
        self.capacity > 0
    }
}

/// Says how many there are: the sessions themselves are secrets.
impl fmt::Debug for SessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore")
            .field("sessions", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    #[test]
    fn a_session_is_used_once() {
        let store = SessionStore::new(4);
        assert!(store.put(key(1), vec![7]));
        assert_eq!(store.take(&key(1)), Some(vec![7]));
        assert_eq!(store.unknown(), 0);
        assert_eq!(store.take(&key(1)), None);
        assert_eq!((store.unknown(), store.len()), (1, 0));
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let store = SessionStore::new(3);
        for number in 1..=5 {
            store.put(key(number), vec![1]);
        }
        let there: Vec<bool> = (1..=5).map(|number| store.get(&key(number)).is_some()).collect();
        assert_eq!(there, [false, false, true, true, true]);
    }

    #[test]
    fn one_that_is_put_again_is_as_new_and_what_was_used_is_not_counted() {
        let store = SessionStore::new(2);
        store.put(key(1), vec![1]);
        store.put(key(2), vec![1]);
        store.put(key(1), vec![2]);
        store.put(key(3), vec![1]);
        assert_eq!(store.get(&key(1)), Some(vec![2]), "the place it had first does not take it away");
        assert_eq!((store.get(&key(2)), store.len()), (None, 2));
        store.take(&key(3));
        store.put(key(4), vec![1]);
        assert_eq!((store.get(&key(1)), store.len()), (Some(vec![2]), 2));
    }

    #[test]
    fn neither_the_sessions_nor_the_places_of_used_ones_grow_without_bound() {
        let store = SessionStore::new(10);
        for number in 0..10_000 {
            store.put(key(number), vec![0; 8]);
            if number % 3 > 0 {
                store.take(&key(number));
            }
        }
        let sessions = store.lock();
        assert!(sessions.by_key.len() <= 10 && sessions.arrival.len() <= 20, "{}", sessions.arrival.len());
    }

    #[test]
    fn a_store_of_nothing_keeps_nothing_and_says_so() {
        let store = SessionStore::new(0);
        assert!(!store.can_cache() && !store.put(key(1), vec![1]) && store.is_empty());
    }

    #[test]
    fn secrets_are_not_in_the_debug_output() {
        let store = SessionStore::new(4);
        store.put(vec![222], vec![173]);
        let shown = format!("{store:?}");
        assert!(!shown.contains("222") && !shown.contains("173"), "{shown}");
    }
}
