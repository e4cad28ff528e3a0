//! A node whose clock is far from the others' gives its leaderships away: what it stamped would be dated wrongly, and everything after it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rove_core::clock::{ClockLook, ClockWatch};
use tokio_util::sync::CancellationToken;

use super::unfit;
use crate::node::NodeStats;
use crate::nodes::Nodes;

/// Looks until `stop`.
pub(crate) async fn watch(nodes: Arc<Nodes>, stop: CancellationToken) {
    let mut clock = ClockWatch::default();
    let far = || {
        let looked = clock.look(&nodes.clocks());
        seen(nodes.node().stats(), looked);
        looked.far
    };
    unfit::watch(&nodes, &stop, far).await;
}

/// It is so far off.
fn seen(stats: &NodeStats, looked: ClockLook) {
    stats.clock_ahead_ms.store(looked.ahead_ms, Ordering::Relaxed);
    let was = stats.clock_far.swap(looked.far, Ordering::AcqRel);
    if looked.far && !was {
        tracing::error!(
            ahead_ms = looked.ahead_ms,
            "this node's clock is far from the other nodes': it leads nothing until that is mended. Set it, and let the system keep it (chrony, \
             systemd-timesyncd)"
        );
    } else if was && !looked.far {
        tracing::info!(ahead_ms = looked.ahead_ms, "this node's clock agrees with the other nodes': it may lead again");
    }
}
