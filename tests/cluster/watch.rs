//! What every node says of its replicas, asked again and again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use rove_client::Trust;
use rove_protocol::ids::{NodeId, PartitionId};
use rove_sim::history::Record;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::Api;
use crate::nodes::{NODES, Nodes};
use crate::recorder::{PARTITIONS, Recorder};

/// A third of the shortest election time-out: an answer tells of the present.
const ASK_EVERY: Duration = Duration::from_millis(80);
/// An older answer tells nothing.
const FRESH: Duration = Duration::from_millis(500);

/// Entries that may be between two nodes' answers, which are not of the same instant.
const ON_ITS_WAY: u64 = 100;

/// What a node says of one of its replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReplicaView {
    pub(crate) leads: bool,
    pub(crate) term: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) state_hash: u64,
}

/// What a node says, by partition, and when it said so.
type NodeView = (Instant, Vec<ReplicaView>);

/// The newest answers.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<BTreeMap<u64, NodeView>>>);

impl Watch {
    /// Begins to ask; the tasks end with the set that is returned.
    pub(crate) fn start(nodes: &Nodes, recorder: &Arc<Recorder>) -> (Self, JoinSet<()>) {
        let (watch, mut tasks) = (Self::default(), JoinSet::new());
        for node in NODES {
            let (address, trust) = (nodes.home(node).clients, nodes.trust.clone());
            tasks.spawn(watch.clone().ask(node, address, trust, Arc::clone(recorder)));
        }
        (watch, tasks)
    }

    async fn ask(self, node: u64, address: SocketAddr, trust: Trust, recorder: Arc<Recorder>) {
        let mut api = None;
        let mut every = tokio::time::interval(ASK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if api.is_none() {
                api = Api::connect(address, &trust).await.ok();
            }
            let Some(connected) = &mut api else { continue };
            let Ok((200, text)) = connected.ask(Method::GET, "/metrics", Bytes::new()).await else {
                api = None;
                continue;
            };
            let views = parse(&String::from_utf8_lossy(&text));
            for (number, view) in (0..).zip(&views).filter(|(_, view)| view.leads) {
                recorder.record(&Record::Leads { node: NodeId(node), partition: PartitionId(number), term: view.term });
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, (Instant::now(), views));
        }
    }

    /// What the node says, if it said so lately.
    pub(crate) fn of(&self, node: u64) -> Option<Vec<ReplicaView>> {
        let views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.get(&node).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, views)| views.clone())
    }

    /// The conversation partitions that the node leads.
    pub(crate) fn led_by(&self, node: u64) -> Vec<PartitionId> {
        let views = self.of(node).unwrap_or_default();
        (0..).zip(views).skip(1).filter(|(_, view)| view.leads).map(|(number, _)| PartitionId(number)).collect()
    }

    /// The node that leads most.
    pub(crate) fn busiest(&self) -> u64 {
        NODES.into_iter().max_by_key(|node| self.led_by(*node).len()).unwrap_or(1)
    }

    /// Whether the node has applied, of every partition, what any other says is committed, but for what is on its way.
    pub(crate) fn in_step(&self, node: u64) -> bool {
        let Some(views) = self.of(node) else { return false };
        let others: Vec<Vec<ReplicaView>> = NODES.into_iter().filter_map(|other| self.of(other)).collect();
        (0..).zip(&views).all(|(at, view): (usize, _)| {
            let committed = others.iter().filter_map(|views| views.get(at)).map(|view| view.committed).max();
            view.applied + ON_ITS_WAY >= committed.unwrap_or_default()
        })
    }

    /// What all three say once nothing moves any more: every replica has applied what its leader has committed.
    pub(crate) fn at_rest(&self) -> Option<BTreeMap<u64, Vec<ReplicaView>>> {
        let all: BTreeMap<u64, Vec<ReplicaView>> =
            NODES.into_iter().map(|node| Some((node, self.of(node)?))).collect::<Option<_>>()?;
        let still = (0..=usize::from(PARTITIONS)).all(|partition| {
            let views: Vec<ReplicaView> = all.values().filter_map(|views| views.get(partition).copied()).collect();
            let first = views.first().copied().unwrap_or_default();
            views.len() == NODES.len()
                && views.iter().filter(|view| view.leads).count() == 1
                && views.iter().all(|view| {
                    view.term == first.term && view.applied == first.applied && view.committed == first.applied
                })
        });
        still.then_some(all)
    }
}

fn parse(text: &str) -> Vec<ReplicaView> {
    let mut views = vec![ReplicaView::default(); usize::from(PARTITIONS) + 1];
    for line in text.lines() {
        let Some((name, rest)) = line.strip_prefix("rove_partition_").and_then(|line| line.split_once('{')) else {
            continue;
        };
        let Some((number, value)) = rest.strip_prefix("partition=\"").and_then(|rest| rest.split_once("\"} ")) else {
            continue;
        };
        let (Ok(number), Ok(value)) = (number.parse::<usize>(), value.parse::<u64>()) else { continue };
        let Some(view) = views.get_mut(number) else { continue };
        match name {
            "leader" => view.leads = value == 1,
            "term" => view.term = value,
            "committed_index" => view.committed = value,
            "applied_index" => view.applied = value,
            "state_hash" => view.state_hash = value,
            _ => {}
        }
    }
    views
}
