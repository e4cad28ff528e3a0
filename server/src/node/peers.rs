//! The other nodes, as the replica thread sees them.

use futures::future::{BoxFuture, ready};
use rove_core::replica::PeerMessage;
use rove_core::routing::{Forward, ForwardAck};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::snapshots::{self, SnapshotInbox};
use crate::cluster::{SnapshotError, SnapshotHeader, SnapshotReceiver, SnapshotSource};

/// What has come from peers and was not looked at yet: a round takes them all, so that it is full only when the replica thread is
/// held up. What does not fit is dropped: raft sends again, and so do routers.
const INBOX: usize = 4_096;

/// Sends to peers. Called on the replica thread: nothing here may block, and what cannot be sent is dropped.
pub trait Peers: Send + Sync + 'static {
    /// Raft messages for the replicas of `to`, of any partitions.
    fn send_raft(&self, to: NodeId, messages: Vec<(PartitionId, PeerMessage)>);
    /// Commands for a leader there.
    fn send_forward(&self, to: NodeId, forward: Forward);
    /// Which command is due at the leader here.
    fn send_forward_ack(&self, to: NodeId, ack: ForwardAck);
    /// A snapshot, at the pace at which it is taken. Dropping the future cuts it off; another try with the same header goes on from
    /// there. Not on the replica thread: the source may block.
    fn send_snapshot<'a>(
        &'a self,
        to: NodeId,
        header: SnapshotHeader,
        source: &'a mut dyn SnapshotSource,
    ) -> BoxFuture<'a, Result<(), SnapshotError>>;
}

/// A node on its own.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn send_raft(&self, _to: NodeId, _messages: Vec<(PartitionId, PeerMessage)>) {}
    fn send_forward(&self, _to: NodeId, _forward: Forward) {}
    fn send_forward_ack(&self, _to: NodeId, _ack: ForwardAck) {}
    fn send_snapshot<'a>(
        &'a self,
        _to: NodeId,
        _header: SnapshotHeader,
        _source: &'a mut dyn SnapshotSource,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(ready(Err(SnapshotError::Unlinked)))
    }
}

/// What a peer says to the replicas here.
#[derive(Debug)]
pub enum PeerSays {
    /// Raft messages, of any partitions.
    Raft(Vec<(PartitionId, PeerMessage)>),
    /// Commands for a leader here.
    Forward(Forward),
    /// Which command is due at a leader there.
    ForwardAck(ForwardAck),
    /// There is a new connection: what was sent over the last one may be lost.
    LinkUp,
}

/// Where the transport puts what peers say. Cheap to clone.
#[derive(Clone)]
pub struct PeerInbox {
    says: Sender<(NodeId, PeerSays)>,
    snapshots: SnapshotInbox,
}

impl PeerInbox {
    /// Hands over what `from` says. False if it was dropped: there is no room, or the node has stopped.
    pub fn put(&self, from: NodeId, says: PeerSays) -> bool {
        self.says.try_send((from, says)).is_ok()
    }

    /// `from` offers a snapshot. Answered once the node runs.
    pub fn snapshot(
        &self,
        from: NodeId,
        header: SnapshotHeader,
    ) -> BoxFuture<'static, Result<Box<dyn SnapshotReceiver>, String>> {
        Box::pin(self.snapshots.clone().offer(from, header))
    }
}

/// What peers have said, for [`Opened::start`](super::Opened::start).
pub struct PeerMail {
    pub(super) says: Receiver<(NodeId, PeerSays)>,
    pub(super) snapshots: mpsc::Receiver<snapshots::Request>,
}

/// A new inbox, and the end that the node reads.
pub fn inbox() -> (PeerInbox, PeerMail) {
    let (sender, receiver) = mpsc::channel(INBOX);
    let (snapshots, offered) = snapshots::requests();
    (PeerInbox { says: sender, snapshots }, PeerMail { says: receiver, snapshots: offered })
}
