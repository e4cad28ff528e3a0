//! The floor: a bare echo over the same QUIC, with the same TLS and the same windows, and one fsync after the other on the same disk.
//!
//! Nothing that Rove does can be faster. `quick` compares with it what Rove does, in one run, so that a slow or busy machine slows both.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rove_benches::load::echo::{self, EchoDialer};
use rove_benches::load::error::io;
use rove_benches::load::poster::Outcome;
use rove_benches::load::server::listening;
use rove_benches::load::{LoadError, Pace, disk};
use rove_benches::{Bar, Histogram, Report, Usage, digits, rounded, sample, say};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::run::{self, Coming, Times};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench floor                                      echoes/s with 16 and with 1 under way on each of 100 connections
  rove-bench floor --connections 32 --window 32
  rove-bench floor --connections 4 --rate 1000          echoes that are due, for their times")]
pub(crate) struct Args {
    /// Connections, each with one stream
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: u32,

    /// Echoes under way on each connection; several are measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [16, 1])]
    pub(crate) window: Vec<u16>,

    /// Echoes per second, of all connections together [default: as many as go through]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,

    #[command(flatten)]
    pub(crate) coming: Coming,

    #[command(flatten)]
    pub(crate) times: Times,
}

/// Seconds of syncing: a few thousand writes say enough, and wear the disk.
const LONGEST_SYNCS: u64 = 3;

/// A server that echoes, a process of its own as the real one is. Killed, by its own process id, when this is dropped.
#[derive(Debug)]
pub(crate) struct EchoServer {
    // Its stdin is what tells it to go on.
    _child: Child,
    pid: u32,
    dialer: EchoDialer,
}

/// What was measured with one window.
#[derive(Debug)]
pub(crate) struct Echoed {
    pub(crate) outcome: Outcome,
    pub(crate) usage: Usage,
    pub(crate) per_second: f64,
}

impl EchoServer {
    /// Starts it.
    pub(crate) async fn start() -> Result<Self, LoadError> {
        let this = std::env::current_exe().map_err(io("finding this program"))?;
        let mut child = Command::new(this)
            .arg("echo-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(io("starting the echo server"))?;
        let pid = child.id().ok_or(LoadError::Ended("the echo server"))?;
        let (address, pin) = listening(&mut child).await.ok_or(LoadError::Ended("the echo server"))?;
        Ok(Self { _child: child, pid, dialer: EchoDialer::new(address, pin)? })
    }

    /// Echoes over so many connections: as many as go through, or at a rate.
    pub(crate) async fn measure(
        &self,
        connections: u32,
        window: u16,
        rate: Option<(u32, Coming)>,
        times: &Times,
    ) -> Result<Echoed, LoadError> {
        let mut ready = Vec::new();
        for _ in 0..connections {
            ready.push(self.dialer.connect().await?);
        }
        let start = Instant::now();
        let span = times.span(start);
        let mut echoes = JoinSet::new();
        for (part, echo) in (0..).zip(ready) {
            let pace = match rate {
                None => Pace::Full { until: span.until() },
                Some((rate, coming)) => {
                    let total = span.works(start, rate.into());
                    run::due(coming.share(start, rate.into(), total, part, connections.into())?)?
                }
            };
            echoes.spawn(echo.run(pace, span, usize::from(window)));
        }
        let what = format!("echoing, {window} under way on each of {connections}");
        let (usage, outcomes) = run::measure(&[self.pid], span, &what, echoes).await?;
        let outcome = Outcome::sum(&outcomes);
        if outcome.times.is_empty() {
            return Err(LoadError::Nothing("no echo came back in time"));
        }
        let per_second = span.per_second(outcome.acknowledged);
        Ok(Echoed { outcome, usage, per_second })
    }
}

/// The server: echoes until its stdin is closed, which is when whoever started it is gone.
pub(crate) async fn echo_server() -> Result<(), LoadError> {
    use base64::Engine as _;
    let (endpoint, pin) = echo::server()?;
    let address: SocketAddr = endpoint.local_addr().map_err(io("binding a socket"))?;
    println!("listening quic={address} pin={}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(pin));
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 1];
    tokio::select! {
        () = echo::serve(endpoint) => {}
        _ = stdin.read(&mut nothing) => {}
    }
    Ok(())
}

/// Synced writes, one after the other, on the disk that is measured.
pub(crate) async fn syncs(dir: &Path, time: Duration) -> Result<Histogram, LoadError> {
    say(format_args!("syncing: {} s", time.as_secs()));
    let dir = dir.to_owned();
    let syncs = tokio::task::spawn_blocking(move || disk::syncs(&dir, time)).await;
    syncs.map_err(|_| LoadError::Ended("a task of the load"))?.map_err(io("syncing a file"))
}

pub(crate) async fn run(dir: &Path, args: &Args) -> Result<Report, LoadError> {
    let server = EchoServer::start().await?;
    let bytes = sample::TEXT;
    let mut report = Report::new("floor", format!("bare QUIC echo, {} connections, {bytes} bytes", args.connections));
    let mut bars = Vec::new();
    for window in &args.window {
        let echoed =
            server.measure(args.connections, *window, args.rate.map(|rate| (rate, args.coming)), &args.times).await?;
        let cpu = echoed.usage.cpu_per_100k(echoed.outcome.acknowledged);
        let key = |name: &str| format!("{name}_{window}");
        report = report
            .figure(
                format!("echoes/s with {window} under way"),
                format!("{:.0}", echoed.per_second),
                &key("echoes_per_second"),
                rounded(echoed.per_second),
            )
            .times(format!("echo with {window} under way"), &key("echo"), &echoed.outcome.times)
            .figure("server CPU, s/100k", digits(cpu), &key("cpu_s_per_100k"), rounded(cpu))
            .others(echoed.usage.others);
        bars.push(Bar::new(format!("{window} under way"), echoed.per_second));
    }
    let syncs = syncs(dir, Duration::from_secs(args.times.seconds.min(LONGEST_SYNCS))).await?;
    let report = report.times("synced write", "sync", &syncs).bars("echoes/s", bars);
    let report = if args.rate.is_some() { args.coming.describe(report) } else { report };
    Ok(args.times.describe(report.config("connections", args.connections).config("rate", args.rate)))
}
