//! A guard against becoming slower, for machines that are slow or busy: what Rove does, as a ratio to the floor measured in the same run.
//!
//! Every round measures the floor and Rove in turn, so that whatever slows one slows the other; a ratio is of one round, and the median
//! over the rounds is compared with what stands in a file. See [`crate::baseline`] for what is tolerated and why.

use std::path::PathBuf;
use std::time::Duration;

use rove_benches::load::LoadError;
use rove_benches::{Bar, Histogram, Report, digits, rounded, say};

use crate::baseline::{self, Baseline, Verdict};
use crate::floor::{self, EchoServer};
use crate::run::{Coming, Place, Times};
use crate::{fan_out, latency, posts};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  rove-bench quick --baseline benches/baseline.json
  rove-bench quick --baseline benches/baseline.json --rounds 5 --keep      writes down what was measured

Exit code 1: something is worse than the baseline by more than is tolerated.")]
pub(crate) struct Args {
    /// The ratios to compare with
    #[arg(long, value_name = "FILE", default_value = "benches/baseline.json")]
    baseline: PathBuf,

    /// Writes what was measured to that file, instead of comparing; tolerances that are there stay
    #[arg(long)]
    keep: bool,

    /// Times that everything is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,

    /// Seconds of each measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// Connections and echoes under way on each, for the most that goes through.
const ECHO: (u32, u16) = (100, 16);
/// As many sessions and posts under way as fill the log's batches without long queues.
const POSTS: (u32, u16) = (32, 32);
const MEMBERS: u32 = 50;
/// Posts and echoes per second whose times are compared: a twentieth of what a small machine can do, so that queues say nothing.
const RATE: u32 = 400;
/// Writers of these, and connections of the echoes.
const WRITERS: u32 = 4;

/// What one round measured; for each name in [`baseline::RATIOS`] a ratio.
type Ratios = Vec<(&'static str, f64)>;

pub(crate) async fn run(place: &Place, args: &Args) -> Result<(Report, Verdict), LoadError> {
    let kept = if args.keep { Baseline::read(&args.baseline).ok() } else { Some(Baseline::read(&args.baseline)?) };
    let mut rounds = Vec::new();
    let mut report = Report::new("quick", format!("medians of {} rounds", args.rounds));
    for number in 1..=args.rounds {
        say(format_args!("round {number} of {}", args.rounds));
        let (ratios, others) = round(place, args).await?;
        rounds.push(ratios);
        report = report.others(others);
    }
    let mut measured = Baseline::default();
    for (index, (name, _)) in rounds[0].iter().enumerate() {
        measured.set(name, median(rounds.iter().map(|round| round[index].1).collect()));
    }
    let verdict = match (&kept, args.keep) {
        (Some(kept), false) => kept.judge(&measured),
        _ => Verdict::default(),
    };
    for ratio in baseline::RATIOS {
        let value = measured.get(ratio.name).unwrap_or(f64::NAN);
        let spread: Vec<f64> =
            rounds.iter().flatten().filter(|(name, _)| *name == ratio.name).map(|(_, v)| *v).collect();
        report = report
            .figure(ratio.words, digits(value), ratio.name, rounded(value))
            .detail(&format!("{}_rounds", ratio.name), spread);
        if let Some(kept) = kept.as_ref().filter(|_| !args.keep) {
            report = report.note(kept.line(ratio, value));
        }
    }
    let bars = baseline::RATIOS.iter().map(|ratio| Bar::new(ratio.words, measured.get(ratio.name).unwrap_or(0.0)));
    let report = report.bars("ratios to the floor", bars.collect());
    if args.keep {
        measured.write(&args.baseline, kept.as_ref())?;
        say(format_args!("written to {}", args.baseline.display()));
    }
    Ok((report.config("rounds", args.rounds).config("seconds", args.seconds), verdict))
}

/// Measures everything once. Floor and Rove take turns, so that both see the same machine.
async fn round(place: &Place, args: &Args) -> Result<(Ratios, rove_benches::Others), LoadError> {
    let times = Times { seconds: args.seconds, warm_up: 1 };
    let nothing = || LoadError::Nothing("a figure is missing");
    let (server, coming) = (EchoServer::start().await?, Coming::default());
    let before = server.measure(ECHO.0, ECHO.1, None, &times).await?;
    let posts = posts::Args { sessions: POSTS.0, window: POSTS.1, rate: None, coming, times: times.clone() };
    let posts = posts::run(place, &posts).await?;
    let between = server.measure(ECHO.0, ECHO.1, None, &times).await?;
    let fan_out = fan_out::Args { members: MEMBERS, window: 32, rate: None, coming, times: times.clone() };
    let fan_out = fan_out::run(place, &fan_out).await?;
    let after = server.measure(ECHO.0, ECHO.1, None, &times).await?;
    let due = server.measure(WRITERS, 64, Some((RATE, coming)), &times).await?;
    let syncs = floor::syncs(&place.dir, Duration::from_secs(1)).await?;
    let latency = latency::Args { rate: RATE, writers: Some(WRITERS), coming, times };
    let latency = latency::run(place, &latency).await?;

    let of = |report: &Report, key: &str| report.value(key).ok_or_else(nothing);
    let delivered = latency.distribution("delivered").ok_or_else(nothing)?;
    // The floor on both sides of what is compared with it.
    let echo_posts = f64::midpoint(before.per_second, between.per_second);
    let echo_fan_out = f64::midpoint(between.per_second, after.per_second);
    let cpu = |echo: &floor::Echoed| echo.usage.cpu_per_100k(echo.outcome.acknowledged);
    let least = |percent| floor_ms(&due.outcome.times, &syncs, percent);
    let ratios = vec![
        ("posts_per_echo", of(&posts, "posts_per_second")? / echo_posts),
        ("deliveries_per_echo", of(&fan_out, "deliveries_per_second")? / echo_fan_out),
        ("post_cpu_per_echo_cpu", of(&posts, "cpu_s_per_100k")? / f64::midpoint(cpu(&before), cpu(&between))),
        ("delivery_cpu_per_echo_cpu", of(&fan_out, "cpu_s_per_100k")? / f64::midpoint(cpu(&between), cpu(&after))),
        ("p50_per_floor_p50", delivered.percentile_ms(50.0) / least(50.0)),
        ("p99_per_floor_p99", delivered.percentile_ms(99.0) / least(99.0)),
    ];
    Ok((ratios, before.usage.others))
}

/// What a delivery cannot be faster than: there and back over the network, and one synced write.
fn floor_ms(echo: &Histogram, syncs: &Histogram, percent: f64) -> f64 {
    echo.percentile_ms(percent) + syncs.percentile_ms(percent)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_that_went_wrong_does_not_move_the_median() {
        assert!((median(vec![0.9, 17.0, 1.0]) - 1.0).abs() < f64::EPSILON);
        assert!((median(vec![1.0, 3.0]) - 2.0).abs() < f64::EPSILON);
    }
}
