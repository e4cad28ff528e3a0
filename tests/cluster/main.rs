//! Three real nodes, real clients and real faults (tier 3 of the plan of tests).
//!
//! - [`nodes`] starts, kills and stops the processes; [`relay`] is the network between them;
//! - [`client`]s post and read through any node, each by one [`session`] after the other, and [`recorder`] writes down what they
//!   did: the history that the checker of the simulation (`rove_sim::checker`) judges;
//! - [`watch`] asks every node what its replicas are; [`arena`] holds a run together, from the first node to the verdict;
//! - [`faults`] go wrong; [`run`] injects one and makes the table;
//! - [`handover`] is about one of them as people see it, with the client library.
//!
//! A few faults, for a short while each, are tests. `make faults` runs all of them for as long as it is told.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test fails when what it needs is not there, and the long run says how it goes"
)]

mod api;
mod arena;
mod client;
mod faults;
mod handover;
mod nodes;
mod recorder;
mod relay;
mod run;
mod session;
mod watch;

use std::time::Duration;

use arena::Options;
use faults::{ALL, Fault, Fired};
use run::{Row, table};

/// How long a fault is injected in a short test: once or twice.
const SHORT: Duration = Duration::from_secs(4);

/// Injects one for a short while. It must have fired, and nothing may have been lost.
async fn short(id: &str) {
    let fault = faults::named(id).expect("one of the list");
    let row = run::one(fault, Options::default(), SHORT).await;
    if let Fired::Skipped(why) = &row.fired {
        rove_tests::skipped(&format!("{id}, {}", row.fault.what), why);
        return;
    }
    assert!(row.wrong().is_empty(), "\n{}", table(&[row]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_survive_the_death_of_their_leader() {
    short("F1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_survive_the_death_of_all_nodes() {
    short("F3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_survive_a_power_failure_of_all_nodes() {
    short("F11").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_splits_no_conversation() {
    short("F22").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_sync_its_log_stops() {
    short("F13").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_long_catches_up_by_snapshots_though_it_is_killed_at_that() {
    short("F32").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_rebuilt_whoever_dies_on_the_way() {
    short("F30").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_panics_between_two_steps_ends_and_loses_nothing() {
    short("F8").await;
}

/// What the environment says, or this.
fn setting(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("{name} = {text:?} is not a number")),
        _ => otherwise,
    }
}

/// The faults that are asked for, by number; all of them if none is.
fn chosen() -> Vec<Fault> {
    let text = std::env::var("FAULTS").unwrap_or_default();
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() || names == ["all"] {
        return ALL.to_vec();
    }
    let known = || ALL.iter().map(|fault| fault.id).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| faults::named(name).unwrap_or_else(|| panic!("no fault {name}; there are {}", known())))
        .collect()
}

/// The long run, `make faults`: `FAULTS_SECONDS` shared among `FAULTS`, from `SEED`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as it is told: make faults"]
async fn every_fault_in_turn() {
    let (seconds, seed, faults) = (setting("FAULTS_SECONDS", 600), setting("SEED", 1), chosen());
    let weights: u32 = faults.iter().map(|fault| fault.weight).sum();
    let mut rows: Vec<Row> = Vec::new();
    for (number, fault) in (1..).zip(&faults) {
        let time = Duration::from_secs(seconds) * fault.weight / weights.max(1);
        eprintln!("[{number}/{}] {}: {}, {} s", faults.len(), fault.id, fault.what, time.as_secs());
        let row = run::one(*fault, Options { seed, ..Options::default() }, time).await;
        for wrong in row.wrong() {
            eprintln!("    {}: {wrong}", fault.id);
        }
        rows.push(row);
    }
    eprintln!("\n{}", table(&rows));
    let wrong: usize = rows.iter().map(|row| row.wrong().len()).sum();
    assert_eq!(wrong, 0, "repeat it with SEED={seed}");
    // Here and not in the short tests: this one has the machine for itself.
    let late = rows.iter().any(|row| row.kills().is_some_and(|kills| kills.too_late()));
    assert!(!late, "posts were taken too late after more than 1 % of the kills of leaders");
}
