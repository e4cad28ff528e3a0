//! The node's threads: named, joined, and never silently gone.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::error::{FatalError, StartError};
use super::handle::{Phase, Shared};
use crate::panics::panic_text;

/// Failures that are kept for whoever asks: one thread's failure takes the others down, so the first is the one that matters.
const FAILURES: usize = 4;

/// When a thread is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Those that finish what was accepted.
    Pipeline,
    /// Those that may wait for an answer of the pipeline, or serve reads until the end.
    Helper,
}

/// Owns the threads.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    running: Vec<(Stage, Running)>,
    report: mpsc::Sender<FatalError>,
    failures: mpsc::Receiver<FatalError>,
    /// Dropped when helpers are to end.
    helpers: Option<Sender<()>>,
    end: Receiver<()>,
}

impl Supervisor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (report, failures) = mpsc::channel(FAILURES);
        let (helpers, end) = bounded(0);
        Self { shared, running: Vec::new(), report, failures, helpers: Some(helpers), end }
    }

    /// Disconnected when helpers are to end.
    pub(super) fn end(&self) -> Receiver<()> {
        self.end.clone()
    }

    /// Starts a thread. When it fails or panics the whole node stops at once: what it was doing is not done.
    pub(super) fn spawn(
        &mut self,
        stage: Stage,
        name: &'static str,
        work: impl FnOnce() -> Result<(), FatalError> + Send + 'static,
    ) -> Result<(), StartError> {
        let end = self.end_of(name);
        let thread = Builder::new()
            .name(format!("rove-{name}"))
            .spawn(move || end.reached(catch_unwind(AssertUnwindSafe(work))))
            .map_err(|source| StartError::Thread { name, source })?;
        self.running.push((stage, Running::Thread(thread)));
        Ok(())
    }

    /// Starts a task on `runtime`, which is as good as a thread: not one that is joined from the runtime's own thread.
    pub(super) fn spawn_on(
        &mut self,
        runtime: &Handle,
        stage: Stage,
        name: &'static str,
        work: impl Future<Output = Result<(), FatalError>> + Send + 'static,
    ) {
        let end = self.end_of(name);
        let (running, ended) = bounded(0);
        runtime.spawn(async move {
            end.reached(AssertUnwindSafe(work).catch_unwind().await);
            drop(running);
        });
        self.running.push((stage, Running::Task(ended)));
    }

    fn end_of(&self, name: &'static str) -> End {
        End { name, shared: Arc::clone(&self.shared), report: self.report.clone() }
    }

    /// The first failure; waits for it.
    pub(super) async fn failed(&mut self) -> FatalError {
        match self.failures.recv().await {
            Some(error) => error,
            // Not while this holds a sender of its own.
            None => std::future::pending().await,
        }
    }

    /// Waits until all threads have ended. Whoever still waits for an answer then learns that there is none.
    pub(super) fn join(&mut self) -> Result<(), FatalError> {
        self.join_stage(Stage::Pipeline);
        self.shared.tickets.abandon_all();
        self.helpers = None;
        self.join_stage(Stage::Helper);
        match self.failures.try_recv() {
            Ok(error) => Err(error),
            Err(_) => Ok(()),
        }
    }

    fn join_stage(&mut self, stage: Stage) {
        for (_, running) in self.running.extract_if(.., |(of, _)| *of == stage) {
            match running {
                // A panic has been caught and reported inside.
                Running::Thread(thread) => drop(thread.join()),
                // Nothing is ever sent: it is disconnected when the task has ended, or its runtime.
                Running::Task(ended) => drop(ended.recv()),
            }
        }
    }
}

/// A thread, or a task that takes the place of one.
enum Running {
    Thread(JoinHandle<()>),
    /// Disconnected when it has ended.
    Task(Receiver<Infallible>),
}

/// What is done at the end of a thread.
struct End {
    name: &'static str,
    shared: Arc<Shared>,
    report: mpsc::Sender<FatalError>,
}

impl End {
    fn reached(&self, result: std::thread::Result<Result<(), FatalError>>) {
        let name = self.name;
        let error = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => FatalError::Panicked { name, message: panic_text(panic.as_ref()) },
        };
        tracing::error!(thread = name, %error, "the node cannot go on: {}", error.advice());
        self.remember(&error);
        self.shared.killed.store(true, Ordering::Release);
        self.shared.enter(Phase::Stopping);
        // Full only if others failed first.
        let _ = self.report.try_send(error);
        self.shared.tickets.abandon_all();
    }
}

impl End {
    /// What the next start would not see by itself.
    fn remember(&self, error: &FatalError) {
        let FatalError::Replica { reason, .. } = error else { return };
        if reason.is_of_the_disk()
            && let Err(source) = self.shared.quarantine.mark(&error.to_string())
        {
            tracing::error!(error = %source, "it could not be written down that the data directory is not to be trusted");
        }
    }
}
