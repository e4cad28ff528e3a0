//! A storm of connections: devices that connect, say hello with their secret, are welcomed and go, as fast as it goes or at a rate.
//!
//! Three kinds of handshake, one after the other: full ones, as of devices that come for the first time; resumed ones; and resumed ones
//! whose `Hello` goes in the first flight (0-RTT). What counts is the time from the first packet, or from when it was due, to `Welcome`.

use std::sync::Arc;
use std::time::Instant;

use quinn::ClientConfig;
use rove_benches::load::session::Handshake;
use rove_benches::load::{Credentials, Dialer, LoadError, Pace, Service};
use rove_benches::{Bar, Histogram, Report, Span, digits, rounded};
use tokio::task::JoinSet;

use crate::run::{self, Coming, Place, Times};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench storm                                  full, resumed and early handshakes, as many as go through
  rove-bench storm --handshake resumed --rate 500
  rove-bench --nodes 3 storm --at-once 128")]
pub(crate) struct Args {
    /// Connections that are being made at any time, each by a device of its own
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    at_once: u32,

    /// Kinds of handshake
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Full, Kind::Resumed, Kind::Early])]
    handshake: Vec<Kind>,

    /// Connections per second [default: as many as go through]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,

    #[command(flatten)]
    coming: Coming,

    #[command(flatten)]
    times: Times,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// With certificate and signature
    Full,
    /// With a TLS session that both remember
    Resumed,
    /// The same, with `Hello` in the first flight (0-RTT)
    Early,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Early => "early",
        }
    }

    fn handshake(self) -> Handshake {
        match self {
            Self::Full => Handshake::Full,
            Self::Resumed => Handshake::Resumed,
            Self::Early => Handshake::Early,
        }
    }
}

/// What one device saw.
#[derive(Debug, Default)]
struct Entered {
    times: Histogram,
    welcomed: u64,
    /// Of these, those whose handshake was another than the one that is measured.
    otherwise: u64,
}

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    place.with("", args.at_once as usize, async |service, accounts| measure(service, &accounts, args).await).await
}

async fn measure(service: &Service, accounts: &[Credentials], args: &Args) -> Result<Report, LoadError> {
    let words = format!("{}, {} connections being made at once, until Welcome", service.words(), args.at_once);
    let (mut report, mut bars) = (Report::new("storm", words), Vec::new());
    for kind in &args.handshake {
        let dialers: Vec<Arc<Dialer>> = run::dialers(service)?.into_iter().map(Arc::new).collect();
        let start = Instant::now();
        let span = args.times.span(start);
        let mut devices = JoinSet::new();
        for ((part, account), dialer) in (0..).zip(accounts).zip(dialers.iter().cycle()) {
            let pace = match args.rate.map(f64::from) {
                None => Pace::Full { until: span.until() },
                Some(rate) => {
                    run::due(args.coming.share(start, rate, span.works(start, rate), part, args.at_once.into())?)?
                }
            };
            devices.spawn(device(dialer.clone(), account.clone(), *kind, pace, span));
        }
        let (usage, entered) =
            run::measure(&service.pids(), span, &format!("{} handshakes", kind.name()), devices).await?;
        let mut all = Entered::default();
        for each in &entered {
            all.times.add(&each.times);
            all.welcomed += each.welcomed;
            all.otherwise += each.otherwise;
        }
        if all.times.is_empty() {
            return Err(LoadError::Nothing("nobody was welcomed in time"));
        }
        let (name, rate) = (kind.name(), span.per_second(all.welcomed));
        let cpu = usage.cpu_per_100k(all.welcomed);
        report = report
            .figure(format!("{name}/s"), format!("{rate:.0}"), &format!("{name}_per_second"), rounded(rate))
            .times(format!("{name}, to Welcome,"), name, &all.times)
            .figure(format!("{name}: server CPU, s/100k"), digits(cpu), &format!("{name}_cpu_s_per_100k"), rounded(cpu))
            .detail(&format!("{name}_otherwise"), all.otherwise)
            .others(usage.others);
        if all.otherwise > 0 {
            report = report.note(format!("{} of {} were not {name} after all.", all.otherwise, all.welcomed));
        }
        bars.push(Bar::new(name, rate));
    }
    let report = report.bars("sessions opened/s", bars).config("at_once", args.at_once).config("rate", args.rate);
    let report = if args.rate.is_some() { args.coming.describe(report) } else { report };
    Ok(args.times.describe(report.number("server memory, MB", "resident_mb", service.resident()? as f64 / 1e6)))
}

/// One device that comes and goes.
async fn device(
    dialer: Arc<Dialer>,
    account: Credentials,
    kind: Kind,
    mut pace: Pace,
    span: Span,
) -> Result<Entered, LoadError> {
    let mut entered = Entered::default();
    let mut remembered: ClientConfig = dialer.device()?;
    if kind != Kind::Full {
        // So that there is something to remember.
        dialer.enter(&remembered, &account, Handshake::Full).await?;
    }
    while let Some(since) = pace.next().await {
        if kind == Kind::Full {
            remembered = dialer.device()?;
        }
        let (session, as_asked) = dialer.enter(&remembered, &account, kind.handshake()).await?;
        let now = Instant::now();
        let counts = span.contains(now);
        if if pace.is_open() { span.contains(since) } else { counts } {
            entered.times.record(now.saturating_duration_since(since));
        }
        entered.welcomed += u64::from(counts);
        entered.otherwise += u64::from(counts && !as_asked);
        // Which closes the connection.
        drop(session);
    }
    Ok(entered)
}
