//! When work is due: an open loop.
//!
//! Users do not wait for each other's answers, so a load that waits for them asks least exactly when the server is slow, and leaves
//! its worst times out of the figures ("coordinated omission"). A [`Schedule`] knows nothing of answers: the time of every piece of
//! work is fixed before the first begins. What takes time is to be counted from [`Due::at`], when it was due, not from when it was
//! sent: whatever held it up, the server's pause or a full window, is then in the figure.

use std::io;
use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::timer::Timer;

/// How pieces of work come, at the same rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrivals {
    /// At even distances: what takes longer than the distance is seen at once, and runs are easy to compare.
    #[default]
    Even,
    /// At random, as from many people who know nothing of each other: sometimes several at once, so that there are queues in the
    /// times although the server can do more than the rate. It is a Poisson process of which is known how many come in all: so many
    /// as at even distances, in the same time.
    Poisson {
        /// The same one makes the same times.
        seed: u64,
    },
}

/// The times of a series of pieces of work, or of a share of one. It needs no clock: the same arguments give the same times.
#[derive(Debug, Clone)]
pub struct Plan {
    start: Instant,
    /// Pieces of work per second, of all shares together.
    rate: f64,
    next: u64,
    step: u64,
    /// All shares together.
    total: u64,
    /// Of random times, where they are.
    chance: Option<Chance>,
}

/// Random times in the order in which they come.
#[derive(Debug, Clone)]
struct Chance {
    random: Random,
    /// Seconds after the start.
    last: f64,
}

/// Waits for the times of a [`Plan`].
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// use std::time::{Duration, Instant};
/// use rove_benches::{Arrivals, Histogram, Plan, Schedule, Span};
///
/// let start = Instant::now();
/// let span = Span::new(start, Duration::from_secs(2), Duration::from_secs(10));
/// let mut times = Histogram::new();
/// // 1,000 a second by 4 writers: this is what the first of them does.
/// let plan = Plan::share(Arrivals::Even, start, 1_000.0, span.works(start, 1_000.0), 0, 4)?;
/// let mut schedule = Schedule::of(plan)?;
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
    plan: std::iter::Peekable<Plan>,
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

impl Plan {
    /// One of `parts` equal shares of a series of `total`, `rate` a second from `start` on: numbers `part`, `part + parts`, … So that several
    /// writers together make up the series.
    ///
    /// # Errors
    /// These are no numbers to work by.
    pub fn share(arrivals: Arrivals, start: Instant, rate: f64, total: u64, part: u64, parts: u64) -> io::Result<Self> {
        if !(rate.is_finite() && rate > 0.0 && part < parts) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a schedule needs a rate above 0, and a part below parts",
            ));
        }
        let chance = match arrivals {
            Arrivals::Even => None,
            // Each share has times of its own; together they are as random as those of one.
            Arrivals::Poisson { seed } => Some(Chance { random: Random::of(seed, part), last: 0.0 }),
        };
        Ok(Self { start, rate, next: part, step: parts, total, chance })
    }

    /// How many are left.
    fn left(&self) -> u64 {
        self.total.saturating_sub(self.next).div_ceil(self.step)
    }
}

impl Iterator for Plan {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let left = self.left();
        if left == 0 {
            return None;
        }
        let (number, length) = (self.next, self.total as f64 / self.rate);
        self.next = number.saturating_add(self.step);
        let after = self.chance.as_mut().map_or(number as f64 / self.rate, |chance| chance.next(left, length));
        Some(Due { number, at: self.start + Duration::from_secs_f64(after) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left());
        (left.unwrap_or(usize::MAX), left.ok())
    }
}

impl FusedIterator for Plan {}

impl Chance {
    /// The earliest of so many that are left, each anywhere between the last one and the end: none of them is before a part `x` of that time
    /// with a probability of `(1 - x)^left`.
    fn next(&mut self, left: u64, end: f64) -> f64 {
        // x of a probability that is any: 1 - probability^(1 / left), with all its digits where it is small.
        let x = -(self.random.share().ln() / left as f64).exp_m1();
        self.last += (end - self.last) * x;
        self.last
    }
}

impl Schedule {
    /// `rate` a second from `start` on at even distances, `total` in all.
    ///
    /// # Errors
    /// No timer can be had from the system, or these are no numbers to work by.
    pub fn new(start: Instant, rate: f64, total: u64) -> io::Result<Self> {
        Self::share(start, rate, total, 0, 1)
    }

