//! What the modes share: a service for the time of a run, its accounts, and the time that is measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rove_benches::load::error::io;
use rove_benches::load::{Accounts, Credentials, Dialer, LoadError, Pace, Service, Session};
use rove_benches::{
    Arrivals, Histogram, Meter, Plan, Progress, Report, Schedule, Span, Usage, digits, milliseconds, say,
};
use tokio::task::{JoinError, JoinSet};

/// After the last piece of work: everything has been answered long before.
const PATIENCE: Duration = Duration::from_secs(30);
/// The rate of a schedule that is over as soon as it begins.
pub(crate) const AT_ONCE: f64 = 1e9;
/// Between two looks at how far a measurement is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where servers are started.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) binary: PathBuf,
    /// The disk that is measured.
    pub(crate) dir: PathBuf,
    pub(crate) nodes: u16,
}

impl Place {
    /// A service with so many accounts for the time of `work`; stopped whatever becomes of it. `keys` are lines of configuration.
    ///
    /// It is started again once the accounts are signed up: hashing passwords takes memory that is no part of what is measured.
    pub(crate) async fn with<T>(
        &self,
        keys: &str,
        accounts: usize,
        work: impl AsyncFnOnce(&mut Service, Vec<Credentials>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        say(format_args!("starting {} node(s) in {}", self.nodes, self.dir.display()));
        let mut service = Service::start(&self.binary, &self.dir, self.nodes, keys).await?;
        let outcome = async {
            let accounts = Accounts::connect(service.first()).await?.sign_up(accounts).await?;
            service.restart().await?;
            work(&mut service, accounts).await
        };
        let outcome = outcome.await;
        // The first error is the one to tell.
        let stopped = service.stop().await;
        let outcome = outcome?;
        stopped?;
        Ok(outcome)
    }
}

/// How long is measured. A command's arguments.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Times {
    /// Seconds that are measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) seconds: u64,

    /// Seconds before that, which are not
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(crate) warm_up: u64,
}

impl Times {
    /// From now on.
    pub(crate) fn span(&self, start: Instant) -> Span {
        Span::new(start, Duration::from_secs(self.warm_up), Duration::from_secs(self.seconds))
    }

    /// Says how long.
    pub(crate) fn describe(&self, report: Report) -> Report {
        report.config("seconds", self.seconds).config("warm_up", self.warm_up)
    }
}

/// How work comes that is due. A command's arguments.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Coming {
    /// How work comes where there is a rate
    #[arg(long, value_enum, default_value_t)]
    arrivals: Kind,

    /// What decides about random times: the same number, the same times
    #[arg(long, default_value_t)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Kind {
    /// At even distances
    #[default]
    Even,
    /// At random times, as from many people who know nothing of each other
    Poisson,
}

impl Coming {
    /// The times of one of so many equal shares.
    pub(crate) fn share(self, start: Instant, rate: f64, total: u64, part: u64, parts: u64) -> Result<Plan, LoadError> {
        let arrivals = match self.arrivals {
            Kind::Even => Arrivals::Even,
            Kind::Poisson => Arrivals::Poisson { seed: self.seed },
        };
        Plan::share(arrivals, start, rate, total, part, parts).map_err(io("making a schedule"))
    }

    /// Says how.
    pub(crate) fn describe(self, report: Report) -> Report {
        match self.arrivals {
            Kind::Even => report.config("arrivals", "even"),
            Kind::Poisson => report.config("arrivals", "poisson").config("seed", self.seed),
        }
    }
}

/// Work that is due at these times.
pub(crate) fn due(plan: Plan) -> Result<Pace, LoadError> {
    Schedule::of(plan).map(Pace::Due).map_err(io("making a schedule"))
}

/// A name for the `number`th writer or group, from 1 on: a writer's must not be all zeros, which is nobody.
pub(crate) fn name(number: u64) -> [u8; 16] {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&number.to_be_bytes());
    name
}

