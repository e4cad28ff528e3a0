//! A device that was away for long: it connects, its inbox says what has changed, and it reads all of that.
//!
//! In both ways that clients have: by opening the conversations where it stopped, which replays them, and by fetching pages of history.
//! What counts is from the first packet until every conversation's head is there.

use std::time::Instant;

use futures::future::try_join_all;
use rove_benches::load::error::io;
use rove_benches::load::{Conversation, Credentials, Dialer, LoadError, Pace, Poster, Service, Session};
use rove_benches::{Bar, Histogram, Progress, Report, Schedule, Span, Usage, digits, rounded, sample, say};
use rove_protocol::ids::{ConversationId, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{Fetch, FetchDown, InboxDown, Message as _};
use rove_protocol::registry::{Anchor, FrameType};
use rove_protocol::transport::SendStream as _;

use crate::run::{self, Place};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench catch-up                                   10 conversations of 5,000 events
  rove-bench catch-up --conversations 32 --events 20000
  rove-bench catch-up --devices 8                       eight devices at once")]
pub(crate) struct Args {
    /// Conversations that went on meanwhile
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=limits::CONVERSATION_STREAMS as i64))]
    conversations: u16,

    /// Events of each
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    events: u32,

    /// Devices that come back at the same time, each of an account of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=400))]
    devices: u16,

    /// How often they do; the first time is not counted
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=1_000))]
    rounds: u16,
}

/// What came of one way.
struct CaughtUp {
    times: Histogram,
    events: u64,
    seconds: f64,
    usage: Usage,
}

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    let accounts = usize::from(args.devices) + 1;
    place.with("", accounts, async |service, accounts| measure(service, &accounts, args).await).await
}

async fn measure(service: &Service, accounts: &[Credentials], args: &Args) -> Result<Report, LoadError> {
    let (writer, away) = accounts.split_first().ok_or(LoadError::Nothing("there is no account"))?;
    prepare(service, writer, away, args).await?;
    let replayed = way(service, away, args, "replaying", async |session, lines| replay(session, lines).await).await?;
    let fetched = way(service, away, args, "fetching", async |session, lines| fetch(session, lines).await).await?;
    let words = format!(
        "{}, {} device(s), {} conversations of {} events, {} bytes",
        service.words(),
        args.devices,
        args.conversations,
        args.events,
        sample::TEXT
    );
    let (mut report, mut bars) = (Report::new("catch-up", words), Vec::new());
    for (name, way) in [("replayed", replayed), ("fetched", fetched)] {
        let (rate, cpu) = (way.events as f64 / way.seconds, way.usage.cpu_per_100k(way.events));
        report = report
            .figure(format!("{name}, events/s"), format!("{rate:.0}"), &format!("{name}_per_second"), rounded(rate))
            .times(format!("{name}: all of it,"), name, &way.times)
            .figure(format!("{name}: server CPU, s/100k"), digits(cpu), &format!("{name}_cpu_s_per_100k"), rounded(cpu))
            .others(way.usage.others);
        bars.push(Bar::new(name, rate));
    }
    Ok(report
        .number("server memory, MB", "resident_mb", service.resident()? as f64 / 1e6)
        .bars("events/s", bars)
        .config("conversations", args.conversations)
        .config("events", args.events)
        .config("devices", args.devices)
        .config("rounds", args.rounds)
        .config("bytes", sample::TEXT))
}

/// What happens while they are away.
async fn prepare(service: &Service, writer: &Credentials, away: &[Credentials], args: &Args) -> Result<(), LoadError> {
    let mut session = Dialer::new(service.first())?.session(writer).await?;
    let mut progress = Progress::new("writing conversations");
    for number in 1..=args.conversations {
        let name = run::name(u64::from(number));
        let group = session.create_group(name, away).await?;
        let mut conversation = session.open(group, WriterId(name)).await?;
        fill(&mut conversation, u64::from(args.events)).await?;
        progress.at(number, args.conversations);
    }
    Ok(())
}

/// Posts so many, as fast as it goes.
pub(crate) async fn fill(conversation: &mut Conversation, posts: u64) -> Result<(), LoadError> {
    let start = Instant::now();
    let schedule = Schedule::new(start, run::AT_ONCE, posts).map_err(io("making a schedule"))?;
    let span = Span::new(start, std::time::Duration::ZERO, std::time::Duration::ZERO);
    Poster::new(Pace::Due(schedule), span, limits::UNANSWERED_POSTS).run(conversation).await
}

