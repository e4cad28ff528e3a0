//! A node is killed under load, comes back, and has everything that it acknowledged.

mod support;

use support::report;

#[test]
fn a_node_that_is_killed_under_load_is_measured_and_has_lost_nothing() {
    // Far more time than a start takes: a busy machine is to pass as well.
    let report = report("recovery --rate 80 --writers 4 --prefill 300 --rounds 1 --seconds 15 --warm-up 1");

    // 300 before, and 80 a second for 16 seconds: each post of the schedule was acknowledged, none twice.
    assert_eq!((&report["figures"]["missing"], &report["figures"]["posts"]), (&0.into(), &1_580.into()));
    for (times, count) in [("longest_silence", 1), ("silence", 4), ("away", 1), ("start", 1), ("cold_start", 3)] {
        assert_eq!(report["distributions"][times]["count"], count, "{times}");
    }
    let longest = |times: &str| report["distributions"][times]["max_ms"].as_f64().unwrap();
    assert!(longest("away") >= longest("start") && longest("start") > 0.0 && longest("silence") > 0.0, "{report:#}");
}
