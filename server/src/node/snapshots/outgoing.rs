//! Sends the state of a partition to a peer that needs it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures::future::{BoxFuture, ready};
use rove_core::replica::{GroupMember, node_of};
use rove_protocol::ids::PartitionId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::states::Chunks;
use super::{SENT_AT_ONCE, SnapshotEvent, Snapshots, VERSION, runtime};
use crate::cluster::{SnapshotError, SnapshotHeader, SnapshotSource};
use crate::node::error::StartError;
use crate::node::stats::NodeStats;
use crate::node::supervisor::{Stage, Supervisor};

/// How often a snapshot is sent on from where it was cut off, before another is captured.
const TRIES: u32 = 40;

/// Between two tries. All of them together are longer than it takes to connect again, or a peer to restart.
const PAUSE: Duration = Duration::from_millis(250);

/// Somebody needs a snapshot.
pub(in crate::node) struct Job {
    pub(super) partition: PartitionId,
    pub(super) to: GroupMember,
    pub(super) stop: CancellationToken,
}

/// Starts the threads that send. They end with the replica thread.
pub(super) fn start(
    supervisor: &mut Supervisor,
    of: &Snapshots,
    events: &mpsc::Sender<SnapshotEvent>,
) -> Result<Sender<Job>, StartError> {
    let (jobs, queue) = bounded::<Job>(SENT_AT_ONCE);
    for _ in 0..SENT_AT_ONCE {
        let sender = Outgoing { of: of.clone(), events: events.clone() };
        let (queue, runtime): (Receiver<Job>, _) = (queue.clone(), runtime("snapshots-out")?);
        supervisor.spawn(Stage::Pipeline, "snapshots-out", move || {
            queue.into_iter().for_each(|job| runtime.block_on(sender.run(&job)));
            Ok(())
        })?;
    }
    Ok(jobs)
}

struct Outgoing {
    of: Snapshots,
    events: mpsc::Sender<SnapshotEvent>,
}

impl Outgoing {
    async fn run(&self, job: &Job) {
        let (partition, to) = (job.partition, job.to);
        let begun = Instant::now();
        let result = tokio::select! {
            result = self.send(job) => result,
            () = job.stop.cancelled() => Err("it is not wanted any more".to_owned()),
        };
        match &result {
            Ok((index, bytes)) => {
                NodeStats::add(&self.of.shared.stats.snapshots_sent, 1);
                let took = begun.elapsed();
                tracing::info!(%partition, node = %node_of(to), index, bytes, ?took, "a snapshot was sent");
            }
            // It is wanted again, if it still is.
            Err(error) => {
                NodeStats::add(&self.of.shared.stats.snapshots_failed, 1);
                tracing::warn!(%partition, node = %node_of(to), error, "a snapshot was not sent");
            }
        }
        // Nobody listens only when the node has stopped.
        let _ = self.events.send(SnapshotEvent::Sent { partition, to, ok: result.is_ok() }).await;
    }

    /// The index of what was sent, and its bytes.
    async fn send(&self, job: &Job) -> Result<(u64, u64), String> {
        let (partition, node) = (job.partition, node_of(job.to));
        let capture = self.of.capture(partition)?;
        let index = capture.applied();
        let (reply, message) = oneshot::channel();
        let captured = SnapshotEvent::Captured { partition, to: job.to, index, reply };
        let stopped = || "the node stops".to_owned();
        self.events.send(captured).await.map_err(|_| stopped())?;
        let message = message.await.map_err(|_| stopped())??;
        tracing::info!(%partition, %node, index, "the node lacks what the log no longer has: it is sent a snapshot");
        let mut meta = vec![VERSION];
        meta.extend(message.encode().map_err(|error| error.to_string())?);
        let header = SnapshotHeader { partition, id: rand::random(), meta: meta.into() };
        let chunks = capture.chunks(&job.stop)?;
        let mut source = Source { chunks, stats: &self.of.shared.stats, bytes: 0 };
        let mut tries = TRIES;
        loop {
            match self.of.peers.send_snapshot(node, header.clone(), &mut source).await {
                Ok(()) => return Ok((index, source.bytes)),
                Err(error) => {
                    let passes =
                        matches!(error, SnapshotError::Lost(_) | SnapshotError::Unlinked | SnapshotError::Busy);
                    if !passes || tries == 0 {
                        return Err(error.to_string());
                    }
                    tracing::debug!(%partition, %node, %error, "a snapshot is sent on");
                    tries -= 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Reads chunks as they are asked for: memory for one.
struct Source<'a> {
    chunks: Chunks<'a>,
    stats: &'a NodeStats,
    /// Read for the peer so far, what was read again included.
    bytes: u64,
}

impl SnapshotSource for Source<'_> {
    fn chunk(&mut self, number: u64) -> BoxFuture<'_, std::io::Result<Option<Bytes>>> {
        // Blocks: it is polled on the sender's own thread.
        let chunk = self.chunks.chunk(number);
        if let Ok(Some(bytes)) = &chunk {
            self.bytes += bytes.len() as u64;
            NodeStats::add(&self.stats.snapshot_bytes_sent, bytes.len() as u64);
        }
        Box::pin(ready(chunk))
    }
}