/// All devices come back at once, several times.
async fn way(
    service: &Service,
    away: &[Credentials],
    args: &Args,
    what: &str,
    read: impl AsyncFn(&Session, &[(ConversationId, Seq)]) -> Result<u64, LoadError>,
) -> Result<CaughtUp, LoadError> {
    say(format_args!("{what}: {} times", args.rounds));
    let dialers = run::dialers(service)?;
    let (mut times, mut events, mut seconds, mut meter) = (Histogram::new(), 0, 0.0, None);
    for round in 0..args.rounds {
        if round == 1 {
            meter = Some(service.meter()?);
        }
        let started = Instant::now();
        let each = away.iter().zip(dialers.iter().cycle()).map(async |(account, dialer)| {
            let session = dialer.session(account).await?;
            let lines = inbox(&session).await?;
            if lines.len() != usize::from(args.conversations) {
                return Err(LoadError::Server(format!("the inbox has {} lines", lines.len())));
            }
            Ok((read(&session, &lines).await?, started.elapsed()))
        });
        let done = try_join_all(each).await?;
        if round > 0 {
            seconds += started.elapsed().as_secs_f64();
            events += done.iter().map(|(events, _)| events).sum::<u64>();
            times.extend(done.iter().map(|(_, time)| *time));
        }
    }
    let usage =
        meter.ok_or(LoadError::Nothing("one round is the warm-up"))?.stop().map_err(io("looking at the servers"))?;
    Ok(CaughtUp { times, events, seconds, usage })
}

/// What has changed: conversations and their heads.
async fn inbox(session: &Session) -> Result<Vec<(ConversationId, Seq)>, LoadError> {
    let (mut inbox, mut lines) = (session.open_inbox().await?, Vec::new());
    loop {
        match inbox.next(InboxDown::decode, "the inbox").await? {
            InboxDown::InboxLine(line) => lines.push((line.conversation, line.head)),
            InboxDown::InboxSynced(_) => return Ok(lines),
            InboxDown::Closed(closed) => return Err(LoadError::Refused { what: "the inbox", code: closed.code }),
        }
    }
}

/// Opens all conversations from their beginning, each on a stream of its own; how many events came.
async fn replay(session: &Session, lines: &[(ConversationId, Seq)]) -> Result<u64, LoadError> {
    let each = lines.iter().map(async |(conversation, head)| {
        let mut open = session.open(*conversation, WriterId([3; 16])).await?;
        let mut events = 0;
        while events < head.0 {
            let frame = open.stream.frames.next().await?.ok_or(LoadError::Ended("the conversation"))?;
            events += u64::from(frame.frame_type == FrameType::Event);
        }
        Ok::<_, LoadError>(events)
    });
    Ok(try_join_all(each).await?.into_iter().sum())
}

/// Fetches all conversations page by page, as many pages ahead as are allowed; how many events came.
async fn fetch(session: &Session, lines: &[(ConversationId, Seq)]) -> Result<u64, LoadError> {
    let mut pages = lines.iter().flat_map(|(conversation, head)| {
        let firsts = (1..=head.0).step_by(limits::PAGE_EVENTS as usize);
        firsts.map(|at| Fetch {
            conversation: *conversation,
            anchor: Anchor::Seq,
            at,
            backward: false,
            limit: limits::PAGE_EVENTS,
            seen: *head,
        })
    });
    let Some(first) = pages.next() else { return Ok(0) };
    let mut stream = session.open_fetch(&first).await?;
    let (mut waiting, mut events) = (1, 0);
    while waiting > 0 {
        while waiting < limits::FETCHES_IN_FLIGHT
            && let Some(page) = pages.next()
        {
            stream.send.write(page.to_frame().into()).await?;
            waiting += 1;
        }
        let frame = stream.frames.next().await?.ok_or(LoadError::Ended("the fetch stream"))?;
        match frame.frame_type {
            FrameType::Event => events += 1,
            FrameType::Page => waiting -= 1,
            _ => {
                if let Some(FetchDown::Closed(closed)) = FetchDown::decode(frame)? {
                    return Err(LoadError::Refused { what: "Fetch", code: closed.code });
                }
            }
        }
    }
    Ok(events)
}
