//! The lives of a node.

/// Bits that count the starts on one disk. What overflows borrows from the next rebuild's.
const BOOT_BITS: u32 = 16;

/// Bits of a life in a number: 8 for rebuilds and those of the starts. A life that is so far away is no concern.
const LIFE_BITS: u32 = 24;

/// Bits that count in one life: a million a second last twelve days, and then borrow from the next life's.
const NUMBER_BITS: u32 = u64::BITS - LIFE_BITS;

/// One life of a node, from a start of its process to its end. Later ones are larger, whatever became of the disk in between: a node that
/// is rebuilt on an empty one counts its starts from one again, in the middle of a leader's term, and with commands of its earlier
/// lives in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life(u64);

impl Life {
    /// The life that began with the start number `boot`, from 1, on the disk that the node has since it was rebuilt so often.
    pub fn new(rebuild: u32, boot: u64) -> Self {
        Self((u64::from(rebuild) << BOOT_BITS).wrapping_add(boot))
    }

    /// The first number of whatever is counted in this life, such that other lives count by other numbers, later ones by larger ones.
    pub fn first_number(self) -> u64 {
        (self.0 << NUMBER_BITS) + 1
    }

    /// Its lowest bits, by which it differs from those before and after it.
    pub fn low_bits(self, bits: u32) -> u64 {
        self.0 & ((1 << bits) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_later_lives_are_larger_whatever_became_of_the_disk() {
        let lives = [(0, 1), (0, 2), (0, 60_000), (1, 1), (1, 3), (2, 1), (255, 1)];
        let firsts = lives.map(|(rebuild, boot)| Life::new(rebuild, boot).first_number());
        assert!(firsts.is_sorted_by(|before, after| before + (1 << NUMBER_BITS) <= *after), "{firsts:?}");
        // Far away lives have numbers all the same.
        for (rebuild, boot) in [(u32::MAX, u64::MAX), (300, 1), (0, 1 << 20)] {
            assert!(Life::new(rebuild, boot).first_number() > 0);
        }
    }
}
