//! Memory of sessions that do nothing: connected, welcomed, an open inbox, and a heartbeat now and then.

use std::time::{Duration, Instant};

use rove_benches::load::session::Stream;
use rove_benches::load::{Accounts, Dialer, LoadError, Service, Session};

use crate::report::{Report, rounded};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sessions, each of an account of its own; signing one up costs the server a slow hash
    #[arg(long, default_value_t = 500)]
    sessions: usize,
}

/// Sessions opened before the first look, so that what the first ones allocate for all is not counted as theirs.
const BEFORE: usize = 20;
/// Between two looks at memory that is to have come to rest.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks until it is taken as it is.
const LOOKS: usize = 40;
/// Heartbeats keep sessions alive; the server's idle time-out is several times this.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(crate) async fn run(service: &Service, args: &Args) -> Result<Report, LoadError> {
    let accounts = Accounts::connect(service.first()).await?.sign_up(BEFORE + args.sessions).await?;
    let dialer = Dialer::new(service.first())?;
    let mut open = Vec::with_capacity(accounts.len());
    let (mut before, mut started, mut last_beat) = (0, Instant::now(), Instant::now());
    for (number, credentials) in accounts.iter().enumerate() {
        if number == BEFORE {
            before = at_rest(service).await?;
            started = Instant::now();
        }
        let session = dialer.session(credentials).await?;
        let inbox = session.open_inbox().await?;
        open.push((session, inbox));
        if last_beat.elapsed() > HEARTBEAT {
            last_beat = Instant::now();
            beat(&mut open);
        }
    }
    let opened_in = started.elapsed();
    beat(&mut open);
    let after = at_rest(service).await?;
    // They were all there until now.
    drop(open);

    let each = after.saturating_sub(before) as f64 / args.sessions as f64;
    let opens = args.sessions as f64 / opened_in.as_secs_f64();
    Ok(Report::new("idle", format!("{}, {} sessions, control and inbox streams open", service.words(), args.sessions))
        .figure("server memory each", format!("{:.1} kB", each / 1_000.0), "bytes_per_session", rounded(each))
        .figure(
            "server memory before / after",
            format!("{:.1} / {:.1} MB", before as f64 / 1e6, after as f64 / 1e6),
            "resident_before",
            before,
        )
        .detail("resident_after", after)
        .figure("opened/s, one by one", format!("{opens:.0}"), "opened_per_second", rounded(opens)))
}

fn beat(sessions: &mut [(Session, Stream)]) {
    for (session, _) in sessions {
        session.heartbeat();
    }
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
