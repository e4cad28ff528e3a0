//! `peers`: the same work on Rove and on what others use for it, in turns, in one run. See README.md beside this crate; `run.sh`
//! installs what it needs.

// Counts become rates and times: the digits that a float drops are beyond what is measured.
#![allow(clippy::cast_precision_loss)]

mod ejabberd;
mod etcd;
mod link;
mod mosquitto;
mod nats;
mod process;
mod quic;
mod results;
mod rove;
mod syncs;
mod targets;
mod tls;
mod websocket;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use rove_benches::{Machine, say};
use tokio::signal::unix::{SignalKind, signal};

use process::installed;
use results::Results;
use work::Plan;

/// Rove and its peers, side by side
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    server: Option<OwnServer>,

    /// Only these, with commas between them
    #[arg(long, value_delimiter = ',', default_values_t = Peer::value_variants().to_vec())]
    only: Vec<Peer>,

    /// How often each has its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Where the servers' data is made: the disk that is measured
    #[arg(long, value_name = "DIR", default_value = "target/bench-peers")]
    dir: PathBuf,

    /// Where the table (peers.md) and everything for programs (peers.json) go
    #[arg(long, value_name = "DIR", default_value = "target/bench-peers")]
    out: PathBuf,
}

/// What this program is while it measures itself.
#[derive(Debug, Subcommand)]
enum OwnServer {
    /// The floor's echo
    #[command(name = websocket::COMMAND, hide = true)]
    WebSocket { port: u16, certificate: PathBuf, key: PathBuf },
}

/// Who is measured, in the order of their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    Nats,
    Etcd,
    Ejabberd,
    Mosquitto,
    Websocket,
    Quic,
    Rove,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl Peer {
    /// The programs that it needs.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Nats => &["nats-server"],
            Self::Etcd => &["etcd"],
            Self::Ejabberd => &["erl", "ejabberdctl"],
            Self::Mosquitto => &["mosquitto"],
            // This program, and what is built with it.
            Self::Websocket | Self::Quic | Self::Rove => &[],
        }
    }

    /// Starts it, puts all work on it, stops it.
    async fn round(self, plan: &Plan, results: &mut Results) -> Result<()> {
        match self {
            Self::Nats => nats::round(plan, results).await,
            Self::Etcd => etcd::round(plan, results).await,
            Self::Ejabberd => ejabberd::round(plan, results).await,
            Self::Mosquitto => mosquitto::round(plan, results).await,
            Self::Websocket => websocket::round(plan, results).await,
            Self::Quic => quic::round(plan, results).await,
            Self::Rove => rove::round(plan, results).await,
        }
    }
}

/// A round of one peer that takes longer than that, and as many times its seconds, hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// Measurements in a round of one peer, at most.
const MEASUREMENTS: u32 = 16;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.server {
        // As many threads as a server has.
        Some(OwnServer::WebSocket { port, certificate, key }) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(websocket::serve(port, certificate, key)).map(|()| true)),
        // One thread: what the load does not use is the servers'.
        None => {
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
                // Whatever is dropped is ended: every server is killed when its owner goes, and this is how they go.
                runtime.block_on(async {
                    tokio::select! { outcome = run(&args) => outcome, signal = stopped() => signal }
                })
            })
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("peers: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, or being asked to end.
async fn stopped() -> Result<bool> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    anyhow::bail!("stopped")
}

/// All rounds; whether nothing failed.
async fn run(args: &Args) -> Result<bool> {
    std::fs::create_dir_all(&args.dir).context("making the directory for data")?;
    std::fs::create_dir_all(&args.out).context("making the directory for results")?;
    let seconds = Duration::from_secs(args.seconds);
    let mut plan = Plan { seconds, warm_up: Duration::from_secs(1), dir: args.dir.clone(), round: 0 };
    let mut results = Results::default();
    let missing = |peer: Peer| peer.programs().iter().copied().find(|program| !installed(program));
    for peer in &args.only {
        if let Some(program) = missing(*peer) {
            results.note(&format!("{peer} was left out: there is no {program} on this machine."));
        }
    }
    for round in 1..=args.rounds {
        plan.round = round;
        for peer in args.only.iter().filter(|peer| missing(**peer).is_none()) {
            let limit = PATIENCE + (plan.seconds + plan.warm_up) * MEASUREMENTS;
            let outcome = tokio::time::timeout(limit, peer.round(&plan, &mut results)).await;
            if let Err(error) = outcome.map_err(|_| anyhow::anyhow!("it hangs")).flatten() {
                results.failed(format!("{peer}, round {round}: {error:#}"));
            }
            // After each turn: what was measured is kept whatever becomes of the rest.
            write(args, &results)?;
        }
    }
    let machine = Machine::look(&args.dir);
    println!("{}", results.to_markdown(&machine, &how(args)));
    Ok(!results.has_failures())
}

fn how(args: &Args) -> String {
    format!(
        "{} rounds in turns, {} s each measurement, 200-byte messages, loopback; client and servers share the machine.",
        args.rounds, args.seconds
    )
}

fn write(args: &Args, results: &Results) -> Result<()> {
    let (machine, how) = (Machine::look(&args.dir), how(args));
    std::fs::write(args.out.join("peers.md"), results.to_markdown(&machine, &how)).context("writing the table")?;
    std::fs::write(args.out.join("peers.json"), format!("{:#}\n", results.to_json(&machine, &how)))
        .context("writing the figures")
}
