//! Node to node: one QUIC connection with every peer, with the cluster's own certificates, on a port of its own.
//!
//! ```text
//! replica thread ── send_raft ──▶ queue ── writer ──▶ urgent stream  ┐
//!                                 queue ── writer ──▶ append stream  │
//!                                 queue ── writer ──▶ forward stream ├── one connection ──▶ readers ── PeerSink
//!                                 queue ── writer ──▶ presence stream│
//! whoever waits ── call, send_snapshot ─────────────▶ stream of its own ┘
//! ```
//!
//! - [`pki`] makes the certificates, [`trust`](self) reads them; `hello` says who is at the other end; `peer` dials and keeps one
//!   connection of two; `link` is a connection in use; `snapshot` sends what is large;
//! - nothing that sends waits: a full queue drops, and whoever sent sends again, as raft does of itself;
//! - a class of traffic has a stream and a queue of its own, and QUIC sends the urgent one first: bulk delays no heartbeat;
//! - every task belongs to a link, a peer or the runner, and [`ClusterRunner::stop`] awaits them all.
//!
//! `docs/cluster-protocol.md` has the bytes.

mod frame;
mod hello;
mod io;
mod link;
mod listener;
mod peer;
pub mod pki;
mod queue;
mod refusal;
pub mod registry;
mod snapshot;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::io as std_io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use rove_core::replica::PeerMessage;
use rove_core::routing::{Forward, ForwardAck};
use rove_protocol::ids::{NodeId, PartitionId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::frame::{Body, Hello, Presence};
use self::peer::{Peer, PeerTask};
use self::refusal::Grievances;
use self::trust::Trust;

pub use hello::PeerHello;
pub use queue::{Class, ClassStatus};
pub use snapshot::{SnapshotError, SnapshotHeader, SnapshotProgress, SnapshotReceiver, SnapshotSent, SnapshotSource};
pub use trust::{Files, TrustError};

/// Bytes the system may hold of datagrams that were not read yet: 20 ms of a gigabit. It may give less.
const UDP_BUFFER: usize = 2 * 1024 * 1024;

/// Another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its id.
    pub node: NodeId,
    /// `host:port` of its cluster port. The name is looked up at every dial.
    pub address: String,
}

/// Why a peer may not come as it is, in words for both nodes' logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotAllowed {
    /// Why, and what to do.
    pub why: String,
    /// It was a member, knows no better, and was taken out: it is told so in a way that it understands.
    pub removed: bool,
}

impl From<String> for NotAllowed {
    fn from(why: String) -> Self {
        Self { why, removed: false }
    }
}

/// Who this node is and whom it talks to.
#[derive(Debug)]
pub struct ClusterConfig {
    /// The cluster's name, see [`pki::is_cluster_name`].
    pub name: String,
    /// This node.
    pub node: NodeId,
    /// Its data directory: random bytes made with it.
    pub store: [u8; 16],
    /// How often it was started with that directory, this time included.
    pub incarnation: u64,
    /// What it knows of the cluster's formation; at most 24 KiB, see [`Cluster::set_formation`].
    pub formation: Bytes,
    /// Certificate, key and authority.
    pub files: Files,
    /// The other nodes. An entry for this node is ignored.
    pub peers: Vec<PeerAddress>,
    /// The cluster's port, see [`bind`].
    pub socket: UdpSocket,
    /// The release of the program, for people; at most 64 bytes.
    pub program: &'static str,
    /// The lowest and the highest version of the protocol to speak: [`VERSIONS`], except in tests.
    pub versions: (u32, u32),
}

/// The versions of the protocol that this program speaks, lowest and highest.
pub const VERSIONS: (u32, u32) = (registry::LOWEST_VERSION, registry::HIGHEST_VERSION);

/// Opens the cluster's port.
///
/// # Errors
/// The system's.
pub fn bind(address: SocketAddr) -> std_io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // The unspecified address of IPv6 means both.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // Less is slower under bursts, not wrong.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A certificate, its key or the authority.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Something of [`ClusterConfig`] that can never work.
    #[error("{0}")]
    Config(String),
    /// The socket.
    #[error("cluster.listen: {0}")]
    Socket(#[from] std_io::Error),
}

/// Who hears what peers say. Nothing here may block but where it says so: it runs on the tasks that read from the network, and what it
/// does not take it drops.
pub trait PeerSink: Send + Sync {
    /// Raft messages, as they were sent together. That a message's sender is a replica of `from` is for the receiver to check.
    fn raft(&self, from: NodeId, messages: Vec<(PartitionId, PeerMessage)>);

