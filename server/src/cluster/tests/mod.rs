//! The transport over loopback: real sockets, real certificates.

mod abuse;
mod bytes;
mod links;
mod peers;
mod refusals;
mod snapshots;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use ::bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use protobuf::Message as _;
use rove_core::command::{Envelope, Origin};
use rove_core::replica::PeerMessage;
use rove_core::routing::{Forward, ForwardAck};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::Notify;

use super::pki::{make_authority, make_node};
use super::*;

/// Far longer than anything here takes, also on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// Waits for a condition that nobody announces.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let mut often = tokio::time::interval(Duration::from_millis(2));
    soon(what, async {
        while !holds() {
            often.tick().await;
        }
    })
    .await;
}

/// The certificates and addresses of a cluster `chat` of nodes 1 to `nodes`.
struct Fixture {
    dir: tempfile::TempDir,
    addresses: BTreeMap<u64, SocketAddr>,
    sockets: Mutex<BTreeMap<u64, UdpSocket>>,
}

impl Fixture {
    fn new(nodes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_authority(&dir.path().join("ca"), "chat").unwrap();
        let mut sockets = BTreeMap::new();
        for node in 1..=nodes {
            make_node(&dir.path().join("ca"), NodeId(node), dir.path(), 10).unwrap();
            sockets.insert(node, bind("127.0.0.1:0".parse().unwrap()).unwrap());
        }
        let addresses = sockets.iter().map(|(node, socket)| (*node, socket.local_addr().unwrap())).collect();
        Self { dir, addresses, sockets: Mutex::new(sockets) }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca")
    }

    fn files(&self, node: u64) -> Files {
        let file = |name: String| self.dir.path().join(name);
        Files {
            ca: file("ca.pem".to_owned()),
            certificate: file(format!("node-{node}.pem")),
            key: file(format!("node-{node}.key")),
        }
    }

    /// The socket that was bound at first, or one on the same port after a restart.
    fn socket(&self, node: u64) -> UdpSocket {
        let first = self.sockets.lock().remove(&node);
        first.unwrap_or_else(|| bind(self.addresses[&node]).unwrap())
    }

    fn config(&self, node: u64) -> ClusterConfig {
        let peers = self.addresses.iter().map(|(node, address)| (NodeId(*node), address.to_string()));
        ClusterConfig {
            name: "chat".to_owned(),
            node: NodeId(node),
            store: [u8::try_from(node).unwrap(); 16],
            incarnation: 1,
            formation: Bytes::new(),
            files: self.files(node),
            peers: peers.map(|(node, address)| PeerAddress { node, address }).collect(),
            socket: self.socket(node),
            program: "0.1",
            versions: VERSIONS,
        }
    }

    fn start(&self, node: u64) -> TestNode {
        TestNode::start(self.config(node))
    }
}

/// What a sink heard.
#[derive(Debug, Clone, PartialEq)]
enum Heard {
    Raft(u64, Vec<(PartitionId, PeerMessage)>),
    Forward(u64, Forward),
    ForwardAck(u64, ForwardAck),
    Presence(u64, Bytes),
    Up(u64, PeerHello),
    Down(u64),
    Formation(u64, Bytes),
}

type TakeSnapshot = Box<dyn Fn(SnapshotHeader) -> Result<Box<dyn SnapshotReceiver>, String> + Send + Sync>;

/// Writes down what it hears.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<Heard>>,
    news: Notify,
    allowed: Mutex<Option<String>>,
    silent: std::sync::atomic::AtomicBool,
    snapshots: Mutex<Option<TakeSnapshot>>,
}

impl Ear {
    fn hear(&self, heard: Heard) {
        self.heard.lock().push(heard);
        self.news.notify_waiters();
    }

    /// Waits until something was heard, and returns what `find` makes of it.
    async fn wait<T>(&self, what: &str, find: impl Fn(&[Heard]) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let news = self.news.notified();
                if let Some(found) = find(&self.heard.lock()) {
                    return found;
                }
                news.await;
            }
        })
        .await
    }

    async fn up(&self, node: u64) -> PeerHello {
        self.up_times(node, 1).await
    }

    /// Waits for so many connections with a node, and returns what it said at the last.
    async fn up_times(&self, node: u64, times: usize) -> PeerHello {
        self.wait("a link", |heard| {
            let ups = heard.iter().filter_map(|heard| match heard {
                Heard::Up(from, hello) if *from == node => Some(hello.clone()),
                _ => None,
            });
            ups.skip(times - 1).last()
        })
        .await
    }

    async fn exactly(&self, expected: Heard) {
        self.wait(&format!("{expected:?}"), |heard| heard.contains(&expected).then_some(())).await;
    }
}

