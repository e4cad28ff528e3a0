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

/// `rove replay` of `files` against `server`, so many times faster than it was said; its report comes on standard output.
fn replay(server: &Server, files: &[PathBuf], speed: &str) -> Child {
    Command::new(binary("rove"))
        .arg("replay")
        .args(files)
        .args(["--json", "--speed", speed, "--server", &server.address().to_string()])
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

/// Replays `files`, kills the server when a third of their `lines` is posted, starts it again, and judges what everybody
/// holds in the end.
async fn replayed_through_a_kill(server: &mut Server, files: &[PathBuf], speed: &str, lines: u64) -> Value {
    let mut metrics = http3::Metrics::connect(server).await;
    let mut child = replay(server, files, speed);
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
    let posted = within_patience("a third of the posts", async {
        loop {
            let posted = metrics.get("rove_posts_applied_total").await;
            if posted >= lines / 3 {
                return posted;
            }
        }
    })
    .await;
    server.kill();
    assert!(posted < lines, "it was over before the kill: {posted} posts");
    server.restart();
    let report = tokio::task::spawn_blocking(move || judged(child)).await.unwrap();
    assert_eq!(report["lines"], lines);
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_receives_the_same_though_the_server_is_killed_in_the_middle() {
    const LINES: usize = 6_000;
    let dir = tempfile::tempdir().unwrap();
    let talk = small_talk(dir.path(), 12, LINES);
    let mut server = Server::start(dir.path());
    let report = replayed_through_a_kill(&mut server, &[talk], "max", LINES as u64).await;
    assert!(report["reconnects"].as_u64() >= Some(12), "every client felt it: {report}");
}

#[test]
fn a_server_that_limits_accounts_by_address_ends_a_replay_at_once_and_it_says_what_to_set() {
    let dir = tempfile::tempdir().unwrap();
    // More nicks than one address may sign up at once.
    let talk = small_talk(dir.path(), 24, 100);
    let mut server = Server::start(dir.path());
    assert!(server.terminate().success());
    let config = dir.path().join("rove.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("rate_limits = false"));
    std::fs::write(&config, text.replace("rate_limits = false", "rate_limits = true")).unwrap();
    server.restart();
    let output = replay(&server, &[talk], "max").wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("rate_limits = false"), "{said}");
}

/// Nicks of one channel, each in the next channel's log too every seventh time.
const NICKS: usize = 26;
/// Lines of one channel that are said by somebody.
const SAID: usize = 300;

/// How people's IRC clients wrote their logs: each is one line said by `nick`, or more with what nobody said around it.
type Format = fn(line: usize, nick: &str, text: &str) -> Vec<u8>;

/// Ten of them.
const FORMATS: [(&str, Format); 10] = [
    ("minutes.txt", |line, nick, text| format!("{} <{nick}> {text}\n", stamp(line, 24)).into()),
    ("seconds.log", |line, nick, text| {
        format!("[{:02}:{:02}:{:02}] <{nick}> {text}\n", 9 + line / 60, line % 60, line * 7 % 60).into()
    }),
    ("no-stamps.txt", |_, nick, text| format!("<{nick}> {text}\n").into()),
    ("dos.txt", |line, nick, text| format!("{} <{nick}> {text}\r\n", stamp(line, 24)).into()),
    ("byte-order-mark.txt", |line, nick, text| {
        let mark = if line == 0 { "\u{feff}" } else { "" };
        format!("{mark}{} <{nick}> {text} \u{2603}\n", stamp(line, 24)).into()
    }),
    ("padded.txt", |line, nick, text| format!("{} <{nick:>12}> {text}  \n", stamp(line, 24)).into()),
    ("actions.irc", |line, nick, text| format!("{}  * {nick} slaps {text}\n", stamp(line, 24)).into()),
    ("notices.txt", |line, nick, text| {
        format!(
            "=== {nick} [~{nick}@host.example]  has joined #rove\n{} <{nick}> {text}\n\n{} === topic is {line}\n",
            stamp(line, 24),
            stamp(line, 24)
        )
        .into()
    }),
    // Twelve hours, over noon, with a clock that steps back now and then.
    ("twelve-hours.txt", |line, nick, text| {
        format!("{} <{nick}> {text}\n", stamp(if line % 50 == 49 { line - 3 } else { line } + 500, 12)).into()
    }),
    ("dirty.txt", |line, nick, text| {
        let mut bytes = format!("{} <{nick}> caf", stamp(line, 24)).into_bytes();
        // Latin-1, and lines that are none.
        bytes.extend_from_slice(b"\xe9 ");
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(b"\n[99:99] <who> when\n<> nobody\nneither this nor that\n");
        bytes
    }),
];

/// `[HH:MM]` of a clock that starts again after so many hours.
fn stamp(minute: usize, hours: usize) -> String {
    format!("[{:02}:{:02}]", minute / 60 % hours, minute % 60)
}

/// Writes a log in each format.
fn ten_channels(dir: &Path) -> Vec<PathBuf> {
    let channel = |(index, (name, format)): (usize, &(&str, Format))| {
        let mut bytes = Vec::new();
        for line in 0..SAID {
            // Not in turn, and some are in two channels.
            let channel = if line % 7 == 6 { (index + 1) % FORMATS.len() } else { index };
            let nick = format!("nick{channel}_{}", (line * 5 + line / 4) % NICKS);
            bytes.extend(format(line, &nick, &format!("line {line} of {name}")));
        }
        let path = dir.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    FORMATS.iter().enumerate().map(channel).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_channels_in_ten_formats_arrive_whole_though_the_server_is_killed_in_the_middle() {
    const LINES: usize = SAID * FORMATS.len();
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let files = ten_channels(&logs);
    // Five hours in nine seconds: the kill comes while people talk, however fast the machine.
    let mut server = Server::start(dir.path());
    let report = replayed_through_a_kill(&mut server, &files, "2000", LINES as u64).await;
    assert_eq!(report["nicks"], NICKS * FORMATS.len(), "{report}");
    assert!(report["reconnects"].as_u64() >= Some(NICKS as u64), "the kill was felt: {report}");
    let of_files = report["files"].as_array().expect("a list");
    assert_eq!(of_files.len(), FORMATS.len());
    for file in of_files {
        assert_eq!(file["lines"], SAID, "{file}");
        assert!(file["digest"].is_string(), "all members hold the same: {file}");
        assert!(file["members"].as_u64() > Some(NICKS as u64), "and some are in two channels: {file}");
    }
    let input = &report["input"];
    let n = SAID as u64;
    assert_eq!((input["actions"].as_u64(), input["repaired"].as_u64()), (Some(n), Some(n)), "{report}");
    assert_eq!((input["notices"].as_u64(), input["malformed"].as_u64()), (Some(2 * n), Some(3 * n)), "{report}");
}

/// The ten hours of IRC that may lie beside the repository.
#[test]
fn ten_hours_of_irc_arrive_whole_and_in_one_order() {
    let logs = rove_tests::folder().join("../../shared/data/irc");
    let Ok(entries) = std::fs::read_dir(&logs) else {
        rove_tests::skipped(
            "ten_hours_of_irc_arrive_whole_and_in_one_order",
            "there are no IRC logs beside the repository",
        );
        return;
    };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a directory reads").path()).collect();
    files.sort();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let report = judged(replay(&server, &files, "max"));
    assert!(report["nicks"].as_u64() > Some(1_000), "{report}");
    eprintln!(
        "{} lines by {} nicks, {} deliveries, {} s",
        report["lines"], report["nicks"], report["deliveries"], report["delivered_in_s"]
    );
}
