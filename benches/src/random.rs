//! Chance that can be repeated: the same numbers for the same seed, on every machine and with every version.

/// SplitMix64 (Steele, Lea, Flood 2014): a few operations and one word of state, and good enough for jitter and arrivals.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a part of something: each has another one.
    pub(crate) fn of(seed: u64, part: u64) -> Self {
        // Seeds that are near each other would give numbers that others had before.
        Self(Self(seed).number() ^ Self(!part).number())
    }

    /// The next number above 0 and up to 1.
    pub(crate) fn share(&mut self) -> f64 {
        // As many digits as a float has.
        ((self.number() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// The next number; all are equally likely.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_algorithm() {
        // What Java's SplittableRandom, its reference, gives for this seed.
        let mut random = Random(1_234_567);
        let numbers = [random.number(), random.number(), random.number()];
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
