//! The wall clock, by which a leader stamps what it puts into the log. It may jump: stamps never go back, and no decision rests on it.
//!
//! `ROVE_CLOCK_AHEAD_MS=3600000` makes it an hour fast, for tests of what a cluster does with such a node. Only a debug build knows of it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::error::StartError;

/// Where it is told.
#[cfg(debug_assertions)]
const VARIABLE: &str = "ROVE_CLOCK_AHEAD_MS";

/// A node's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallClock {
    /// In milliseconds.
    ahead: u64,
}

impl WallClock {
    /// The system's.
    #[cfg(not(debug_assertions))]
    #[allow(clippy::unnecessary_wraps, reason = "a debug build may find a wrong value")]
    pub(super) fn from_environment() -> Result<Self, StartError> {
        Ok(Self { ahead: 0 })
    }

    /// The system's, and as much ahead as the environment says: not at all, as a rule.
    #[cfg(debug_assertions)]
    pub(super) fn from_environment() -> Result<Self, StartError> {
        let Some(text) = std::env::var_os(VARIABLE) else { return Ok(Self { ahead: 0 }) };
        let ahead = text.to_str().and_then(|text| text.parse().ok());
        ahead.map(|ahead| Self { ahead }).ok_or_else(|| {
            StartError::Config(format!("{VARIABLE} = {} is not a number of milliseconds", text.to_string_lossy()))
        })
    }

    /// Now, in milliseconds of the Unix epoch.
    #[allow(clippy::disallowed_methods, reason = "the shell reads the clock so that the core need not")]
    pub(super) fn now_ms(self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(self.ahead)
    }
}
