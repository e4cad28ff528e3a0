//! The checker is worth something: it finds bugs that are planted at the core's seams, within a few seeds each.

use rove_sim::batch::{run, shrink};
use rove_sim::bugs::Bug;
use rove_sim::faults::Faults;
use rove_sim::options::Options;

/// Seeds until the bug was found, at most `most`.
fn seeds_until_found(bug: Bug, faults: Faults, most: u64) -> Option<u64> {
    (1..=most).find(|seed| {
        let options = Options { faults, bug: Some(bug), steps: 8_000, ..Options::new(*seed) };
        !run(options).violations.is_empty()
    })
}

macro_rules! is_found {
    ($($name:ident: $bug:ident, $faults:literal, $most:literal;)*) => {
        $(#[test]
        fn $name() {
            let faults = Faults::parse($faults).unwrap();
            assert!(seeds_until_found(Bug::$bug, faults, $most).is_some(), "not in {} seeds", $most);
        })*

        #[test]
        fn every_bug_has_its_test() {
            assert_eq!(Bug::ALL, [$(Bug::$bug),*]);
        }
    };
}

// The faults are those that the bug needs, if it needs any: then fewer seeds do.
is_found! {
    an_acknowledgement_before_the_sync_is_found: AckBeforeSync, "power-loss,power-loss-all,sync-failure", 20;
    a_repeated_post_that_is_taken_again_is_found: DedupSkipped, "client-cut,link-cut", 20;
    a_seq_that_is_given_twice_is_found: SeqReused, "kill", 10;
    commands_that_are_applied_in_another_order_are_found: OrderSwapped, "none", 10;
    a_linearizable_read_that_is_stale_is_found: StaleRead, "partition,loss,delay,bridge", 40;
    a_forward_that_is_taken_in_another_term_is_found: ForwardOfAnotherTerm, "stale-forward,transfer,partition,delay,pause", 80;
    an_acknowledgement_before_the_log_is_found: AckWhenTaken, "none", 10;
    a_log_that_goes_on_where_a_snapshot_began_it_anew_is_found: InstallKeepsLog, "absence,crash-after-reset", 20;
    a_log_that_begins_anew_before_the_state_does_is_found: ResetBeforeState, "absence,crash-before-install", 20;
    a_rebuilt_node_under_its_old_number_is_found: RebuiltUnderOldNumber, "replace", 20;
    a_gate_that_not_every_partition_has_is_found: GateInOnePartition, "gate", 20;
}

#[test]
fn a_failure_shrinks_to_fewer_faults_and_the_same_invariant() {
    let options = Options { bug: Some(Bug::OrderSwapped), ..Options::new(1) };
    let failed = run(options);
    let smallest = shrink(&failed);
    assert_eq!(smallest.violations[0].invariant, failed.violations[0].invariant);
    assert_eq!(smallest.options.faults, Faults::NONE, "it needs no fault");
    assert!(smallest.options.steps < options.steps);
}
