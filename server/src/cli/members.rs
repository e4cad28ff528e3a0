//! Joins the transport between nodes to this node's replicas, and forms the cluster.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rove_core::formation::{Boot, Formation, Introduction};
use rove_core::replica::PeerMessage;
use rove_core::routing::{Forward, ForwardAck};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::watch;

use crate::cluster::{Cluster, PeerHello, PeerSink, SnapshotError, SnapshotHeader, SnapshotReceiver, SnapshotSource};
use crate::node::{PeerInbox, PeerSays, Peers};
use crate::nodes::Nodes;
use crate::storage::formation::FormationFile;

/// How often a node that waits for others says for whom.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Hears what peers say, and hands it to whom it concerns.
pub(super) struct Members {
    inbox: PeerInbox,
    file: FormationFile,
    formation: Mutex<Formation>,
    formed: watch::Sender<bool>,
    /// Set as soon as it is started; what peers say before is said again by then.
    transport: OnceLock<Cluster>,
    /// Set once this node's replicas run; until then it does not say how it is.
    nodes: OnceLock<Arc<Nodes>>,
}

impl Members {
    pub(super) fn new(inbox: PeerInbox, file: FormationFile, formation: Formation) -> Arc<Self> {
        let formed = watch::Sender::new(formation.is_formed());
        Arc::new(Self {
            inbox,
            file,
            formation: Mutex::new(formation),
            formed,
            transport: OnceLock::new(),
            nodes: OnceLock::new(),
        })
    }

    /// What is said to peers at first.
    pub(super) fn introduction(&self) -> Bytes {
        encode(&self.formation.lock().introduction())
    }

    /// The transport runs.
    pub(super) fn started(&self, transport: Cluster) {
        tell(&transport, self.introduction());
        // It is started once.
        let _ = self.transport.set(transport);
    }

    /// This node runs, and knows of the others.
    pub(super) fn running(&self, nodes: Arc<Nodes>) {
        // It is started once.
        let _ = self.nodes.set(nodes);
    }

    /// Waits until the cluster is formed, and says for whom it waits.
    pub(super) async fn formed(&self) {
        let mut formed = self.formed.subscribe();
        loop {
            tokio::select! {
                // The sender is ours: it is there as long as we are.
                _ = formed.wait_for(|formed| *formed) => return,
                () = tokio::time::sleep(SAY_EVERY) => {
                    let missing: BTreeSet<u64> = self.formation.lock().missing().iter().map(|node| node.0).collect();
                    tracing::info!(?missing, "waiting for the other nodes, to form the cluster");
                }
            }
        }
    }

    fn hear(&self, from: NodeId, said: &[u8]) -> Result<(), String> {
        let peer: Introduction = postcard::from_bytes(said).map_err(|error| format!("its introduction: {error}"))?;
        let mut formation = self.formation.lock();
        let mut next = formation.clone();
        if next.hear(from, &peer).map_err(|error| error.to_string())? {
            // Kept before anybody acts on it. A small file, written when a peer has restarted.
            self.file.save(next.record()).map_err(|error| error.to_string())?;
        }
        let news = next.introduction() != formation.introduction();
        *formation = next;
        if news {
            tracing::info!(members = ?formation.record().members, "the cluster is formed");
            if let Some(transport) = self.transport.get() {
                tell(transport, encode(&formation.introduction()));
            }
            self.formed.send_replace(formation.is_formed());
        }
        Ok(())
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

    fn presence(&self, _from: NodeId, _presence: Bytes) {}

    fn link_up(&self, peer: NodeId, hello: PeerHello) {
        tracing::info!(%peer, version = hello.version, program = %hello.program, "connected");
        self.inbox.put(peer, PeerSays::LinkUp);
    }

    fn link_down(&self, peer: NodeId) {
        tracing::info!(%peer, "disconnected");
    }

    fn hello_allowed(&self, hello: &PeerHello) -> Result<(), String> {
        self.hear(hello.node, &hello.formation)
    }

    fn formation(&self, from: NodeId, formation: Bytes) {
        if let Err(error) = self.hear(from, &formation) {
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

/// The transport, for the replica thread.
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

/// This start of the data directory.
pub(super) fn boot(file: &FormationFile, number: u64) -> Boot {
    Boot { store: file.store(), number, nonce: rand::random() }
}

fn tell(transport: &Cluster, introduction: Bytes) {
    if let Err(error) = transport.set_formation(introduction) {
        tracing::error!(%error, "peers cannot be told of the cluster's formation");
    }
}

fn encode(introduction: &Introduction) -> Bytes {
    // Only a value that serde cannot describe fails, and this is ids and numbers.
    postcard::to_allocvec(introduction).unwrap_or_default().into()
}
