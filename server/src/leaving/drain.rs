//! Draining: leaders first, then sessions, so that whoever posts meanwhile waits for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rove_protocol::ids::{NodeId, PartitionId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Why;
use crate::nodes::{Nodes, Seen};

/// How long the leaders may take: each goes in some ten milliseconds, and a peer that is slow is passed over.
pub(crate) const LEADERS: Duration = Duration::from_secs(10);
/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(100);

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainPhase {
    /// The node serves.
    Serving,
    /// Leadership goes to the other nodes.
    Leaders,
    /// Sessions go to the other nodes.
    Sessions,
    /// It leads nothing and has no sessions: it may be stopped.
    Drained,
}

/// How far a drain is, and what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainProgress {
    /// How far.
    pub phase: DrainPhase,
    /// Partitions that this node still leads.
    pub leaders: usize,
    /// Sessions that it still has.
    pub sessions: usize,
}

/// Why a node is not drained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// It is alone, or the others are not healthy.
    #[error(
        "no other node is ready to take over: draining this one would end the service. See `rove-server cluster status`, and start or \
         mend another node first; to stop this node all the same, send it SIGTERM"
    )]
    NowhereToGo,
}

/// Drains a node on request, and takes it back.
#[derive(Debug)]
pub struct Drainer {
    nodes: Arc<Nodes>,
    stay: Duration,
    running: Mutex<Option<CancellationToken>>,
    phase: Arc<Mutex<DrainPhase>>,
    tasks: TaskTracker,
}

impl Drainer {
    /// Of this node; sessions may stay so long after they were told.
    pub fn new(nodes: Arc<Nodes>, stay: Duration) -> Self {
        Self {
            nodes,
            stay,
            running: Mutex::new(None),
            phase: Arc::new(Mutex::new(DrainPhase::Serving)),
            tasks: TaskTracker::new(),
        }
    }

    /// Begins to drain, unless that is under way.
    ///
    /// # Errors
    /// [`DrainError`]; then nothing has changed.
    pub fn begin(&self) -> Result<(), DrainError> {
        let mut running = self.running.lock();
        if running.is_some() {
            return Ok(());
        }
        if !self.nodes.has_somewhere_to_go() {
            return Err(DrainError::NowhereToGo);
        }
        let stop = CancellationToken::new();
        *running = Some(stop.clone());
        *self.phase.lock() = DrainPhase::Leaders;
        self.nodes.leaving().set_draining(true);
        tracing::info!("draining: leaders first, then sessions; `rove-server cluster drain --undo` takes it back");
        self.tasks.spawn(drain(self.nodes.clone(), self.stay, self.phase.clone(), stop));
        Ok(())
    }

    /// Takes it back: sessions may stay and come, and the node may lead.
    pub fn undo(&self) {
        if let Some(running) = self.running.lock().take() {
            running.cancel();
            *self.phase.lock() = DrainPhase::Serving;
            self.nodes.leaving().stop_asking(Why::Drain);
            self.nodes.leaving().set_draining(false);
            tracing::info!("not draining any more");
        }
    }

    /// How far it is.
    pub fn progress(&self) -> DrainProgress {
        let phase = *self.phase.lock();
        DrainProgress { phase, leaders: self.nodes.node().led().len(), sessions: self.nodes.sessions() }
    }

    /// Stops whatever is under way, and returns when it has.
    pub async fn stop(&self) {
        if let Some(running) = self.running.lock().take() {
            running.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Drains until `stop`: what comes back meanwhile goes again.
async fn drain(nodes: Arc<Nodes>, stay: Duration, phase: Arc<Mutex<DrainPhase>>, stop: CancellationToken) {
    let work = async {
        move_leaders(&nodes, LEADERS).await;
        *phase.lock() = DrainPhase::Sessions;
        nodes.leaving().ask_to_drain(stay);
        loop {
            let drained = nodes.sessions() == 0 && nodes.node().led().is_empty();
            let now = if drained { DrainPhase::Drained } else { DrainPhase::Sessions };
            let before = std::mem::replace(&mut *phase.lock(), now);
            if drained && before != DrainPhase::Drained {
                tracing::info!("drained: this node leads nothing and has no sessions");
            }
            if !nodes.node().led().is_empty() {
                move_leaders(&nodes, LEADERS).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Hands over every partition that this node leads, to the healthy nodes in turn. Returns when it leads none, or after `patience`.
pub(crate) async fn move_leaders(nodes: &Nodes, patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut given: BTreeMap<NodeId, usize> = BTreeMap::new();
    loop {
        let led = nodes.node().led();
        if led.is_empty() {
            return;
        }
        for partition in led {
            let heirs = heirs(&nodes.seen(), nodes.node().id(), &given);
            for heir in heirs {
                match nodes.node().hand_over(partition, heir).await {
                    Ok(()) => {
                        *given.entry(heir).or_default() += 1;
                        tracing::info!(%partition, to = %heir, "leadership handed over");
                        break;
                    }
                    Err(error) => tracing::debug!(%partition, to = %heir, %error, "leadership is not handed over"),
                }
                if Instant::now() >= deadline {
                    break;
                }
            }
        }
        if Instant::now() >= deadline {
            let left: Vec<PartitionId> = nodes.node().led();
            if !left.is_empty() {
                tracing::warn!(?left, "no other node has taken over: an election follows when this node stops");
            }
            return;
        }
        // Another node may be ready to take over only a little later.
        tokio::time::sleep(LOOK).await;
    }
}

/// Who may take over, whoever was given least at the front.
fn heirs(seen: &[Seen], this: NodeId, given: &BTreeMap<NodeId, usize>) -> Vec<NodeId> {
    let leads = |seen: &Seen| {
        let leaders = seen.report.iter().flat_map(|report| &report.partitions);
        leaders.filter(|replica| replica.role_name() == "leader").count()
    };
    let mut heirs: Vec<(usize, NodeId)> = seen
        .iter()
        .filter(|seen| seen.node != this && seen.may_lead())
        .map(|seen| (leads(seen) + given.get(&seen.node).copied().unwrap_or(0), seen.node))
        .collect();
    heirs.sort_unstable();
    heirs.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::EdgeStats;
    use crate::node::{Node, NodeConfig, Sinks};
    use crate::nodes::About;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_with_nowhere_to_go_is_not_drained_and_serves_on() {
        let dir = tempfile::tempdir().unwrap();
        let (node, runner) = Node::start(NodeConfig::new(dir.path(), NodeId(1)), Sinks::none()).unwrap();
        let nodes = Nodes::new(node, About::default(), Arc::new(EdgeStats::default()), Arc::default(), None);
        let drainer = Drainer::new(nodes.clone(), Duration::from_secs(1));
        assert_eq!(drainer.begin(), Err(DrainError::NowhereToGo));
        assert_eq!(drainer.progress().phase, DrainPhase::Serving);
        assert!(!nodes.leaving().is_draining());
        // There is nothing to take back.
        drainer.undo();
        assert_eq!(drainer.progress().phase, DrainPhase::Serving);
        drainer.stop().await;
        runner.stop().await.unwrap();
    }
}
