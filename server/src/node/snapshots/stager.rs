//! Stages what peers send beside the state there is: one snapshot of each partition at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;
use rove_core::replica::{PeerMessage, node_of};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::incoming::{Begun, Place, Request, Step};
use super::{SnapshotEvent, Snapshots, VERSION, Verdict};
use crate::cluster::{SnapshotHeader, SnapshotProgress};
use crate::node::stats::NodeStats;
use crate::storage::state::Staging;

/// How long what was cut off is kept for a sender that goes on: longer than it tries.
const KEPT: Duration = Duration::from_secs(60);

/// A snapshot that is coming in, or was cut off.
struct Staged {
    id: [u8; 16],
    ticket: u64,
    from: NodeId,
    message: PeerMessage,
    /// What it is said to have applied.
    index: u64,
    staging: Staging,
    progress: SnapshotProgress,
    receiver: Weak<()>,
    touched: Instant,
}

/// Owns everything that is staged and not yet taken.
pub(super) struct Stager {
    of: Snapshots,
    events: Sender<SnapshotEvent>,
    /// The replica thread is gone.
    stop: CancellationToken,
    staged: BTreeMap<PartitionId, Staged>,
    tickets: u64,
}

impl Stager {
    pub(super) fn new(of: Snapshots, events: Sender<SnapshotEvent>, stop: CancellationToken) -> Self {
        Self { of, events, stop, staged: BTreeMap::new(), tickets: 0 }
    }

