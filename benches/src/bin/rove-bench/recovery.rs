//! Cold starts, and what a kill costs: a node is killed under a load that goes on, and started again.
//!
//! Every writer has a conversation of its own and behaves as a client does whose node dies. What is said of clients is the longest time that
//! a conversation went without an acknowledgement; what is said of the node is how long it was not there, and how long its start took, which
//! depends on how much there is in its store. At the end every conversation is read on every node: nothing that was acknowledged may be
//! missing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use rove_benches::load::error::io;
use rove_benches::load::poster::Outcome;
use rove_benches::load::{Credentials, Device, LoadError, Server, Service};
use rove_benches::{
    Histogram, Others, Progress, Report, Series, Span, Watch, milliseconds, process, rounded, sample, say,
};
use rove_protocol::ids::WriterId;
use tokio::task::JoinSet;

use crate::run::{self, Coming, Place, Times};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench recovery                                  one node: kill -9, start again, five times
  rove-bench recovery --prefill 0,100000,1000000       the same with more and more in its store
  rove-bench --nodes 3 recovery --rounds 20            whoever leads most is killed, 20 times")]
pub(crate) struct Args {
    /// Posts per second, of all writers together
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,

    /// Writers, each with a conversation of its own [default: one for every 25 posts/s]
    ///
    /// No silence is known more exactly than the time between two posts of a conversation: with 25/s, 40 ms.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    writers: Option<u32>,

    /// Kills, one after the other, for each prefill
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,

    /// Posts that are in the store before; several are measured one after the other, the least first
    #[arg(long, value_delimiter = ',', default_values_t = [0])]
    prefill: Vec<u64>,

    /// Seconds from a kill to the start [default: 0 for one node; 2 for several, in which others take over]
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=600))]
    down: Option<u64>,

    #[command(flatten)]
    coming: Coming,

    // What is measured is from each kill on.
    #[command(flatten)]
    times: Times,
}

/// Posts per second that one writer is given, if nobody says how many writers there are.
const EACH: u32 = 25;
/// Starts without load for each prefill: they are told as a distribution, and agree well.
const COLD_STARTS: u16 = 3;
/// In a cluster: longer than an election, so that the others lead.
const DOWN: Duration = Duration::from_secs(2);

impl Args {
    fn writers(&self) -> u32 {
        self.writers.unwrap_or_else(|| self.rate.div_ceil(EACH))
    }

    fn down(&self, nodes: usize) -> Duration {
        self.down.map_or(if nodes == 1 { Duration::ZERO } else { DOWN }, Duration::from_secs)
    }
}

/// What came of one kill.
#[derive(Debug)]
struct Round {
    /// In the store when it happened.
    posts: u64,
    /// From the kill until the node was ready again.
    away: Duration,
    /// Of that, from its start on.
    start: Duration,
    /// The longest silence of each conversation, and whether its writer was at another node than the one that died.
    silences: Vec<(Duration, bool)>,
    posted: Outcome,
    others: Others,
}

/// What came of all kills with one prefill, and of starts before them.
#[derive(Debug, Default)]
struct Rounds {
    /// From its start until a node was ready, when nobody asked anything of it.
    cold: Histogram,
    away: Histogram,
    start: Histogram,
    /// The longest silence of any conversation after each kill.
    longest: Histogram,
    silences: Histogram,
    /// Of those whose writer was at another node.
    elsewhere: Histogram,
    acknowledged: Histogram,
    /// Of the last round.
    others: Others,
}

/// Times by what was in the store: what is drawn.
#[derive(Debug, Default)]
struct Lines {
    cold: Vec<(f64, f64)>,
    start: Vec<(f64, f64)>,
    longest: Vec<(f64, f64)>,
}

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    place.with("", args.writers() as usize, async |service, accounts| measure(service, accounts, args).await).await
}

