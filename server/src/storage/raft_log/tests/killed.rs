//! The log of a process that is killed while it purges: what it wrote last is there, and nothing comes back that was let go of.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// Where the process that is killed has its log. Only such a process has it in its environment.
const DIR: &str = "ROVE_TEST_LOG_OF_A_KILLED_PROCESS";
/// Lives of the process: enough that some of them end while it purges.
const LIVES: u64 = 24;
/// Entries between two purges, and those that are kept: a purge rewrites what is kept out of files that hold little else.
const EVERY: u64 = 12;
const KEPT: u64 = 9;
/// What the process says when a purge begins and is over, and of each entry that is written its number.
const BEGINS: &str = "begins";
const OVER: &str = "over";

fn open(dir: &Path) -> RaftLog {
    RaftLog::open_with(dir, 16 * 1024, 32 * 1024).unwrap()
}

fn entry(index: u64) -> LogEntry {
    LogEntry { index, term: 1, data: index.to_be_bytes().repeat(400).into(), ..LogEntry::default() }
}

/// The process that is killed: goes on where the log ends, until it is.
#[test]
#[ignore = "the process that another test kills"]
fn writes_and_purges_where_it_is_told_to() {
    let dir = std::env::var_os(DIR).expect("only that test runs it");
    let log = open(Path::new(&dir));
    for index in log.load(ONE, 0).unwrap().last() + 1.. {
        write(&log, ONE, &persist(vec![entry(index)], 1, index - 1));
        println!("{index}");
        if index % EVERY == 0 {
            println!("{BEGINS}");
            let mut round = Round::default();
            round.truncate(ONE, Truncated { index: index - KEPT, term: 1 }).unwrap();
            log.write(round).unwrap();
            log.purge().unwrap();
            println!("{OVER}");
        }
    }
}

/// Runs that process until it says something for the time that is chosen, and kills it. What it said.
fn live(dir: &Path, life: u64) -> Vec<String> {
    let this = std::env::current_exe().unwrap();
    let name = "storage::raft_log::tests::killed::writes_and_purges_where_it_is_told_to";
    let mut command = Command::new(this);
    let command = command.args(["--ignored", "--exact", name, "--nocapture"]).env(DIR, dir).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said: Vec<String> = Vec::new();
    // In every other life as soon as a purge has begun, otherwise wherever it is.
    let (mut begun, purges) = (0, 2 + life % 5);
    for line in lines.by_ref() {
        begun += u64::from(line == BEGINS);
        let enough =
            if life.is_multiple_of(2) { begun == purges } else { line.parse().is_ok_and(|at: u64| at % 97 == life) };
        said.push(line);
        if enough {
            break;
        }
    }
    child.kill().unwrap();
    said.extend(lines);
    assert!(!child.wait().unwrap().success(), "it ends only when it is killed: {said:?}");
    said
}

#[test]
fn a_process_that_is_killed_while_it_purges_finds_all_it_wrote_and_nothing_that_it_let_go_of() {
    let dir = tempfile::tempdir().unwrap();
    let (mut in_purges, mut acknowledged, mut let_go) = (0, 0, 0);
    for life in 0..LIVES {
        let said = live(dir.path(), life);
        in_purges += u64::from(said.iter().rfind(|line| *line == BEGINS || *line == OVER).is_some_and(|l| l == BEGINS));
        acknowledged = said.iter().filter_map(|line| line.parse().ok()).fold(acknowledged, u64::max);
        let purged = acknowledged / EVERY * EVERY;
        let over = said.iter().rev().any(|line| line == OVER);
        let found = open(dir.path()).load(ONE, 0).unwrap();
        assert!(found.last() >= acknowledged, "life {life}: {} of {acknowledged}", found.last());
        assert!(found.last() <= acknowledged + 1, "life {life}: one entry is under way at a time");
        assert!(found.truncated.index >= let_go, "life {life}: what was let go of stays gone");
        let_go = found.truncated.index;
        if over {
            assert!(let_go + KEPT + EVERY >= purged, "life {life}: {let_go} were let go of, {purged} purged");
        }
        let expected: Vec<LogEntry> = (let_go + 1..=found.last()).map(entry).collect();
        assert_eq!(found.entries, expected, "life {life}");
        acknowledged = found.last();
    }
    assert!(in_purges > LIVES / 4, "only {in_purges} of {LIVES} lives ended in a purge");
}
