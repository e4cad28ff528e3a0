//! What an operator does: start, stop, look, get a configuration wrong.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::process::Command;

use rove_tests::people::{alice_and_bob, credentials};
use rove_tests::raw::Raw;
use rove_tests::server::binary;
use rove_tests::{Server, within_patience};

#[tokio::test]
async fn sigterm_says_go_away_and_exits_with_zero() {
    use rove_protocol::message::ControlDown;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let credentials = credentials(&server, "alice").await;
    let (_raw, mut control) = Raw::welcomed(&server, &credentials).await;
    let stopped = tokio::task::spawn_blocking(move || (server.terminate(), server));
    let frame = control.next().await.expect("a last frame");
    assert!(matches!(ControlDown::decode(frame), Ok(Some(ControlDown::GoAway(_)))));
    let (status, mut server) = within_patience("the exit", stopped).await.unwrap();
    assert!(status.success(), "{status}\n{}", server.log());
    server.restart();
}

#[tokio::test]
async fn what_was_said_before_a_clean_stop_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let (alice, bob, id) = alice_and_bob(&server).await;
    let at_alice = alice.open_conversation(id).await.unwrap();
    let outcome = within_patience("the acknowledgement", at_alice.post("remember").await.unwrap().outcome()).await;
    assert!(matches!(outcome, Ok(rove_client::Outcome::Posted { .. })), "{outcome:?}");
    assert!(server.terminate().success());
    server.restart();
    let at_bob = bob.open_conversation(id).await.unwrap();
    let mut updates = at_bob.updates();
    within_patience("bob reads it", async {
        while at_bob.cursor().0 < 2 {
            updates.changed().await.expect("the client lives");
        }
    })
    .await;
}

#[test]
fn a_wrong_configuration_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    for (text, key) in [
        ("data_dirr = \"x\"\n", "data_dirr"),
        ("partitions = 0\n", "partitions"),
        ("partitions = \"six\"\n", "partitions"),
        ("tls_cert = \"/does/not/exist.pem\"\n", "tls_cert"),
    ] {
        let config = dir.path().join("rove.toml");
        std::fs::write(&config, text).unwrap();
        let output = Command::new(binary("rove-server")).arg("serve").arg("--config").arg(&config).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text} was accepted");
        assert!(message.contains(key), "{text}: {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
}

#[tokio::test]
async fn two_servers_cannot_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let output = Command::new(binary("rove-server"))
        .arg("serve")
        .arg("--config")
        .arg(server.dir().join("rove.toml"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("lock") || message.contains("use"), "{message}");
}

/// A file system of its own, let go of when dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// In memory, at `path`; nothing where that may not be mounted.
    fn at(path: &std::path::Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "rove-test"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What is still there goes with the machine.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_or_read_only_is_said_at_the_start_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    assert!(server.terminate().success());
    let said = |words: &[&str]| {
        let ended = server.begin().ended();
        let log = server.log();
        let last = log.lines().last().unwrap_or_default();
        assert_eq!(ended.code(), Some(1), "{log}");
        assert!(words.iter().all(|word| last.contains(word)), "{last}");
    };
    let data = dir.path().join("data");
    for (options, words) in [
        ("size=8m", &["the disk is full", "free some space", "do not delete files"][..]),
        ("size=64m,ro", &["is read-only", "mount it writable"][..]),
    ] {
        let Some(mounted) = Mounted::at(&data, options) else {
            rove_tests::skipped(
                "a_disk_that_is_full_or_read_only_is_said_at_the_start_with_what_to_do",
                "a file system in memory may not be mounted here (it takes root)",
            );
            return;
        };
        said(words);
        drop(mounted);
    }
    // With room again it goes on with what it had.
    server.restart();
}
