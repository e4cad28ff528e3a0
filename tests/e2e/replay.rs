//! Real talk, replayed by one real client per nick through the real binaries.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rove_tests::server::binary;
use rove_tests::{Server, http3, within_patience};
use serde_json::Value;

/// `rove replay` of `files` against `server`; its report comes on standard output.
fn replay(server: &Server, files: &[PathBuf]) -> Child {
    Command::new(binary("rove"))
        .arg("replay")
        .args(files)
        .args(["--json", "--server", &server.address().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rove replay starts")
}

/// Waits for the end and returns the report, after requiring that all of it held.
fn judged(mut child: Child) -> Value {
    let (mut report, mut complaints) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut report).expect("text");
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut complaints).expect("text");
    }
    let status = child.wait().expect("the process is ours");
    assert!(status.success(), "{status}\n{report}\n{complaints}");
    let report: Value = serde_json::from_str(&report).expect("a JSON report");
    for nothing in ["lost", "doubled", "out_of_order", "altered"] {
        assert_eq!(report[nothing], 0, "{nothing}: {report}");
    }
    assert_eq!(report["lines"], report["acknowledged"], "{report}");
    report
}

/// Talk of our own: `lines` lines of `nicks` nicks.
fn small_talk(dir: &Path, nicks: usize, lines: usize) -> PathBuf {
    let mut text = String::new();
    for line in 0..lines {
        // Not in turn, so that some say several lines in a row.
        let nick = (line * 7 + line / 3) % nicks;
        writeln!(text, "[{:02}:{:02}] <nick{nick}> line {line} of the talk", line / 60 % 24, line % 60)
            .expect("memory");
    }
    let path = dir.join("talk.txt");
    std::fs::write(&path, text).expect("a file");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_receives_the_same_though_the_server_is_killed_in_the_middle() {
    const LINES: usize = 6_000;
    let dir = tempfile::tempdir().unwrap();
    let talk = small_talk(dir.path(), 12, LINES);
    let mut server = Server::start(dir.path());
    let mut child = replay(&server, &[talk]);
    // It says when it begins to post; from then on the server is asked.
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let begun = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains("posting") {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("text") > 0, "it ended before it posted");
        }
        // Whatever follows is read, so that the pipe never fills.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    });
    within_patience("the first post", begun).await.unwrap();
    within_patience("a third of the posts", async {
        while http3::metric(&server, "rove_posts_applied_total").await < LINES as u64 / 3 {}
    })
    .await;
    let posted = http3::metric(&server, "rove_posts_applied_total").await;
    server.kill();
    assert!(posted < LINES as u64, "it was over before the kill: {posted} posts");
    server.restart();
    let report = tokio::task::spawn_blocking(move || judged(child)).await.unwrap();
    assert_eq!(report["lines"], LINES);
    assert!(report["reconnects"].as_u64() >= Some(12), "every client felt it: {report}");
}

/// The ten hours of IRC that may lie beside the repository.
#[test]
fn ten_hours_of_irc_arrive_whole_and_in_one_order() {
    let logs = rove_tests::folder().join("../../shared/data/irc");
    let Ok(entries) = std::fs::read_dir(&logs) else {
        eprintln!("SKIPPED: there are no IRC logs beside the repository");
        return;
    };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a directory reads").path()).collect();
    files.sort();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let report = judged(replay(&server, &files));
    assert!(report["nicks"].as_u64() > Some(1_000), "{report}");
    eprintln!(
        "{} lines by {} nicks, {} deliveries, {} s",
        report["lines"], report["nicks"], report["deliveries"], report["delivered_in_s"]
    );
}