impl PeerSink for Ear {
    fn raft(&self, from: NodeId, messages: Vec<(PartitionId, PeerMessage)>) {
        self.hear(Heard::Raft(from.0, messages));
    }
    fn forward(&self, from: NodeId, forward: Forward) {
        self.hear(Heard::Forward(from.0, forward));
    }
    fn forward_ack(&self, from: NodeId, ack: ForwardAck) {
        self.hear(Heard::ForwardAck(from.0, ack));
    }
    fn presence(&self, from: NodeId, presence: Bytes) {
        self.hear(Heard::Presence(from.0, presence));
    }
    fn link_up(&self, peer: NodeId, hello: PeerHello) {
        self.hear(Heard::Up(peer.0, hello));
    }
    fn link_down(&self, peer: NodeId) {
        self.hear(Heard::Down(peer.0));
    }
    fn hello_allowed(&self, _hello: &PeerHello) -> Result<(), NotAllowed> {
        self.allowed.lock().clone().map_or(Ok(()), |why| Err(why.into()))
    }
    fn formation(&self, from: NodeId, formation: Bytes) {
        self.hear(Heard::Formation(from.0, formation));
    }
    fn call(&self, from: NodeId, question: Bytes) -> BoxFuture<'static, Bytes> {
        if self.silent.load(std::sync::atomic::Ordering::Relaxed) {
            return futures::future::pending().boxed();
        }
        async move { [&from.0.to_le_bytes()[..], &question[..]].concat().into() }.boxed()
    }
    fn snapshot(
        &self,
        _from: NodeId,
        header: SnapshotHeader,
    ) -> BoxFuture<'static, Result<Box<dyn SnapshotReceiver>, String>> {
        let taken = match &*self.snapshots.lock() {
            Some(take) => take(header),
            None => Err("no snapshot is wanted".to_owned()),
        };
        async move { taken }.boxed()
    }
}

/// A transport and its ear.
struct TestNode {
    cluster: Cluster,
    runner: ClusterRunner,
    ear: Arc<Ear>,
}

impl TestNode {
    fn start(config: ClusterConfig) -> Self {
        Self::start_with(config, Arc::new(Ear::default()))
    }

    fn start_with(config: ClusterConfig, ear: Arc<Ear>) -> Self {
        let (cluster, runner) = Cluster::start(config, ear.clone()).unwrap();
        Self { cluster, runner, ear }
    }

    fn peer(&self, node: u64) -> PeerStatus {
        self.cluster.peers().into_iter().find(|peer| peer.node.0 == node).unwrap()
    }

    fn class(&self, node: u64, class: Class) -> ClassStatus {
        self.peer(node).classes[class as usize]
    }

    async fn stop(self) {
        soon("the stop", self.runner.stop()).await;
    }
}

/// A message of replica `from`, with so many bytes of entries.
fn message(from: u64, to: u64, term: u64, entries: usize) -> PeerMessage {
    let mut message = raft::eraftpb::Message::new();
    message.set_msg_type(if entries == 0 {
        raft::eraftpb::MessageType::MsgHeartbeat
    } else {
        raft::eraftpb::MessageType::MsgAppend
    });
    (message.from, message.to, message.term) = (from, to, term);
    if entries > 0 {
        let mut entry = raft::eraftpb::Entry::new();
        (entry.index, entry.term) = (1, 1);
        entry.data = vec![7; entries].into();
        message.mut_entries().push(entry);
    }
    PeerMessage::decode(&message.write_to_bytes().unwrap()).unwrap()
}

fn forward(first: u64) -> Forward {
    let envelope =
        |ticket| Envelope { origin: Origin { node: NodeId(2), ticket }, command: Bytes::from_static(b"command") };
    Forward {
        partition: PartitionId(3),
        term: 4,
        oldest: 2,
        first,
        envelopes: vec![envelope(first), envelope(first + 1)],
    }
}

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Log lines of at least `info`, of this thread: on the runtime of a test, all there are.
struct Lines;

impl Lines {
    fn listen() -> Self {
        static ONCE: Once = Once::new();
        // One for all threads: what a subscriber of one thread hears depends on those of others that come and go.
        ONCE.call_once(|| {
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Self).finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
        });
        LINES.with_borrow_mut(Vec::clear);
        Self
    }

    /// How many warnings have all of these words.
    #[allow(clippy::unused_self, reason = "whoever counts lines has begun to listen")]
    fn warnings(&self, words: &[&str]) -> usize {
        let text = LINES.with_borrow(|lines| String::from_utf8(lines.clone()).unwrap());
        text.lines().filter(|line| line.contains("WARN") && words.iter().all(|word| line.contains(word))).count()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    std::fs::copy(from, &new).unwrap();
    std::fs::rename(new, to).unwrap();
}
