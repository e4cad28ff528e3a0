//! The node's threads: named, joined, and never silently gone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::mpsc;

use super::error::{FatalError, StartError};
use super::handle::{Phase, Shared};

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
    threads: Vec<(Stage, JoinHandle<()>)>,
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
        Self { shared, threads: Vec::new(), report, failures, helpers: Some(helpers), end }
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
        let (shared, report) = (Arc::clone(&self.shared), self.report.clone());
        let handle = Builder::new()
            .name(format!("rove-{name}"))
            .spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(work));
                let error = match result {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error,
                    Err(panic) => FatalError::Panicked { name, message: message(panic.as_ref()) },
                };
                tracing::error!(thread = name, %error, "the node cannot go on");
                shared.killed.store(true, Ordering::Release);
                shared.enter(Phase::Stopping);
                // Full only if others failed first.
                let _ = report.try_send(error);
                shared.tickets.abandon_all();
            })
            .map_err(|source| StartError::Thread { name, source })?;
        self.threads.push((stage, handle));
        Ok(())
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
        for (_, handle) in self.threads.extract_if(.., |(of, _)| *of == stage) {
            // A panic has been caught and reported inside.
            let _ = handle.join();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "(no message)".to_owned()
    }
}
