//! The real binary, as far as it goes without a server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn rove(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rove"))
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn says(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let home = tempfile::tempdir().unwrap();
    let output = rove(home.path(), &["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    for word in
        ["sign-up", "log-in", "log-out", "list", "open", "new-group", "send", "tail", "history", "replay", "Exit codes"]
    {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    for command in ["sign-up", "open", "send", "tail", "history", "replay"] {
        let output = rove(home.path(), &[command, "--help"]);
        assert!(String::from_utf8(output.stdout).unwrap().contains("Example"), "{command} has no example");
    }
}

#[test]
fn without_an_account_every_command_says_how_to_get_one_and_makes_nothing() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["list"][..], &["send", "bob", "hi"], &["tail", "bob"], &["history", "bob"], &["log-out"]] {
        let (code, error) = says(&rove(home.path(), arguments));
        assert_eq!(code, Some(3), "{arguments:?}: {error}");
        assert!(error.contains("rove log-in") && error.contains("rove sign-up"), "{error}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_password_is_not_asked_for_where_nobody_can_answer() {
    let home = tempfile::tempdir().unwrap();
    let (code, error) = says(&rove(home.path(), &["sign-up", "alice", "--server", "rove://127.0.0.1:9"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("ROVE_PASSWORD") && error.contains("--password-stdin"), "{error}");
}

#[test]
fn the_chat_needs_a_terminal_and_says_what_does_not() {
    let home = tempfile::tempdir().unwrap();
    let (code, error) = says(&rove(home.path(), &["open"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("rove tail") && error.contains("rove send"), "{error}");
}

#[test]
fn a_replay_names_every_file_that_cannot_be_read_before_anything_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let (code, error) =
        says(&rove(home.path(), &["replay", "/nowhere/a.txt", "/nowhere/b.txt", "--server", "rove://127.0.0.1:9"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("/nowhere/a.txt: ") && error.contains("/nowhere/b.txt: "), "{error}");
}

#[test]
fn a_replay_names_malformed_lines_by_file_and_number() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("bad.txt");
    std::fs::write(&file, "=== nobody is here\n[25:61] <a> what time is it\nnonsense\n").unwrap();
    let file = file.to_str().unwrap();
    let (code, error) = says(&rove(home.path(), &["replay", file, "--server", "rove://127.0.0.1:9"]));
    assert_eq!(code, Some(2));
    assert!(error.contains(&format!("rove: {file}:2: \"25:61\" is no time of day")), "{error}");
    assert!(error.contains(&format!("rove: {file}:3: neither")), "{error}");
    assert!(error.contains("nothing to post"), "{error}");
}
