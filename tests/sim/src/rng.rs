//! The one source of chance.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A seeded stream of random numbers, the same on every machine and with every version of this program's libraries.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of the remainder is of no concern below 2³², and nothing here is larger.
        self.any() % end.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True this many times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// One of them, if there are any.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_always_the_same_stream() {
        let first = |seed| Rng::new(seed).any();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
        // Pinned: a regression seed must mean the same next year.
        assert_eq!(first(1), 7_424_550_030_962_593_201);
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut rng = Rng::new(7);
        assert!((0..1_000).all(|_| (3..=5).contains(&rng.between(3, 5))));
        assert_eq!((rng.below(0), rng.pick::<u8>(&[])), (0, None));
        assert!(rng.chance(1_000) && !rng.chance(0));
    }
}
