//! Helpers with names, so that a test reads like a story: a real server in a directory of its own, and people.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::print_stderr,
    reason = "a helper of tests fails the test when what it needs is not there"
)]

pub mod certificates;
pub mod cluster;
pub mod http3;
pub mod people;
pub mod raw;
pub mod server;
pub mod skips;
pub mod talk;

pub use cluster::Cluster;
pub use people::{alice_and_bob, sign_up};
pub use server::{Server, Starting};
pub use skips::skipped;

use std::future::Future;
use std::time::Duration;

/// How long any single condition may take before a test gives up. Generous: a busy machine is not a bug.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits `future`, or fails naming what never happened.
///
/// # Panics
/// If it takes longer than [`PATIENCE`].
pub async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("{what} did not happen within {PATIENCE:?}"))
}

/// The folder of this crate. Looked up at run time: a build shared by several clones may have been compiled in another.
///
/// # Panics
/// If the test is not run by cargo.
pub fn folder() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests").into()
}