async fn measure(service: &mut Service, accounts: Vec<Credentials>, args: &Args) -> Result<Report, LoadError> {
    let mut devices = devices(service, accounts).await?;
    let mut report = Report::new("recovery", words(service, args));
    let (mut lines, mut prefills) = (Lines::default(), args.prefill.clone());
    prefills.sort_unstable();
    for prefill in &prefills {
        devices = fill(devices, *prefill).await?;
        let (mut rounds, posts) = (Rounds::default(), stored(&devices));
        for _ in 0..COLD_STARTS {
            let took = cold_start(service).await?;
            rounds.cold.record(took);
            lines.cold.push((posts as f64, milliseconds(took)));
        }
        for number in 1..=args.rounds {
            let (round, used) = kill(service, devices, args, number).await?;
            devices = used;
            lines.start.push((round.posts as f64, milliseconds(round.start)));
            lines.longest.push((round.posts as f64, milliseconds(round.longest())));
            rounds.add(&round);
        }
        let of = if prefills.len() > 1 {
            (format!(" with {posts} posts"), format!("_{prefill}"))
        } else {
            Default::default()
        };
        report = rounds.describe(report, &of.0, &of.1);
    }
    read_back(service, &devices).await?;
    let posts = stored(&devices);
    let resolution = milliseconds(Duration::from_secs(1)) * f64::from(args.writers()) / f64::from(args.rate);
    let down = args.down(service.nodes().len()).as_secs();
    let report = report
        .figure("acknowledged posts missing", "0", "missing", 0)
        .detail("posts", posts)
        .lines(
            "by what was in the store",
            "posts in the store",
            "ms",
            vec![
                Series::new("cold start", lines.cold),
                Series::new("start after a kill, under load", lines.start),
                Series::new("longest silence of a conversation", lines.longest),
            ],
        )
        .note(format!(
            "A conversation has a post due every {} ms on average: no silence is known more exactly.",
            rounded(resolution)
        ))
        .note(format!(
            "A node that was killed was left dead for {down} s, which is in the time until it was ready again."
        ))
        .note(format!("All {posts} acknowledged posts were read back on every node."))
        .config("rate", args.rate)
        .config("writers", args.writers())
        .config("rounds", args.rounds)
        .config("prefill", prefills)
        .config("down_s", down)
        .config("bytes", sample::TEXT);
    Ok(args.coming.describe(args.times.describe(report)))
}

fn words(service: &Service, args: &Args) -> String {
    let who = if service.nodes().len() == 1 { "it is killed" } else { "whoever leads most is killed" };
    let (rate, writers, rounds) = (args.rate, args.writers(), args.rounds);
    format!("{}, {rate} posts/s due by {writers} writers, {who} {rounds} times", service.words())
}

/// Writers with a group each. They know all nodes, which stay where they are.
async fn devices(service: &Service, accounts: Vec<Credentials>) -> Result<Vec<Device>, LoadError> {
    let nodes = Arc::new(run::dialers(service)?);
    let mut devices = Vec::with_capacity(accounts.len());
    for (number, account) in accounts.into_iter().enumerate() {
        let name = run::name(number as u64 + 1);
        let group = nodes[0].session(&account).await?.create_group(name, []).await?;
        devices.push(Device::new(number, account, group, WriterId(name), nodes.clone()));
    }
    Ok(devices)
}

fn stored(devices: &[Device]) -> u64 {
    devices.iter().map(Device::posts).sum()
}

/// Posts as fast as it goes until there are so many.
async fn fill(devices: Vec<Device>, posts: u64) -> Result<Vec<Device>, LoadError> {
    let (more, parts) = (posts.saturating_sub(stored(&devices)), devices.len() as u64);
    say(format_args!("writing {more} posts"));
    let (now, mut filling) = (Instant::now(), JoinSet::new());
    // None of it is measured.
    let span = Span::new(now, Duration::ZERO, Duration::ZERO);
    for (part, mut device) in (0..).zip(devices) {
        let pace = run::due(Coming::default().share(now, run::AT_ONCE, more, part, parts)?)?;
        filling.spawn(async move { device.post(pace, span).await.map(|_| device) });
    }
    let (mut filled, mut progress) = (Vec::new(), Progress::new("writers that are done"));
    while let Some(device) = filling.join_next().await {
        filled.push(run::joined(device)?);
        progress.at(filled.len(), parts);
    }
    Ok(filled)
}

/// Everything is stopped as it should be and started; how long it took until all of it was ready.
async fn cold_start(service: &mut Service) -> Result<Duration, LoadError> {
    service.restart().await?;
    let took = try_join_all(service.nodes().iter().map(Server::ready)).await?;
    Ok(took.into_iter().max().unwrap_or_default())
}

