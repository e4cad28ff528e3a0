//! Times that something took: as many as there are, in bounded memory, to three digits.

use std::time::Duration;

use hdrhistogram::Histogram as Hdr;

/// Three digits: more than two runs agree in.
const DIGITS: u8 = 3;
/// Longer than any run waits: an hour, in nanoseconds. What takes longer is counted as that.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Points of a curve for each halving of what is left to 100 %.
const POINTS: u32 = 5;

/// A distribution of times (an HDR histogram: 260 KB, however many there are).
#[derive(Debug, Clone)]
pub struct Histogram(Hdr<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// One without times.
    ///
    /// # Panics
    /// Never: the bounds are constants that are in order.
    #[expect(clippy::expect_used, reason = "constants, and a test makes one")]
    pub fn new() -> Self {
        Self(Hdr::new_with_bounds(1, LONGEST_NS, DIGITS).expect("bounds that are in order"))
    }

    /// Counts a time.
    pub fn record(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NS);
        self.0.saturating_record(ns.clamp(1, LONGEST_NS));
    }

    /// Counts all times of another one.
    pub fn add(&mut self, other: &Self) {
        // Equal bounds always fit.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that `percent` of them stayed within; 0 if there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percent))
    }

    /// [`Histogram::percentile`] in milliseconds.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        milliseconds(self.percentile(percent))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(if self.is_empty() { 0 } else { self.0.max() })
    }

    /// Their mean.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e9)
    }

    /// The median and the 99th percentile, for people.
    pub fn p50_p99(&self) -> String {
        format!("{} / {} ms", digits(self.percentile_ms(50.0)), digits(self.percentile_ms(99.0)))
    }

    /// Percentiles and the times that belong to them (ms), closer and closer to 100: what is drawn.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let points = self.0.iter_quantiles(POINTS);
        points.map(|point| (point.quantile() * 100.0, point.value_iterated_to() as f64 / 1e6)).collect()
    }
}

impl Extend<Duration> for Histogram {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, times: T) {
        times.into_iter().for_each(|time| self.record(time));
    }
}

/// A time in milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Three digits of a figure, and no more, for people: `0.123`, `1.23`, `12.3`, `123`, `12345`.
pub fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_ms: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        histogram.extend(times_ms.into_iter().map(Duration::from_millis));
        histogram
    }

    /// Within the thousandth that three digits may be off.
    fn near(is: f64, should: f64) -> bool {
        (is - should).abs() <= should * 0.001
    }

    #[test]
    fn percentiles_are_those_of_the_times_whatever_their_order() {
        let histogram = of((1..=1_000).rev());
        assert_eq!(histogram.count(), 1_000);
        for (percent, ms) in [(50.0, 500.0), (99.0, 990.0), (75.0, 750.0), (100.0, 1_000.0)] {
            assert!(near(histogram.percentile_ms(percent), ms), "{percent}: {}", histogram.percentile_ms(percent));
        }
        assert!(near(milliseconds(histogram.max()), 1_000.0) && near(milliseconds(histogram.mean()), 500.5));
    }

    #[test]
    fn one_that_is_added_counts_as_if_its_times_had_been_recorded() {
        let mut sum = of([1, 2, 3]);
        sum.add(&of([10, 20, 30]));
        assert_eq!(sum.count(), 6);
        assert!(near(sum.percentile_ms(100.0), 30.0) && near(sum.percentile_ms(50.0), 3.0));
    }

    #[test]
    fn microseconds_and_hours_fit_and_longer_is_counted_as_an_hour() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::from_micros(17));
        assert!(near(histogram.percentile_ms(50.0), 0.017));
        histogram.record(Duration::ZERO);
        histogram.record(Duration::from_secs(100_000));
        assert_eq!(histogram.count(), 3);
        assert!(near(milliseconds(histogram.max()), 3_600_000.0));
    }

    #[test]
    fn no_times_are_no_time() {
        let histogram = Histogram::new();
        assert!(histogram.is_empty() && histogram.percentile(99.0).is_zero());
        assert!(histogram.max().is_zero() && histogram.mean().is_zero() && histogram.curve().is_empty());
    }

    #[test]
    fn a_curve_rises_to_the_longest_time() {
        let curve = of(1..=1_000).curve();
        assert!(curve.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1), "{curve:?}");
        let (percent, ms) = curve[curve.len() - 1];
        assert!(near(percent, 100.0) && near(ms, 1_000.0), "{percent} {ms}");
        assert!(curve.len() < 200);
    }

    #[test]
    fn people_are_shown_three_digits() {
        let shown = [0.012_34, 1.234, 12.34, 123.4, 12_345.6].map(digits);
        assert_eq!(shown, ["0.012", "1.23", "12.3", "123", "12346"]);
    }
}
