//! The work, the same for all: each function is one measurement, and returns its report with figures under the keys of
//! [`Column`](crate::results::Column).

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::future::try_join_all;
use futures::stream::{FuturesUnordered, TryStreamExt as _};
use rove_benches::process::resident;
use rove_benches::{Histogram, Meter, Report, Schedule, Span, Usage, milliseconds};
use tokio::time::timeout;

use crate::link::{Event, Link, Pending};

/// What is measured how long, and where.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Each measurement.
    pub(crate) seconds: Duration,
    /// Before each, not measured: caches fill, a Java or Erlang machine would compile, windows open.
    pub(crate) warm_up: Duration,
    /// Data of all servers: a disk.
    pub(crate) dir: PathBuf,
    /// Which round it is, from 1.
    pub(crate) round: usize,
}

impl Plan {
    fn span(&self, start: Instant) -> Span {
        Span::new(start, self.warm_up, self.seconds)
    }
}

/// When a message counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Acknowledged,
    Delivered,
}

impl Done {
    /// The message that this event makes done.
    fn number(self, event: Event) -> Result<Option<u64>> {
        match (self, event) {
            (Self::Acknowledged, Event::Acknowledged(number)) | (Self::Delivered, Event::Delivered(number)) => {
                Ok(Some(number))
            }
            (_, Event::Refused(number)) => bail!("message {number} was refused"),
            _ => Ok(None),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Delivered => "delivered",
        }
    }
}

/// What is still under way at the end has that long.
const PATIENCE: Duration = Duration::from_secs(15);

/// As fast as it goes: every link has `window` messages under way. Figures: messages per second, the servers' processor time and
/// memory.
pub(crate) async fn throughput<L: Link>(
    plan: &Plan,
    what: &str,
    links: Vec<L>,
    window: usize,
    done: Done,
    servers: &[u32],
) -> Result<Report> {
    let span = plan.span(Instant::now());
    let count = links.len();
    let loads = try_join_all(links.into_iter().map(|link| keep_full(link, window, done, span)));
    let all = async { tokio::try_join!(loads, metered(span, servers)) };
    let (times, usage) = timeout(plan.warm_up + plan.seconds + PATIENCE, all).await.context("messages were lost")??;
    let mut sum = Histogram::new();
    for each in &times {
        sum.add(each);
    }
    if sum.is_empty() {
        bail!("no message was {}", done.words());
    }
    Ok(with_usage(Report::new("throughput", what), &usage, sum.count(), servers.len())
        .number(format!("{}/s", done.words()), "per_second", span.per_second(sum.count()))
        .times(format!("sent → {}, under load", done.words()), "under_load", &sum)
        .config("connections", count)
        .config("window", window))
}

/// Measures what servers use during the span.
async fn metered(span: Span, servers: &[u32]) -> Result<Usage> {
    tokio::time::sleep_until(span.from().into()).await;
    let meter = Meter::start(servers).context("a server is gone")?;
    tokio::time::sleep_until(span.until().into()).await;
    meter.stop().context("a server is gone")
}

async fn keep_full<L: Link>(mut link: L, window: usize, done: Done, span: Span) -> Result<Histogram> {
    let (mut times, mut pending) = (Histogram::new(), Pending::default());
    let (mut next, mut under_way, mut now) = (0, 0, Instant::now());
    loop {
        while under_way < window && now < span.until() {
            link.send(next)?;
            pending.push(now);
            next += 1;
            under_way += 1;
        }
        if under_way == 0 {
            return Ok(times);
        }
        let event = link.next().await?;
        now = Instant::now();
        let Some(sent) = done.number(event)?.and_then(|number| pending.take(number)) else { continue };
        under_way -= 1;
        if span.contains(now) {
            times.record(now - sent);
        }
    }
}

/// What is heard of a message: not every system acknowledges, and not every one delivers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hears {
    pub(crate) acknowledgements: bool,
    pub(crate) deliveries: bool,
}

/// A thousand messages a second, one after the other, at even times whatever the answers. Figures: the time to delivery.
pub(crate) async fn deliveries<L: Link>(
    plan: &Plan,
    what: &str,
    link: L,
    hears: Hears,
    servers: &[u32],
) -> Result<Report> {
    let Heard { acknowledged, delivered, usage } = at_rate(plan, link, 1_000.0, hears, servers).await?;
    let report = with_times(Report::new("deliveries", what), "deliver", &delivered);
    let report = if hears.acknowledgements {
        report.times("sent → acknowledged", "acknowledged", &acknowledged)
    } else {
        report
    };
    Ok(report
        .detail("cpu_s_per_100k_at_1000", usage.cpu_per_100k(delivered.count()))
        .others(usage.others)
        .config("rate", 1_000))
}

