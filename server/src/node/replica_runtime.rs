//! The replica thread's runtime, which the transport between nodes runs on as well.
//!
//! What a peer says is read, stepped through its replica and answered on one thread: each post costs several such rounds, and at low
//! rates most of what a round costs is waking a thread. And as sessions are elsewhere, however many there are, no heartbeat waits
//! behind them.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::error::StartError;

const NAME: &str = "replicas";

/// A thread with a runtime of its own. Dropping it ends both, and what still runs there: not from a task of it.
#[derive(Debug)]
pub struct ReplicaRuntime {
    handle: Handle,
    /// Dropped when it is to end.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ReplicaRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`StartError::Thread`].
    pub fn start() -> Result<Self, StartError> {
        let failed = |source: io::Error| StartError::Thread { name: NAME, source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (running, end) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(format!("rove-{NAME}")).spawn(move || {
            // Nothing is ever sent.
            let _ = runtime.block_on(end);
            // Names that are being looked up have nobody to tell.
            runtime.shutdown_background();
        });
        Ok(Self { handle, running: Some(running), thread: Some(thread.map_err(failed)?) })
    }

    /// Where to start tasks.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for ReplicaRuntime {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // A task's panic is the task's; nothing else runs there.
            let _ = thread.join();
        }
    }
}
