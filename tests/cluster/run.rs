//! One fault, from a new cluster to the verdict; and many of them, with a table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use rove_sim::checker::Violation;
use tokio::time::Instant;

use crate::arena::{Arena, Options, Outcome};
use crate::faults::{Fault, Fired, TWO_ELECTIONS};

/// Time for each variant of a fault in which it must have done something: the slowest, which have a node write for seconds, start it again
/// and wait until it has caught up, take about five. In a shorter run the table says what was not reached.
const ENOUGH: Duration = Duration::from_secs(8);

/// Kills after which posts may be taken later than is aimed at, of a hundred: candidates may have split the votes. A long run has this
/// budget; a short one has too few kills to tell.
const LATE_PERCENT: usize = 1;

/// What is said of one fault.
pub(crate) struct Row {
    pub(crate) fault: Fault,
    /// How long it had.
    time: Duration,
    pub(crate) fired: Fired,
    pub(crate) outcome: Option<Outcome>,
}

impl Row {
    /// What must not be; empty if all is well.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.fired.times() == Some(0) {
            wrong.push("it never fired".to_owned());
        }
        if let Fired::Each(tally) = &self.fired {
            let enough = self.time >= ENOUGH * u32::try_from(tally.each().len()).unwrap_or(u32::MAX);
            let missing = tally.each().iter().filter(|(_, times)| enough && *times == 0);
            wrong.extend(missing.map(|(variant, _)| format!("never, although there was time: {variant}")));
        }
        if let Some(outcome) = &self.outcome {
            wrong.extend(outcome.counts.wrong_refusals());
            wrong.extend(outcome.violations.iter().map(ToString::to_string));
            wrong.extend(outcome.troubles.iter().cloned());
        }
        wrong
    }

    /// What is to be said of leaders that were killed, and whether too many partitions took posts too late after that.
    pub(crate) fn kills(&self) -> Option<Kills> {
        let recovered = &self.outcome.as_ref()?.recovered;
        let mut slowest: BTreeMap<Instant, Duration> = BTreeMap::new();
        for recovery in recovered {
            let slowest = slowest.entry(recovery.since).or_default();
            *slowest = recovery.took.max(*slowest);
        }
        let late = slowest.values().filter(|took| **took > TWO_ELECTIONS).count();
        let partitions = recovered.iter().map(|recovery| recovery.took).collect();
        (!slowest.is_empty()).then(|| Kills { each: slowest.into_values().collect(), partitions, late })
    }

    fn violated(&self, invariants: &[&str]) -> usize {
        let violations = self.outcome.iter().flat_map(|outcome| &outcome.violations);
        let of = |violation: &&Violation| invariants.iter().any(|name| violation.invariant.starts_with(name));
        violations.filter(of).count()
    }
}

/// How long it took after each kill of a leader until posts were taken again.
pub(crate) struct Kills {
    /// Until all partitions that it led did, by kill.
    each: Vec<Duration>,
    /// By partition.
    partitions: Vec<Duration>,
    /// Kills after which it took longer than is aimed at.
    late: usize,
}

impl Kills {
    /// Whether there were more late ones than there may be.
    pub(crate) fn too_late(&self) -> bool {
        self.late * 100 > self.each.len() * LATE_PERCENT
    }
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kills, within) = (self.each.len(), TWO_ELECTIONS.as_millis());
        writeln!(
            f,
            "after {} of {kills} kills of a leader, posts sent after it were acknowledged on all its partitions within {within} ms",
            kills - self.late
        )?;
        writeln!(f, "    by kill:      {}", distribution(&self.each))?;
        write!(f, "    by partition: {}", distribution(&self.partitions))
    }
}

/// Injects a fault for a while into a cluster of its own, and judges what came of it.
pub(crate) async fn one(fault: Fault, options: Options, time: Duration) -> Row {
    let mut arena = match Arena::start(options, fault.before).await {
        Ok(arena) => arena,
        Err(why) => return Row { fault, time, fired: Fired::Skipped(why), outcome: None },
    };
    let injected = (fault.inject)(&mut arena, Instant::now() + time).await;
    if let Ok(Fired::Skipped(_)) = &injected {
        return Row { fault, time, fired: injected.unwrap_or(Fired::Times(0)), outcome: None };
    }
    let mut outcome = arena.finish().await;
    let fired = injected.unwrap_or_else(|wrong| {
        outcome.troubles.insert(0, wrong);
        // It fired: something came of it.
        Fired::Times(1)
    });
    Row { fault, time, fired, outcome: Some(outcome) }
}

/// The figure below which so many of a hundred are; the figures are in order.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

fn distribution(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| percentile(&sorted, percent).as_millis());
    format!("p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms of {}", sorted.len())
}

/// The rows as a table, and what is to be said beside it.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "fault  fired   posts  lost doubled disordered other  silence  what\n\
         -----  ----- -------  ---- ------- ---------- -----  -------  ----\n",
    );
    for row in rows {
        let Some(outcome) = &row.outcome else {
            let why = if let Fired::Skipped(why) = &row.fired { why.as_str() } else { "" };
            let _ = writeln!(
                text,
                "{:<5}      -       -     -       -          -     -        -  {}: skipped: {why}",
                row.fault.id, row.fault.what
            );
            continue;
        };
        let Some(fired) = row.fired.times() else { continue };
        let (lost, doubled, disordered) =
            (row.violated(&["I1 "]), row.violated(&["I2 "]), row.violated(&["I3 ", "I4 ", "I5 "]));
        let other = row.wrong().len() - lost - doubled - disordered;
        let silence = format!("{} ms", outcome.counts.longest_silence.as_millis());
        let _ = writeln!(
            text,
            "{:<5}  {fired:>5} {:>7}  {lost:>4} {doubled:>7} {disordered:>10} {other:>5} {silence:>8}  {}",
            row.fault.id, outcome.counts.acknowledged, row.fault.what,
        );
    }
    for row in rows {
        if let Some(kills) = row.kills() {
            let _ = writeln!(text, "{}: {kills}", row.fault.id);
        }
        if let Fired::Each(tally) = &row.fired
            && tally.each().len() > 1
        {
            let each: Vec<String> = tally.each().iter().map(|(variant, times)| format!("{variant}: {times}")).collect();
            let missed = if tally.each().iter().any(|(_, times)| *times == 0) { " (not all were reached)" } else { "" };
            let _ = writeln!(text, "{}: {}{missed}", row.fault.id, each.join(", "));
        }
    }
    for row in rows {
        for wrong in row.wrong() {
            let _ = writeln!(text, "{}: {wrong}", row.fault.id);
        }
    }
    text
}
