//! Stages what peers send beside the state there is: one snapshot of each partition at a time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rove_core::replica::{PeerMessage, node_of};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::incoming::{Begun, Place, Request, Step};
use super::{SnapshotEvent, Snapshots, Staged, VERSION, Verdict};
use crate::cluster::{SnapshotHeader, SnapshotProgress};
use crate::node::stats::NodeStats;

/// How long what was cut off is kept for a sender that goes on: longer than it tries.
const KEPT: Duration = Duration::from_secs(60);

/// Why nothing is staged now. Raft asks for it again.
const NO_ROOM: &str = "the disk is almost full: it is taken when there is room again";

/// A snapshot that is coming in, or was cut off.
struct Incoming {
    id: [u8; 16],
    ticket: u64,
    from: NodeId,
    message: Box<PeerMessage>,
    /// What it is said to have applied.
    index: u64,
    staged: Staged,
    progress: SnapshotProgress,
    receiver: Weak<()>,
    touched: Instant,
}

/// Owns everything that is staged and not yet taken.
pub(super) struct Stager {
    of: Snapshots,
    events: mpsc::Sender<SnapshotEvent>,
    /// The replica thread is gone.
    stop: CancellationToken,
    incoming: BTreeMap<PartitionId, Incoming>,
    tickets: u64,
}

impl Stager {
    pub(super) fn new(of: Snapshots, events: mpsc::Sender<SnapshotEvent>, stop: CancellationToken) -> Self {
        Self { of, events, stop, incoming: BTreeMap::new(), tickets: 0 }
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
                () = tokio::time::sleep(KEPT), if !self.incoming.is_empty() => self.forget_old(),
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

    /// A state is staged beside the one there is, and how large it becomes is seen only when it is there: below the reserve nothing
    /// more of it is taken, and what has come is deleted. A disk that is really full would stop the node.
    fn room(&mut self, partition: PartitionId) -> Result<(), String> {
        if !self.of.shared.stats.disk_low.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(incoming) = self.incoming.remove(&partition) {
            self.of.discard(incoming.staged);
        }
        Err(NO_ROOM.to_owned())
    }

    fn offer(&mut self, from: NodeId, header: &SnapshotHeader, alive: &Arc<()>) -> Result<Begun, String> {
        self.room(header.partition)?;
        let partition = header.partition;
        let (message, index) = self.read(from, header)?;
        self.tickets += 1;
        let ticket = self.tickets;
        let kept = match self.incoming.remove(&partition) {
            Some(other) if other.from != from && other.receiver.strong_count() > 0 => {
                let busy = format!("another one of the partition comes from node {}", other.from);
                self.incoming.insert(partition, other);
                return Err(busy);
            }
            Some(other) if other.id == header.id => Some((other.staged, other.progress)),
            Some(other) => {
                self.of.discard(other.staged);
                None
            }
            None => None,
        };
        let (staged, progress) = match kept {
            Some(kept) => kept,
            None => (self.of.stage(partition)?, SnapshotProgress::default()),
        };
        tracing::info!(%partition, node = %from, index, chunks = progress.chunks, "a snapshot is coming in");
        let (receiver, touched) = (Arc::downgrade(alive), Instant::now());
        let incoming = Incoming { id: header.id, ticket, from, message, index, staged, progress, receiver, touched };
        self.incoming.insert(partition, incoming);
        Ok(Begun { place: Place { partition, ticket }, have: progress })
    }

    /// What raft says with it, and the last index of it.
    fn read(&self, from: NodeId, header: &SnapshotHeader) -> Result<(Box<PeerMessage>, u64), String> {
        let partition = header.partition;
        if partition.0 > self.of.shared.partitions {
            return Err(format!("there is no partition {partition}"));
        }
        let Some((&VERSION, message)) = header.meta.split_first() else {
            return Err("a snapshot of another version".to_owned());
        };
        let message = PeerMessage::decode(message).map_err(|error| error.to_string())?;
        if node_of(message.from()) != from {
            return Err("it is not the sender's to give".to_owned());
        }
        let index = message.snapshot_index().ok_or("what comes with it is not about a snapshot")?;
        Ok((Box::new(message), index))
    }

    fn at(&mut self, place: Place) -> Result<&mut Incoming, String> {
        let incoming = self.incoming.get_mut(&place.partition).filter(|incoming| incoming.ticket == place.ticket);
        incoming.ok_or_else(|| "another one has taken its place".to_owned())
    }

    fn restart(&mut self, place: Place) -> Result<(), String> {
        self.at(place)?;
        let fresh = self.of.stage(place.partition)?;
        let incoming = self.at(place)?;
        incoming.progress = SnapshotProgress::default();
        let old = std::mem::replace(&mut incoming.staged, fresh);
        self.of.discard(old);
        Ok(())
    }

    fn chunk(&mut self, place: Place, bytes: &Bytes, progress: SnapshotProgress) -> Result<(), String> {
        let of = self.of.clone();
        self.at(place)?;
        self.room(place.partition)?;
        let incoming = self.at(place)?;
        if let Err(why) = of.write(&mut incoming.staged, bytes) {
            // Nobody knows how much of it was written: the next try begins anew.
            self.incoming.remove(&place.partition).into_iter().for_each(|incoming| of.discard(incoming.staged));
            return Err(why);
        }
        incoming.progress = progress;
        incoming.touched = Instant::now();
        NodeStats::add(&of.shared.stats.snapshot_bytes_received, bytes.len() as u64);
        Ok(())
    }

    /// Everything is there: checks it, and lets raft decide.
    async fn finish(&mut self, place: Place) -> Result<(), String> {
        self.at(place)?;
        let Some(incoming) = self.incoming.remove(&place.partition) else { return Ok(()) };
        let Incoming { from, message, index, staged, .. } = incoming;
        if let Err(why) = self.of.check(&staged, index) {
            self.of.discard(staged);
            return Err(why);
        }
        let (reply, verdict) = oneshot::channel();
        let stopped = || "the node stops".to_owned();
        let event = SnapshotEvent::Staged { from, message, staged, reply };
        self.events.send(event).await.map_err(|_| stopped())?;
        let verdict = tokio::select! {
            verdict = verdict => verdict.map_err(|_| stopped())?,
            () = self.stop.cancelled() => return Err(stopped()),
        };
        match verdict {
            Verdict::Taken => Ok(()),
            Verdict::Useless(staged) => {
                tracing::info!(partition = %place.partition, node = %from, "a snapshot came that is not needed any more");
                self.of.discard(staged);
                Ok(())
            }
            Verdict::Refused(staged, why) => {
                self.of.discard(staged);
                Err(why)
            }
        }
    }

    /// Nobody goes on with these any more.
    fn forget_old(&mut self) {
        let old = |of: &Incoming| of.receiver.strong_count() == 0 && of.touched.elapsed() >= KEPT;
        for (partition, incoming) in std::mem::take(&mut self.incoming) {
            if old(&incoming) {
                tracing::warn!(%partition, node = %incoming.from, "a snapshot was cut off and is given up");
                self.of.discard(incoming.staged);
            } else {
                self.incoming.insert(partition, incoming);
            }
        }
    }
}
