//! Posts per second: every session posts to a group of its own and keeps its window full.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rove_benches::load::summary::micros;
use rove_benches::load::{Accounts, Conversation, Dialer, LoadError, Service, Session, Summary};
use rove_benches::sample;
use rove_protocol::frame::RawFrame;
use rove_protocol::ids::{PostNo, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{Body as _, Message as _, Post, Posted, Refused};
use rove_protocol::registry::FrameType;
use rove_protocol::transport::SendStream as _;
use tokio::task::JoinSet;

use crate::report::{Report, rounded};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sessions, each of an account of its own
    #[arg(long, default_value_t = 32)]
    sessions: usize,

    /// Unanswered posts of each session
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=limits::UNANSWERED_POSTS as i64))]
    window: u16,

    /// Seconds that are measured
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Seconds before that, which are not
    #[arg(long, default_value_t = 3)]
    warm_up: u64,
}

/// What all posters are told.
const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

pub(crate) async fn run(service: &Service, args: &Args) -> Result<Report, LoadError> {
    let accounts = Accounts::connect(service.first()).await?.sign_up(args.sessions).await?;
    let dialers = service.nodes().iter().map(Dialer::new).collect::<Result<Vec<_>, _>>()?;
    let phase = Arc::new(AtomicU8::new(WARM_UP));
    let mut posters = JoinSet::new();
    for ((number, credentials), dialer) in (0u64..).zip(&accounts).zip(dialers.iter().cycle()) {
        let mut session = dialer.session(credentials).await?;
        let mut name = [0; 16];
        name[..8].copy_from_slice(&number.to_be_bytes());
        let group = session.create_group(name, []).await?;
        let conversation = session.open(group, WriterId(name)).await?;
        posters.spawn(Poster::new(session, conversation, usize::from(args.window), phase.clone()).run());
    }

    // A poster that fails early ends the measurement at once.
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(args.warm_up)) => {}
        failed = posters.join_next() => return Err(early(failed)),
    }
    let (cpu_before, started) = (service.cpu()?, Instant::now());
    phase.store(MEASURE, Ordering::Relaxed);
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(args.seconds)) => {}
        failed = posters.join_next() => return Err(early(failed)),
    }
    phase.store(STOP, Ordering::Relaxed);
    let (elapsed, cpu) = (started.elapsed(), service.cpu()?.saturating_sub(cpu_before));

    let (mut samples, mut refused) = (Vec::new(), 0);
    while let Some(outcome) = posters.join_next().await {
        let outcome = outcome.map_err(|_| LoadError::Ended("a poster"))??;
        samples.extend(outcome.samples_us);
        refused += outcome.refused;
    }
    let times = Summary::new(samples);
    if times.count() == 0 {
        return Err(LoadError::Nothing("no post was acknowledged in time"));
    }
    let rate = times.count() as f64 / elapsed.as_secs_f64();
    let cpu_per_100k = cpu.as_secs_f64() / times.count() as f64 * 100_000.0;
    let (nodes, sessions, window, bytes) = (service.words(), args.sessions, args.window, sample::TEXT);
    let what = format!("{nodes}, {sessions} sessions, {window} posts under way each, {bytes} bytes");
    Ok(Report::new("posts", what)
        .figure("acknowledged/s", format!("{rate:.0}"), "posts_per_second", rounded(rate))
        .figure("acknowledged after p50 / p99", times.p50_p99(), "ack_p50_ms", rounded(times.percentile_ms(50.0)))
        .detail("ack_p99_ms", rounded(times.percentile_ms(99.0)))
        .figure("server CPU, s/100k", format!("{cpu_per_100k:.2}"), "cpu_s_per_100k", rounded(cpu_per_100k))
        .figure("refused as busy", refused.to_string(), "refused", refused)
        .detail("posts", times.count())
        .detail("seconds", rounded(elapsed.as_secs_f64())))
}

fn early(ended: Option<Result<Result<Outcome, LoadError>, tokio::task::JoinError>>) -> LoadError {
    match ended {
        Some(Ok(Err(error))) => error,
        _ => LoadError::Ended("a poster"),
    }
}

/// What one session saw.
struct Outcome {
    samples_us: Vec<u32>,
    refused: u64,
}

struct Poster {
    // Dropping it would close the connection.
    _session: Session,
    conversation: Conversation,
    window: usize,
    phase: Arc<AtomicU8>,
    template: Post,
    next: u64,
    waiting: VecDeque<(u64, Instant)>,
    /// A refusal that consumed nothing: where to go back to, and after how long.
    back: Option<(PostNo, Duration)>,
    outcome: Outcome,
}

impl Poster {
    fn new(session: Session, conversation: Conversation, window: usize, phase: Arc<AtomicU8>) -> Self {
        let next = conversation.last_post_no.next().0;
        Self {
            _session: session,
            conversation,
            window,
            phase,
            template: sample::post(next),
            next,
            waiting: VecDeque::with_capacity(window),
            back: None,
            outcome: Outcome { samples_us: Vec::new(), refused: 0 },
        }
    }

    /// Posts until it is told to stop, then waits for what is unanswered.
    async fn run(mut self) -> Result<Outcome, LoadError> {
        loop {
            let stopping = self.phase.load(Ordering::Relaxed) == STOP;
            if self.waiting.is_empty() {
                if stopping {
                    return Ok(self.outcome);
                }
                if let Some((expected, pause)) = self.back.take() {
                    tokio::time::sleep(pause).await;
                    self.next = expected.0;
                }
            }
            if !stopping && self.back.is_none() {
                self.fill().await?;
            }
            let mut frame = self.conversation.stream.frames.next().await?;
            if frame.is_none() {
                return Err(LoadError::Ended("the conversation"));
            }
            // Everything that came with it, before posting again: as many posts go up at once as were answered at once.
            while let Some(one) = frame {
                self.take(one)?;
                frame = self.conversation.stream.frames.buffered()?;
            }
        }
    }

    async fn fill(&mut self) -> Result<(), LoadError> {
        let mut out = Vec::new();
        let now = Instant::now();
        while self.waiting.len() < self.window {
            self.template.post_no = PostNo(self.next);
            self.template.put_frame(&mut out);
            self.waiting.push_back((self.next, now));
            self.next += 1;
        }
        if !out.is_empty() {
            self.conversation.stream.send.write(out.into()).await?;
        }
        Ok(())
    }

    fn take(&mut self, frame: RawFrame) -> Result<(), LoadError> {
        match frame.frame_type {
            FrameType::Posted => {
                let sent = self.answered(Posted::decode_body(frame.body)?.post_no)?;
                if self.phase.load(Ordering::Relaxed) == MEASURE {
                    self.outcome.samples_us.push(micros(sent.elapsed()));
                }
            }
            FrameType::Refused => {
                let refused = Refused::decode_body(frame.body)?;
                self.answered(refused.post_no)?;
                if refused.consumed {
                    return Err(LoadError::Refused { what: "a post", code: refused.code });
                }
                self.outcome.refused += 1;
                let pause = Duration::from_millis(u64::from(refused.retry_after_ms.max(1)));
                self.back.get_or_insert((refused.expected, pause));
            }
            // One's own events come back like everybody's.
            _ => {}
        }
        Ok(())
    }

    /// Answers come in the order of the posts.
    fn answered(&mut self, post_no: PostNo) -> Result<Instant, LoadError> {
        match self.waiting.pop_front() {
            Some((number, sent)) if number == post_no.0 => Ok(sent),
            _ => Err(LoadError::Server(format!("an answer to post {post_no} out of order"))),
        }
    }
}
