//! Numbers that wait for an answer.

use std::collections::BTreeMap;

/// A bounded bag of numbers. A bag and not a set: a client that goes back to an earlier post sends a number again while
/// its first copy may still be unanswered, and each copy has an answer of its own.
#[derive(Debug, Clone)]
pub(super) struct Outstanding {
    numbers: BTreeMap<u64, usize>,
    count: usize,
    limit: usize,
}

impl Outstanding {
    pub(super) fn new(limit: usize) -> Self {
        Self { numbers: BTreeMap::new(), count: 0, limit }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.limit
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.numbers.contains_key(&number)
    }

    /// Adds one. The caller has looked at [`Outstanding::is_full`].
    pub(super) fn add(&mut self, number: u64) {
        *self.numbers.entry(number).or_default() += 1;
        self.count += 1;
    }

    /// Takes one out; false if it was not there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let Some(copies) = self.numbers.get_mut(&number) else { return false };
        *copies -= 1;
        if *copies == 0 {
            self.numbers.remove(&number);
        }
        self.count -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_of_a_number_counts_and_is_answered_once() {
        let mut outstanding = Outstanding::new(2);
        outstanding.add(7);
        outstanding.add(7);
        assert!(outstanding.is_full());
        assert!(outstanding.remove(7) && outstanding.contains(7));
        assert!(outstanding.remove(7) && !outstanding.contains(7));
        assert!(!outstanding.remove(7));
        assert_eq!(outstanding.len(), 0);
    }
}
