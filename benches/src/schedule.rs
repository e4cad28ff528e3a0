//! When work is due: an open loop.
//!
//! Users do not wait for each other's answers, so a load that waits for them asks least exactly when the server is slow, and leaves
//! its worst times out of the figures ("coordinated omission"). A [`Schedule`] knows nothing of answers: the time of every piece of
//! work is fixed before the first begins. What takes time is to be counted from [`Due::at`], when it was due, not from when it was
//! sent: whatever held it up, the server's pause or a full window, is then in the figure.

use std::io;
use std::time::{Duration, Instant};

use crate::timer::Timer;

/// An even series of pieces of work, or every so manieth of one.
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// use std::time::{Duration, Instant};
/// use rove_benches::{Histogram, Schedule, Span};
///
/// let start = Instant::now();
/// let span = Span::new(start, Duration::from_secs(2), Duration::from_secs(10));
/// let mut times = Histogram::new();
/// // 1,000 a second by 4 writers: this is what the first of them does.
/// let mut schedule = Schedule::share(start, 1_000.0, span.works(start, 1_000.0), 0, 4)?;
/// while let Some(due) = schedule.next().await {
///     // … do it, and once it is answered:
///     if span.contains(due.at) {
///         times.record(due.at.elapsed());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    /// Pieces of work per second, of all shares together.
    rate: f64,
    next: u64,
    step: u64,
    end: u64,
    timer: Timer,
}

/// A piece of work whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its number in the whole series, from 0.
    pub number: u64,
    /// When it was due, which may be a while ago.
    pub at: Instant,
}

impl Schedule {
    /// `rate` a second from `start` on, `total` in all.
    ///
    /// # Errors
    /// No timer can be had from the system.
    pub fn new(start: Instant, rate: f64, total: u64) -> io::Result<Self> {
        Self::share(start, rate, total, 0, 1)
    }

    /// One of `parts` equal shares of such a series: numbers `part`, `part + parts`, … So that several writers together keep the
    /// series even.
    ///
    /// # Errors
    /// No timer can be had from the system, or these are no numbers to work by.
    pub fn share(start: Instant, rate: f64, total: u64, part: u64, parts: u64) -> io::Result<Self> {
        if !(rate.is_finite() && rate > 0.0 && part < parts) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a schedule needs a rate above 0, and a part below parts",
            ));
        }
        Ok(Self { start, rate, next: part, step: parts, end: total, timer: Timer::new()? })
    }

    /// Waits until the next piece of work is due: not at all if it was due already. `None` after the last.
    ///
    /// Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Due> {
        if self.next >= self.end {
            return None;
        }
        let due = self.ahead();
        self.timer.until(due.at).await;
        self.next += self.step;
        Some(due)
    }

    /// The next piece of work if its time has come already.
    pub fn overdue(&mut self) -> Option<Due> {
        let due = (self.next < self.end).then(|| self.ahead()).filter(|due| due.at <= Instant::now())?;
        self.next += self.step;
        Some(due)
    }

    fn ahead(&self) -> Due {
        Due { number: self.next, at: Self::due_at(self.start, self.rate, self.next) }
    }

    /// When a schedule from `start` on has its piece of work `number`: for whoever sees the work arrive and does not have its
    /// schedule.
    pub fn due_at(start: Instant, rate: f64, number: u64) -> Instant {
        start + Duration::from_secs_f64(number as f64 / rate)
    }
}

/// The time that is measured: what comes before it is warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    from: Instant,
    until: Instant,
}

impl Span {
    /// `length`, after a warm-up from `start` on.
    pub fn new(start: Instant, warm_up: Duration, length: Duration) -> Self {
        Self { from: start + warm_up, until: start + warm_up + length }
    }

    /// Whether something that was due, or happened, then is measured.
    pub fn contains(&self, at: Instant) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// When it begins.
    pub fn from(&self) -> Instant {
        self.from
    }

    /// When it ends.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        self.until - self.from
    }

    /// How many pieces of work a schedule of this rate needs from `start` to the end.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates and times are positive, and their product far below what is cut off"
    )]
    pub fn works(&self, start: Instant, rate: f64) -> u64 {
        ((self.until - start).as_secs_f64() * rate).ceil() as u64
    }

    /// So many of something in the span, per second.
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.length().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_due_when_it_was_planned_however_long_the_work_before_it_took() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 1_000.0, 20).unwrap();
        let mut numbers = Vec::new();
        while let Some(due) = schedule.next().await {
            assert_eq!(due.at, start + Duration::from_millis(due.number));
            assert!(Instant::now() >= due.at, "never early");
            if due.number == 3 {
                // The server's pause, which must not move what comes after.
                while start.elapsed() < Duration::from_millis(12) {
                    std::hint::spin_loop();
                }
            }
            if (4..12).contains(&due.number) {
                assert!(due.at.elapsed() >= Duration::from_millis(12 - due.number), "the pause is in its time");
            }
            numbers.push(due.number);
        }
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "nothing is left out");
    }

    #[tokio::test]
    async fn shares_make_up_the_whole_and_nothing_twice() {
        // Long ago, so that nothing waits.
        let start = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let mut all = Vec::new();
        for part in 0..3 {
            let mut share = Schedule::share(start, 10.0, 10, part, 3).unwrap();
            while let Some(due) = share.next().await {
                assert_eq!(due.at, start + Duration::from_millis(100 * due.number));
                all.push(due.number);
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_is_due_already_can_be_had_without_waiting_and_nothing_else() {
        let start = Instant::now().checked_sub(Duration::from_millis(2_500)).unwrap();
        let mut schedule = Schedule::new(start, 1.0, 100).unwrap();
        assert_eq!(schedule.next().await.unwrap().number, 0);
        let overdue: Vec<_> = std::iter::from_fn(|| schedule.overdue()).map(|due| due.number).collect();
        assert_eq!(overdue, [1, 2]);
    }

    #[test]
    fn a_schedule_of_nothing_is_refused() {
        for (rate, part, parts) in [(0.0, 0, 1), (-1.0, 0, 1), (f64::NAN, 0, 1), (f64::INFINITY, 0, 1), (1.0, 1, 1)] {
            assert!(Schedule::share(Instant::now(), rate, 1, part, parts).is_err(), "{rate} {part} of {parts}");
        }
    }

    #[test]
    fn the_warm_up_is_not_measured_and_the_end_is_not_either() {
        let start = Instant::now();
        let span = Span::new(start, Duration::from_secs(2), Duration::from_secs(3));
        let after = |ms| start + Duration::from_millis(ms);
        assert!(!span.contains(start) && !span.contains(after(1_999)));
        assert!(span.contains(after(2_000)) && span.contains(after(4_999)));
        assert!(!span.contains(after(5_000)));
        assert_eq!((span.works(start, 10.0), span.works(start, 0.3)), (50, 2));
        assert!((span.per_second(30) - 10.0).abs() < f64::EPSILON);
    }
}
