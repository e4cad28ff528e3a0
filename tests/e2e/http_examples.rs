//! The examples of `spec/http.md`, run as they are written there, in one shell, against a real server: each request must
//! succeed with the status of the document's table, and each answer must have the shape the document shows.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails when what it needs is not there")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use rove_tests::Server;
use serde_json::Value;

/// What stands between two lines of backticks.
struct Block {
    language: String,
    text: String,
}

fn document() -> String {
    let path = rove_tests::folder().join("../spec/http.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut parts = document.split("```");
    while let (Some(_), Some(code)) = (parts.next(), parts.next()) {
        let (language, text) = code.split_once('\n').expect("a block has lines");
        blocks.push(Block { language: language.to_owned(), text: text.to_owned() });
    }
    blocks
}

/// Method, path and status of each line of the table in 7.1.
fn table(document: &str) -> Vec<(String, String, u16)> {
    let mut rows = Vec::new();
    for line in document.lines() {
        let Some((method, rest)) = line.strip_prefix("| `").and_then(|rest| rest.split_once(' ')) else { continue };
        let (Some((path, _)), Some(cell)) = (rest.split_once("` |"), line.trim_end_matches(" |").rsplit("| ").next())
        else {
            continue;
        };
        if let ("GET" | "POST" | "DELETE", Some(Ok(status))) = (method, cell.get(..3).map(str::parse)) {
            rows.push((method.to_owned(), path.to_owned(), status));
        }
    }
    rows
}

/// Runs before the examples: notes the arguments and the status line of each request.
const NOTE_REQUESTS: &str = r#"
set -eu -o pipefail
curl() {
    local head; head=$(mktemp head.XXXXXX)
    command curl --dump-header "$head" "$@"
    printf '%s\t%s\n' "$(head -n 1 "$head" | tr -d '\r')" "$*" >>requests
}
"#;

/// Runs the shell blocks; what each printed, in order.
fn run(server: &Server, version: &str, dir: &Path, shell: &[&Block]) -> Vec<String> {
    let mut script = NOTE_REQUESTS.to_owned();
    for (index, block) in shell.iter().enumerate() {
        writeln!(script, "exec >printed.{index}\n{}", block.text).expect("memory");
    }
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(dir)
        .env("ROVE", format!("https://{}", server.https))
        .env("HTTP", version)
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = |index| std::fs::read_to_string(dir.join(format!("printed.{index}"))).expect("it was printed");
    (0..shell.len()).map(printed).collect()
}

/// Members and types, all the way down; of a list, its first item's.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => items.first().map(shape).into_iter().collect(),
        Value::String(_) => "string".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => Value::Null,
    }
}

/// What a block prints, or writes to the file its last command names.
fn answer(dir: &Path, block: &Block, printed: &str) -> Value {
    let file = block
        .text
        .trim_end()
        .rsplit('>')
        .next()
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "json"));
    let text = file.map_or_else(|| printed.to_owned(), |name| std::fs::read_to_string(dir.join(name)).expect("a file"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}, the answer to\n{}", block.text))
}

/// Method and path of a request noted by [`NOTE_REQUESTS`].
fn request(server: &Server, arguments: &str) -> (String, String) {
    let words: Vec<&str> = arguments.split(' ').collect();
    let named = words.iter().position(|word| *word == "--request").map(|at| words[at + 1]);
    let method = named.unwrap_or(if words.contains(&"--data") { "POST" } else { "GET" });
    let url = words.iter().find_map(|word| word.strip_prefix(&format!("https://{}", server.https))).expect("a URL");
    (method.to_owned(), url.split('?').next().expect("a path").to_owned())
}

/// Whether `path` is that of the table, where `{id}` is anything.
fn is_at(path: &str, row: &str) -> bool {
    let (path, row): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), row.split('/').collect());
    path.len() == row.len() && path.iter().zip(&row).all(|(part, named)| named.starts_with('{') || part == named)
}

#[test]
fn every_example_of_the_http_document_runs_as_written() {
    if !Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success()) {
        rove_tests::skipped("every_example_of_the_http_document_runs_as_written", "curl does not run here");
        return;
    }
    let document = document();
    let (blocks, table) = (blocks(&document), table(&document));
    let shell: Vec<&Block> = blocks.iter().filter(|block| block.language == "sh").collect();
    assert!(shell.len() > 8 && table.len() > 10, "the examples and the table are found");
    for version in ["--http1.1", "--http2"] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path());
        let dir = folder.path().join("examples");
        std::fs::create_dir(&dir).unwrap();
        let printed = run(&server, version, &dir, &shell);

        // The document shows an answer right after the commands that get it.
        let (mut at, mut answers) = (None, 0);
        for block in &blocks {
            match block.language.as_str() {
                "sh" => at = Some(at.map_or(0, |at| at + 1)),
                "json" if !block.text.starts_with("{\"error\"") => {
                    let at: usize = at.expect("commands come first");
                    let shown: Value = serde_json::from_str(&block.text).expect("JSON");
                    assert_eq!(shape(&answer(&dir, shell[at], &printed[at])), shape(&shown), "{}", shell[at].text);
                    answers += 1;
                }
                other => assert_eq!(other, "json", "an example of its own kind"),
            }
        }
        assert!(answers >= 3, "{answers} answers");

        // And what is printed, in a comment behind the command.
        for (block, printed) in shell.iter().zip(&printed).skip(1) {
            for comment in block.text.lines().filter_map(|line| line.split_once("   # ").map(|(_, comment)| comment)) {
                let first = comment.split([',', ' ']).next().expect("a word");
                assert!(printed.lines().any(|line| line == first), "{comment:?} is not in {printed:?}");
            }
        }

        let requests = std::fs::read_to_string(dir.join("requests")).unwrap();
        let mut made = BTreeSet::new();
        for line in requests.lines() {
            let (status_line, arguments) = line.split_once('\t').expect("a status and arguments");
            let (method, path) = request(&server, arguments);
            let row = table.iter().position(|(named, row, _)| *named == method && is_at(&path, row));
            let row = row.unwrap_or_else(|| panic!("{method} {path} is not in the table"));
            let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
            assert_eq!(status, Some(table[row].2), "{method} {path}");
            made.insert(row);
        }
        assert_eq!(made.len(), table.len(), "each line of the table has an example");
    }
}

#[test]
fn the_error_of_the_http_document_is_the_one_that_comes() {
    let document = document();
    let shown = blocks(&document).into_iter().find(|block| block.text.starts_with("{\"error\"")).expect("an error");
    let shown: Value = serde_json::from_str(&shown.text).expect("JSON");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let account = serde_json::json!({ "handle": "alice", "password": rove_tests::people::PASSWORD });
    let sign_up = || runtime.block_on(Box::pin(rove_tests::http3::post(&server, "/v1/sign-up", &account)));
    assert_eq!(sign_up().0, 201);
    assert_eq!(sign_up(), (409, shown));
}