/// Two hundred messages a second, which leaves the servers idle in between. Figures: the time to acknowledgement.
pub(crate) async fn acknowledgements<L: Link>(plan: &Plan, what: &str, link: L, servers: &[u32]) -> Result<Report> {
    let hears = Hears { acknowledgements: true, deliveries: false };
    let Heard { acknowledged, usage, .. } = at_rate(plan, link, 200.0, hears, servers).await?;
    Ok(with_times(Report::new("acknowledgements", what), "ack", &acknowledged).others(usage.others).config("rate", 200))
}

struct Heard {
    acknowledged: Histogram,
    delivered: Histogram,
    usage: Usage,
}

async fn at_rate<L: Link>(plan: &Plan, link: L, rate: f64, hears: Hears, servers: &[u32]) -> Result<Heard> {
    let start = Instant::now();
    let span = plan.span(start);
    let load = answered(link, start, span, rate, hears);
    let all = async { tokio::try_join!(load, metered(span, servers)) };
    let ((acknowledged, delivered), usage) =
        timeout(plan.warm_up + plan.seconds + PATIENCE, all).await.context("messages were lost")??;
    Ok(Heard { acknowledged, delivered, usage })
}

/// Sends at even times until the end of the span; the times from when a message was due to what is heard of it.
async fn answered<L: Link>(
    mut link: L,
    start: Instant,
    span: Span,
    rate: f64,
    hears: Hears,
) -> Result<(Histogram, Histogram)> {
    let total = span.works(start, rate);
    let mut schedule = Schedule::new(start, rate, total)?;
    let mut acknowledged = (Pending::default(), Histogram::new(), if hears.acknowledgements { total } else { 0 });
    let mut delivered = (Pending::default(), Histogram::new(), if hears.deliveries { total } else { 0 });
    let mut sending = true;
    while sending || acknowledged.2 > 0 || delivered.2 > 0 {
        let event = tokio::select! {
            due = schedule.next(), if sending => {
                match due {
                    Some(due) => {
                        link.send(due.number)?;
                        acknowledged.0.push(due.at);
                        delivered.0.push(due.at);
                    }
                    None => sending = false,
                }
                continue;
            }
            event = link.next() => event?,
        };
        let now = Instant::now();
        let ((pending, times, left), number) = match event {
            Event::Acknowledged(number) => (&mut acknowledged, number),
            Event::Delivered(number) => (&mut delivered, number),
            Event::Refused(number) => bail!("message {number} was refused"),
        };
        if let Some(due) = pending.take(number) {
            *left = left.saturating_sub(1);
            if span.contains(due) {
                times.record(now - due);
            }
        }
    }
    Ok((acknowledged.1, delivered.1))
}

/// Messages per second while a leader dies: a gap of this pace is what there is at least.
const PACE: f64 = 200.0;
/// Before the kill: everything runs evenly.
const EVEN: Duration = Duration::from_secs(2);
/// Acknowledgements that go on for that long after the longest gap: it was the longest.
const GOES_ON: Duration = Duration::from_secs(3);
/// A system that takes longer than that to go on has not gone on.
const FOR_EVER: Duration = Duration::from_secs(40);

/// Kills a leader, and takes the longest time without any acknowledgement. The load goes to servers that stay.
pub(crate) async fn silence<L: Link>(what: &str, mut link: L, kill: impl FnOnce() -> Result<()>) -> Result<Report> {
    let start = Instant::now();
    let total = Span::new(start, EVEN, FOR_EVER).works(start, PACE);
    let mut schedule = Schedule::new(start, PACE, total)?;
    let (mut last, mut kill, mut killed) = (start, Some(kill), None);
    let (mut longest, mut longest_until) = (Duration::ZERO, start);
    loop {
        tokio::select! {
            due = schedule.next() => {
                let due = due.ok_or_else(|| anyhow!("nothing was acknowledged for {} s", FOR_EVER.as_secs()))?;
                link.send(due.number)?;
                if due.at >= start + EVEN && let Some(kill) = kill.take() {
                    kill()?;
                    killed = Some(Instant::now());
                }
            }
            event = link.next() => {
                if let Event::Acknowledged(_) = event? {
                    let now = Instant::now();
                    if killed.is_some() && now - last > longest {
                        (longest, longest_until) = (now - last, now);
                    }
                    last = now;
                }
            }
        }
        let goes_on = last.saturating_duration_since(longest_until) > GOES_ON;
        if goes_on && killed.is_some_and(|at| last.saturating_duration_since(at) > GOES_ON) {
            return Ok(Report::new("silence", what)
                .number("longest silence after kill -9, ms", "silence_ms", milliseconds(longest))
                .config("rate", PACE));
        }
    }
}

