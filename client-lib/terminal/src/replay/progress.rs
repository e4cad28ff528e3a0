//! Says on standard error how far it is, and notices when nothing moves any more.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often a terminal is told.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a file is.
const LOG: Duration = Duration::from_secs(5);

/// How far it is. Clones are the same.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shown: bool,
    terminal: bool,
    patience: Duration,
    done: AtomicU64,
    total: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    stage: String,
    told: Option<Instant>,
    moved: Instant,
}

impl Progress {
    /// Shown or not; `patience` is how long nothing may move.
    pub fn new(shown: bool, patience: Duration) -> Self {
        Self(Arc::new(Inner {
            shown,
            terminal: std::io::stderr().is_terminal(),
            patience,
            done: AtomicU64::new(0),
            total: AtomicUsize::new(0),
            line: Mutex::new(Line { stage: String::new(), told: None, moved: Instant::now() }),
        }))
    }

    /// Something new begins, of so many steps; 0 if they are not counted.
    pub fn stage(&self, what: &str, total: usize) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
        {
            let mut line = self.0.line.lock();
            what.clone_into(&mut line.stage);
            line.moved = Instant::now();
            line.told = None;
        }
        self.tell(true);
    }

    /// Some steps more.
    pub fn step(&self, steps: u64) {
        if steps == 0 {
            return;
        }
        self.0.done.fetch_add(steps, Ordering::Relaxed);
        self.0.line.lock().moved = Instant::now();
        self.tell(false);
    }

    /// Waits until nothing has moved for too long.
    pub async fn stalled(&self) {
        self.silent(Duration::ZERO).await;
    }

    /// Waits until nothing has moved for too long and the longest silence there was to be.
    pub async fn silent(&self, longest: Duration) {
        loop {
            let end = self.0.line.lock().moved + self.0.patience + longest;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// It is over: the line is gone.
    pub fn done(&self) {
        if self.0.shown && self.0.terminal {
            eprint!("\r\x1b[K");
        }
    }

    fn tell(&self, new: bool) {
        if !self.0.shown {
            return;
        }
        let mut line = self.0.line.lock();
        let (done, total) = (self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed));
        let every = if self.0.terminal { REDRAW } else { LOG };
        let last = total > 0 && usize::try_from(done).unwrap_or(usize::MAX) >= total;
        let due = line.told.is_none_or(|told| told.elapsed() >= every);
        if !(new || due || last) {
            return;
        }
        line.told = Some(Instant::now());
        let count = if total > 0 { format!(" {done}/{total}") } else { String::new() };
        if self.0.terminal {
            eprint!("\r\x1b[K{}{count}", line.stage);
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("rove: {}{count}", line.stage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_stalled_when_nothing_moves_for_the_whole_patience() {
        let progress = Progress::new(false, Duration::from_secs(10));
        progress.stage("x", 3);
        let started = Instant::now();
        let mover = progress.clone();
        let (stalled, ()) = tokio::join!(
            async {
                progress.stalled().await;
                started.elapsed()
            },
            async move {
                tokio::time::sleep(Duration::from_secs(8)).await;
                mover.step(1);
            },
        );
        assert_eq!(stalled.as_secs(), 18);
    }
}
