//! `rove-sim SEED=1 RUNS=100 STEPS=12000 FAULTS=all BUG=…`: runs the simulation and says what it found.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use rove_sim::batch::{Batch, describe, run, shrink};
use rove_sim::faults::Fault;
use rove_sim::options::Options;
use rove_sim::world::World;

/// Runs unless told otherwise: about a minute.
const DEFAULT_RUNS: u64 = 300;

/// What the command line says.
struct Arguments {
    options: Options,
    runs: u64,
    history: Option<String>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(arguments) => match simulate(&arguments) {
            Ok(true) => ExitCode::SUCCESS,
            // An error: whoever read the output has gone.
            Ok(false) | Err(_) => ExitCode::FAILURE,
        },
        Err(complaint) => {
            let _ = writeln!(
                std::io::stderr(),
                "{complaint}\nusage: rove-sim [SEED=number] [RUNS=number] [STEPS=number] [FAULTS=all|none|name,…|-name,…] [BUG=name] [HISTORY=file]"
            );
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments { options: Options::new(1), runs: DEFAULT_RUNS, history: None };
    let mut seeded = false;
    let mut counted = false;
    for argument in arguments {
        let (name, value) = argument.split_once('=').ok_or_else(|| format!("{argument} is not NAME=value"))?;
        seeded |= name == "SEED" && !value.is_empty();
        if parsed.options.set(name, value)? {
            continue;
        }
        match name {
            "RUNS" => {
                parsed.runs = value.parse().map_err(|_| format!("RUNS={value} is not a number"))?;
                counted = true;
            }
            "HISTORY" => parsed.history = Some(value.to_owned()),
            _ => return Err(format!("there is no option {name}")),
        }
    }
    if seeded && !counted {
        parsed.runs = 1;
    }
    Ok(parsed)
}

fn simulate(arguments: &Arguments) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    let first = arguments.options;
    writeln!(
        out,
        "rove-sim: seeds {} to {}, {} steps, faults {}{}",
        first.seed,
        first.seed + arguments.runs.saturating_sub(1),
        first.steps,
        first.faults,
        first.bug.map_or_else(String::new, |bug| format!(", planted bug {}", bug.name())),
    )?;
    let begun = Instant::now();
    let mut said = Instant::now();
    let mut batch = Batch::default();
    for seed in (first.seed..).take(usize::try_from(arguments.runs).unwrap_or(usize::MAX)) {
        batch.add(run(Options { seed, ..first }));
        if !batch.failed.is_empty() {
            break;
        }
        if said.elapsed().as_secs() >= 5 {
            said = Instant::now();
            writeln!(out, "  {} of {} runs, {} posts acknowledged", batch.runs, arguments.runs, batch.acknowledged)?;
        }
    }
    writeln!(
        out,
        "{} runs in {:.1} s: {} events, {} s of virtual time, {} posts acknowledged, {} elections",
        batch.runs,
        begun.elapsed().as_secs_f64(),
        batch.events,
        batch.virtual_us / 1_000_000,
        batch.acknowledged,
        batch.elections,
    )?;
    let counts: Vec<String> =
        Fault::ALL.iter().map(|fault| format!("{} {}", fault.name(), batch.fired.of(*fault))).collect();
    writeln!(out, "faults: {}", counts.join(", "))?;
    if let Some(failed) = batch.failed.first() {
        writeln!(out, "{}", describe(failed))?;
        let smallest = shrink(failed);
        writeln!(out, "smallest that still fails:\n{}", describe(&smallest))?;
        if let Some(path) = &arguments.history {
            let (_, history) = World::new(smallest.options).keeping_history().run();
            let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
            for stamped in history.unwrap_or_default().records {
                writeln!(file, "{:>12} {:?}", stamped.at_us, stamped.record)?;
            }
            file.flush()?;
            writeln!(out, "its history: {path}")?;
        }
        return Ok(false);
    }
    // One run has some kinds of faults only.
    if arguments.runs >= DEFAULT_RUNS {
        let complaints = batch.complaints(first.faults);
        complaints.iter().try_for_each(|complaint| writeln!(out, "{complaint}"))?;
        return Ok(complaints.is_empty());
    }
    Ok(true)
}