    /// Commands for a leader here.
    fn forward(&self, from: NodeId, forward: Forward);

    /// Which command is due at a leader there.
    fn forward_ack(&self, from: NodeId, ack: ForwardAck);

    /// Presence.
    fn presence(&self, from: NodeId, presence: Bytes);

    /// There is a (new) connection: what was sent over the last one may be lost. Called again without [`PeerSink::link_down`] when
    /// one connection takes the place of another.
    fn link_up(&self, peer: NodeId, hello: PeerHello);

    /// There is no connection any more.
    fn link_down(&self, peer: NodeId);

    /// Whether a peer may come as it is; if not, why (an old disk put back, say), in words for both nodes' logs. May block, on a disk say.
    ///
    /// # Errors
    /// The reason.
    fn hello_allowed(&self, hello: &PeerHello) -> Result<(), NotAllowed>;

    /// A peer says that this node was taken out of the cluster.
    fn removed(&self, by: NodeId) {
        let _ = by;
    }

    /// What a peer knows of the cluster's formation now: after every [`PeerSink::link_up`], and when it changes. May block.
    fn formation(&self, from: NodeId, formation: Bytes) {
        let _ = (from, formation);
    }

    /// Answers a question in at most 64 KiB. Dropped when the peer waits no longer.
    fn call(&self, from: NodeId, question: Bytes) -> BoxFuture<'static, Bytes>;

    /// A snapshot is offered. Whoever takes it says what is there already.
    ///
    /// # Errors
    /// Why it is not taken, for the sender.
    fn snapshot(
        &self,
        from: NodeId,
        header: SnapshotHeader,
    ) -> BoxFuture<'static, Result<Box<dyn SnapshotReceiver>, String>>;
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection with that node; [`PeerSink::link_up`] says when there is.
    #[error("there is no connection with the node")]
    Unlinked,
    /// Too much waits already.
    #[error("too much waits to be sent to the node")]
    Full,
    /// It is larger than the other end would take.
    #[error("it is too large to be sent")]
    TooLarge,
}

/// Why a question has no answer. It may have been heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection with that node.
    #[error("there is no connection with the node")]
    Unlinked,
    /// Enough questions wait for that node's answers.
    #[error("{} questions wait for the node's answers already", registry::CALLS_AT_ONCE)]
    Busy,
    /// The question is larger than 64 KiB.
    #[error("the question is too large")]
    TooLarge,
    /// No answer in time.
    #[error("no answer in {} s", registry::CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The other end gives none.
    #[error("the node gives no answer")]
    Unanswered,
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Lost(String),
}

/// How it stands with a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// Which.
    pub node: NodeId,
    /// Where it is dialled.
    pub address: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Where it is connected from or to.
    pub remote: Option<SocketAddr>,
    /// Since when.
    pub since: Option<SystemTime>,
    /// The round trip.
    pub rtt: Option<Duration>,
    /// What it said of itself: store, incarnation, versions.
    pub hello: Option<PeerHello>,
    /// What it knows of the cluster's formation now.
    pub formation: Option<Bytes>,
    /// Connections there have been since this node started.
    pub links: u64,
    /// Why there is no connection, or why the last try failed.
    pub last_error: Option<String>,
    /// Its traffic, since this node started.
    pub classes: [ClassStatus; Class::ALL.len()],
}

/// What all tasks share.
struct Shared {
    config: Fixed,
    sink: Arc<dyn PeerSink>,
    trust: Trust,
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    /// Whether the socket reaches IPv4 and IPv6.
    dual_stack: bool,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Every task but those of the runner's callers.
    tasks: TaskTracker,
    /// Where they run.
    runtime: Handle,
    stop: CancellationToken,
    formation: watch::Sender<Bytes>,
    grievances: Grievances,
}

/// What of the configuration does not change.
struct Fixed {
    name: String,
    node: NodeId,
    store: [u8; 16],
    incarnation: u64,
    program: &'static str,
    versions: (u32, u32),
}

impl Shared {
    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().get(&node).cloned()
    }

    /// Begins to talk to a peer.
    fn begin(self: &Arc<Self>, node: NodeId, address: String) -> Arc<Peer> {
        let (peer, candidates) = Peer::new(node, address, self.stop.child_token());
        let peer = Arc::new(peer);
        self.tasks.spawn_on(PeerTask::new(self.clone(), peer.clone(), candidates).run(), &self.runtime);
        peer
    }

    /// What this node says of itself now.
    fn hello(&self) -> Hello {
        let Fixed { name, node, store, incarnation, program, versions } = &self.config;
        Hello {
            cluster: name.clone(),
            node: *node,
            store: *store,
            incarnation: *incarnation,
            lowest: versions.0,
            highest: versions.1,
            program: (*program).to_owned(),
            formation: self.formation.borrow().clone(),
        }
    }
}

