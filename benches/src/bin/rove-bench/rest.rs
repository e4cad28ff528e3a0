//! What nodes cost that have nothing to do: processor time, and what they say to each other.

use std::time::Duration;

use rove_benches::load::error::io;
use rove_benches::load::{LoadError, Service};
use rove_benches::{Report, process, rounded, say};

use crate::run::Place;

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench rest
  rove-bench --nodes 3 rest --seconds 60")]
pub(crate) struct Args {
    /// Seconds that are measured
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,

    /// Seconds before that, which are not: elections, and the first flush
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: u64,
}

pub(crate) async fn run(place: &Place, args: &Args) -> Result<Report, LoadError> {
    place.with("", 0, async |service, _| measure(service, args).await).await
}

async fn measure(service: &Service, args: &Args) -> Result<Report, LoadError> {
    say(format_args!("at rest: {} s, after {} s", args.seconds, args.warm_up));
    tokio::time::sleep(Duration::from_secs(args.warm_up)).await;
    let (meter, bytes) = (service.meter()?, loopback()?);
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let usage = meter.stop().map_err(io("looking at the servers"))?;
    let (nodes, seconds) = (service.nodes().len() as f64, usage.elapsed.as_secs_f64());
    let cpu = usage.cpu.as_secs_f64() / seconds / nodes * 100.0;
    let sent = loopback()?.saturating_sub(bytes) as f64 / seconds / nodes;
    let resident = usage.resident as f64 / nodes / 1e6;
    Ok(Report::new("rest", format!("{}, no sessions", service.words()))
        .figure("of a core, each", format!("{cpu:.2} %"), "cpu_percent", rounded(cpu))
        .figure("sent to the others, each", format!("{:.1} kB/s", sent / 1_000.0), "bytes_per_second", rounded(sent))
        .figure("memory, each", format!("{resident:.1} MB"), "resident_mb", rounded(resident))
        .config("seconds", args.seconds)
        .config("warm_up", args.warm_up)
        .others(usage.others))
}

fn loopback() -> Result<u64, LoadError> {
    process::loopback().map_err(io("reading what went over the loopback interface"))
}
