//! Reads of the state and of the directory, on a few threads of their own so that a slow disk never holds up the edge's runtime.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use rove_core::directory::DirectoryRead;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{CallError, FatalError, StartError};
use super::handle::DIRECTORY;
use super::stats::NodeStats;
use super::supervisor::{Stage, Supervisor};
use crate::storage::directory::{DirectoryReader, DirectoryRows};
use crate::storage::state::StateDb;

/// Reads that may wait for a thread. A read takes tens of microseconds when cached: this is some tens of milliseconds of work.
const QUEUE: usize = 4_096;

type Job = Box<dyn FnOnce(&StateDb, &DirectoryRows<Box<Connection>>) + Send>;

/// What a thread of the pool reads with.
struct ReadContext {
    state: Arc<StateDb>,
    directory: DirectoryReader,
}

/// The pool, as callers see it.
pub(super) struct ReadPool {
    jobs: Sender<Job>,
}

/// Starts a thread for each reader of the directory. They serve until the very end of the node.
pub(super) fn start(
    supervisor: &mut Supervisor,
    state: &Arc<StateDb>,
    directories: Vec<DirectoryReader>,
    stats: &Arc<NodeStats>,
) -> Result<ReadPool, StartError> {
    let (jobs, queue) = bounded::<Job>(QUEUE);
    for directory in directories {
        let mut context = ReadContext { state: Arc::clone(state), directory };
        let (queue, end, stats) = (queue.clone(), supervisor.end(), Arc::clone(stats));
        supervisor.spawn(Stage::Helper, "read", move || run(&queue, &end, &mut context, &stats))?;
    }
    Ok(ReadPool { jobs })
}

fn run(
    queue: &Receiver<Job>,
    end: &Receiver<()>,
    context: &mut ReadContext,
    stats: &NodeStats,
) -> Result<(), FatalError> {
    loop {
        let job = select! {
            recv(queue) -> job => job,
            // Nothing is ever sent: it disconnects when the node has stopped.
            recv(end) -> _ => return Ok(()),
        };
        let Ok(job) = job else { return Ok(()) };
        let rows = context.directory.rows();
        let rows = rows.map_err(|error| FatalError::Apply { partition: DIRECTORY, message: error.to_string() })?;
        job(&context.state, rows);
        NodeStats::add(&stats.reads_done, 1);
        stats.reads_queued.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ReadPool {
    /// Runs `f` with the conversation state.
    pub(super) async fn state<T: Send + 'static>(
        &self,
        stats: &NodeStats,
        f: impl FnOnce(&StateDb) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.run(stats, move |state, _| f(state)).await
    }

    /// Runs `f` with the directory.
    pub(super) async fn directory<T: Send + 'static>(
        &self,
        stats: &NodeStats,
        f: impl FnOnce(&dyn DirectoryRead) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.run(stats, move |_, rows| f(rows)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        stats: &NodeStats,
        f: impl FnOnce(&StateDb, &DirectoryRows<Box<Connection>>) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |state, rows| {
            // A caller that went away needs no answer, nor the work.
            if !sender.is_closed() {
                let _ = sender.send(f(state, rows));
            }
        });
        stats.reads_queued.fetch_add(1, Ordering::Relaxed);
        match self.jobs.try_send(job) {
            Ok(()) => receiver.await.map_err(|_| CallError::Unknown),
            Err(refused) => {
                stats.reads_queued.fetch_sub(1, Ordering::Relaxed);
                Err(match refused {
                    TrySendError::Full(_) => CallError::ReadsBusy,
                    TrySendError::Disconnected(_) => CallError::NotProposed(super::ProposeError::Stopping),
                })
            }
        }
    }
}
