//! docs/operations.md against what there is: its commands are run somewhere, what it says of the log is in the source, and its metrics are
//! served.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rove_tests::{Cluster, http3};

/// Commands of the page that scripts/cluster.sh does not run, and the test that does.
const IN_TESTS: &[(&str, &str, &str)] = &[
    (
        "cluster replace --address",
        "members.rs",
        "a_node_that_lost_its_disk_is_rebuilt_while_people_talk_and_the_old_disk_is_refused_for_ever",
    ),
    ("cluster add --address", "members.rs", "a_new_node_is_taken_in_and_another_one_taken_out"),
];
/// What the page says of `--force` in its text.
const FORCED: (&str, &str, &str) = (
    "cluster remove --force",
    "members.rs",
    "programs_are_answered_in_json_and_a_removal_that_is_forced_waits_until_a_majority_is_ready",
);
/// What says where, and not what: with or without it a command is the same one.
const WHERE: [&str; 3] = ["--config", "--listen", "--ready-file"];

fn root() -> PathBuf {
    rove_tests::folder().parent().expect("the folder of the workspace").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a line of a shell has `rove-server` do: its command, and its flags in alphabetical order.
fn command(line: &str) -> Option<String> {
    let line = line.split(" #").next()?;
    let arguments = line.trim_start().strip_prefix("rove-server ")?;
    let ends = |word: &&str| !word.starts_with(['|', '&', '>', '<', ';']) && !word.starts_with("2>");
    let words: Vec<&str> = arguments.split_whitespace().take_while(ends).collect();
    let depth = if ["cluster", "pki"].contains(words.first()?) { 2 } else { 1 };
    let flags: BTreeSet<&str> =
        words.iter().copied().filter(|word| word.starts_with("--") && !WHERE.contains(word)).collect();
    Some(words.into_iter().take(depth).chain(flags).collect::<Vec<_>>().join(" "))
}

fn commands<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    lines.filter_map(command).collect()
}

/// The lines of the page's blocks for a shell.
fn shell(page: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push(line),
            _ => {}
        }
    }
    lines
}

/// The body of a test.
fn body<'a>(source: &'a str, test: &str) -> &'a str {
    let (_, body) = source.split_once(&format!("async fn {test}()")).unwrap_or_else(|| panic!("no test {test}"));
    body.split_once("\n}\n").expect("it ends").0
}

#[test]
fn every_command_of_the_page_is_run_by_the_script_or_by_the_test_that_is_named() {
    let (page, script) = (read("docs/operations.md"), read("scripts/cluster.sh"));
    let on_page = shell(&page);
    let there = commands(on_page.iter().copied());
    let run = commands(script.lines());
    assert!(there.len() > 10 && run.len() > 10, "{there:?} {run:?}");
    let tested: BTreeSet<_> = IN_TESTS.iter().map(|(command, ..)| (*command).to_owned()).collect();
    assert_eq!(there, run.union(&tested).cloned().collect(), "on the page, and run");
    assert!(run.is_disjoint(&tested), "the script runs what is said to be run by a test");
    assert!(page.contains("`--force`"));
    for (command, file, test) in IN_TESTS.iter().chain([&FORCED]) {
        let source = read(Path::new("tests/e2e").join(file));
        let arguments = command.split(' ').skip(1).map(|argument| format!("\"{argument}\""));
        let body = body(&source, test);
        assert!(arguments.clone().all(|argument| body.contains(&argument)), "{test} does not run {command}");
    }
    // Nothing else is called than this.
    for line in on_page.iter().filter(|line| command(line).is_none()) {
        assert!(line.starts_with("curl ") && line.ends_with("/readyz"), "{line}");
        assert!(script.contains("curl ") && script.contains("/readyz"));
    }
}

#[test]
fn commands_are_told_from_each_other_by_their_flags_alone() {
    let same =
        ["rove-server cluster status --json --config a", "    rove-server cluster status --config \"$(b)\" --json >c"];
    for line in same {
        assert_eq!(command(line).as_deref(), Some("cluster status --json"));
    }
    assert_eq!(command("rove-server pki ca --out ca --cluster chat").as_deref(), Some("pki ca --cluster --out"));
    assert_eq!(command("rove-server serve --config a --ready-file b &").as_deref(), Some("serve"));
    assert_eq!(command("rove-server cluster add 4 --config a   # not --address").as_deref(), Some("cluster add"));
    assert_eq!(command("# rove-server serve").or(command("cargo build --package rove-server --bins")), None);
}

/// The texts in code in the first cells of the table that begins with `heading`.
fn first_cells<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, table) = page.split_once(heading).unwrap_or_else(|| panic!("no table {heading}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).expect("a cell"));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// Every source file of the server below `dir`, without its tests, and with texts that go over several lines put together.
fn sources(dir: &Path, found: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().map(str::trim_start) {
                match line.strip_suffix('\\') {
                    Some(goes_on) => found.push_str(goes_on),
                    None => found.extend([line, "\n"]),
                }
            }
        }
    }
}

#[test]
fn what_the_page_explains_is_what_the_server_says() {
    let page = read("docs/operations.md");
    let rows = first_cells(&page, "| in the log |");
    assert!(rows.len() > 15, "{rows:?}");
    let mut server = String::new();
    for dir in ["server/src", "server/core/src"] {
        sources(&root().join(dir), &mut server);
    }
    // Neither comments nor names say anything to an operator.
    let lines = server.lines().filter(|line| !line.starts_with("//"));
    let said: Vec<_> = lines.filter_map(|line| Some(line.split_once('"')?.1)).collect();
    let missing: Vec<_> = rows.into_iter().filter(|words| !said.iter().any(|text| text.contains(words))).collect();
    assert!(missing.is_empty(), "the page explains what the server never says: {missing:#?}");
}

/// The words of a text that begin with `prefix`.
fn words<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.len() > prefix.len() && word.starts_with(prefix)).collect()
}

#[test]
fn the_alarms_of_the_page_are_those_that_prometheus_is_given_and_each_is_made_to_fire() {
    let (page, rules, tests) = (read("docs/operations.md"), read("docs/alerts.yml"), read("docs/alerts-test.yml"));
    let alarms: BTreeSet<_> = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(alarms.len() > 10, "{alarms:?}");
    assert_eq!(words(&page, "Rove"), alarms, "on the page, and in the rules");
    assert_eq!(words(&tests, "Rove"), alarms, "made to fire, and in the rules");
    let expressions: String = rules.lines().filter(|line| line.trim_start().starts_with("expr: ")).collect();
    let told: BTreeSet<_> = first_cells(&page, "| metric (`/metrics`) |").into_iter().collect();
    let used = words(&expressions, "rove_");
    assert!(used.iter().all(|metric| told.contains(metric)), "{used:?}");
    assert!(told.iter().all(|cell| expressions.contains(cell) || *cell == "peer"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_page_is_served_by_a_node_of_a_cluster() {
    let page = read("docs/operations.md");
    let names = first_cells(&page, "| metric (`/metrics`) |");
    let names: Vec<_> = names.into_iter().filter(|name| name.starts_with("rove_")).collect();
    assert!(names.len() > 10, "{names:?}");
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let (status, text) = http3::get_text(cluster.node(1), "/metrics").await;
    assert_eq!(status, 200, "{text}");
    let served =
        |name: &&str| text.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let missing: Vec<_> = names.iter().filter(|name| !served(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in\n{text}");
}
