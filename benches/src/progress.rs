//! What is said on stderr while something takes long.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Lines come no more often than that: enough to see that it goes on.
const EVERY: Duration = Duration::from_secs(2);

/// How far something has come.
#[derive(Debug)]
pub struct Progress {
    what: String,
    said: Instant,
}

impl Progress {
    /// Of something that begins now; quick things say nothing.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), said: Instant::now() }
    }

    /// So far: `signing up: 120 of 500`. Says it if nothing was said for a while.
    pub fn at(&mut self, done: impl Display, of: impl Display) {
        if self.said.elapsed() >= EVERY {
            self.said = Instant::now();
            say(format_args!("{}: {done} of {of}", self.what));
        }
    }
}

/// Says something at once.
#[expect(clippy::print_stderr, reason = "this is what stderr is for")]
pub fn say(words: impl Display) {
    eprintln!("     {words}");
}
