//! The nodes of the cluster, as this one sees them.
//!
//! Every node asks every other once a second how it is ([`Report`]) and keeps the last answer with its age. From that come the nodes
//! that clients are told of (discovery, `Welcome`, `GoAway`) and what operators are shown. Nothing here decides anything about data:
//! a node that is seen wrongly for a second costs a client one attempt in vain.

pub mod report;
mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rove_core::discovery::{NodeState, rank};
use rove_core::lane::HandoverError;
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::report::{HandOver, More, Question, ReplicaReport, Report};
use crate::cluster::{CallError, Cluster, PeerStatus};
use crate::edge::EdgeStats;
use crate::leaving::Leaving;
use crate::node::{MoveError, Node};

pub(crate) use self::spread::spread;

/// How often a node is asked. What clients are told is at most this old, and a question costs a packet each way.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A node whose last answer is older is not healthy: two answers in a row were lost or late.
const STALE: Duration = Duration::from_secs(3);

/// What a node says of itself that does not change while it runs.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// `host:port` at which clients reach it.
    pub address: String,
    /// The operator's name for where it stands; may be empty.
    pub region: String,
    /// What clients may pin: the current key, and the next one if there is one.
    pub pins: Vec<String>,
    /// Sessions at which the node calls itself full.
    pub full_sessions: usize,
    /// The release of its program.
    pub version: &'static str,
}

/// The last answer of a node.
#[derive(Debug, Clone)]
struct Heard {
    report: Report,
    at: Instant,
    /// Milliseconds by which its clock was ahead of this node's, give or take half of the round trip.
    clock_ahead_ms: Option<i64>,
}

/// A node, as this one sees it now.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which.
    pub node: NodeId,
    /// What it said last, if it has said anything since this node started.
    pub report: Option<Report>,
    /// How old that is.
    pub age: Duration,
    /// Whether clients should go there.
    pub healthy: bool,
    /// How the connection with it is; `None` for this node itself.
    pub link: Option<PeerStatus>,
}

impl Seen {
    /// Whether it is one to hand leaderships to.
    pub(crate) fn may_lead(&self) -> bool {
        let takes = |report: &Report| !report.draining && report.more.may_lead;
        self.healthy && self.report.as_ref().is_some_and(takes)
    }
}

/// Why the leadership of a partition has not moved, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// There is no such partition.
    #[error("{0}")]
    UnknownPartition(String),
    /// There is no such node.
    #[error("there is no node {node}: the cluster has nodes {known}")]
    UnknownNode {
        /// Which was named.
        node: NodeId,
        /// Which there are.
        known: String,
    },
    /// Nobody leads.
    #[error("partition {0} has no leader at present: see which nodes are down with `rove-server cluster status`")]
    NoLeader(PartitionId),
    /// The leader does not, or could not be asked.
    #[error("{0}")]
    Refused(String),
}

/// The nodes of the cluster. See the [module](self).
pub struct Nodes {
    node: Node,
    about: About,
    sessions: Arc<EdgeStats>,
    leaving: Arc<Leaving>,
    cluster: Option<Cluster>,
    heard: Mutex<BTreeMap<NodeId, Heard>>,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("node", &self.node.id()).field("about", &self.about).finish_non_exhaustive()
    }
}

impl Nodes {
    /// The nodes around `node`; alone without a transport.
    pub fn new(
        node: Node,
        about: About,
        sessions: Arc<EdgeStats>,
        leaving: Arc<Leaving>,
        cluster: Option<Cluster>,
    ) -> Arc<Self> {
        Arc::new(Self { node, about, sessions, leaving, cluster, heard: Mutex::default() })
    }

    /// This node's replicas.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What this node says of itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Whether and how this node leaves.
    pub fn leaving(&self) -> &Arc<Leaving> {
        &self.leaving
    }

    /// What this node's edge counts.
    pub fn stats(&self) -> &Arc<EdgeStats> {
        &self.sessions
    }

    /// Sessions on this node.
    pub fn sessions(&self) -> usize {
        self.sessions.sessions.load(Ordering::Relaxed)
    }

