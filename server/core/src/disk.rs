//! A reserve of disk space: what is kept for the log of the others when this node's own clients are refused.
//!
//! A node whose disk is really full must stop: it can keep no log. Long before that it takes no new commands of its clients and leads
//! nothing, and still follows, serves reads, and makes its state durable, which frees log. When there is room again it goes on.

/// Whether there is less room than the reserve, without going back and forth around it.
#[derive(Debug, Clone, Copy)]
pub struct Reserve {
    bytes: u64,
    low: bool,
}

impl Reserve {
    /// Of so many bytes; 0: none.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, low: false }
    }

    /// So much is free now: whether that is too little. It is until there is a quarter more than the reserve.
    pub fn look(&mut self, free: u64) -> bool {
        let needed = if self.low { self.bytes.saturating_add(self.bytes / 4) } else { self.bytes };
        self.low = free < needed;
        self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_the_reserve_and_until_there_is_a_quarter_more() {
        let mut reserve = Reserve::new(400);
        let looked = [1_000, 400, 399, 400, 499, 500, 400, 399].map(|free| reserve.look(free));
        assert_eq!(looked, [false, false, true, true, true, false, false, true]);
    }

    #[test]
    fn without_a_reserve_no_disk_is_low() {
        assert!(!Reserve::new(0).look(0));
    }
}
