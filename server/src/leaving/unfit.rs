//! A node that is not fit to lead gives its leaderships away for as long as that is so.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::move_leaders;
use crate::nodes::Nodes;

/// How often it is looked at: nodes say what time it is as often, and at half a gigabyte a second the reserve of the disk
/// would last for one look.
const LOOK: Duration = Duration::from_secs(1);
/// How long leaders may take at a time; what is left goes with the next look.
const LEADERS: Duration = Duration::from_secs(2);

/// Looks until `stop` whether the node is `unfit`.
pub(super) async fn watch(nodes: &Arc<Nodes>, stop: &CancellationToken, mut unfit: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stop.cancelled() => return,
        }
        if unfit() && !nodes.node().led().is_empty() && nodes.has_heir() {
            move_leaders(nodes, LEADERS).await;
        }
    }
}
