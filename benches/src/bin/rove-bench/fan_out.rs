//! From one post to many: a group whose members all have it open.
//!
//! Without a rate the writer keeps in step with its listeners: a post goes out for each that has been delivered to all, with a window of
//! them on their way. With one, posts are due, and each delivery counts from when its post was due.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rove_benches::load::gate::Gate;
use rove_benches::load::{Conversation, Credentials, LoadError, Pace, Poster, Service, Session, listener};
use rove_benches::{Bar, Histogram, Report, rounded, sample};
use rove_protocol::ids::{PostNo, WriterId};
use rove_protocol::limits;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::run::{self, Coming, Place, Times};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench fan-out                              to 100 members, as many as go through
  rove-bench fan-out --members 1000 --rate 20 --svg fan-out.svg
  rove-bench --nodes 3 fan-out")]
pub(crate) struct Args {
    /// Members beside the writer, each with a session that has the group open
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    pub(crate) members: u32,

    /// Posts that are on their way to the members
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=limits::UNANSWERED_POSTS as i64))]
    pub(crate) window: u16,

    /// Posts per second [default: as many as go through]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: Option<u32>,

    #[command(flatten)]
    pub(crate) coming: Coming,

    #[command(flatten)]
    pub(crate) times: Times,
}

const WRITER: WriterId = WriterId([1; 16]);

/// What all listeners heard together.
#[derive(Debug, Default)]
struct Heard {
    deliveries: u64,
    times: Histogram,
}

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    // So that a large group is sent its events as well, which is what is measured, instead of fetching them (D14).
    let keys = format!("pull_active = {}\n", args.members.max(500) + 1);
    place
        .with(&keys, args.members as usize + 1, async |service, accounts| measure(service, &accounts, args).await)
        .await
}

async fn measure(service: &Service, accounts: &[Credentials], args: &Args) -> Result<Report, LoadError> {
    let dialers = run::dialers(service)?;
    let (owner, members) = accounts.split_first().ok_or(LoadError::Nothing("there is no account"))?;
    let mut alice = dialers[0].session(owner).await?;
    let group = alice.create_group([1; 16], []).await?;
    for some in members.chunks(limits::MEMBERS_PER_REQUEST) {
        alice.add_members(group, some).await?;
    }
    let posting = alice.open(group, WRITER).await?;
    let mut listening = Vec::with_capacity(members.len());
    for (member, dialer) in members.iter().zip(dialers.iter().cycle()) {
        let session = dialer.session(member).await?;
        let conversation = session.open(group, WriterId([2; 16])).await?;
        listening.push((session, conversation));
    }
    let (usage, heard, posted) = fan_out(service, args, (alice, posting), listening).await?;
    let span = args.times.span(Instant::now());
    let rate = span.per_second(heard.deliveries);
    let posts = span.per_second(posted);
    let words = match args.rate {
        None => format!("{}, to {} members, {} bytes", service.words(), args.members, sample::TEXT),
        Some(rate) => {
            format!("{}, {rate} posts/s due, to {} members, {} bytes", service.words(), args.members, sample::TEXT)
        }
    };
    let mut report = Report::new("fan-out", words)
        .figure("deliveries/s", format!("{rate:.0}"), "deliveries_per_second", rounded(rate))
        .figure("posts/s", format!("{posts:.0}"), "posts_per_second", rounded(posts));
    if args.rate.is_some() {
        report = report.times("post → deliver", "delivered", &heard.times);
    }
    let report = run::usage(report, &usage, heard.deliveries)
        .bars("deliveries/s", vec![Bar::new("deliveries", rate)])
        .config("members", args.members)
        .config("window", args.window)
        .config("rate", args.rate)
        .config("bytes", sample::TEXT);
    let report = args.times.describe(report);
    Ok(if args.rate.is_some() { args.coming.describe(report) } else { report })
}

/// What came of it: what the servers used, what was heard, and how many posts were acknowledged in the span.
async fn fan_out(
    service: &Service,
    args: &Args,
    (alice, mut posting): (Session, Conversation),
    listening: Vec<(Session, Conversation)>,
) -> Result<(rove_benches::Usage, Heard, u64), LoadError> {
    let (start, rate) = (Instant::now(), args.rate.map(f64::from));
    let span = args.times.span(start);
    let gate = Arc::new(Gate::new(u64::from(args.members), usize::from(args.window)));
    let plan = rate.map(|rate| args.coming.share(start, rate, span.works(start, rate), 0, 1)).transpose()?;
    let pace = match plan.clone() {
        None => Pace::Gated { until: span.until(), gate: gate.clone() },
        Some(plan) => run::due(plan)?,
    };
    let heard = Arc::new(Mutex::new(Heard::default()));
    // How many there will have been is known when the writer has ended.
    let (total, last) = watch::channel(u64::MAX);
    let mut tasks = JoinSet::new();
    for (session, mut conversation) in listening {
        let (heard, gate, last, mut plan) = (heard.clone(), gate.clone(), last.clone(), plan.clone());
        tasks.spawn(async move {
            // Dropping it would close the connection.
            let _session = session;
            let each = |_: PostNo, now: Instant| {
                gate.delivered();
                // Posts are heard in the order in which they were due, and all of them.
                let due = plan.as_mut().and_then(Iterator::next);
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.deliveries += u64::from(span.contains(now));
                if let Some(due) = due.filter(|due| span.contains(due.at)) {
                    heard.times.record(now.saturating_duration_since(due.at));
                }
            };
            listener::hear(&mut conversation, WRITER, last, each).await?;
            Ok(0)
        });
    }
    let mut poster = Poster::new(pace, span, limits::UNANSWERED_POSTS);
    tasks.spawn(async move {
        let _session = alice;
        poster.run(&mut posting).await?;
        total.send_replace(poster.posts());
        Ok(poster.outcome().acknowledged)
    });
    let (usage, posted) = run::measure(&service.pids(), span, "posting to many", tasks).await?;
    let heard = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    if heard.deliveries == 0 {
        return Err(LoadError::Nothing("nothing was delivered in time"));
    }
    Ok((usage, heard, posted.iter().sum()))
}