    /// A share of such a series: [`Plan::share`].
    ///
    /// # Errors
    /// As [`Schedule::new`].
    pub fn share(start: Instant, rate: f64, total: u64, part: u64, parts: u64) -> io::Result<Self> {
        Self::of(Plan::share(Arrivals::Even, start, rate, total, part, parts)?)
    }

    /// Any series.
    ///
    /// # Errors
    /// No timer can be had from the system.
    pub fn of(plan: Plan) -> io::Result<Self> {
        Ok(Self { plan: plan.peekable(), timer: Timer::new()? })
    }

    /// Waits until the next piece of work is due: not at all if it was due already. `None` after the last.
    ///
    /// Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Due> {
        let at = self.plan.peek()?.at;
        self.timer.until(at).await;
        self.plan.next()
    }

    /// The next piece of work if its time has come already.
    pub fn overdue(&mut self) -> Option<Due> {
        self.plan.next_if(|due| due.at <= Instant::now())
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
    use proptest::prelude::*;

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
            assert!(
                Plan::share(Arrivals::Even, Instant::now(), rate, 1, part, parts).is_err(),
                "{rate} {part} of {parts}"
            );
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

    /// Seconds after the start of each piece of work of all shares, in the order of time.
    fn seconds(arrivals: Arrivals, rate: f64, total: u64, parts: u64) -> Vec<f64> {
        let start = Instant::now();
        let share = |part| Plan::share(arrivals, start, rate, total, part, parts).unwrap();
        let mut all: Vec<_> = (0..parts).flat_map(share).map(|due| (due.at - start).as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn a_poisson_process() -> impl Strategy<Value = (Arrivals, f64, u64, u64)> {
        let arrivals = any::<u64>().prop_map(|seed| Arrivals::Poisson { seed });
        (arrivals, 1.0..100_000.0, 2_000_u64..5_000, 1_u64..20)
    }

    proptest! {
        #[test]
        fn random_times_are_as_many_as_even_ones_in_the_same_time_and_the_same_for_a_seed(
            (arrivals, rate, total, parts) in a_poisson_process(),
        ) {
            let times = seconds(arrivals, rate, total, parts);
            prop_assert_eq!(times.len() as u64, total);
            prop_assert!(times[0] >= 0.0 && times[times.len() - 1] <= total as f64 / rate);
            prop_assert_eq!(&times, &seconds(arrivals, rate, total, parts));
            let Arrivals::Poisson { seed } = arrivals else { unreachable!() };
            let other = seconds(Arrivals::Poisson { seed: seed ^ 1 }, rate, total, parts);
            prop_assert_ne!(times, other);
        }

        #[test]
        fn the_rate_is_the_same_from_beginning_to_end((arrivals, rate, total, parts) in a_poisson_process()) {
            let times = seconds(arrivals, rate, total, parts);
            for quarter in 1..4_u32 {
                let until = total as f64 / rate * f64::from(quarter) / 4.0;
                let came = times.iter().filter(|time| **time < until).count() as f64;
                let share = f64::from(quarter) / 4.0;
                // Six standard deviations: once in some hundred million times.
                let bound = 6.0 * (total as f64 * share * (1.0 - share)).sqrt();
                prop_assert!((came - total as f64 * share).abs() < bound, "{came} of {total} by {quarter}/4");
            }
        }

        #[test]
        fn the_distances_of_random_times_are_those_of_people_who_know_nothing_of_each_other(
            (arrivals, rate, total, parts) in a_poisson_process(),
        ) {
            let times = seconds(arrivals, rate, total, parts);
            let distances = times.windows(2).map(|pair| (pair[1] - pair[0]) * rate);
            // Exponential: e^-1 are longer than the mean, and e^-3 than three of it.
            let longer = |than: f64| distances.clone().filter(|distance| *distance > than).count() as f64 / total as f64;
            for than in [1.0_f64, 3.0] {
                let share = (-than).exp();
                let bound = 6.0 * (share * (1.0 - share) / total as f64).sqrt();
                prop_assert!((longer(than) - share).abs() < bound, "{} of {than}", longer(than));
            }
        }

        #[test]
        fn each_share_is_in_the_order_of_time((arrivals, rate, total, parts) in a_poisson_process(), part in any::<u64>()) {
            let plan = Plan::share(arrivals, Instant::now(), rate, total, part % parts, parts).unwrap();
            let due: Vec<_> = plan.clone().collect();
            prop_assert!(due.windows(2).all(|pair| pair[0].at <= pair[1].at && pair[0].number + parts == pair[1].number));
            prop_assert_eq!(plan.size_hint(), (due.len(), Some(due.len())));
        }
    }
}
