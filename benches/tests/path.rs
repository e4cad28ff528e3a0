//! Clients over a long path come back, talk and change their network.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn over_a_path_each_handshake_costs_the_round_trips_that_it_has() {
    let bench = Path::new(env!("CARGO_BIN_EXE_rove-bench"));
    let server = bench.with_file_name("rove-server");
    assert!(server.exists(), "{} is not built: run `cargo build --workspace` first", server.display());
    let dir = tempfile::tempdir().unwrap();
    let (data, json) = (dir.path().join("data"), dir.path().join("report.json"));
    std::fs::create_dir(&data).unwrap();
    let load = "path --rtt 20 --loss 1 --times 3 --rate 50 --seconds 2 --warm-up 1";
    let load = Command::new(bench)
        .args(load.split(' '))
        .args([Path::new("--dir"), &data, Path::new("--json"), &json])
        .output()
        .unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));

    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let count = |times: &str| report["distributions"][times]["count"].as_u64().unwrap();
    assert_eq!(["first_post_full", "first_post_resumed", "first_post_early", "change"].map(count), [3; 4]);
    assert_eq!(["delivered", "acknowledged", "echo"].map(count), [100; 3], "what was lost was sent again");
    // However fast the machine is: the path cannot be quicker. Timers round it down by a millisecond.
    let least = |times: &str| report["distributions"][times]["p50_ms"].as_f64().unwrap();
    assert!(least("first_post_full") >= 38.0 && least("first_post_resumed") >= 38.0, "{report:#}");
    assert!(least("first_post_early") >= 19.0 && least("delivered") >= 19.0 && least("echo") >= 19.0, "{report:#}");
}
