//! A node that reaches no leader hands its sessions over.
//!
//! It goes on serving history, refuses posts in a way that clients repeat, and `/readyz` says why. After a while its sessions are asked to
//! go: the other nodes may well have a majority that only this one does not see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Why;
use crate::nodes::Nodes;

/// How long that is looked at before sessions are asked to go: an election that takes longer than usual is no reason to move.
const HAND_OVER_AFTER: Duration = Duration::from_secs(2);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Looks until `stop`.
pub(crate) async fn watch(nodes: Arc<Nodes>, stop: CancellationToken) {
    let mut since: Option<Instant> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        // Alone there is nowhere to go, and before it has caught up a node has no sessions worth the name.
        let cut_off = !nodes.is_alone() && nodes.node().has_caught_up() && !nodes.node().is_ready();
        let leaving = nodes.leaving();
        if !cut_off {
            since = None;
            if leaving.why() == Some(Why::Minority) {
                tracing::info!("leaders can be reached again: sessions may stay");
                leaving.stop_asking(Why::Minority);
            }
            continue;
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= HAND_OVER_AFTER && leaving.why().is_none() {
            let partitions = nodes.node().unreachable();
            tracing::warn!(
                ?partitions,
                sessions = nodes.sessions(),
                "this node reaches no majority: it serves history, refuses posts, and asks its sessions to go to the other nodes. Check \
                 the network between the nodes, and `rove-server cluster status` on each"
            );
            leaving.ask_for_want_of_a_majority();
        }
    }
}
