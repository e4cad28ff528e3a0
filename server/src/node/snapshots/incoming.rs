//! The transport's side of snapshots from peers: everything goes to the stager, one step at a time.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::{mpsc, oneshot};

use crate::cluster::{SnapshotHeader, SnapshotProgress, SnapshotReceiver};

/// Requests that may wait for the stager: a peer has a few streams, each waits for its answer, and more than that wait here.
const REQUESTS: usize = 64;

/// Which snapshot a receiver has in hand: the stager may have begun another one of the partition since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: PartitionId,
    pub(super) ticket: u64,
}

/// What the stager answers an offer with.
pub(super) struct Begun {
    pub(super) place: Place,
    /// What is there from an earlier try.
    pub(super) have: SnapshotProgress,
}

type Reply<T> = oneshot::Sender<Result<T, String>>;

/// What the stager is asked to do.
pub(in crate::node) struct Request(pub(super) Step);

pub(super) enum Step {
    /// A peer offers a snapshot. Its receiver is gone when `alive` is.
    Offer { from: NodeId, header: SnapshotHeader, alive: Arc<()>, reply: Reply<Begun> },
    /// Forget what is there.
    Restart { place: Place, reply: Reply<()> },
    /// Stage this; with it, this much is there.
    Chunk { place: Place, bytes: Bytes, progress: SnapshotProgress, reply: Reply<()> },
    /// It is complete.
    Finish { place: Place, reply: Reply<()> },
}

/// The way to the stager, and its other end.
pub(in crate::node) fn requests() -> (SnapshotInbox, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(REQUESTS);
    (SnapshotInbox(sender), receiver)
}

/// Where the transport offers what peers send. Cheap to clone.
#[derive(Clone)]
pub(in crate::node) struct SnapshotInbox(mpsc::Sender<Request>);

impl SnapshotInbox {
    /// `from` offers a snapshot.
    pub(in crate::node) async fn offer(
        self,
        from: NodeId,
        header: SnapshotHeader,
    ) -> Result<Box<dyn SnapshotReceiver>, String> {
        let alive = Arc::new(());
        let of = Arc::clone(&alive);
        let Begun { place, have } = self.ask(|reply| Step::Offer { from, header, alive: of, reply }).await?;
        Ok(Box::new(Receiver { stager: self, place, have, _alive: alive }))
    }

    async fn ask<T>(&self, step: impl FnOnce(Reply<T>) -> Step) -> Result<T, String> {
        let stopped = || "the node stops".to_owned();
        let (reply, answer) = oneshot::channel();
        self.0.send(Request(step(reply))).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// A snapshot that is coming in.
struct Receiver {
    stager: SnapshotInbox,
    place: Place,
    have: SnapshotProgress,
    _alive: Arc<()>,
}

impl SnapshotReceiver for Receiver {
    fn have(&self) -> SnapshotProgress {
        self.have
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), String>> {
        let place = self.place;
        Box::pin(self.stager.ask(move |reply| Step::Restart { place, reply }))
    }

    fn chunk(&mut self, bytes: Bytes, progress: SnapshotProgress) -> BoxFuture<'_, Result<(), String>> {
        let place = self.place;
        Box::pin(self.stager.ask(move |reply| Step::Chunk { place, bytes, progress, reply }))
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>> {
        let place = self.place;
        Box::pin(self.stager.ask(move |reply| Step::Finish { place, reply }))
    }
}
