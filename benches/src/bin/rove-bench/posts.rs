//! Posts per second until they are durable: every session posts to a group of its own.
//!
//! Without a rate each keeps its window full, which finds the most that goes through. With one, posts are due at even or random times, and
//! count from when they were due.

use std::time::Instant;

use rove_benches::load::poster::Outcome;
use rove_benches::load::{Credentials, LoadError, Pace, Poster, Service};
use rove_benches::{Bar, Report, digits, rounded, sample};
use rove_protocol::ids::WriterId;
use rove_protocol::limits;
use tokio::task::JoinSet;

use crate::run::{self, Coming, Place, Times};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench posts                                   windows full: the most that goes through
  rove-bench posts --sessions 1 --window 1           one post at a time
  rove-bench posts --rate 20000 --svg posts.svg      20,000/s that are due whatever becomes of them
  rove-bench posts --rate 20000 --arrivals poisson   the same at random times
  rove-bench --nodes 3 posts --sessions 64 --window 64")]
pub(crate) struct Args {
    /// Sessions, each of an account and with a group of its own
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) sessions: u32,

    /// Unanswered posts of each session
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=limits::UNANSWERED_POSTS as i64))]
    pub(crate) window: u16,

    /// Posts per second, of all sessions together [default: as many as go through]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,

    #[command(flatten)]
    pub(crate) coming: Coming,

    #[command(flatten)]
    pub(crate) times: Times,
}

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    place.with("", args.sessions as usize, async |service, accounts| measure(service, &accounts, args).await).await
}

pub(crate) async fn measure(service: &Service, accounts: &[Credentials], args: &Args) -> Result<Report, LoadError> {
    let dialers = run::dialers(service)?;
    let mut ready = Vec::with_capacity(accounts.len());
    for ((number, credentials), dialer) in (1u64..).zip(accounts).zip(dialers.iter().cycle()) {
        let mut session = dialer.session(credentials).await?;
        let name = run::name(number);
        let group = session.create_group(name, []).await?;
        let conversation = session.open(group, WriterId(name)).await?;
        ready.push((session, conversation));
    }
    let (start, sessions) = (Instant::now(), u64::from(args.sessions));
    let span = args.times.span(start);
    let mut posters = JoinSet::new();
    for (number, (session, mut conversation)) in (0..).zip(ready) {
        let pace = match args.rate.map(f64::from) {
            None => Pace::Full { until: span.until() },
            Some(rate) => run::due(args.coming.share(start, rate, span.works(start, rate), number, sessions)?)?,
        };
        let mut poster = Poster::new(pace, span, usize::from(args.window));
        posters.spawn(async move {
            // Dropping it would close the connection.
            let _session = session;
            poster.run(&mut conversation).await?;
            Ok(poster.outcome())
        });
    }
    let (usage, outcomes) = run::measure(&service.pids(), span, "posting", posters).await?;
    let all = Outcome::sum(&outcomes);
    if all.times.is_empty() {
        return Err(LoadError::Nothing("no post was acknowledged in time"));
    }
    let rate = span.per_second(all.acknowledged);
    let report = Report::new("posts", words(service, args))
        .figure("acknowledged/s", format!("{rate:.0}"), "posts_per_second", rounded(rate))
        .times("acknowledged after", "acknowledged", &all.times);
    let report = run::usage(report, &usage, all.acknowledged)
        .figure("refused as busy", all.refused.to_string(), "refused", all.refused)
        .bars("posts/s", vec![Bar::new("offered", args.rate.map_or(0.0, f64::from)), Bar::new("acknowledged", rate)])
        .config("sessions", args.sessions)
        .config("window", args.window)
        .config("rate", args.rate)
        .config("bytes", sample::TEXT);
    let report = args.times.describe(report);
    Ok(if args.rate.is_some() { args.coming.describe(run::held(report, &all.held)) } else { report })
}

fn words(service: &Service, args: &Args) -> String {
    let (nodes, sessions, window, bytes) = (service.words(), args.sessions, args.window, sample::TEXT);
    match args.rate {
        None => format!("{nodes}, {sessions} sessions, {window} posts under way each, {bytes} bytes"),
        Some(rate) => format!("{nodes}, {} posts/s due, {sessions} sessions, {bytes} bytes", digits(f64::from(rate))),
    }
}
