//! `rove-instructions`: how many instructions a message costs, counted by valgrind, compared with what stands in a file.
//!
//! Times say nothing on a busy machine, and instructions say the same on every machine with the same compiler: so this notices what the
//! times of `quick` cannot. They are not time (a cache miss is one instruction), which is why only becoming more is a failure.
//!
//! There are crates for this (gungraun, once iai-callgrind). They need a runner that is installed beside them in exactly their version, and
//! count single functions from outside; what is needed here is a number for each of a few pieces of work, which is this file.
//!
//! Each piece is run by valgrind twice, with `FEW` and with `MANY` repetitions, and counted is the difference: what starting and preparing
//! cost is in both. Two runs of one binary differ by less than a thousandth.

// Counts become ratios: the digits that a float drops are beyond what is counted.
#![allow(clippy::cast_precision_loss)]

mod kept;
mod pieces;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use kept::{Counts, Verdict};
use rove_benches::say;

/// Instructions per message, counted by valgrind
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  rove-instructions --kept benches/instructions.json
  rove-instructions --kept benches/instructions.json --keep    writes down what was counted

Exit code 1: something takes more than is tolerated.")]
struct Args {
    /// The counts to compare with
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.json")]
    kept: PathBuf,

    /// Writes what was counted to that file, instead of comparing
    #[arg(long)]
    keep: bool,

    /// Runs one piece so often, which is what valgrind counts
    #[arg(long, num_args = 2, value_names = ["PIECE", "TIMES"], hide = true)]
    run: Vec<String>,
}

/// Repetitions: the lesser number is enough to have everything warm that becomes warm (pages that the allocator asks for, tables that
/// double), and valgrind takes seconds for the greater one.
const FEW: u64 = 64;
const MANY: u64 = 320;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("rove-instructions: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run(args: &Args) -> Result<bool, String> {
    if let [piece, times] = &args.run[..] {
        let times = times.parse().map_err(|_| format!("{times} is no number"))?;
        return pieces::run(piece, times).then_some(true).ok_or_else(|| format!("there is no piece called {piece}"));
    }
    let counts = count()?;
    if args.keep {
        std::fs::write(&args.kept, counts.to_text()).map_err(|error| format!("{}: {error}", args.kept.display()))?;
        println!("written to {}", args.kept.display());
        return Ok(true);
    }
    let text = std::fs::read_to_string(&args.kept).map_err(|error| format!("{}: {error}", args.kept.display()))?;
    let kept = Counts::parse(&text).ok_or_else(|| format!("{} has no counts", args.kept.display()))?;
    let lines = kept.compare(&counts);
    for line in &lines {
        println!("{line}");
    }
    let more = lines.iter().any(|line| line.verdict == Verdict::More);
    if kept.compiler == counts.compiler {
        return Ok(!more);
    }
    println!("{} counted before, {} now: nothing is a failure; write the file again", kept.compiler, counts.compiler);
    Ok(true)
}

fn count() -> Result<Counts, String> {
    let this = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let mut counts = Counts::here();
    for (name, messages) in pieces::names() {
        say(format_args!("counting {name}"));
        let more = instructions(&this, name, MANY)?.saturating_sub(instructions(&this, name, FEW)?);
        counts.set(name, more as f64 / ((MANY - FEW) * messages) as f64);
    }
    Ok(counts)
}

/// What valgrind counts of a process that does a piece of work so often.
fn instructions(this: &Path, piece: &str, times: u64) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--run", piece, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = collected(&said).filter(|_| output.status.success());
    counted.ok_or_else(|| format!("valgrind counted nothing for {piece}: {said}"))
}

/// `==123== Collected : 45678`
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_what_valgrind_says() {
        let said = "==42== Callgrind, a call-graph generating cache profiler\n==42== \n==42== Events    : Ir\n\
                    ==42== Collected : 1234567\n";
        assert_eq!(collected(said), Some(1_234_567));
        assert_eq!(collected("==42== Collected : \n"), None);
        assert_eq!(collected(""), None);
    }

    #[test]
    fn every_piece_can_be_run_and_nothing_else() {
        for (name, messages) in pieces::names() {
            assert!(messages > 0 && pieces::run(name, 3), "{name}");
        }
        assert!(!pieces::run("nothing", 1));
    }
}
