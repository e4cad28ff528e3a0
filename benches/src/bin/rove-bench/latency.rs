//! From a post to its delivery: writers post to a conversation each, at a rate together, and somebody else listens to each.
//!
//! The load is open: posts are due when their time has come, whether or not earlier ones were answered, and count from then. So a pause
//! of the server is in the figures of every post it held up.

use std::time::Instant;

use rove_benches::load::poster::Outcome;
use rove_benches::load::{Credentials, Dialer, LoadError, Poster, Service, listener};
use rove_benches::{Histogram, Report, Span, Usage, rounded, sample};
use rove_protocol::ids::{PostNo, WriterId};
use rove_protocol::limits;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::run::{self, Coming, Place, Times};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench latency                                   100 posts/s to one other session
  rove-bench latency --rate 1000 --svg latency.svg
  rove-bench latency --rate 20000 --writers 64
  rove-bench latency --rate 1000 --arrivals poisson    at random times instead of even ones
  rove-bench --nodes 3 latency --rate 1000             to sessions on another node")]
pub(crate) struct Args {
    /// Posts per second, of all writers together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: u32,

    /// Writers, each with a conversation and a listener of its own [default: one for every 250 posts/s]
    ///
    /// A writer may have 64 posts unanswered: with 250/s each, that is no bound until they take a quarter of a second.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub(crate) writers: Option<u32>,

    #[command(flatten)]
    pub(crate) coming: Coming,

    #[command(flatten)]
    pub(crate) times: Times,
}

/// Posts per second that one writer is given, if nobody says how many writers there are.
const EACH: u32 = 250;

impl Args {
    pub(crate) fn writers(&self) -> u32 {
        self.writers.unwrap_or_else(|| self.rate.div_ceil(EACH))
    }
}

/// What came of one pair.
#[derive(Debug, Default)]
struct Heard {
    posted: Outcome,
    delivered: Histogram,
}

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    place.with("", 2 * args.writers() as usize, async |service, accounts| measure(service, &accounts, args).await).await
}

/// What came of all pairs.
pub(crate) struct AllHeard {
    pub(crate) posted: Outcome,
    pub(crate) delivered: Histogram,
    usage: Usage,
    span: Span,
}

/// Posts from sessions of `from` to conversations that sessions of `to` listen to; where there are several, a listener is at the one after
/// its writer's.
pub(crate) async fn heard(
    service: &Service,
    (from, to): (&[Dialer], &[Dialer]),
    accounts: &[Credentials],
    args: &Args,
) -> Result<AllHeard, LoadError> {
    let writers = args.writers();
    let mut ready = Vec::new();
    for (number, pair) in accounts.chunks_exact(2).enumerate() {
        let mut alice = from[number % from.len()].session(&pair[0]).await?;
        let bob = to[(number + 1) % to.len()].session(&pair[1]).await?;
        let name = run::name(number as u64 + 1);
        let group = alice.create_group(name, [&pair[1]]).await?;
        let writer = WriterId(name);
        let (posting, listening) = (alice.open(group, writer).await?, bob.open(group, WriterId([255; 16])).await?);
        ready.push((alice, bob, writer, posting, listening));
    }
    let (start, rate, parts) = (Instant::now(), f64::from(args.rate), u64::from(writers));
    let span = args.times.span(start);
    let total = span.works(start, rate);
    let mut pairs = JoinSet::new();
    for (part, (alice, bob, writer, mut posting, mut listening)) in (0..).zip(ready) {
        let plan = args.coming.share(start, rate, total, part, parts)?;
        let mut poster = Poster::new(run::due(plan.clone())?, span, limits::UNANSWERED_POSTS);
        pairs.spawn(async move {
            // Dropping them would close the connections.
            let _sessions = (alice, bob);
            let mut delivered = Histogram::new();
            let posts = total.saturating_sub(part).div_ceil(parts);
            // Posts are heard in the order in which they were due, and all of them.
            let mut heard = plan;
            let each = |_: PostNo, now: Instant| {
                if let Some(due) = heard.next().filter(|due| span.contains(due.at)) {
                    delivered.record(now.saturating_duration_since(due.at));
                }
            };
            tokio::try_join!(
                poster.run(&mut posting),
                listener::hear(&mut listening, writer, watch::channel(posts).1, each),
            )?;
            Ok(Heard { posted: poster.outcome(), delivered })
        });
    }
    let (usage, heard) = run::measure(&service.pids(), span, "posting and listening", pairs).await?;
    let posted = Outcome::sum(heard.iter().map(|each| &each.posted));
    let mut delivered = Histogram::new();
    for each in &heard {
        delivered.add(&each.delivered);
    }
    if delivered.is_empty() {
        return Err(LoadError::Nothing("no post was due in the time that is measured"));
    }
    Ok(AllHeard { posted, delivered, usage, span })
}

pub(crate) async fn measure(service: &Service, accounts: &[Credentials], args: &Args) -> Result<Report, LoadError> {
    // Two sockets for each node, as two people have.
    let (from, to) = (run::dialers(service)?, run::dialers(service)?);
    let AllHeard { posted, delivered, usage, span } = heard(service, (&from, &to), accounts, args).await?;
    let writers = args.writers();
    let to = if service.nodes().len() == 1 { "one other session" } else { "a session on another node" };
    let what = format!(
        "{}, {} posts/s by {writers} writer(s), {} bytes, each to {to}",
        service.words(),
        args.rate,
        sample::TEXT
    );
    let report = Report::new("latency", what)
        .times("post → deliver", "delivered", &delivered)
        .times("post → acknowledged", "acknowledged", &posted.times)
        .detail("posts_per_second", rounded(span.per_second(posted.acknowledged)));
    let report = run::usage(report, &usage, delivered.count())
        .detail("refused", posted.refused)
        .config("rate", args.rate)
        .config("writers", writers)
        .config("bytes", sample::TEXT);
    Ok(run::held(args.coming.describe(args.times.describe(report)), &posted.held))
}