    /// Whether there are no other nodes.
    pub fn is_alone(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.peers().is_empty())
    }

    /// Asks the other nodes, whichever there are, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let Some(cluster) = &self.cluster else { return };
        let mut every = tokio::time::interval(ASK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // One that takes long to answer holds up nobody else, and is not asked again meanwhile.
        let mut asked = BTreeSet::new();
        let mut asking = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(peer) = asking.next(), if !asking.is_empty() => {
                    asked.remove(&peer);
                }
                _ = every.tick() => {
                    let peers = cluster.peers().into_iter().map(|peer| peer.node);
                    for peer in peers.filter(|peer| asked.insert(*peer)) {
                        asking.push(self.ask(cluster, peer));
                    }
                }
            }
        }
    }

    async fn ask(&self, cluster: &Cluster, peer: NodeId) -> NodeId {
        let asked = Instant::now();
        match cluster.call(peer, Question::Report.encode()).await {
            Ok(answer) => {
                if let Some(report) = Report::decode(&answer) {
                    self.heard(peer, report, asked.elapsed());
                } else {
                    tracing::debug!(%peer, bytes = answer.len(), "the node's report is not understood");
                }
            }
            Err(CallError::Unlinked) => {}
            Err(error) => tracing::debug!(%peer, %error, "the node does not say how it is"),
        }
        peer
    }

    fn heard(&self, peer: NodeId, report: Report, took: Duration) {
        let pins = report.pins.clone();
        // It was said half way.
        let then = self.node.now_ms().saturating_sub(u64::try_from((took / 2).as_millis()).unwrap_or(u64::MAX));
        let clock_ahead_ms = report.more.clock_ms.map(|there| difference(there, then));
        let heard = Heard { report, at: Instant::now(), clock_ahead_ms };
        let before = self.heard.lock().insert(peer, heard);
        let known_pins = before.is_some_and(|before| before.report.pins == pins);
        if !known_pins && !pins_agree(&self.about.pins, &pins) {
            tracing::warn!(
                %peer, here = ?self.about.pins, there = ?pins,
                "the node has another certificate for clients: those that pin a key cannot go from one node to the other. Give all nodes \
                 the same tls_cert and tls_key; to change the key, first announce the new one everywhere in next_pins"
            );
        }
    }

    /// Answers a question of another node.
    pub fn answer(self: Arc<Self>, question: &Bytes) -> BoxFuture<'static, Bytes> {
        match Question::decode(question) {
            Some(Question::Report) => Box::pin(std::future::ready(self.own().encode())),
            Some(Question::HandOver(HandOver { partition, to })) => Box::pin(async move {
                let done = self.node.hand_over(partition, to).await.map_err(|error| error.to_string());
                report::answer(&done)
            }),
            None => Box::pin(std::future::ready(Bytes::new())),
        }
    }

    /// How this node is.
    pub fn own(&self) -> Report {
        let sessions = self.sessions();
        let load = sessions.saturating_mul(1_000) / self.about.full_sessions.max(1);
        let replicas = self.node.partition_stats().into_iter().map(|replica| ReplicaReport {
            partition: replica.partition,
            role: ReplicaReport::number(replica.role),
            leader: replica.leader,
            term: replica.term,
            last: replica.last,
            committed: replica.committed,
            applied: replica.applied,
            durable: replica.durable,
        });
        Report {
            address: self.about.address.clone(),
            region: self.about.region.clone(),
            pins: self.about.pins.clone(),
            sessions: sessions as u64,
            load_permille: u16::try_from(load).unwrap_or(u16::MAX),
            // Neither clients nor leaders are wanted where nothing can be written.
            ready: self.node.is_ready() && !self.node.is_disk_low(),
            draining: self.leaving.is_draining(),
            version: self.about.version.to_owned(),
            boot: self.node.boot(),
            partitions: replicas.collect(),
            more: More { clock_ms: Some(self.node.now_ms()), may_lead: !self.node.is_clock_far() },
        }
    }

    /// By how many milliseconds the clocks of the other nodes are ahead of this one's: of those that have said so lately.
    pub fn clocks(&self) -> Vec<i64> {
        let connected = self.cluster.iter().flat_map(Cluster::peers).filter(|peer| peer.connected);
        let heard = self.heard.lock();
        let lately = connected.filter_map(|peer| heard.get(&peer.node)).filter(|heard| heard.at.elapsed() <= STALE);
        lately.filter_map(|heard| heard.clock_ahead_ms).collect()
    }

    /// All nodes, this one among them, by id.
    pub fn seen(&self) -> Vec<Seen> {
        let own = self.own();
        let healthy = own.ready;
        let mut all = vec![Seen { node: self.node.id(), report: Some(own), age: Duration::ZERO, healthy, link: None }];
        let heard = self.heard.lock();
        for link in self.cluster.iter().flat_map(Cluster::peers) {
            let last = heard.get(&link.node);
            let age = last.map_or(Duration::MAX, |last| last.at.elapsed());
            all.push(Seen {
                node: link.node,
                healthy: link.connected && age <= STALE && last.is_some_and(|last| last.report.ready),
                report: last.map(|last| last.report.clone()),
                age,
                link: Some(link),
            });
        }
        drop(heard);
        all.sort_by_key(|seen| seen.node);
        all
    }

    /// The nodes that clients may go to, the one to try first at the front. One that has not said since this node started where
    /// clients reach it is not among them.
    pub fn ranked(&self, region: &str) -> Vec<NodeState> {
        let state = |seen: Seen| {
            let report = seen.report?;
            Some(NodeState {
                node: seen.node,
                address: report.address,
                region: report.region,
                healthy: seen.healthy,
                draining: report.draining,
                load_permille: report.load_permille,
            })
        };
        rank(self.seen().into_iter().filter_map(state).collect(), region)
    }

    /// The same without this node, for who is here and may have to go: as near as this one.
    pub fn others(&self) -> Vec<NodeState> {
        let mut others = self.ranked(&self.about.region);
        others.retain(|state| state.node != self.node.id());
        others
    }

    /// Whether there is another node that takes leaderships.
    pub fn has_heir(&self) -> bool {
        self.seen().iter().any(|seen| seen.node != self.node.id() && seen.may_lead())
    }

    /// Whether there is another node that serves and stays.
    pub fn has_somewhere_to_go(&self) -> bool {
        self.others().iter().any(|other| other.healthy && !other.draining)
    }

    /// Hands the leadership of a partition to node `to`, whichever node has it.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn hand_over(&self, partition: PartitionId, to: NodeId) -> Result<(), TransferError> {
        let seen = self.seen();
        let Some(heir) = seen.iter().find(|seen| seen.node == to) else {
            let known = seen.iter().map(|seen| seen.node.to_string()).collect::<Vec<_>>().join(", ");
            return Err(TransferError::UnknownNode { node: to, known });
        };
        if heir.report.as_ref().is_some_and(|report| !report.more.may_lead) {
            return Err(TransferError::Refused(format!(
                "node {to} leads nothing while its clock is wrong: see its log"
            )));
        }
        let leader = match self.node.hand_over(partition, to).await {
            Ok(()) => return Ok(()),
            Err(MoveError::Refused(HandoverError::NotLeader { leader: Some(leader) })) => leader,
            Err(MoveError::Refused(HandoverError::NotLeader { leader: None })) => {
                return Err(TransferError::NoLeader(partition));
            }
            Err(error @ MoveError::UnknownPartition { .. }) => {
                return Err(TransferError::UnknownPartition(error.to_string()));
            }
            Err(error) => return Err(TransferError::Refused(error.to_string())),
        };
        if leader == to {
            return Err(TransferError::Refused(HandoverError::Leads(to).to_string()));
        }
        let refused = |why: String| TransferError::Refused(format!("node {leader} leads partition {partition}: {why}"));
        let Some(cluster) = &self.cluster else { return Err(TransferError::NoLeader(partition)) };
        let question = Question::HandOver(HandOver { partition, to }).encode();
        let answer = cluster.call(leader, question).await.map_err(|error| refused(error.to_string()))?;
        match report::understood::<Result<(), String>>(&answer) {
            Some(done) => done.map_err(refused),
            None => Err(refused("it runs another version, which cannot be asked; ask it there".to_owned())),
        }
    }
}

/// By how much one time is later than another.
fn difference(there: u64, here: u64) -> i64 {
    let apart = i64::try_from(there.abs_diff(here)).unwrap_or(i64::MAX);
    if there >= here { apart } else { -apart }
}

/// Whether a client that pins any of one node's keys can be told to go to the other.
fn pins_agree(here: &[String], there: &[String]) -> bool {
    // The first is that of the certificate which is used.
    let current = |pins: &[String]| pins.first().cloned();
    current(here) == current(there) || here.is_empty() || there.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_agree_if_they_use_one_key_whatever_they_announce() {
        let pins = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(pins_agree(&pins(&["a"]), &pins(&["a", "b"])));
        assert!(!pins_agree(&pins(&["a", "b"]), &pins(&["b"])));
        assert!(!pins_agree(&pins(&["a"]), &pins(&["b"])));
    }
}
