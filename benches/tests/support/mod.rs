//! Runs `rove-bench` on the server that is built beside it.

#![allow(clippy::unwrap_used, reason = "a test that fails is to panic")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Its report as JSON, for arguments with one space between them.
///
/// # Panics
/// If it fails, or leaves something in its directory.
pub(crate) fn report(load: &str) -> Value {
    let bench = Path::new(env!("CARGO_BIN_EXE_rove-bench"));
    let server = bench.with_file_name("rove-server");
    assert!(server.exists(), "{} is not built: run `cargo build --workspace` first", server.display());
    let dir = tempfile::tempdir().unwrap();
    let (data, json) = (dir.path().join("data"), dir.path().join("report.json"));
    std::fs::create_dir(&data).unwrap();
    let place = [Path::new("--dir"), &data, Path::new("--json"), &json];
    let ended = Command::new(bench).args(load.split(' ')).args(place).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "it leaves nothing behind");
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}
