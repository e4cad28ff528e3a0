//! When the next piece of work begins.

use std::sync::Arc;
use std::time::Instant;

use super::gate::Gate;
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
    /// As soon as the gate lets it through, which is closed by those who listen.
    Gated {
        /// No work begins after it.
        until: Instant,
        /// What lets it through.
        gate: Arc<Gate>,
    },
    /// When it is due, whatever became of what was before.
    Due(Schedule),
}

impl Pace {
    /// When the next piece of work was to begin, once its time has come; `None` if there is no more. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Instant> {
        match self {
            Self::Full { until } => at_once(*until),
            Self::Gated { until, gate } => {
                tokio::time::timeout_at((*until).into(), gate.pass()).await.ok().and_then(|()| at_once(*until))
            }
            Self::Due(schedule) => Some(schedule.next().await?.at),
        }
    }

    /// The same for work whose time has come already; does not wait for any.
    pub fn at_once(&mut self) -> Option<Instant> {
        match self {
            Self::Full { until } => at_once(*until),
            Self::Gated { until, gate } => gate.try_pass().then(|| at_once(*until)).flatten(),
            Self::Due(schedule) => Some(schedule.overdue()?.at),
        }
    }

    /// Whether times count from a schedule.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Due(_))
    }
}

/// Now, if that is not too late.
fn at_once(until: Instant) -> Option<Instant> {
    Some(Instant::now()).filter(|now| *now < until)
}
