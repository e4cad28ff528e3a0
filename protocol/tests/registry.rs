//! `spec/registry.toml` and the code say the same numbers.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use rove_protocol::ids;
use rove_protocol::limits;
use rove_protocol::registry::*;
use toml::Value;

const FILE: &str = include_str!("../../spec/registry.toml");
const REGISTRY_SOURCE: &str = include_str!("../src/registry.rs");
const LIMITS_SOURCE: &str = include_str!("../src/limits.rs");

fn file() -> toml::Table {
    FILE.parse().unwrap()
}

/// Value, name and meaning of each entry.
type Entries = Vec<(i64, String, String)>;

fn of_code<T: Copy>(all: &[(T, &str, &str)], value: impl Fn(T) -> u32) -> Entries {
    let tidy = |doc: &str| doc.split_whitespace().collect::<Vec<_>>().join(" ");
    all.iter().map(|(entry, name, doc)| (i64::from(value(*entry)), (*name).to_owned(), tidy(doc))).collect()
}

fn registries_of_code() -> BTreeMap<String, Entries> {
    macro_rules! tables {
        ($($name:ident),*) => {
            BTreeMap::from([$( (stringify!($name).to_owned(), of_code($name::ALL, |entry| entry.0)), )*])
        };
    }
    tables!(
        StreamType,
        FrameType,
        Method,
        ErrorCode,
        EventKind,
        PostExtension,
        ContentType,
        ConversationKind,
        Role,
        StreamMode,
        UnavailableReason,
        PresenceStatus,
        ClientState,
        Anchor
    )
}

fn registries_of_file() -> BTreeMap<String, Entries> {
    let file = file();
    let tables = file["registries"].as_table().unwrap();
    tables
        .iter()
        .map(|(name, table)| {
            let text = |entry: &Value, key| entry[key].as_str().unwrap().to_owned();
            let entries = table["values"].as_array().unwrap().iter();
            let entries = entries
                .map(|entry| (entry["value"].as_integer().unwrap(), text(entry, "name"), text(entry, "meaning")));
            (name.clone(), entries.collect())
        })
        .collect()
}

#[test]
fn every_registry_is_the_same_in_the_file_and_in_the_code() {
    assert_eq!(registries_of_file(), registries_of_code());
}

#[test]
fn no_registry_of_the_code_is_left_out_here() {
    let declared = REGISTRY_SOURCE.matches("\nregistry! {").count();
    assert_eq!(registries_of_code().len(), declared);
}

#[test]
fn every_registry_says_what_to_do_with_unknown_values() {
    for (name, table) in file()["registries"].as_table().unwrap() {
        assert!(table.get("unknown").and_then(Value::as_str).is_some_and(|rule| !rule.is_empty()), "{name}");
    }
}

fn limits_of_code() -> BTreeMap<String, u64> {
    macro_rules! all {
        ($($name:ident),* $(,)?) => {
            BTreeMap::from([$( (stringify!($name).to_owned(), u64::try_from(limits::$name).unwrap()), )*])
        };
    }
    all!(
        BODY,
        FRAME,
        FRAME_BEFORE_WELCOME,
        CREDIT_BEFORE_WELCOME,
        HELLO_DEADLINE_MS,
        FRAME_DEADLINE_MS,
        EXTENSIONS,
        LIST_ITEMS,
        CONVERSATION_STREAMS,
        FETCH_STREAMS,
        BIDI_STREAMS,
        UNANSWERED_POSTS,
        REQUESTS_IN_FLIGHT,
        FETCHES_IN_FLIGHT,
        INLINE_EVENT,
        REPLAY_QUEUE,
        PAGE_EVENTS,
        WATCHED_ACCOUNTS,
        DATAGRAM,
        HANDLE,
        TITLE,
        PASSWORD,
        PASSWORD_MIN,
        CLIENT_NAME,
        MEMBERS,
        MEMBERS_PER_REQUEST,
        MENTIONS,
        ACCOUNTS_PER_REQUEST,
        SECRET,
        RECEIPT_MEMBERS,
        TYPING_MEMBERS,
    )
}

#[test]
fn every_limit_is_the_same_in_the_file_and_in_the_code() {
    let of_file: BTreeMap<String, u64> = file()["limits"]
        .as_table()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), u64::try_from(value.as_integer().unwrap()).unwrap()))
        .collect();
    assert_eq!(of_file, limits_of_code());
}

#[test]
fn no_limit_of_the_code_is_left_out_here() {
    let declared = LIMITS_SOURCE.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let known = limits_of_code();
    for name in declared {
        assert!(known.contains_key(name), "{name}");
    }
}

#[test]
fn the_protocols_own_constants_are_the_same_in_the_file_and_in_the_code() {
    let file = file();
    let protocol = &file["protocol"];
    assert_eq!(protocol["alpn"].as_str().unwrap().as_bytes(), ALPN);
    assert_eq!(protocol["shards"].as_integer(), Some(i64::from(ids::SHARDS)));
    let grease = |key: &str| u64::try_from(protocol["grease"][key].as_integer().unwrap()).unwrap();
    let listed: Vec<u64> = (0..20).map(|n| grease("first") + n * grease("step")).collect();
    let found: Vec<u64> = (0..=*listed.last().unwrap()).filter(|value| is_grease(*value)).collect();
    assert_eq!(listed, found);
}

#[test]
fn the_extensions_of_a_message_are_numbers_of_a_registry() {
    let file = file();
    let registries = file["registries"].as_table().unwrap();
    for (message, registry) in file["extensions"].as_table().unwrap() {
        assert!(FrameType::ALL.iter().any(|(_, name, _)| name == message), "{message}");
        assert!(registries.contains_key(registry.as_str().unwrap()), "{message}");
    }
    // An event has the extensions of its post.
    assert_eq!(file["extensions"]["Post"], file["extensions"]["Event"]);
}
