//! The documents in `spec/` say what the code says: the tables of fields, and the list of requirements and their tests.
#![allow(
    clippy::disallowed_methods,
    clippy::wildcard_imports,
    clippy::unwrap_used,
    reason = "every message is meant; a test may panic and reads files"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::annotate::Fields;
use common::entropy::{Entropy, Make};
use rove_protocol::message::*;
use rove_protocol::registry::{FrameType, Method};

fn root() -> PathBuf {
    // At run time: a build shared by several clones may have been compiled in another one.
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join("spec").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Field and type of each field.
type Table = Vec<(String, String)>;

fn tables_of_code() -> BTreeMap<String, Table> {
    fn table<T: Make + Fields>() -> Table {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let fields = T::make(&mut Entropy::new(&[])).fields();
        fields.iter().map(|field| (text(&field["name"]), text(&field["type"]))).collect()
    }
    macro_rules! tables {
        ($($type:ident),* $(,)?) => {
            BTreeMap::from([$( (stringify!($type).to_owned(), table::<$type>()), )*])
        };
    }
    tables!(
        Hello,
        Welcome,
        Limits,
        Request,
        Response,
        GoAway,
        Suspend,
        Closed,
        InboxOpen,
        InboxLine,
        InboxSynced,
        Open,
        Opened,
        Event,
        Unavailable,
        Post,
        Posted,
        Refused,
        Mark,
        Receipt,
        Fetch,
        Page,
        Heartbeat,
        HeartbeatAck,
        Presence,
        Typing,
        CreateDirect,
        CreateGroup,
        ChangeMembers,
        GetConversation,
        FindAccounts,
        GetAccounts,
        Watch,
        ConversationInfo,
        Accounts,
        Created,
        MembersChanged,
        SettingsChanged,
        Alternative,
        PartitionCursor,
        MemberChange,
        MemberInfo,
        AccountRef,
        HandleRef,
        AccountInfo,
        PresenceItem,
    )
}

/// The headings of the third level and, under each, the rows of its table.
fn tables_of_document() -> Vec<(String, Table)> {
    let mut tables: Vec<(String, Table)> = Vec::new();
    for line in document("messages.md").lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            tables.push((heading.to_owned(), Table::new()));
        } else if line.starts_with("## ") {
            tables.push((String::new(), Table::new()));
        } else if let (Some(row), Some((_, table))) = (line.strip_prefix("| `"), tables.last_mut()) {
            let (field, rest) = row.split_once("` | `").unwrap_or_default();
            let (kind, meaning) = rest.split_once("` | ").unwrap_or_default();
            table.push((field.to_owned(), kind.to_owned()));
            assert!(meaning.len() > 2 || field.is_empty(), "{field} has no meaning");
        }
    }
    tables.retain(|(heading, _)| !heading.is_empty());
    tables
}

#[test]
fn the_tables_of_fields_are_those_of_the_code() {
    let of_document: BTreeMap<String, Table> = tables_of_document()
        .into_iter()
        .map(|(heading, table)| (heading.split(' ').next().unwrap().to_owned(), table))
        .collect();
    assert_eq!(of_document, tables_of_code());
}

#[test]
fn the_headings_name_the_numbers_of_frames_and_methods() {
    let headings: BTreeSet<String> = tables_of_document().into_iter().map(|(heading, _)| heading).collect();
    for (frame_type, name, _) in FrameType::ALL {
        assert!(headings.contains(&format!("{name} ({:#04x})", frame_type.0)), "{name}");
    }
    for (method, name, _) in Method::ALL {
        assert!(headings.contains(&format!("{name} (method {:#04x})", method.0)), "{name}");
    }
}

/// The documents with requirements, in their order.
const DOCUMENTS: [&str; 6] = ["framing.md", "streams.md", "messages.md", "errors.md", "conversations.md", "http.md"];

/// The ids of requirements, in the order of the documents.
fn requirements() -> Vec<String> {
    let mut found = Vec::new();
    for name in DOCUMENTS {
        for line in document(name).lines() {
            let Some(rest) = line.trim_start().strip_prefix("- **ROVE-") else { continue };
            found.push(format!("ROVE-{}", rest.split("**").next().unwrap()));
        }
    }
    found
}

/// Requirement and what proves it.
fn conformance() -> Vec<(String, String)> {
    let rows = document("conformance.md");
    let rows = rows.lines().filter_map(|line| line.strip_prefix("| ROVE-")?.strip_suffix(" |"));
    rows.map(|row| {
        let (id, proof) = row.split_once(" | ").unwrap();
        (format!("ROVE-{id}"), proof.to_owned())
    })
    .collect()
}

/// The names in backticks.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_requirement_has_an_id_of_its_own_and_its_number_continues_its_section() {
    let mut last = BTreeMap::new();
    for id in requirements() {
        let (section, number) = id.rsplit_once('-').unwrap();
        let before = last.insert(section.to_owned(), number.parse::<u32>().unwrap()).unwrap_or(0);
        assert_eq!(before + 1, number.parse::<u32>().unwrap(), "{id}");
    }
}

#[test]
fn every_requirement_is_a_must() {
    for name in DOCUMENTS {
        let text = document(name);
        for requirement in text.split("- **ROVE-").skip(1) {
            let sentence = requirement.split("\n\n").next().unwrap();
            assert!(sentence.contains("MUST"), "{name}: {sentence}");
        }
    }
}

#[test]
fn every_requirement_is_in_the_conformance_list_once_and_in_order() {
    let listed: Vec<String> = conformance().into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed, requirements());
}

/// The names of all tests in the tree.
fn tests() -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let mut is_test = false;
                for line in std::fs::read_to_string(&path).unwrap_or_default().lines().map(str::trim_start) {
                    let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                    if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                        is_test = true;
                    } else if let (true, Some(rest)) = (is_test, declared) {
                        found.extend(rest.split(['(', '<']).next().map(str::to_owned));
                        is_test = false;
                    } else if !line.starts_with("#[") && !line.starts_with("//") {
                        is_test = false;
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&root(), &mut found);
    found
}

#[test]
fn every_test_in_the_conformance_list_exists() {
    let tests = tests();
    for (id, proof) in conformance() {
        for name in names(&proof) {
            assert!(tests.contains(name), "{id}: there is no {name}");
        }
        assert!(proof == "not proved yet" || names(&proof).next().is_some(), "{id}: {proof}");
    }
}

#[test]
fn every_test_with_the_number_of_a_requirement_is_listed_there() {
    let listed: BTreeMap<String, String> = conformance().into_iter().collect();
    for name in tests().iter().filter(|name| name.starts_with("rove_")) {
        let parts: Vec<&str> = name.split('_').collect();
        let [_, document, section, number, ..] = parts[..] else { continue };
        if [document, section, number].iter().any(|part| part.parse::<u32>().is_err()) {
            continue;
        }
        let id = format!("ROVE-{document}.{section}-{number}");
        let proof = listed.get(&id).unwrap_or_else(|| panic!("{name} proves {id}, which there is not"));
        assert!(names(proof).any(|listed| listed == name), "{name} is not listed at {id}");
    }
}
