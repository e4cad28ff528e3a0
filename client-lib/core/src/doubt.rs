//! Whether another node is asked because the session's own one is silent.
//!
//! After a second of silence ([`DOUBT_MS`]) it is: that finds a dead machine at once, and costs a session. On a cluster that is overloaded every
//! node is silent for that long now and then, and a second session for every client would be more load than the cluster has already. So
//! whoever has asked in vain (no other node answered, or the own one did after all) asks again only after a wait that doubles, and is random,
//! so that clients that were all kept waiting at one moment do not all ask at one moment. A node that answers promptly once the wait is
//! over is trusted as at first.

use crate::heartbeat::DOUBT_MS;

/// Bound of the first wait: a node that is only slow for once has recovered by then.
const FIRST_MS: u64 = 2_000;
/// Bound of every later wait. [`heartbeat`](crate::heartbeat) finds a dead path within six seconds whatever happens here.
const CAP_MS: u64 = 60_000;

/// What a session remembers of asking in vain. A session on another node begins anew.
#[derive(Debug, Clone, Default)]
pub struct Doubt {
    in_vain: u32,
    not_before_ms: u64,
}

impl Doubt {
    /// Whether to ask another node now. Something was last heard of this one at `heard_ms`, and it last answered promptly at `prompt_ms`
    /// (0: never).
    pub fn asks(&mut self, heard_ms: u64, prompt_ms: u64, now_ms: u64) -> bool {
        if self.in_vain > 0 && prompt_ms > self.not_before_ms {
            *self = Self::default();
        }
        now_ms >= self.not_before_ms && now_ms >= heard_ms.saturating_add(DOUBT_MS)
    }

    /// Another node was asked in vain. `random` is any uniformly distributed number.
    pub fn asked_in_vain(&mut self, now_ms: u64, random: u64) {
        let bound = FIRST_MS.checked_shl(self.in_vain).unwrap_or(CAP_MS).min(CAP_MS);
        self.in_vain = (self.in_vain + 1).min(16);
        // At least half of it: this is to be less load, not only load at other times.
        self.not_before_ms = now_ms.saturating_add(bound / 2).saturating_add(random % (bound / 2 + 1));
    }

    /// The network is another one: what was in vain there may not be here.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn another_node_is_asked_after_a_second_of_silence_and_not_before() {
        let mut doubt = Doubt::default();
        assert!(!doubt.asks(5_000, 0, 5_999));
        assert!(doubt.asks(5_000, 0, 6_000));
    }

    #[test]
    fn whoever_asks_in_vain_waits_longer_each_time_up_to_a_minute() {
        let mut doubt = Doubt::default();
        let mut now_ms = 10_000;
        let mut waits = Vec::new();
        for _ in 0..8 {
            // The latest moment that the jitter allows.
            let bound = FIRST_MS.checked_shl(doubt.in_vain).unwrap().min(CAP_MS);
            doubt.asked_in_vain(now_ms, bound / 2);
            assert!(!doubt.asks(0, 0, now_ms + bound - 1));
            assert!(doubt.asks(0, 0, now_ms + bound));
            waits.push(bound);
            now_ms += bound;
        }
        assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn a_prompt_answer_after_the_wait_is_trust_and_one_within_it_or_a_late_one_is_not() {
        let mut doubt = Doubt::default();
        doubt.asked_in_vain(10_000, 0);
        doubt.asked_in_vain(11_000, 0);
        assert!(!doubt.asks(11_500, 11_500, 12_600), "within the wait");
        assert_eq!(doubt.in_vain, 2);
        assert!(doubt.asks(13_500, 11_500, 14_500), "it is over");
        assert_eq!(doubt.in_vain, 2, "and what it said meanwhile was said late");
        assert!(doubt.asks(13_500, 13_500, 14_500));
        assert_eq!(doubt.in_vain, 0);
    }

    #[test]
    fn another_network_is_another_matter() {
        let mut doubt = Doubt::default();
        doubt.asked_in_vain(10_000, u64::MAX);
        doubt.reset();
        assert!(doubt.asks(9_000, 0, 10_000));
    }

    proptest! {
        /// Whatever the jitter: a node that is silent for good has few sessions made elsewhere because of it.
        #[test]
        fn an_hour_of_slow_nodes_costs_a_client_about_two_sessions_a_minute(randoms in prop::collection::vec(any::<u64>(), 400)) {
            let mut doubt = Doubt::default();
            let mut asked = 0;
            let mut randoms = randoms.into_iter();
            for now_ms in (0..3_600_000).step_by(1_000) {
                if doubt.asks(0, 0, now_ms + 1_000) {
                    asked += 1;
                    doubt.asked_in_vain(now_ms + 1_000, randoms.next().unwrap());
                }
            }
            prop_assert!((60..=135).contains(&asked), "{asked}");
        }

        #[test]
        fn waits_are_spread_over_half_of_their_bound(random in any::<u64>()) {
            let mut doubt = Doubt::default();
            doubt.asked_in_vain(0, random);
            prop_assert!((FIRST_MS / 2..=FIRST_MS).contains(&doubt.not_before_ms));
        }
    }
}
