//! Runs: one, many, and the smallest that still fails.

use crate::faults::{Fault, Faults, Fired};
use crate::options::Options;
use crate::world::{Report, World};

/// One run.
pub fn run(options: Options) -> Report {
    World::new(options).run().0
}

/// What many runs did.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Runs so far.
    pub runs: u64,
    /// Faults that did something, of all of them.
    pub fired: Fired,
    /// Events.
    pub events: u64,
    /// Microseconds of virtual time.
    pub virtual_us: u64,
    /// Posts that were acknowledged.
    pub acknowledged: u64,
    /// Times a node said that it leads from now on.
    pub elections: u64,
    /// Runs that failed.
    pub failed: Vec<Report>,
}

impl Batch {
    /// Adds a run.
    pub fn add(&mut self, report: Report) {
        self.runs += 1;
        self.fired.add(&report.fired);
        self.events += report.events;
        self.virtual_us += report.virtual_us;
        self.acknowledged += report.acknowledged;
        self.elections += report.elections;
        if !report.violations.is_empty() {
            self.failed.push(report);
        }
    }

    /// What is wrong with the batch as a whole: runs that failed, and kinds of faults that never did anything.
    pub fn complaints(&self, faults: Faults) -> Vec<String> {
        let mut complaints: Vec<String> = self.failed.iter().map(describe).collect();
        let missing = self.fired.missing(faults);
        if !missing.is_empty() {
            let names: Vec<&str> = missing.into_iter().map(Fault::name).collect();
            complaints.push(format!("in {} runs these faults never did anything: {}", self.runs, names.join(", ")));
        }
        complaints
    }
}

/// A failed run in a few lines.
pub fn describe(report: &Report) -> String {
    let mut lines = vec![format!("seed {} failed; again: {}", report.options.seed, report.options.command())];
    lines.extend(report.violations.iter().map(|violation| format!("  {violation}")));
    lines.extend(report.end.lines().map(|line| format!("    {line}")));
    lines.join("\n")
}

/// Switches faults off, one kind after the other, and halves the steps, as long as the same invariant is still violated.
pub fn shrink(failed: &Report) -> Report {
    let wanted = failed.violations.first().map(|violation| violation.invariant);
    let mut smallest = failed.clone();
    let try_out = |options: Options, smallest: &mut Report| {
        let report = run(options);
        let same = report.violations.first().map(|violation| violation.invariant) == wanted;
        if same {
            *smallest = report;
        }
        same
    };
    while smallest.options.steps > 500 {
        let options = Options { steps: smallest.options.steps / 2, ..smallest.options };
        if !try_out(options, &mut smallest) {
            break;
        }
    }
    for fault in Fault::ALL {
        let options = Options { faults: smallest.options.faults.without(*fault), ..smallest.options };
        try_out(options, &mut smallest);
    }
    smallest
}
