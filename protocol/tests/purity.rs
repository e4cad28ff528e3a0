//! The cores are pure because they cannot be otherwise: they lack the dependencies, and clippy forbids the rest.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and reads the tree")]

use std::path::{Path, PathBuf};

/// The folders of the cores.
const CORES: [&str; 3] = ["protocol", "server/core", "client-lib/core"];
/// What no core may depend on, not even for its tests' sake: I/O, time, threads, randomness.
const IMPURE: [&str; 12] = [
    "tokio",
    "futures",
    "quinn",
    "rustls",
    "rocksdb",
    "raft-engine",
    "rusqlite",
    "rand",
    "getrandom",
    "socket2",
    "chrono",
    "reqwest",
];

fn root() -> PathBuf {
    // At run time: a build shared by several clones may have been compiled in another one.
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_core_forbids_the_same_methods() {
    let bans = read("protocol/clippy.toml");
    assert!(bans.contains("std::time::Instant::now"));
    for core in CORES {
        assert_eq!(read(&format!("{core}/clippy.toml")), bans, "{core}");
    }
}

#[test]
fn no_core_depends_on_anything_that_has_a_clock_a_socket_a_disk_a_thread_or_randomness() {
    for core in CORES {
        let manifest: toml::Table = read(&format!("{core}/Cargo.toml")).parse().unwrap();
        for section in ["dependencies", "dev-dependencies"] {
            for name in manifest.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys) {
                assert!(!IMPURE.contains(&name.as_str()), "{core} has {name} among its {section}");
            }
        }
    }
}

#[test]
fn every_core_keeps_the_workspaces_lints() {
    for core in CORES {
        let manifest: toml::Table = read(&format!("{core}/Cargo.toml")).parse().unwrap();
        assert_eq!(manifest["lints"]["workspace"], toml::Value::Boolean(true), "{core}");
    }
}
