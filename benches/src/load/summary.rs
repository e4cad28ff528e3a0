//! Numbers out of samples.

use std::time::Duration;

/// Times that something took, sorted, in microseconds.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    sorted_us: Vec<u32>,
}

impl Summary {
    /// Takes the samples in.
    pub fn new(mut samples_us: Vec<u32>) -> Self {
        samples_us.sort_unstable();
        Self { sorted_us: samples_us }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.sorted_us.len()
    }

    /// The time that `percent` of the samples stayed within, in milliseconds; 0 without samples.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among samples is far below what a float holds exactly"
    )]
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        let Some(last) = self.sorted_us.len().checked_sub(1) else { return 0.0 };
        let rank = (percent / 100.0 * last as f64).round() as usize;
        f64::from(self.sorted_us[rank.min(last)]) / 1_000.0
    }

    /// The median and the 99th percentile, for people.
    pub fn p50_p99(&self) -> String {
        format!("{:.2} / {:.2} ms", self.percentile_ms(50.0), self.percentile_ms(99.0))
    }
}

/// A time as a sample; an hour and more is an hour.
pub fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(3_600_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_samples() {
        let summary = Summary::new((1..=101).rev().map(|ms| ms * 1_000).collect());
        assert_eq!(summary.count(), 101);
        assert!((summary.percentile_ms(50.0) - 51.0).abs() < f64::EPSILON);
        assert!((summary.percentile_ms(99.0) - 100.0).abs() < f64::EPSILON);
        assert!((summary.percentile_ms(100.0) - 101.0).abs() < f64::EPSILON);
    }

    #[test]
    fn no_samples_are_no_time() {
        assert!(Summary::new(Vec::new()).percentile_ms(99.0).abs() < f64::EPSILON);
    }
}
