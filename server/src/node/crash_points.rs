//! Named points between two steps at which a node can be told to panic, for tests of what is on its disk then.
//!
//! `ROVE_CRASH_AT=persisted:120` panics when the point `persisted` is passed for the 120th time. Only a debug build knows of it: in a
//! release build nothing is looked up, kept or counted.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::StartError;

/// Where it is told.
#[cfg(debug_assertions)]
const VARIABLE: &str = "ROVE_CRASH_AT";

/// A place between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// The log is synced; the replica has not heard of it.
    Persisted,
    /// Rows of conversations are written; nobody has an answer.
    Applied,
    /// The directory has applied something; nobody has an answer.
    DirectoryApplied,
    /// A snapshot has taken the place of a state; the replica has not heard of it, nor the log.
    Installed,
}

/// The point that is armed, if one is.
#[derive(Debug)]
pub(super) struct CrashPoints {
    #[cfg(debug_assertions)]
    armed: Option<(Point, AtomicU64)>,
}

#[cfg(not(debug_assertions))]
impl CrashPoints {
    #[allow(clippy::unnecessary_wraps, reason = "a debug build may find a wrong value")]
    pub(super) fn from_environment() -> Result<Self, StartError> {
        Ok(Self {})
    }

    #[inline]
    #[allow(clippy::unused_self, reason = "a debug build looks there")]
    pub(super) fn passed(&self, _: Point) {}
}

#[cfg(debug_assertions)]
impl CrashPoints {
    /// What the environment says: nothing, as a rule.
    pub(super) fn from_environment() -> Result<Self, StartError> {
        let Some(text) = std::env::var_os(VARIABLE) else { return Ok(Self { armed: None }) };
        let text = text.to_string_lossy();
        Self::parse(&text).ok_or_else(|| {
            let points = "persisted, applied, directory-applied, installed";
            StartError::Config(format!(
                "{VARIABLE} = {text:?} is not POINT:TIME, with a point of {points} and a time from 1"
            ))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, time) = text.split_once(':')?;
        let point = match name {
            "persisted" => Point::Persisted,
            "applied" => Point::Applied,
            "directory-applied" => Point::DirectoryApplied,
            "installed" => Point::Installed,
            _ => return None,
        };
        let time = time.parse().ok().filter(|time| *time > 0)?;
        Some(Self { armed: Some((point, AtomicU64::new(time))) })
    }

    /// A thread is at this point.
    ///
    /// # Panics
    /// If it is told to: the supervisor ends the node then.
    #[allow(clippy::panic, reason = "this is what it is for")]
    pub(super) fn passed(&self, point: Point) {
        if let Some((armed, left)) = &self.armed
            && *armed == point
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            panic!("told to by {VARIABLE}, at {point:?}");
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn it_panics_at_the_armed_point_and_at_its_time_only() {
        let points = CrashPoints::parse("applied:2").expect("a point and a time");
        let panics = |point| catch_unwind(AssertUnwindSafe(|| points.passed(point))).is_err();
        let passed = [Point::Persisted, Point::Applied, Point::Installed, Point::Applied, Point::Applied];
        assert_eq!(passed.map(panics), [false, false, false, true, false]);
    }

    #[test]
    fn what_is_no_point_or_no_time_is_refused() {
        for wrong in ["", "applied", "applied:", "applied:0", "applied:-1", "apply:1", "applied:1:1"] {
            assert!(CrashPoints::parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
