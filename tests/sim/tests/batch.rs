//! The simulated cluster holds every invariant, whatever goes wrong.

use std::time::{Duration, Instant};

use rove_sim::batch::{Batch, describe, run};
use rove_sim::faults::{Fault, Faults};
use rove_sim::options::{DEFAULT_STEPS, Options};
use rove_sim::world::World;

/// Runs of the batch at least, however slow the machine: enough for every kind of fault to have done something many times.
const RUNS: u64 = 40;

/// And at most: about twenty seconds of a machine that does nothing else.
const MOST_RUNS: u64 = 150;

/// Runs with few faults but those of snapshots: a few seconds, and each of them several times.
const SNAPSHOT_RUNS: u64 = 40;

/// Runs in which nodes are replaced: a few seconds as well.
const REPLACING_RUNS: u64 = 40;

/// Runs in which nodes come and go: likewise.
const CHANGING_RUNS: u64 = 40;

/// Runs in which accounts are suspended and let back in: likewise.
const GATE_RUNS: u64 = 40;

/// How long the batch goes on beyond its first runs.
const BUDGET: Duration = Duration::from_secs(15);

/// Runs of the first seeds with these faults, which hold every invariant, and in which each of the faults did something.
fn batch_of(faults: Faults, runs: u64, steps: u64) -> Batch {
    let mut batch = Batch::default();
    for seed in 1..=runs {
        batch.add(run(Options { faults, steps, ..Options::new(seed) }));
    }
    assert_eq!(batch.complaints(faults), Vec::<String>::new());
    batch
}

#[test]
fn runs_that_once_failed_hold_now() {
    let lines = include_str!("../regressions.txt").lines();
    for line in lines.map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty()) {
        let report = run(Options::parse(line).unwrap());
        assert!(report.violations.is_empty(), "{}", describe(&report));
    }
}

#[test]
fn a_batch_of_seeds_holds_every_invariant_and_every_kind_of_fault_does_something() {
    let begun = Instant::now();
    let mut batch = Batch::default();
    while batch.runs < RUNS || (batch.runs < MOST_RUNS && begun.elapsed() < BUDGET) {
        batch.add(run(Options::new(1 + batch.runs)));
    }
    assert_eq!(batch.complaints(Faults::all()), Vec::<String>::new());
    assert!(batch.acknowledged > 200 * batch.runs, "{} posts in {} runs", batch.acknowledged, batch.runs);
    assert!(batch.elections > 2 * batch.runs, "{} elections in {} runs", batch.elections, batch.runs);
}

#[test]
fn nodes_that_are_sent_snapshots_while_they_crash_and_the_network_loses_them_hold_every_invariant() {
    let faults = "absence,snapshot-cut,crash-before-install,crash-before-reset,crash-after-reset,loss,kill,power-loss,\
                  partition,transfer";
    let batch = batch_of(Faults::parse(faults).unwrap(), SNAPSHOT_RUNS, DEFAULT_STEPS);
    assert!(batch.fired.of(Fault::Absence) > batch.runs, "{} snapshots", batch.fired.of(Fault::Absence));
}

#[test]
fn nodes_that_are_replaced_one_after_the_other_while_other_faults_go_on_hold_every_invariant() {
    let faults = "replace,snapshot-cut,crash-before-install,loss,delay,kill,partition,pause,transfer";
    let batch = batch_of(Faults::parse(faults).unwrap(), REPLACING_RUNS, DEFAULT_STEPS);
    assert!(batch.fired.of(Fault::Replace) > batch.runs / 4, "{} were replaced", batch.fired.of(Fault::Replace));
}

#[test]
fn nodes_that_are_added_and_removed_while_other_faults_go_on_hold_every_invariant() {
    let faults = "add,remove,bit-rot,absence,loss,kill,partition,transfer";
    let batch = batch_of(Faults::parse(faults).unwrap(), CHANGING_RUNS, 2 * DEFAULT_STEPS);
    for change in [Fault::Add, Fault::Remove] {
        assert!(batch.fired.of(change) > batch.runs / 8, "{}: {} times", change.name(), batch.fired.of(change));
    }
}

#[test]
fn gates_hold_in_every_partition_while_leaders_nodes_and_members_change() {
    let faults = "gate,add,remove,replace,absence,kill,power-loss-all,partition,pause,transfer,link-cut";
    let batch = batch_of(Faults::parse(faults).unwrap(), GATE_RUNS, 2 * DEFAULT_STEPS);
    assert!(batch.fired.of(Fault::Gate) > 2 * batch.runs, "{} gates", batch.fired.of(Fault::Gate));
}

#[test]
fn the_same_options_give_the_same_run_and_another_seed_another() {
    let first = run(Options::new(3));
    let again = run(Options::new(3));
    assert_eq!((first.trace, first.events, first.virtual_us), (again.trace, again.events, again.virtual_us));
    assert_eq!(first.fired, again.fired);
    assert_ne!(first.trace, run(Options::new(4)).trace);
}

#[test]
fn keeping_the_history_changes_nothing_and_it_can_be_judged_after_it_was_written_and_read() {
    let options = Options::new(5);
    let (report, history) = World::new(options).keeping_history().run();
    assert_eq!(report.trace, run(options).trace);
    let written = serde_json::to_string(&history.unwrap()).unwrap();
    let read: rove_sim::history::History = serde_json::from_str(&written).unwrap();
    assert_eq!(rove_sim::checker::check(&read), report.violations);
    assert!(read.records.len() > 1_000);
}
