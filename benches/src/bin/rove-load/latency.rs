//! From a post to its delivery: one account posts at an even rate, another one listens.
//!
//! The load is open: posts go out when their time has come, whether or not earlier ones were answered, so a pause of the
//! server is in the figures of every post it held up.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rove_benches::load::session::Stream;
use rove_benches::load::summary::micros;
use rove_benches::load::{Accounts, Dialer, LoadError, Service, Summary};
use rove_benches::sample;
use rove_protocol::ids::{PostNo, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{ConversationDown, Message as _};
use rove_protocol::transport::{FrameReader, SendStream as _};
use rove_quic::{RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use crate::report::{Report, rounded};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Posts per second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,

    /// Seconds that are measured
    #[arg(long, default_value_t = 10)]
    seconds: u32,

    /// Seconds before that, which are not
    #[arg(long, default_value_t = 2)]
    warm_up: u32,
}

/// Unanswered posts that a server takes.
const WINDOW: u32 = 64;
const _: () = assert!(WINDOW as usize == limits::UNANSWERED_POSTS);

/// After the last post: everything has been delivered long before.
const PATIENCE: Duration = Duration::from_secs(30);

/// When each post went out, by its number less one.
type SentAt = Arc<Mutex<Vec<Instant>>>;

pub(crate) async fn run(service: &Service, args: &Args) -> Result<Report, LoadError> {
    let accounts = Accounts::connect(service.first()).await?.sign_up(2).await?;
    // Two sockets, as two people have. In a cluster they are on two nodes, and at least one of these does not lead.
    let other = service.nodes().last().unwrap_or(service.first());
    let (alice_dialer, bob_dialer) = (Dialer::new(service.first())?, Dialer::new(other)?);
    let mut alice = alice_dialer.session(&accounts[0]).await?;
    let bob = bob_dialer.session(&accounts[1]).await?;
    let group = alice.create_group([1; 16], [&accounts[1]]).await?;
    let (writer, listener) = (WriterId([1; 16]), WriterId([2; 16]));
    let Stream { send, frames } = alice.open(group, writer).await?.stream;
    // A stream whose sending half is dropped is ended.
    let Stream { send: _open, frames: heard } = bob.open(group, listener).await?.stream;

    let total = u64::from(args.rate) * u64::from(args.warm_up + args.seconds);
    let sent_at = SentAt::default();
    let places = Semaphore::new(WINDOW as usize);
    let time = Duration::from_secs(u64::from(args.warm_up + args.seconds)) + PATIENCE;
    let all = async {
        tokio::try_join!(
            post(send, args.rate, total, &sent_at, &places),
            acknowledgements(frames, total, &sent_at, &places),
            deliveries(heard, writer, total, &sent_at),
        )
    };
    let ((), acknowledged, delivered) =
        tokio::time::timeout(time, all).await.map_err(|_| LoadError::Server("posts were lost".to_owned()))??;

    let measured = |samples: Vec<u32>| {
        Summary::new(samples.into_iter().skip(args.rate as usize * args.warm_up as usize).collect())
    };
    let (acknowledged, delivered) = (measured(acknowledged), measured(delivered));
    let what = {
        let to = if service.nodes().len() == 1 { "one other session" } else { "a session on another node" };
        format!("{}, {} posts/s, {} bytes, to {to}", service.words(), args.rate, sample::TEXT)
    };
    Ok(Report::new("latency", what)
        .figure(
            "post → deliver p50 / p99",
            delivered.p50_p99(),
            "deliver_p50_ms",
            rounded(delivered.percentile_ms(50.0)),
        )
        .detail("deliver_p99_ms", rounded(delivered.percentile_ms(99.0)))
        .figure(
            "post → acknowledged p50 / p99",
            acknowledged.p50_p99(),
            "ack_p50_ms",
            rounded(acknowledged.percentile_ms(50.0)),
        )
        .detail("ack_p99_ms", rounded(acknowledged.percentile_ms(99.0)))
        .detail("posts", delivered.count()))
}

/// Sends `total` posts, each at its time. A post that has to wait for a place among the unanswered ones counts from the
/// time it was due.
async fn post(
    mut send: SendStream,
    rate: u32,
    total: u64,
    sent_at: &SentAt,
    places: &Semaphore,
) -> Result<(), LoadError> {
    let mut template = sample::post(1);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 1..=total {
        ticks.tick().await;
        // Read after the timer, whose steps are a millisecond: its lateness is not the server's.
        sent_at.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        places.acquire().await.map_err(|_| LoadError::Ended("the conversation"))?.forget();
        template.post_no = PostNo(number);
        send.write(template.to_frame().into()).await?;
    }
    // Everything has been acknowledged before the stream may end.
    let _all_answered = places.acquire_many(WINDOW).await;
    Ok(())
}

async fn acknowledgements(
    frames: FrameReader<RecvStream>,
    total: u64,
    sent_at: &SentAt,
    places: &Semaphore,
) -> Result<Vec<u32>, LoadError> {
    each_post(frames, total, sent_at, |message| match message {
        ConversationDown::Posted(posted) => {
            places.add_permits(1);
            Ok(Some(posted.post_no))
        }
        ConversationDown::Refused(refused) => Err(LoadError::Refused { what: "a post", code: refused.code }),
        _ => Ok(None),
    })
    .await
}

async fn deliveries(
    frames: FrameReader<RecvStream>,
    writer: WriterId,
    total: u64,
    sent_at: &SentAt,
) -> Result<Vec<u32>, LoadError> {
    each_post(frames, total, sent_at, |message| match message {
        ConversationDown::Event(event) if event.writer == writer => Ok(Some(event.post_no)),
        _ => Ok(None),
    })
    .await
}

/// The time from each post to what `number` finds in the frames; every post, in order.
async fn each_post(
    mut frames: FrameReader<RecvStream>,
    total: u64,
    sent_at: &SentAt,
    number: impl Fn(ConversationDown) -> Result<Option<PostNo>, LoadError>,
) -> Result<Vec<u32>, LoadError> {
    let mut times = Vec::new();
    while (times.len() as u64) < total {
        let frame = frames.next().await?.ok_or(LoadError::Ended("the conversation"))?;
        let now = Instant::now();
        let Some(message) = ConversationDown::decode(frame)? else { continue };
        let Some(found) = number(message)? else { continue };
        if found.0 != times.len() as u64 + 1 {
            return Err(LoadError::Server(format!("post {found} out of order")));
        }
        let sent = sent_at.lock().unwrap_or_else(PoisonError::into_inner)[times.len()];
        times.push(micros(now.duration_since(sent)));
    }
    Ok(times)
}
