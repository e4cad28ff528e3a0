//! Memory and processor time of sessions that do nothing: connected, welcomed, an open inbox, and a heartbeat when one is due.

use std::time::{Duration, Instant};

use rove_benches::load::error::io;
use rove_benches::load::session::Stream;
use rove_benches::load::{Credentials, LoadError, Service, Session};
use rove_benches::{Bar, Progress, Report, Schedule, rounded, say};

use crate::run::{self, Place};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench idle                        500 sessions
  rove-bench idle --sessions 5000 --seconds 60
  rove-bench --nodes 3 idle")]
pub(crate) struct Args {
    /// Sessions, each of an account of its own; signing one up costs the server a slow hash
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    sessions: u32,

    /// Seconds for which their processor time is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
}

/// Sessions opened before the first look, so that what the first ones allocate for all is not counted as theirs.
const BEFORE: u32 = 20;
/// Between two looks at memory that is to have come to rest.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks until it is taken as it is.
const LOOKS: usize = 40;
/// Heartbeats that keep sessions alive until all are open; the server's idle time-out is several times this.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    place
        .with("", (BEFORE + args.sessions) as usize, async |service, accounts| measure(service, &accounts, args).await)
        .await
}

async fn measure(service: &Service, accounts: &[Credentials], args: &Args) -> Result<Report, LoadError> {
    let dialers = run::dialers(service)?;
    let (mut sessions, mut inboxes): (Vec<Session>, Vec<Stream>) = (Vec::new(), Vec::new());
    let (mut before, mut last_beat, mut progress) = (0, Instant::now(), Progress::new("opening sessions"));
    for ((number, credentials), dialer) in (0..).zip(accounts).zip(dialers.iter().cycle()) {
        if number == BEFORE {
            before = at_rest(service).await?;
        }
        let session = dialer.session(credentials).await?;
        inboxes.push(session.open_inbox().await?);
        sessions.push(session);
        progress.at(sessions.len(), accounts.len());
        if last_beat.elapsed() > HEARTBEAT {
            last_beat = Instant::now();
            run::beat(&mut sessions);
        }
    }
    run::beat(&mut sessions);
    let after = at_rest(service).await?;
    let usage = idle_for(service, &mut sessions, Duration::from_secs(args.seconds)).await?;
    // They were all there until now.
    let alive = sessions.iter().filter(|session| session.is_alive()).count();
    drop((sessions, inboxes));
    if alive < accounts.len() {
        return Err(LoadError::Server(format!(
            "{} of {} sessions were closed",
            accounts.len() - alive,
            accounts.len()
        )));
    }

    let each = after.saturating_sub(before) as f64 / f64::from(args.sessions);
    let (before, after) = (before as f64 / 1e6, after as f64 / 1e6);
    // All of them used it, and the nodes themselves: `rest` says how much that is.
    let cpu = usage.cpu.as_secs_f64() / usage.elapsed.as_secs_f64() / alive as f64 * 1e6;
    Ok(Report::new("idle", format!("{}, {} sessions, control and inbox streams open", service.words(), args.sessions))
        .figure("server memory each", format!("{:.1} kB", each / 1_000.0), "bytes_per_session", rounded(each))
        .figure("server memory before / after", format!("{before:.1} / {after:.1} MB"), "resident_before_mb", before)
        .detail("resident_after_mb", after)
        .figure("server CPU each", format!("{cpu:.1} µs/s"), "cpu_us_per_second_per_session", rounded(cpu))
        .bars("memory of the servers, MB", vec![Bar::new("before", before), Bar::new("after", after)])
        .note("The processor time is that of everything the nodes did, the sessions' heartbeats among it; `rest` measures nodes without sessions.")
        .config("sessions", args.sessions)
        .config("seconds", args.seconds)
        .others(usage.others))
}

/// Sends heartbeats as often as clients do, one after the other, for so long.
async fn idle_for(
    service: &Service,
    sessions: &mut [Session],
    time: Duration,
) -> Result<rove_benches::Usage, LoadError> {
    say(format_args!("{} idle sessions: {} s", sessions.len(), time.as_secs()));
    let every = Duration::from_millis(sessions.first().map_or(20_000, |session| session.welcome.heartbeat_ms.into()));
    let (start, rate) = (Instant::now(), sessions.len() as f64 / every.as_secs_f64());
    let mut schedule = Schedule::new(start, rate, u64::MAX).map_err(io("making a schedule"))?;
    let meter = service.meter()?;
    let mut next = 0;
    while let Ok(Some(_)) = tokio::time::timeout_at((start + time).into(), schedule.next()).await {
        sessions[next].heartbeat();
        next = (next + 1) % sessions.len();
    }
    meter.stop().map_err(io("looking at the servers"))
}

/// Resident memory once it has stopped growing.
async fn at_rest(service: &Service) -> Result<u64, LoadError> {
    let mut last = service.resident()?;
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = service.resident()?;
        if now.abs_diff(last) < 64 * 1_024 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}
