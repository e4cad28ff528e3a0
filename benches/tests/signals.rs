//! A measurement that is ended by a signal leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that fails is to panic")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A server that says where it listens and answers nobody, pays no attention to signals, and never stops writing into its directory.
const SERVER: &str = r#"#!/bin/sh
trap '' TERM INT HUP
case "$1" in
init) # --listen ADDRESS --dir DIR
    : >"$5/rove.toml"
    ;;
serve) # --config DIR/rove.toml
    echo $$ >"$0.pid.new" && mv "$0.pid.new" "$0.pid"
    echo "listening quic=127.0.0.1:9 pin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    number=0
    while :; do
        number=$(((number + 1) % 50))
        : >"${3%/*}/$number"
    done
    ;;
esac
"#;

/// `rove-bench`, killed if a test fails before it has ended.
struct Bench(Child);

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `look` finds, as soon as it finds something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Starts it with the server above, ends it by a signal once that runs, and looks at what is left.
fn leaves_nothing_behind(signal: Signal) {
    let dir = tempfile::tempdir().unwrap();
    let (server, data) = (dir.path().join("server"), dir.path().join("data"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(&server, SERVER).unwrap();
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
    let bench = Command::new(env!("CARGO_BIN_EXE_rove-bench"))
        .args(["rest", "--seconds", "1"])
        .args([Path::new("--dir"), &data, Path::new("--server-binary"), &server])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut bench = Bench(bench);
    let pid = until("the server starts", || std::fs::read_to_string(dir.path().join("server.pid")).ok());
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists() && std::fs::read_dir(&data).unwrap().count() == 1);

    kill(Pid::from_raw(bench.0.id().cast_signed()), signal).unwrap();
    let status = until("it ends", || bench.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(128 + signal as i32));
    assert!(!process.exists(), "the server is gone");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "and its directory as well");
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_asked_to_end_ends_its_server_and_removes_its_directory() {
    leaves_nothing_behind(Signal::SIGTERM);
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_interrupted_ends_its_server_and_removes_its_directory() {
    leaves_nothing_behind(Signal::SIGINT);
}
