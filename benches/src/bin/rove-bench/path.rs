//! Over a path that takes its time and loses something, as phones have it: how long a device that comes back waits until its first
//! post is acknowledged, how long a post takes to somebody else, and what a change of network costs in the middle of a conversation.
//!
//! The path is a relay on loopback (`load::path`). Coming back and changing networks are measured without loss, as it is the number of
//! round trips that counts there; delivery with it, beside a bare echo over a path of the same kind.

use std::time::{Duration, Instant};

use rove_benches::load::error::io;
use rove_benches::load::poster::Known;
use rove_benches::load::session::Handshake;
use rove_benches::load::{Credentials, Dialer, LoadError, Pace, Path, Poster, Service, Weather, echo};
use rove_benches::{Histogram, Report, Schedule, Span, digits, sample};
use rove_protocol::ids::{ConversationId, WriterId};
use rove_protocol::limits;
use rove_protocol::message::Open;
use tokio::task::JoinSet;

use crate::latency::{self, AllHeard};
use crate::run::{self, Coming, Place, Times};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench path                            50 ms there and back, 1 % lost
  rove-bench path --rtt 200 --loss 3
  rove-bench --nodes 3 path --seconds 60")]
pub(crate) struct Args {
    /// Milliseconds there and back: so long that the posts on their way are no more than a writer may have unanswered
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(2..=500))]
    rtt: u64,

    /// Percent of the datagrams that are lost, each way, while posts are delivered
    #[arg(long, default_value_t = 1.0, value_parser = percent)]
    loss: f64,

    /// Times that a device comes back, with each kind of handshake, and that one changes its network
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,

    /// Posts per second while posts are delivered, by ten writers together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// What decides about which datagrams are lost
    #[arg(long, default_value_t)]
    seed: u64,

    #[command(flatten)]
    span: Times,
}

/// Pairs of people while posts are delivered: what one loses holds up nobody else.
const PAIRS: u32 = 10;
/// Between the posts of a device that changes its network.
const EVERY: Duration = Duration::from_millis(10);
/// How long it posts before the change, and half as long as after it, at least; a long path has ten round trips to settle in.
const SETTLES: Duration = Duration::from_millis(500);

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=50.0).contains(&percent) { Ok(percent) } else { Err("0 to 50".to_owned()) }
}

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    place.with("", 2 * PAIRS as usize, async |service, accounts| measure(service, &accounts, args).await).await
}

async fn measure(service: &Service, accounts: &[Credentials], args: &Args) -> Result<Report, LoadError> {
    let round_trip = Duration::from_millis(args.rtt);
    let (clear, lossy) = (Weather { round_trip, loss: 0.0 }, Weather { round_trip, loss: args.loss / 100.0 });
    let what = format!("{}, {} ms there and back", service.words(), args.rtt);
    let mut report = Report::new("path", what);
    let path = Path::start(service.first().quic(), clear, args.seed).await?;
    let dialer = Dialer::through(service.first(), path.address())?;
    let mut home = Home::new(&dialer, accounts).await?;
    for (name, key, handshake) in [
        ("new", "first_post_full", Handshake::Full),
        ("known", "first_post_resumed", Handshake::Resumed),
        ("known, early data", "first_post_early", Handshake::Early),
    ] {
        let (times, otherwise) = home.come_back(&dialer, handshake, args.times, 2 * round_trip).await?;
        report = report
            .times(format!("{name}: connect → first post acknowledged"), key, &times)
            .detail(&format!("{key}_otherwise"), otherwise);
    }
    let silences = home.change(&dialer, args.times, SETTLES.max(10 * round_trip)).await?;
    report = report.times("change of network: extra silence", "change", &silences).figure(
        "at most",
        format!("{} ms", digits(silences.max().as_secs_f64() * 1e3)),
        "change_most_ms",
        silences.max().as_secs_f64() * 1e3,
    );
    let AllHeard { posted, delivered, .. } = deliver(service, accounts, args, lossy).await?;
    let echo = bare(args, lossy).await?;
    let loss = args.loss;
    Ok(args.span.describe(
        report
            .times(format!("{loss} % lost: post → deliver"), "delivered", &delivered)
            .times(format!("{loss} % lost: post → acknowledged"), "acknowledged", &posted.times)
            .times(format!("{loss} % lost: a bare echo"), "echo", &echo)
            .config("rtt_ms", args.rtt)
            .config("loss_percent", args.loss)
            .config("times", args.times)
            .config("rate", args.rate)
            .config("seed", args.seed),
    ))
}

/// A device, and the conversation that it posts to.
struct Home {
    account: Credentials,
    conversation: ConversationId,
    writer: WriterId,
    known: Known,
}

