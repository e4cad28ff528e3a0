//! What measurements are made of, and a load on a real Rove server.
//!
//! - [`Schedule`] says when work is due, whatever becomes of it, [`Plan`] with which times, and [`Span`] which part of a run is measured;
//! - [`Histogram`] keeps how long it took;
//! - [`Meter`] takes the time, and what servers and everybody else used meanwhile; [`Machine`] says on what;
//! - [`Report`] is what came of it: a table for people, JSON for programs, a picture; [`Progress`] says how far it is.
//!
//! This part depends on nothing of Rove, so that other systems can be measured in the same way: depend on this crate with
//! `default-features = false`. The feature `load` adds `load::`, sessions by hand and servers to put load on, which
//! `rove-bench` (`src/bin/`) is made of, and `sample::`, its messages; the feature `work` adds `work::`, single pieces of what the server does, for
//! the micro benchmarks in `micro/` and for `rove-instructions`, which counts instead of timing them.
//!
//! ```no_run
//! # async fn run(server: u32) -> std::io::Result<()> {
//! use std::time::{Duration, Instant};
//! use rove_benches::{Histogram, Machine, Meter, Output, Report, Schedule, Span};
//!
//! let (rate, start) = (1_000.0, Instant::now());
//! let span = Span::new(start, Duration::from_secs(2), Duration::from_secs(10));
//! let mut schedule = Schedule::new(start, rate, span.works(start, rate))?;
//! let (mut times, mut meter) = (Histogram::new(), None);
//! while let Some(due) = schedule.next().await {
//!     if span.contains(due.at) && meter.is_none() {
//!         meter = Some(Meter::start(&[server])?);
//!     }
//!     // … the work …
//!     if span.contains(due.at) {
//!         times.record(due.at.elapsed());
//!     }
//! }
//! let usage = meter.ok_or_else(|| std::io::Error::other("nothing was measured"))?.stop()?;
//! Report::new("echo", "one connection")
//!     .times("echo", "echo", &times)
//!     .number("server CPU, s/100k", "cpu_s_per_100k", usage.cpu_per_100k(times.count()))
//!     .config("rate", rate)
//!     .version("server", "1.2.3")
//!     .machine(Machine::look(std::path::Path::new(".")))
//!     .others(usage.others)
//!     .emit(&Output { json: Some("echo.json".into()), svg: Some("echo.svg".into()) })
//! # }
//! ```

// Counts become rates and times: the digits that a float drops are beyond what is measured.
#![allow(clippy::cast_precision_loss)]

mod histogram;
#[cfg(feature = "load")]
pub mod load;
mod machine;
pub mod process;
mod progress;
mod random;
mod report;
#[cfg(feature = "sample")]
pub mod sample;
mod schedule;
mod svg;
mod timer;
#[cfg(feature = "work")]
pub mod work;

pub use histogram::{Histogram, digits, milliseconds};
pub use machine::{Machine, Others, Watch, rounded};
pub use process::{Meter, Usage};
pub use progress::{Progress, say};
pub use report::{Output, Report};
pub use schedule::{Arrivals, Due, Plan, Schedule, Span};
pub use svg::{Bar, Series};
