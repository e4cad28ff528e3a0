//! Joins the transport between nodes to this node's replicas.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use rove_core::formation::Boot;
use rove_core::replica::PeerMessage;
use rove_core::routing::{Forward, ForwardAck};
use rove_protocol::ids::{NodeId, PartitionId};

use crate::cluster::{
    Cluster, NotAllowed, PeerHello, PeerSink, SnapshotError, SnapshotHeader, SnapshotReceiver, SnapshotSource,
};
use crate::edge::{Hub, PresencePeers};
use crate::membership::Roster;
use crate::node::{PeerInbox, PeerSays, Peers};
use crate::nodes::Nodes;
use crate::storage::formation::FormationFile;

/// Hears what peers say, and hands it to whom it concerns.
pub(super) struct Members {
    inbox: PeerInbox,
    roster: Arc<Roster>,
    hub: Arc<Hub>,
    /// Set once this node's replicas run; until then it does not say how it is.
    nodes: OnceLock<Arc<Nodes>>,
}

impl Members {
    pub(super) fn new(inbox: PeerInbox, roster: Arc<Roster>, hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self { inbox, roster, hub, nodes: OnceLock::new() })
    }

    /// Who the nodes are.
    pub(super) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// This node runs, and knows of the others.
    pub(super) fn running(&self, nodes: Arc<Nodes>) {
        // It is started once.
        let _ = self.nodes.set(nodes);
    }
}

impl PeerSink for Members {
    fn raft(&self, from: NodeId, messages: Vec<(PartitionId, PeerMessage)>) {
        self.inbox.put(from, PeerSays::Raft(messages));
    }

    fn forward(&self, from: NodeId, forward: Forward) {
        self.inbox.put(from, PeerSays::Forward(forward));
    }

    fn forward_ack(&self, from: NodeId, ack: ForwardAck) {
        self.inbox.put(from, PeerSays::ForwardAck(ack));
    }

    fn presence(&self, from: NodeId, presence: Bytes) {
        self.hub.peer_says(from, &presence);
    }

    fn link_up(&self, peer: NodeId, hello: PeerHello) {
        tracing::info!(%peer, version = hello.version, program = %hello.program, "connected");
        self.inbox.put(peer, PeerSays::LinkUp);
    }

    fn link_down(&self, peer: NodeId) {
        tracing::info!(%peer, "disconnected");
    }

    fn hello_allowed(&self, hello: &PeerHello) -> Result<(), NotAllowed> {
        self.roster.hear(hello.node, &hello.formation)
    }

    fn removed(&self, by: NodeId) {
        self.roster.removed(by);
    }

    fn formation(&self, from: NodeId, formation: Bytes) {
        if let Err(error) = self.roster.hear(from, &formation) {
            tracing::warn!(peer = %from, %error, "the peer's news of the cluster's formation");
        }
    }

    fn call(&self, _from: NodeId, question: Bytes) -> BoxFuture<'static, Bytes> {
        match self.nodes.get() {
            Some(nodes) => nodes.clone().answer(&question),
            None => Box::pin(std::future::ready(Bytes::new())),
        }
    }

    fn snapshot(
        &self,
        from: NodeId,
        header: SnapshotHeader,
    ) -> BoxFuture<'static, Result<Box<dyn SnapshotReceiver>, String>> {
        self.inbox.snapshot(from, header)
    }
}

/// The transport, for the replica thread and for presence.
pub(super) struct Transport(pub(super) Cluster);

impl Peers for Transport {
    fn send_raft(&self, to: NodeId, messages: Vec<(PartitionId, PeerMessage)>) {
        self.0.send_raft(to, messages);
    }

    fn send_forward(&self, to: NodeId, forward: Forward) {
        // What is dropped is asked for by the leader, or sent on the next connection.
        let _ = self.0.send_forward(to, &forward);
    }

    fn send_forward_ack(&self, to: NodeId, ack: ForwardAck) {
        self.0.send_forward_ack(to, ack);
    }

    fn send_snapshot<'a>(
        &'a self,
        to: NodeId,
        header: SnapshotHeader,
        source: &'a mut dyn SnapshotSource,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move { self.0.send_snapshot(to, header, source).await.map(|_| ()) })
    }
}

impl PresencePeers for Transport {
    fn nodes(&self) -> Vec<NodeId> {
        self.0.peers().into_iter().map(|peer| peer.node).collect()
    }

    fn tell(&self, to: NodeId, said: Bytes) {
        // What is lost shows in the next digest, and is asked for.
        let _ = self.0.send_presence(to, said);
    }
}

/// This start of the data directory.
pub(super) fn boot(file: &FormationFile, number: u64) -> Boot {
    Boot { store: file.store(), number, nonce: rand::random() }
}
