//! Real talk, posted again by real clients, and proof that everybody received the same.
//!
//! [`irc`] reads the files, [`plan`] decides who is in which conversation, [`people`] signs the nicks up and brings them
//! together, [`post`] has them talk, [`gather`] waits until everybody has everything and shows it to the judge of
//! [`verify`], and [`report`] says what came of it. Whatever happens to the server meanwhile is the client library's
//! business: nothing here reconnects.

pub mod gather;
pub mod irc;
pub mod people;
pub mod plan;
pub mod post;
pub mod progress;
pub mod report;
pub mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rove_client::{Client, ServerAddress};

use crate::cli::error::Failure;
use people::People;
use plan::Plan;
use progress::Progress;
use report::Report;

/// What to replay, where, how fast.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// IRC logs: `[HH:MM] <nick> text`, `[HH:MM] * nick does`, `=== notice`
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The server, as it printed it when it started
    #[arg(long, value_name = "rove://HOST:PORT?pin=…", env = "ROVE_SERVER")]
    pub server: ServerAddress,

    /// How many times faster than it was said, or max: everybody at once, as fast as the server acknowledges
    #[arg(long, value_name = "X|max", default_value = "max")]
    pub speed: Speed,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,

    /// Give up when nothing has been acknowledged or received for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub timeout: u64,

    /// Keep the clients' stores as SQLite files here [default: in memory]
    #[arg(long, value_name = "DIR")]
    pub stores: Option<PathBuf>,

    /// What the handles of this run begin with [default: made from the time]
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,

    /// Sign-ups under way at once; each costs the server a password hash
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub sign_ups: usize,

    /// Clients that share one UDP socket; 1 gives each one of its own
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub clients_per_socket: usize,

    /// Say nothing on standard error while it goes well
    #[arg(long, short)]
    pub quiet: bool,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as it goes.
    Max,
    /// So many times faster than it was said.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.strip_suffix('x').unwrap_or(text).parse::<f64>() {
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
            _ => Err("write max, or a number above 0: 60 plays an hour in a minute".to_owned()),
        }
    }
}

/// Replays, prints the report, and exits 0 only if everything held.
pub async fn run(args: ReplayArgs) -> ExitCode {
    match replay(&args).await {
        Ok(report) => {
            let printed = if args.json {
                crate::cli::output::print_json(&report.to_json())
            } else {
                crate::cli::output::print_line(&report.to_string())
            };
            match printed {
                Err(failure) => failure.report(),
                Ok(()) if report.ok => ExitCode::SUCCESS,
                Ok(()) => ExitCode::FAILURE,
            }
        }
        Err(failure) => failure.report(),
    }
}

/// Replays and judges.
///
/// # Errors
/// When it came to nothing that could be judged: files that cannot be read, a server that cannot be reached.
pub async fn replay(args: &ReplayArgs) -> Result<Report, Failure> {
    let plan = Plan::read(&args.files).map_err(|errors| {
        Failure::usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nrove: "))
    })?;
    for complaint in plan.complaints() {
        eprintln!("rove: {complaint}");
    }
    if plan.lines() == 0 {
        return Err(Failure::usage("there is nothing to post in these files"));
    }
    let progress = Progress::new(!args.quiet, Duration::from_secs(args.timeout.max(1)));
    let started = Instant::now();
    let people = People::sign_up(args, &plan, &prefix(args), &progress).await?;
    let rooms = people.meet(&plan, &progress).await?;
    let setup = started.elapsed();

    let posting = Instant::now();
    let said = post::all(args.speed, &plan, &rooms, &progress).await;
    let posted_in = posting.elapsed();
    let stalled = gather::everything(&rooms, &said, &progress).await;
    let delivered_in = posting.elapsed();
    progress.stage("comparing what everybody holds", 0);
    let verdicts = gather::judge(&plan, &rooms, &said).await?;
    let stats = people.clients().iter().map(Client::stats).collect::<Vec<_>>();
    let report =
        Report::new(&plan, &rooms, &said, &verdicts, &stats, report::Times { setup, posted_in, delivered_in }, stalled);
    drop(rooms);
    people.leave().await;
    progress.done();
    Ok(report)
}

/// Short, and another one for every run.
fn prefix(args: &ReplayArgs) -> String {
    args.prefix.clone().unwrap_or_else(|| {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Two runs begun in the same millisecond on one machine differ by their process.
        format!("r{millis:x}{:x}", std::process::id())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_max_or_a_number_above_nothing() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("60".parse(), Ok(Speed::Times(60.0)));
        assert_eq!("0.5x".parse(), Ok(Speed::Times(0.5)));
        for wrong in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }
}