    /// Serves until the replica thread is gone.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                request = requests.recv() => match request {
                    Some(request) => self.take(request.0).await,
                    // No transport: a node on its own.
                    None => return stop.cancelled().await,
                },
                () = tokio::time::sleep(KEPT), if !self.staged.is_empty() => self.forget_old(),
            }
        }
    }

    async fn take(&mut self, step: Step) {
        // Whoever asked may have gone.
        match step {
            Step::Offer { from, header, alive, reply } => {
                let begun = self.offer(from, &header, &alive);
                let _ = reply.send(begun);
            }
            Step::Restart { place, reply } => {
                let _ = reply.send(self.restart(place));
            }
            Step::Chunk { place, bytes, progress, reply } => {
                let _ = reply.send(self.chunk(place, &bytes, progress));
            }
            Step::Finish { place, reply } => {
                let finished = self.finish(place).await;
                let _ = reply.send(finished);
            }
        }
    }

    fn offer(&mut self, from: NodeId, header: &SnapshotHeader, alive: &Arc<()>) -> Result<Begun, String> {
        let partition = header.partition;
        let (message, index) = self.read(from, header)?;
        self.tickets += 1;
        let ticket = self.tickets;
        let staging = match self.staged.remove(&partition) {
            Some(other) if other.from != from && other.receiver.strong_count() > 0 => {
                let busy = format!("another one of the partition comes from node {}", other.from);
                self.staged.insert(partition, other);
                return Err(busy);
            }
            Some(other) if other.id == header.id => Some((other.staging, other.progress)),
            Some(other) => {
                self.discard(&other.staging);
                None
            }
            None => None,
        };
        let (staging, progress) = match staging {
            Some(kept) => kept,
            None => (self.of.state.stage(partition).map_err(|error| error.to_string())?, SnapshotProgress::default()),
        };
        tracing::info!(%partition, node = %from, index, chunks = progress.chunks, "a snapshot is coming in");
        let staged = Staged {
            id: header.id,
            ticket,
            from,
            message,
            index,
            staging,
            progress,
            receiver: Arc::downgrade(alive),
            touched: Instant::now(),
        };
        self.staged.insert(partition, staged);
        Ok(Begun { place: Place { partition, ticket }, have: progress })
    }

    /// What raft says with it, and the last index of it.
    fn read(&self, from: NodeId, header: &SnapshotHeader) -> Result<(PeerMessage, u64), String> {
        let partition = header.partition;
        if partition.0 == 0 || partition.0 > self.of.shared.partitions {
            return Err(format!("no snapshots of partition {partition} are taken"));
        }
        let Some((&VERSION, message)) = header.meta.split_first() else {
            return Err("a snapshot of another version".to_owned());
        };
        let message = PeerMessage::decode(message).map_err(|error| error.to_string())?;
        if node_of(message.from()) != from {
            return Err("it is not the sender's to give".to_owned());
        }
        let index = message.snapshot_index().ok_or("what comes with it is not about a snapshot")?;
        Ok((message, index))
    }

    fn at(&mut self, place: Place) -> Result<&mut Staged, String> {
        let staged = self.staged.get_mut(&place.partition).filter(|staged| staged.ticket == place.ticket);
        staged.ok_or_else(|| "another one has taken its place".to_owned())
    }

    fn restart(&mut self, place: Place) -> Result<(), String> {
        let fresh = self.of.state.stage(place.partition).map_err(|error| error.to_string())?;
        let staged = self.at(place)?;
        staged.progress = SnapshotProgress::default();
        let old = std::mem::replace(&mut staged.staging, fresh);
        self.discard(&old);
        Ok(())
    }

    fn chunk(&mut self, place: Place, bytes: &Bytes, progress: SnapshotProgress) -> Result<(), String> {
        let state = Arc::clone(&self.of.state);
        let staged = self.at(place)?;
        state.stage_chunk(&staged.staging, bytes).map_err(|error| error.to_string())?;
        staged.progress = progress;
        staged.touched = Instant::now();
        NodeStats::add(&self.of.shared.stats.snapshot_bytes_received, bytes.len() as u64);
        Ok(())
    }

    /// Everything is there: checks it, and lets raft decide.
    async fn finish(&mut self, place: Place) -> Result<(), String> {
        self.at(place)?;
        let Some(staged) = self.staged.remove(&place.partition) else { return Ok(()) };
        if let Err(why) = self.check(&staged) {
            self.discard(&staged.staging);
            return Err(why);
        }
        let (reply, verdict) = oneshot::channel();
        let Staged { from, message, staging, .. } = staged;
        let stopped = || "the node stops".to_owned();
        self.events.send(SnapshotEvent::Staged { from, message, staging, reply }).map_err(|_| stopped())?;
        let verdict = tokio::select! {
            verdict = verdict => verdict.map_err(|_| stopped())?,
            () = self.stop.cancelled() => return Err(stopped()),
        };
        match verdict {
            Verdict::Taken => Ok(()),
            Verdict::Useless(staging) => {
                tracing::info!(partition = %place.partition, node = %from, "a snapshot came that is not needed any more");
                self.discard(&staging);
                Ok(())
            }
            Verdict::Refused(staging, why) => {
                self.discard(&staging);
                Err(why)
            }
        }
    }

    /// It must be what it is said to be. Most of it is made durable here, so that the state writer, which does the rest, is not held up.
    fn check(&self, staged: &Staged) -> Result<(), String> {
        let found = self.of.state.staged_applied(&staged.staging).map_err(|error| error.to_string())?;
        if found != staged.index {
            return Err(format!("its state has applied {found}, and it says {}", staged.index));
        }
        self.of.state.flush().map_err(|error| error.to_string())
    }

    /// Nobody goes on with these any more.
    fn forget_old(&mut self) {
        let old = |staged: &Staged| staged.receiver.strong_count() == 0 && staged.touched.elapsed() >= KEPT;
        for (partition, staged) in std::mem::take(&mut self.staged) {
            if old(&staged) {
                tracing::warn!(%partition, node = %staged.from, "a snapshot was cut off and is given up");
                self.discard(&staged.staging);
            } else {
                self.staged.insert(partition, staged);
            }
        }
    }

    fn discard(&self, staging: &Staging) {
        if let Err(error) = self.of.state.discard(staging) {
            // What stays goes at the next start.
            tracing::warn!(partition = %staging.partition(), %error, "a staged snapshot could not be deleted");
        }
    }
}