impl Home {
    async fn new(dialer: &Dialer, accounts: &[Credentials]) -> Result<Self, LoadError> {
        let name = run::name(1_000);
        let mut session = dialer.session(&accounts[0]).await?;
        let conversation = session.create_group(name, [&accounts[1]]).await?;
        Ok(Self { account: accounts[0].clone(), conversation, writer: WriterId(name), known: Known::NOTHING })
    }

    /// Comes back again and again, each time with one post, and stays a while. How long that took, and how often it was not with that handshake.
    async fn come_back(
        &mut self,
        dialer: &Dialer,
        handshake: Handshake,
        times: u32,
        stay: Duration,
    ) -> Result<(Histogram, u64), LoadError> {
        let (mut took, mut otherwise, mut device) = (Histogram::new(), 0, dialer.device()?);
        // The first time there is nothing yet to remember.
        for time in 0..=times {
            if handshake == Handshake::Full {
                device = dialer.device()?;
            }
            let post_no = self.known.post_no.next();
            let post = sample::post(post_no.0);
            let (conversation, writer, after) = (self.conversation, self.writer, self.known.seq);
            let open = Open { conversation, after, seen: after, epoch: 0, writer };
            let begun = Instant::now();
            let back = dialer.come_back(&device, &self.account, handshake, &open, &post).await?;
            self.known = Known { post_no, seq: back.seq };
            if time > 0 {
                took.record(begun.elapsed());
                otherwise += u64::from(!back.as_asked);
            }
            // As any device, it stays at least until the handshake is complete and it has something to be remembered by.
            tokio::time::sleep(stay).await;
        }
        Ok((took, otherwise))
    }

    /// Changes its socket in the middle of a conversation, again and again. How much longer than usual it heard nothing each time.
    async fn change(&mut self, dialer: &Dialer, times: u32, settles: Duration) -> Result<Histogram, LoadError> {
        let session = dialer.session(&self.account).await?;
        let (writer, after) = (self.writer, self.known.seq);
        let mut stream = session.open_after(self.conversation, writer, after, after).await?;
        let mut silences = Histogram::new();
        for _ in 0..times {
            let start = Instant::now();
            let posts = u64::try_from(3 * settles.as_millis() / EVERY.as_millis()).unwrap_or(u64::MAX);
            let pace = Schedule::new(start, 1.0 / EVERY.as_secs_f64(), posts);
            let pace = Pace::Due(pace.map_err(io("making a schedule"))?);
            // Until the answers are a steady stream nothing is measured.
            let span = Span::new(start, settles / 2, settles + settles / 2);
            let mut poster = Poster::new(pace, span, limits::UNANSWERED_POSTS).going_on(self.known);
            let change = async {
                tokio::time::sleep_until((start + settles).into()).await;
                dialer.rebind()
            };
            tokio::try_join!(poster.run(&mut stream), change)?;
            self.known = poster.known();
            silences.record(poster.outcome().silence.saturating_sub(EVERY));
        }
        Ok(silences)
    }
}

/// From people at one end of a path of their own to people at the end of another.
async fn deliver(
    service: &Service,
    accounts: &[Credentials],
    args: &Args,
    weather: Weather,
) -> Result<AllHeard, LoadError> {
    let (mut paths, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
    for (number, node) in (0..).zip(service.nodes()) {
        for (dialers, side) in [(&mut from, 1), (&mut to, 2)] {
            let path = Path::start(node.quic(), weather, args.seed ^ (side << 32 | number)).await?;
            dialers.push(Dialer::through(node, path.address())?);
            paths.push(path);
        }
    }
    let load =
        latency::Args { rate: args.rate, writers: Some(PAIRS), coming: Coming::default(), times: args.span.clone() };
    latency::heard(service, (&from, &to), accounts, &load).await
}

/// What QUIC alone does on such a path, with as many connections at the same rate.
async fn bare(args: &Args, weather: Weather) -> Result<Histogram, LoadError> {
    let (endpoint, pin) = echo::server()?;
    let address = endpoint.local_addr().map_err(io("looking at a socket"))?;
    let path =
        Path::start((std::net::Ipv4Addr::LOCALHOST, address.port()).into(), weather, args.seed ^ 3 << 32).await?;
    // Ends with this.
    let mut serving = JoinSet::new();
    serving.spawn(echo::serve(endpoint));
    let (start, rate, parts) = (Instant::now(), f64::from(args.rate), u64::from(PAIRS));
    let span = args.span.span(start);
    let mut echoes = JoinSet::new();
    for part in 0..parts {
        let dialer = echo::EchoDialer::new(path.address(), pin)?;
        let plan = Coming::default().share(start, rate, span.works(start, rate), part, parts)?;
        let pace = run::due(plan)?;
        echoes.spawn(async move { dialer.connect().await?.run(pace, span, limits::UNANSWERED_POSTS).await });
    }
    let mut times = Histogram::new();
    while let Some(ended) = echoes.join_next().await {
        times.add(&run::joined(ended)?.times);
    }
    Ok(times)
}