/// One socket for each node.
pub(crate) fn dialers(service: &Service) -> Result<Vec<Dialer>, LoadError> {
    service.nodes().iter().map(Dialer::new).collect()
}

/// Waits for the end of the span, and then for that of the tasks. The first that fails ends the measurement at once.
pub(crate) async fn measure<T: 'static>(
    pids: &[u32],
    span: Span,
    what: &str,
    mut tasks: JoinSet<Result<T, LoadError>>,
) -> Result<(Usage, Vec<T>), LoadError> {
    let (mut done, mut progress) = (Vec::new(), Progress::new(what));
    say(format_args!("{what}: {} s, after a warm-up", span.length().as_secs()));
    watch(&mut tasks, &mut done, span.from(), |_| {}).await?;
    let meter = Meter::start(pids).map_err(io("looking at the servers"))?;
    let started = meter.started();
    watch(&mut tasks, &mut done, span.until(), |now| {
        let so_far = now.saturating_duration_since(started).as_secs();
        progress.at(format_args!("{so_far} s"), format_args!("{} s", span.length().as_secs()));
    })
    .await?;
    let usage = meter.stop().map_err(io("looking at the servers"))?;
    rest(&mut tasks, &mut done).await?;
    Ok((usage, done))
}

/// Takes in what is still under way.
pub(crate) async fn rest<T: 'static>(
    tasks: &mut JoinSet<Result<T, LoadError>>,
    done: &mut Vec<T>,
) -> Result<(), LoadError> {
    let rest = tokio::time::timeout(PATIENCE, async {
        while let Some(ended) = tasks.join_next().await {
            done.push(joined(ended)?);
        }
        Ok(())
    });
    rest.await.unwrap_or_else(|_| Err(LoadError::Server("what was under way was not answered".to_owned())))
}

/// Takes in what ends until then.
pub(crate) async fn watch<T: 'static>(
    tasks: &mut JoinSet<Result<T, LoadError>>,
    done: &mut Vec<T>,
    until: Instant,
    mut look: impl FnMut(Instant),
) -> Result<(), LoadError> {
    loop {
        let now = Instant::now();
        look(now);
        if now >= until {
            return Ok(());
        }
        tokio::select! {
            Some(ended) = tasks.join_next() => done.push(joined(ended)?),
            () = tokio::time::sleep_until((now + LOOK_EVERY).min(until).into()) => {}
        }
    }
}

/// The outcome of a task.
pub(crate) fn joined<T>(ended: Result<Result<T, LoadError>, JoinError>) -> Result<T, LoadError> {
    ended.map_err(|_| LoadError::Ended("a task of the load"))?
}

/// Processor time and memory of the servers.
pub(crate) fn usage(report: Report, usage: &Usage, count: u64) -> Report {
    report
        .number("server CPU, s/100k", "cpu_s_per_100k", usage.cpu_per_100k(count))
        .number("server memory, MB", "resident_mb", usage.resident as f64 / 1e6)
        .detail("counted", count)
        .detail("measured_s", usage.elapsed.as_secs_f64())
        .detail("server_cores", usage.cpu.as_secs_f64() / usage.elapsed.as_secs_f64())
        .others(usage.others)
}

/// How late an open load was, so that nobody takes the load's lateness for the server's.
pub(crate) fn held(report: Report, held: &Histogram) -> Report {
    let (p50, p99) = (held.percentile_ms(50.0), held.percentile_ms(99.0));
    report.detail("held_p99_ms", p99).note(format!(
        "Held up before it was sent, which is in the times: p50 {}, p99 {}, at most {} ms.",
        digits(p50),
        digits(p99),
        digits(milliseconds(held.max()))
    ))
}

/// Sessions that stay open; each says that it is there as often as the server asks.
pub(crate) fn beat(sessions: &mut [Session]) {
    sessions.iter_mut().for_each(Session::heartbeat);
}
