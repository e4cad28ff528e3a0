//! What nodes cost that have nothing to do: processor time, and what they say to each other.

use std::time::{Duration, Instant};

use rove_benches::load::error::io;
use rove_benches::load::{LoadError, Service};
use rove_benches::process;

use crate::report::{Report, rounded};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds that are measured
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// Seconds before that, which are not: elections, and the first flush
    #[arg(long, default_value_t = 15)]
    warm_up: u64,
}

pub(crate) async fn run(service: &Service, args: &Args) -> Result<Report, LoadError> {
    tokio::time::sleep(Duration::from_secs(args.warm_up)).await;
    let (cpu, bytes, started) = (service.cpu()?, loopback()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let nodes = service.nodes().len() as f64;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = service.cpu()?.saturating_sub(cpu).as_secs_f64() / seconds / nodes * 100.0;
    let sent = loopback()?.saturating_sub(bytes) as f64 / seconds / nodes;
    let resident = service.resident()? as f64 / nodes / 1e6;
    Ok(Report::new("rest", format!("{}, no sessions", service.words()))
        .figure("of a core, each", format!("{cpu:.2} %"), "cpu_percent", rounded(cpu))
        .figure("sent to the others, each", format!("{:.1} kB/s", sent / 1_000.0), "bytes_per_second", rounded(sent))
        .figure("memory, each", format!("{resident:.1} MB"), "resident_mb", rounded(resident)))
}

fn loopback() -> Result<u64, LoadError> {
    process::loopback().map_err(io("reading what went over the loopback interface"))
}