/// A load, and a kill in the middle of it.
async fn kill(
    service: &mut Service,
    devices: Vec<Device>,
    args: &Args,
    number: u16,
) -> Result<(Round, Vec<Device>), LoadError> {
    let victim = service.busiest().await?;
    let (start, rate, parts) = (Instant::now(), f64::from(args.rate), devices.len() as u64);
    let span = args.times.span(start);
    let before = stored(&devices) + span.works(start, rate).saturating_sub(span.works(span.from(), rate));
    say(format_args!("kill {number} of {}: node {}", args.rounds, victim + 1));
    let used = |pids: &[u32]| process::cpu_of(pids).map_err(io("looking at the servers"));
    let (watch, used_before) = (Watch::start(), used(&service.pids())?);
    let (mut posting, mut done) = (JoinSet::new(), Vec::new());
    for (part, mut device) in (0..).zip(devices) {
        let pace = run::due(args.coming.share(start, rate, span.works(start, rate), part, parts)?)?;
        posting.spawn(async move { device.post(pace, span).await.map(|outcome| (device, outcome)) });
    }
    run::watch(&mut posting, &mut done, span.from(), |_| {}).await?;
    let used_by_the_dead = used(&[service.nodes()[victim].pid()])?;
    let killed = Instant::now();
    service.kill(victim).await?;
    run::watch(&mut posting, &mut done, killed + args.down(service.nodes().len()), |_| {}).await?;
    service.revive(victim).await?;
    let took = service.nodes()[victim].ready().await?;
    let away = killed.elapsed();
    if Instant::now() >= span.until() {
        // Silence that outlasts the load would be told as less than it was.
        let late = format!("the node needed {:.1} s: --seconds must be more", away.as_secs_f64());
        return Err(LoadError::Server(late));
    }
    run::rest(&mut posting, &mut done).await?;
    let others = watch.stop((used(&service.pids())? + used_by_the_dead).saturating_sub(used_before));
    let posted = Outcome::sum(done.iter().map(|(_, outcome)| outcome));
    let silences = done.iter().map(|(device, outcome)| (outcome.silence, device.home() != victim)).collect();
    let devices = done.into_iter().map(|(device, _)| device).collect();
    Ok((Round { posts: before, away, start: took, silences, posted, others }, devices))
}

/// Everything that was acknowledged is there, on every node.
async fn read_back(service: &Service, devices: &[Device]) -> Result<(), LoadError> {
    let mut progress = Progress::new("reading conversations back");
    for node in 0..service.nodes().len() {
        for (number, device) in devices.iter().enumerate() {
            device.read_back(node).await?;
            progress.at(node * devices.len() + number + 1, service.nodes().len() * devices.len());
        }
    }
    Ok(())
}

impl Round {
    /// The longest silence of any conversation.
    fn longest(&self) -> Duration {
        self.silences.iter().map(|(silence, _)| *silence).max().unwrap_or_default()
    }
}

impl Rounds {
    fn add(&mut self, round: &Round) {
        self.away.record(round.away);
        self.start.record(round.start);
        self.longest.record(round.longest());
        self.silences.extend(round.silences.iter().map(|(silence, _)| *silence));
        self.elsewhere.extend(round.silences.iter().filter(|(_, elsewhere)| *elsewhere).map(|(silence, _)| *silence));
        self.acknowledged.add(&round.posted.times);
        self.others = round.others;
    }

    /// `of` and `suffix` tell one prefill from another, if there are several.
    fn describe(&self, report: Report, of: &str, suffix: &str) -> Report {
        let key = |name: &str| format!("{name}{suffix}");
        let report = report
            .times(
                format!("longest silence of any conversation after a kill{of}"),
                &key("longest_silence"),
                &self.longest,
            )
            .times(format!("silence of each{of}"), &key("silence"), &self.silences);
        // What an election costs, without the time it takes a client to give its node up.
        let report = if self.elsewhere.is_empty() {
            report
        } else {
            let name = format!("silence of each whose client was at another node{of}");
            report.times(name, &key("silence_elsewhere"), &self.elsewhere)
        };
        report
            .times(format!("kill → ready again{of}"), &key("away"), &self.away)
            .times(format!("start → ready, under load{of}"), &key("start"), &self.start)
            .times(format!("cold start → ready{of}"), &key("cold_start"), &self.cold)
            .times(format!("post → acknowledged{of}"), &key("acknowledged"), &self.acknowledged)
            .others(self.others)
    }
}
