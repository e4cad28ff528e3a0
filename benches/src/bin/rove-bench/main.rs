//! `rove-bench`: load on a real server, and what came of it.
//!
//! Starts a `rove-server` of its own (or several, as a cluster) in a new directory, on loopback, with everything on (TLS, fsync before every
//! acknowledgement), puts one kind of load on it, stops it and says what came of it: a table and a few lines, JSON, a picture.
//! A signal that ends it (SIGINT, SIGTERM, SIGHUP) ends its servers and removes their directory first.
//! Client and server share the machine's cores: figures are to be compared with others from the same machine.

// Counts become rates and times: the digits that a float drops are beyond what is measured.
#![allow(clippy::cast_precision_loss)]

mod baseline;
mod catch_up;
mod fan_out;
mod floor;
mod idle;
mod latency;
mod path;
mod posts;
mod quick;
mod recovery;
mod rest;
mod run;
mod storm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rove_benches::load::error::io;
use rove_benches::load::{LoadError, server};
use rove_benches::{Machine, Output, Report};

use tokio::signal::unix::{SignalKind, signal};

use run::Place;

/// Load on a real Rove server
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// The rove-server binary [default: the one beside this program]
    #[arg(long, global = true, value_name = "FILE")]
    server_binary: Option<PathBuf>,

    /// Where the server's directory is made: the disk that is measured
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,

    /// Nodes: one on its own, or several as a cluster, over which the sessions are spread
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,

    /// Threads of the load; what it does not use is the server's
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,

    #[command(flatten)]
    output: Output,

    #[command(subcommand)]
    mode: Mode,
}

const EXAMPLES: &str = "Examples:
  rove-bench posts                            the most posts per second that one node acknowledges
  rove-bench --nodes 3 latency --rate 2000    from a post to its delivery, through three nodes
  rove-bench floor --json floor.json          what quinn and this machine can do
  rove-bench help posts                       the options of one kind, with examples";

#[derive(Debug, Subcommand)]
enum Mode {
    /// Posts per second that are acknowledged, and so durable: as many as go through, or at a rate
    Posts(posts::Args),
    /// The time from a post to its delivery to somebody else, at any rate
    Latency(latency::Args),
    /// What clients see over a path that is long and loses something: the first post after coming back, delivery, a change of network
    Path(path::Args),
    /// Deliveries per second of posts to a group of many members
    FanOut(fan_out::Args),
    /// Memory and processor time of a session that does nothing
    Idle(idle::Args),
    /// Sessions opened per second: full, resumed and early handshakes, until `Welcome`
    Storm(storm::Args),
    /// How fast a device that was away reads what it has missed
    CatchUp(catch_up::Args),
    /// Cold starts, and what a kill costs: silence of conversations, and the time until the node serves again
    Recovery(recovery::Args),
    /// Processor time and network of nodes that have nothing to do
    Rest(rest::Args),
    /// What a bare echo over the same QUIC can do: what everything else is to be compared with
    Floor(floor::Args),
    /// A few minutes' guard against becoming slower: ratios to the floor, compared with those in a file
    Quick(quick::Args),
    /// The server of `floor`
    #[command(hide = true)]
    EchoServer,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut runtime = match (&args.mode, args.threads) {
        // As many threads as the server that it stands for.
        (Mode::EchoServer, _) => tokio::runtime::Builder::new_multi_thread(),
        (_, 1) => tokio::runtime::Builder::new_current_thread(),
        (_, threads) => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(usize::from(threads));
            runtime
        }
    };
    let runtime = runtime.enable_all().build();
    let outcome =
        runtime.map_err(io("starting the runtime")).and_then(|runtime| runtime.block_on(run_until_signal(args)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of a command")]
            {
                eprintln!("rove-bench: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whatever is dropped ends what it started and removes what it made; this is where a signal drops all of it.
async fn run_until_signal(args: Args) -> Result<ExitCode, LoadError> {
    let listen = |kind| signal(kind).map_err(io("listening for signals"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hang_up = listen(SignalKind::hangup())?;
    let ended_by = tokio::select! {
        outcome = run(args) => return outcome,
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hang_up.recv() => SignalKind::hangup(),
    };
    // What a shell says of a process that a signal ended.
    Ok(ExitCode::from(u8::try_from(128 + ended_by.as_raw_value()).unwrap_or(u8::MAX)))
}

async fn run(args: Args) -> Result<ExitCode, LoadError> {
    let binary = args.server_binary.map_or_else(server::beside_this_program, Ok)?;
    let place = Place { binary, dir: args.dir, nodes: args.nodes };
    let finish = |report: Report| {
        let report = report
            .machine(Machine::look(&place.dir))
            .config("nodes", place.nodes)
            .config("client_threads", args.threads)
            .config("dir", place.dir.display().to_string());
        report.emit(&args.output).map_err(io("writing the report"))?;
        Ok(ExitCode::SUCCESS)
    };
    match args.mode {
        Mode::Posts(args) => finish(posts::run(&place, &args).await?),
        Mode::Latency(args) => finish(latency::run(&place, &args).await?),
        Mode::Path(args) => finish(path::run(&place, &args).await?),
        Mode::FanOut(args) => finish(fan_out::run(&place, &args).await?),
        Mode::Idle(args) => finish(idle::run(&place, &args).await?),
        Mode::Storm(args) => finish(storm::run(&place, &args).await?),
        Mode::CatchUp(args) => finish(catch_up::run(&place, &args).await?),
        Mode::Recovery(args) => finish(recovery::run(&place, &args).await?),
        Mode::Rest(args) => finish(rest::run(&place, &args).await?),
        Mode::Floor(args) => finish(floor::run(&place.dir, &args).await?),
        Mode::Quick(args) => {
            let (report, worse) = quick::run(&place, &args).await?;
            finish(report)?;
            if worse.0.is_empty() { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::FAILURE) }
        }
        Mode::EchoServer => floor::echo_server().await.map(|()| ExitCode::SUCCESS),
    }
}
