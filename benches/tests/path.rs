//! Clients over a long path come back, talk and change their network.

mod support;

use support::report;

#[test]
fn over_a_path_each_handshake_costs_the_round_trips_that_it_has() {
    let report = report("path --rtt 20 --loss 1 --times 3 --rate 50 --seconds 2 --warm-up 1");
    let count = |times: &str| report["distributions"][times]["count"].as_u64().unwrap();
    assert_eq!(["first_post_full", "first_post_resumed", "first_post_early", "change"].map(count), [3; 4]);
    assert_eq!(["delivered", "acknowledged", "echo"].map(count), [100; 3], "what was lost was sent again");
    // However fast the machine is: the path cannot be quicker. Timers round it down by a millisecond.
    let least = |times: &str| report["distributions"][times]["p50_ms"].as_f64().unwrap();
    assert!(least("first_post_full") >= 38.0 && least("first_post_resumed") >= 38.0, "{report:#}");
    assert!(least("first_post_early") >= 19.0 && least("delivered") >= 19.0 && least("echo") >= 19.0, "{report:#}");
}
