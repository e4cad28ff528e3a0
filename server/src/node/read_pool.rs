//! Reads of the state and of the directory, on a few threads of their own so that a slow disk never holds up the edge's runtime.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rove_core::directory::DirectoryRead;
use tokio::sync::oneshot;

use super::error::{CallError, StartError};
use super::supervisor::Supervisor;
use super::stats::NodeStats;
use crate::storage::directory::DirectoryReader;
use crate::storage::state::StateDb;

/// Reads that may wait for a thread. A read takes tens of microseconds when cached: this is some tens of milliseconds of work.
const QUEUE: usize = 4_096;

type Job = Box<dyn FnOnce(&ReadContext) + Send>;

/// What a thread of the pool reads with.
struct ReadContext {
    state: Arc<StateDb>,
    directory: DirectoryReader,
}

/// The pool, as callers see it.
pub(super) struct ReadPool {
    jobs: Sender<Job>,
}

/// The pool's threads end when the last sender of jobs is gone.
pub(super) fn start(
    supervisor: &mut Supervisor,
    state: &Arc<StateDb>,
    directories: Vec<DirectoryReader>,
    stats: &Arc<NodeStats>,
) -> Result<ReadPool, StartError> {
    let (jobs, queue) = bounded::<Job>(QUEUE);
    for directory in directories {
        let context = ReadContext { state: Arc::clone(state), directory };
        let (queue, stats) = (queue.clone(), Arc::clone(stats));
        supervisor.spawn("read", move || {
            run(&queue, &context, &stats);
            Ok(())
        })?;
    }
    Ok(ReadPool { jobs })
}

fn run(queue: &Receiver<Job>, context: &ReadContext, stats: &NodeStats) {
    for job in queue {
        job(context);
        NodeStats::add(&stats.reads_done, 1);
        stats.reads_queued.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl ReadPool {
    /// Runs `f` with the conversation state.
    pub(super) async fn state<T: Send + 'static>(
        &self,
        stats: &NodeStats,
        f: impl FnOnce(&StateDb) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.run(stats, move |context| f(&context.state)).await
    }

    /// Runs `f` with the directory.
    pub(super) async fn directory<T: Send + 'static>(
        &self,
        stats: &NodeStats,
        f: impl FnOnce(&dyn DirectoryRead) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.run(stats, move |context| f(&context.directory)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        stats: &NodeStats,
        f: impl FnOnce(&ReadContext) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |context| {
            // A caller that went away needs no answer, nor the work.
            if !sender.is_closed() {
                let _ = sender.send(f(context));
            }
        });
        stats.reads_queued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match self.jobs.try_send(job) {
            Ok(()) => receiver.await.map_err(|_| CallError::Unknown),
            Err(refused) => {
                stats.reads_queued.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                Err(match refused {
                    TrySendError::Full(_) => CallError::ReadsBusy,
                    TrySendError::Disconnected(_) => CallError::NotProposed(super::ProposeError::Stopping),
                })
            }
        }
    }
}
