//! When to try again.
//!
//! Full jitter: each wait is uniform between nothing and a bound that doubles. When a node dies, its thousands of
//! clients thereby come back spread out instead of in waves.

/// Bound of the first wait: one round trip of a bad mobile network. A single hiccup is repaired before a user sees it.
pub const BASE_MS: u64 = 250;
/// Bound of every later wait: the longest a user with a working network is left waiting for a server that is back.
pub const CAP_MS: u64 = 30_000;
/// A session that lived this long was a good one: what happens next is a new story and begins with a short wait. Shorter
/// sessions count as failed attempts, so that a server that accepts and drops is not hammered.
pub const STABLE_MS: u64 = 10_000;

/// Waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    cap_ms: u64,
    attempt: u32,
    floor_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(CAP_MS)
    }
}

impl Backoff {
    /// Waits of at most `cap_ms` (what a server asks for apart).
    pub fn new(cap_ms: u64) -> Self {
        Self { cap_ms, attempt: 0, floor_ms: 0 }
    }

    /// The next wait, in milliseconds. `random` is any uniformly distributed number.
    pub fn next_ms(&mut self, random: u64) -> u64 {
        let bound = BASE_MS.checked_shl(self.attempt).unwrap_or(u64::MAX).min(self.cap_ms).max(1);
        self.attempt = (self.attempt + 1).min(16);
        std::mem::take(&mut self.floor_ms).saturating_add(random % bound)
    }

    /// A session ended that had lived for `lived_ms` since `Welcome`.
    pub fn session_ended(&mut self, lived_ms: u64) {
        if lived_ms >= STABLE_MS {
            self.attempt = 0;
        }
    }

    /// The network changed or the app asks: the next attempt is due at once.
    pub fn reset(&mut self) {
        self.attempt = 0;
        self.floor_ms = 0;
    }

    /// The server asked for at least this long; the jitter comes on top.
    pub fn at_least(&mut self, floor_ms: u64) {
        // A server is believed up to ten times our own cap: more is a mistake, and the app would look dead.
        self.floor_ms = floor_ms.min(self.cap_ms.saturating_mul(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_again_after_a_stable_session() {
        let mut backoff = Backoff::default();
        let bounds: Vec<u64> = (0..9).map(|_| backoff.clone_bound()).collect();
        assert_eq!(bounds, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        backoff.session_ended(STABLE_MS - 1);
        assert_eq!(backoff.clone_bound(), 30_000);
        backoff.session_ended(STABLE_MS);
        assert_eq!(backoff.clone_bound(), 250);
    }

    impl Backoff {
        /// The bound of the next wait, found by asking for its largest value.
        fn clone_bound(&mut self) -> u64 {
            let bounds = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000];
            let before = self.clone();
            self.next_ms(0);
            bounds
                .into_iter()
                .find(|bound| before.clone().next_ms(*bound) == 0 && before.clone().next_ms(bound - 1) == bound - 1)
                .unwrap()
        }
    }

    #[test]
    fn the_servers_advice_is_a_floor_for_one_wait() {
        let mut backoff = Backoff::default();
        backoff.at_least(5_000);
        assert!(backoff.next_ms(7) >= 5_000);
        assert!(backoff.next_ms(7) < 5_000);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_cap(randoms in prop::collection::vec(any::<u64>(), 1..100)) {
            let mut backoff = Backoff::default();
            for random in randoms {
                prop_assert!(backoff.next_ms(random) < CAP_MS);
            }
        }
    }
}
