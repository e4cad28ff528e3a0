//! `rove-load`: load on a real server, and what came of it.
//!
//! Starts a `rove-server` of its own (or several, as a cluster) in a new directory, on loopback, with everything on (TLS, fsync before every
//! acknowledgement), puts one kind of load on it, stops it and prints one row of a table and one line of JSON.
//! Client and server share the machine's cores: figures are to be compared with others from the same machine.

// Counts become rates and times: the digits that a float drops are beyond what is measured.
#![allow(clippy::cast_precision_loss)]

mod idle;
mod latency;
mod posts;
mod report;
mod rest;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rove_benches::load::{LoadError, Service, server};

use report::Report;

/// Load on a real Rove server
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The rove-server binary [default: the one beside this program]
    #[arg(long, global = true, value_name = "FILE")]
    server_binary: Option<PathBuf>,

    /// Where the server's directory is made: the disk that is measured
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,

    /// Nodes: one on its own, or several as a cluster, over which the sessions are spread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,

    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Posts per second that are acknowledged: as fast as it goes, many sessions with many posts under way
    Posts(posts::Args),
    /// The time from a post to its delivery to somebody else, at a rate that leaves the server idle in between
    Latency(latency::Args),
    /// The server's memory for a session that does nothing
    Idle(idle::Args),
    /// Processor time and network of nodes that have nothing to do
    Rest(rest::Args),
}

// One thread: what the load does not use is the server's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of a command")]
            {
                eprintln!("rove-load: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<Report, LoadError> {
    let binary = args.server_binary.map_or_else(server::beside_this_program, Ok)?;
    let service = Service::start(&binary, &args.dir, args.nodes).await?;
    let outcome = match &args.mode {
        Mode::Posts(args) => posts::run(&service, args).await,
        Mode::Latency(args) => latency::run(&service, args).await,
        Mode::Idle(args) => idle::run(&service, args).await,
        Mode::Rest(args) => rest::run(&service, args).await,
    };
    // Stopped whatever happened; the first error is the one to tell.
    let stopped = service.stop().await;
    let report = outcome?;
    stopped?;
    Ok(report)
}
