//! When the next piece of work begins.

use std::time::Instant;

use crate::Schedule;

/// What decides when work begins.
#[derive(Debug)]
pub enum Pace {
    /// As soon as there is room, until then: finds the most that goes through. The loop is closed, so its times are those of a
    /// system that is full, not what somebody would wait who comes by.
    Full {
        /// No work begins after it.
        until: Instant,
    },
    /// When it is due, whatever became of what was before.
    Due(Schedule),
}

impl Pace {
    /// When the next piece of work was to begin, once its time has come; `None` if there is no more. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Instant> {
        match self {
            Self::Full { .. } => self.at_once(),
            Self::Due(schedule) => Some(schedule.next().await?.at),
        }
    }

    /// The same for work whose time has come already; does not wait for any.
    pub fn at_once(&mut self) -> Option<Instant> {
        match self {
            Self::Full { until } => Some(Instant::now()).filter(|now| now < until),
            Self::Due(schedule) => Some(schedule.overdue()?.at),
        }
    }

    /// Whether times count from a schedule.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Due(_))
    }
}