/// The transport. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", &self.0.config.node).finish_non_exhaustive()
    }
}

/// Who stops the transport.
#[derive(Debug)]
#[must_use = "a transport runs until its runner stops it"]
pub struct ClusterRunner {
    endpoint: quinn::Endpoint,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Cluster {
    /// Starts to dial and to listen, on the tokio runtime of the caller: best that of the replicas.
    ///
    /// # Errors
    /// [`ClusterError`], before anything runs.
    pub fn start(config: ClusterConfig, sink: Arc<dyn PeerSink>) -> Result<(Self, ClusterRunner), ClusterError> {
        check(&config)?;
        let trust = Trust::load(config.files, &config.name, config.node)?;
        let local = config.socket.local_addr()?;
        let dual_stack = local.is_ipv6() && !socket2::SockRef::from(&config.socket).only_v6()?;
        let server = (*trust.configs().server).clone();
        let endpoint_config = quinn::EndpointConfig::default();
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(endpoint_config, Some(server), config.socket, runtime)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let ClusterConfig { name, node, store, incarnation, program, versions, peers, .. } = config;
        let shared = Arc::new(Shared {
            config: Fixed { name, node, store, incarnation, program, versions },
            sink,
            trust,
            endpoint: endpoint.clone(),
            local,
            dual_stack,
            peers: RwLock::default(),
            tasks: tasks.clone(),
            runtime: Handle::current(),
            stop: stop.clone(),
            formation: watch::Sender::new(config.formation),
            grievances: Grievances::default(),
        });
        tasks.spawn(listener::listen(shared.clone(), stop.clone()));
        let cluster = Self(shared);
        cluster.set_peers(peers);
        tasks.close();
        Ok((cluster, ClusterRunner { endpoint, tasks, stop }))
    }

    /// The other nodes are these from now on; an entry for this node is ignored. Connections with those that are no peers any more, or
    /// are at another address, end; so do those that [`PeerSink::hello_allowed`] would not allow now.
    pub fn set_peers(&self, peers: Vec<PeerAddress>) {
        let shared = &self.0;
        let wanted: BTreeMap<NodeId, String> =
            peers.into_iter().map(|peer| (peer.node, peer.address)).filter(|(node, _)| *node != self.node()).collect();
        let mut kept = shared.peers.write();
        // A transport that stops begins nothing.
        if shared.stop.is_cancelled() {
            return;
        }
        let before: Vec<_> = kept.values().cloned().collect();
        kept.retain(|node, peer| wanted.get(node) == Some(&peer.address));
        for (node, address) in &wanted {
            kept.entry(*node).or_insert_with(|| shared.begin(*node, address.clone()));
        }
        // The listener is asked without the lock.
        drop(kept);
        for peer in before {
            if let Some(reason) = peer.link().and_then(|link| shared.sink.hello_allowed(&link.hello).err()) {
                peer.cut_off(reason);
            }
            if wanted.get(&peer.node) != Some(&peer.address) {
                peer.gone.cancel();
            }
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.0.config.node
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Sends raft messages to a node: those without entries in one frame of the urgent class, those with entries in one of their
    /// own. Never waits. What does not fit is dropped and counted: raft sends it again.
    #[allow(clippy::needless_pass_by_value, reason = "they are gone: raft does not send the same ones again")]
    pub fn send_raft(&self, to: NodeId, messages: Vec<(PartitionId, PeerMessage)>) {
        for (class, with_entries) in [(Class::Urgent, false), (Class::Append, true)] {
            let of_class = || messages.iter().filter(|(_, message)| message.carries_entries() == with_entries);
            if of_class().next().is_none() {
                continue;
            }
            // A refusal is counted where it happens.
            let _ = self.queue(to, class, |queue| {
                let (frames, left_out) = frame::raft_frames(of_class(), class.frame_limit());
                if left_out > 0 {
                    tracing::error!(node = %to, left_out, "raft messages are too large to be sent");
                }
                frames.into_iter().try_for_each(|frame| queue.push(frame)).map_err(|_| SendError::Full)
            });
        }
    }

    /// Sends commands to a leader. Never waits.
    ///
    /// # Errors
    /// It was dropped. The sender sends it again: after [`PeerSink::link_up`], or when the leader is asked what is due.
    pub fn send_forward(&self, to: NodeId, forward: &Forward) -> Result<(), SendError> {
        self.send(to, Class::Forward, forward)
    }

    /// Tells a node which of its commands is due. Never waits; what is dropped will be asked for.
    pub fn send_forward_ack(&self, to: NodeId, ack: ForwardAck) {
        // A refusal is counted where it happens.
        let _ = self.send(to, Class::Forward, &ack);
    }

    /// Sends presence. Never waits; when too much waits, the oldest is dropped.
    ///
    /// # Errors
    /// It is larger than 64 KiB, or there is no connection.
    pub fn send_presence(&self, to: NodeId, presence: Bytes) -> Result<(), SendError> {
        if presence.len() > registry::PRESENCE_BYTES {
            return Err(SendError::TooLarge);
        }
        self.send(to, Class::Presence, &Presence { presence })
    }

    /// Asks a node a small question (at most 64 KiB) and waits for its answer, 5 s at most.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, to: NodeId, question: Bytes) -> Result<Bytes, CallError> {
        if question.len() > registry::CALL_BYTES {
            return Err(CallError::TooLarge);
        }
        let link = self.0.peer(to).and_then(|peer| peer.link()).ok_or(CallError::Unlinked)?;
        link.call(question).await
    }

    /// Sends a snapshot, at the pace at which it is taken. Dropping the future cuts it off; another try goes on from there.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn send_snapshot(
        &self,
        to: NodeId,
        header: SnapshotHeader,
        source: &mut dyn SnapshotSource,
    ) -> Result<SnapshotSent, SnapshotError> {
        let link = self.0.peer(to).and_then(|peer| peer.link()).ok_or(SnapshotError::Unlinked)?;
        snapshot::send(&link, header, source).await
    }

    /// How it stands with every peer.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.0.peers.read().values().map(|peer| peer.status()).collect()
    }

