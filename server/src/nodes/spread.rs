//! Gives leaderships away until every node leads as much as the others: [`rove_core::spreading`] decides, from what nodes report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rove_core::spreading::{Spreader, View};
use tokio_util::sync::CancellationToken;

use super::{Nodes, Seen};

/// How often it is looked at: as often as nodes report.
const LOOK: Duration = super::ASK_EVERY;

/// Spreads until `stop`.
pub(crate) async fn spread(nodes: Arc<Nodes>, stop: CancellationToken) {
    if nodes.cluster.is_none() {
        return;
    }
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut spreader = Spreader::new(nodes.node.id(), 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        let Some((partition, to)) = spreader.decide(&view(&nodes), now()) else { continue };
        match nodes.node.hand_over(partition, to).await {
            Ok(()) => tracing::info!(%partition, %to, "leadership handed over, so that every node leads as much"),
            Err(error) => tracing::info!(%partition, %to, %error, "leadership is not handed over"),
        }
    }
}

/// The cluster, as this node sees it.
fn view(nodes: &Nodes) -> View {
    let own: BTreeMap<_, _> =
        nodes.node.partition_stats().into_iter().map(|replica| (replica.partition, replica.last)).collect();
    let leaders = own.keys().map(|partition| (*partition, nodes.node.leader(*partition))).collect();
    let lacks = |seen: Seen| {
        let replicas = seen.report.into_iter().flat_map(|report| report.partitions);
        // Who does not vote cannot lead.
        let replicas = replicas.filter(|replica| replica.role_name() != "learner");
        let lacks = replicas.filter_map(|replica| {
            let needed = *own.get(&replica.partition)?;
            Some((replica.partition, needed.saturating_sub(replica.applied)))
        });
        (seen.node, lacks.collect())
    };
    View { leaders, nodes: nodes.seen().into_iter().filter(Seen::may_lead).map(lacks).collect() }
}
