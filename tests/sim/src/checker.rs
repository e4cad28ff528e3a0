//! Reads a history and says what in it must not be.

use crate::history::{History, Record};
use crate::invariants::{self, Invariant};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// When it was seen, in microseconds of the history.
    pub at_us: u64,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, micros) = (self.at_us / 1_000_000, self.at_us % 1_000_000);
        write!(f, "{} at {seconds}.{micros:06} s: {}", self.invariant, self.what)
    }
}

/// Every invariant, looking on. An invariant that is violated says so once.
pub struct Checker {
    watching: Vec<Box<dyn Invariant>>,
    violations: Vec<Violation>,
    at_us: u64,
}

impl Default for Checker {
    fn default() -> Self {
        Self { watching: invariants::all(), violations: Vec::new(), at_us: 0 }
    }
}

impl Checker {
    /// Something happened.
    pub fn observe(&mut self, at_us: u64, record: &Record) {
        self.at_us = at_us;
        self.each(|invariant| invariant.observe(at_us, record));
    }

    /// Nothing more will happen. Returns everything that must not be.
    pub fn finish(mut self) -> Vec<Violation> {
        self.each(|invariant| invariant.finish());
        self.violations
    }

    /// Whether something is wrong already.
    pub fn has_failed(&self) -> bool {
        !self.violations.is_empty()
    }

    fn each(&mut self, mut look: impl FnMut(&mut dyn Invariant) -> Result<(), String>) {
        let (at_us, violations) = (self.at_us, &mut self.violations);
        self.watching.retain_mut(|invariant| match look(invariant.as_mut()) {
            Ok(()) => true,
            Err(what) => {
                violations.push(Violation { invariant: invariant.name(), at_us, what });
                false
            }
        });
    }
}

/// What must not be in a history that was written down before.
pub fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker::default();
    for stamped in &history.records {
        checker.observe(stamped.at_us, &stamped.record);
    }
    checker.finish()
}
