//! A node is killed under load, comes back, and has everything that it acknowledged.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_node_that_is_killed_under_load_is_measured_and_has_lost_nothing() {
    let bench = Path::new(env!("CARGO_BIN_EXE_rove-bench"));
    let server = bench.with_file_name("rove-server");
    assert!(server.exists(), "{} is not built: run `cargo build --workspace` first", server.display());
    let dir = tempfile::tempdir().unwrap();
    let (data, json) = (dir.path().join("data"), dir.path().join("report.json"));
    std::fs::create_dir(&data).unwrap();
    // Far more time than a start takes: a busy machine is to pass as well.
    let load = [
        "recovery",
        "--rate",
        "80",
        "--writers",
        "4",
        "--prefill",
        "300",
        "--rounds",
        "1",
        "--seconds",
        "15",
        "--warm-up",
        "1",
    ];
    let ended =
        Command::new(bench).args(load).args([Path::new("--dir"), &data, Path::new("--json"), &json]).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));

    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    // 300 before, and 80 a second for 16 seconds: each post of the schedule was acknowledged, none twice.
    assert_eq!((&report["figures"]["missing"], &report["figures"]["posts"]), (&0.into(), &1_580.into()));
    for (times, count) in [("longest_silence", 1), ("silence", 4), ("away", 1), ("start", 1), ("cold_start", 3)] {
        assert_eq!(report["distributions"][times]["count"], count, "{times}");
    }
    let longest = |times: &str| report["distributions"][times]["max_ms"].as_f64().unwrap();
    assert!(longest("away") >= longest("start") && longest("start") > 0.0 && longest("silence") > 0.0, "{report:#}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "it leaves nothing behind");
}
