//! What was not tested, said where somebody sees it.
//!
//! Test runners show nothing of a test that passes, and a test that returns early passes. So whoever runs all of them (`scripts/test.sh`)
//! names a file, and prints at the end what it finds there.

use std::fs::File;
use std::io::{self, Write as _};

/// Names the file.
const VARIABLE: &str = "ROVE_SKIPPED";

/// Says that `test`, or a part of it, was not run here, and why.
///
/// # Panics
/// If the file that the environment names cannot be written: that would be as good as silence.
pub fn skipped(test: &str, why: &str) {
    let line = format!("skipped  {test}: {why}\n");
    // Not by `eprint!`, which `cargo test` keeps to itself.
    let _ = io::stderr().write_all(line.as_bytes());
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else { return };
    // In one write: tests run beside each other.
    let said =
        File::options().create(true).append(true).open(&path).and_then(|mut file| file.write_all(line.as_bytes()));
    said.unwrap_or_else(|error| panic!("{VARIABLE} = {}: {error}", path.display()));
}