/// Connections whose memory is taken together: enough that noise is small, few enough to be opened in seconds.
const IDLE: usize = 500;
/// Before the first look: what the first ones make the server allocate for all is not counted as theirs.
const BEFORE: usize = 20;
/// Connections that are being made at the same time.
const AT_ONCE: usize = 16;

/// Memory of connections that do nothing. `open` makes one, its number given.
pub(crate) async fn idle<T, F: Future<Output = Result<T>>>(
    what: &str,
    open: impl Fn(usize) -> F,
    server: u32,
) -> Result<Report> {
    let _before = many(&open, 0, BEFORE).await?;
    let before = at_rest(server).await?;
    let _idle = many(&open, BEFORE, IDLE).await?;
    let after = at_rest(server).await?;
    let each = after.saturating_sub(before) as f64 / IDLE as f64 / 1e3;
    Ok(Report::new("idle", what)
        .number("memory of an idle connection, kB", "idle_kb", each)
        .detail("resident_before", before)
        .detail("resident_after", after)
        .config("connections", IDLE))
}

async fn many<T, F: Future<Output = Result<T>>>(
    open: &impl Fn(usize) -> F,
    first: usize,
    count: usize,
) -> Result<Vec<T>> {
    let (mut opened, mut opening) = (Vec::with_capacity(count), FuturesUnordered::new());
    for number in first..first + count {
        if opening.len() == AT_ONCE {
            opened.extend(opening.try_next().await?);
        }
        opening.push(open(number));
    }
    while let Some(one) = opening.try_next().await? {
        opened.push(one);
    }
    Ok(opened)
}

/// Memory once it has stopped changing.
async fn at_rest(server: u32) -> Result<u64> {
    /// A garbage collector works in steps.
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    const LOOKS: usize = 10;
    const REST: u64 = 64 * 1_024;
    let mut last = resident(server)?;
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = resident(server)?;
        if now.abs_diff(last) < REST {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// Full handshakes, and what belongs to being connected, per second: some at once, and each closed as soon as it is there.
pub(crate) async fn connections<T, F: Future<Output = Result<T>>>(
    plan: &Plan,
    what: &str,
    open: impl Fn(usize) -> F,
    server: u32,
) -> Result<Report> {
    let span = Span::new(Instant::now(), Duration::ZERO, plan.seconds);
    let (mut opening, mut number, mut count) = (FuturesUnordered::new(), 0, 0);
    let meter = Meter::start(&[server])?;
    while Instant::now() < span.until() {
        while opening.len() < AT_ONCE {
            opening.push(open(number));
            number += 1;
        }
        if opening.try_next().await?.is_some() {
            count += 1;
        }
    }
    let usage = meter.stop()?;
    Ok(Report::new("connections", what)
        .number("connections/s", "connections_per_second", span.per_second(count))
        .number("server CPU, ms each", "cpu_ms_per_connection", usage.cpu_per_100k(count) / 100.0)
        .others(usage.others)
        .config("at_once", AT_ONCE))
}

fn with_usage(report: Report, usage: &Usage, count: u64, servers: usize) -> Report {
    report
        .number("server CPU, s/100k", "cpu_s_per_100k", usage.cpu_per_100k(count))
        .number("memory of a server, MB", "resident_mb", usage.resident as f64 / 1e6 / servers as f64)
        .others(usage.others)
}

fn with_times(report: Report, key: &str, times: &Histogram) -> Report {
    report
        .times(format!("sent → {key}"), key, times)
        .detail(&format!("{key}_p50_ms"), times.percentile_ms(50.0))
        .detail(&format!("{key}_p99_ms"), times.percentile_ms(99.0))
}

/// Where a server keeps its data for one round.
pub(crate) fn fresh_dir(parent: &Path, name: &str) -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent).context("making a directory for data")
}