    /// What this node knows of the cluster's formation from now on: peers are told.
    ///
    /// # Errors
    /// It is larger than 24 KiB.
    pub fn set_formation(&self, formation: Bytes) -> Result<(), SendError> {
        if formation.len() > registry::FORMATION_BYTES {
            return Err(SendError::TooLarge);
        }
        self.0.formation.send_replace(formation);
        Ok(())
    }

    fn send(&self, to: NodeId, class: Class, body: &impl Body) -> Result<(), SendError> {
        self.queue(to, class, |queue| {
            let frame = body.to_frame();
            if frame.len() > class.frame_limit() {
                return Err(SendError::TooLarge);
            }
            queue.push(frame).map_err(|_| SendError::Full)
        })
    }

    /// The queue of a class, if there is a connection. Nothing is encoded for a node that is not there.
    fn queue(
        &self,
        to: NodeId,
        class: Class,
        fill: impl FnOnce(&queue::Queue) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let peer = self.0.peer(to).ok_or(SendError::Unlinked)?;
        let Some(link) = peer.link() else {
            queue::Counters::add(&peer.counters(class).unlinked_frames, 1);
            return Err(SendError::Unlinked);
        };
        fill(link.queue(class))
    }
}

impl ClusterRunner {
    /// Closes every connection, and returns when every task has ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        self.endpoint.close(quinn::VarInt::from_u32(registry::CloseCode::LEAVING.0), b"the node stops");
        // What does not leave by then is lost like any other packet.
        let _ = tokio::time::timeout(registry::LINGER, self.endpoint.wait_idle()).await;
    }
}

fn check(config: &ClusterConfig) -> Result<(), ClusterError> {
    let wrong = |what: &str| Err(ClusterError::Config(what.to_owned()));
    if !pki::is_cluster_name(&config.name) {
        return wrong("cluster.name: use 1 to 63 of a-z, 0-9 and -, no - at the ends");
    }
    if config.node.0 == 0 || config.node.0 > registry::LARGEST_NODE {
        return wrong("node_id: use 1 to 4294967295");
    }
    if config.formation.len() > registry::FORMATION_BYTES {
        return wrong("formation state is larger than 24 KiB");
    }
    let mut nodes: Vec<_> = config.peers.iter().map(|peer| peer.node).collect();
    nodes.sort_unstable();
    if nodes.windows(2).any(|pair| pair[0] == pair[1]) {
        return wrong("cluster.peers: two have one id; give each node its own");
    }
    Ok(())
}
