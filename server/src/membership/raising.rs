//! Raising the version of apply, once every member has the newer one (D8).

use std::sync::Arc;
use std::time::Duration;

use rove_core::apply_version;
use rove_core::directory::DirectoryCommand;
use rove_protocol::ids::PartitionId;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Roster;
use crate::node::Node;

/// How often it is looked whether all can apply more. An upgrade takes minutes, and nobody waits for its end.
const LOOK: Duration = Duration::from_secs(1);

/// Raises the version while this node leads the directory, until `stop`. A node on its own has no `roster`.
pub async fn raise(node: Node, roster: Option<Arc<Roster>>, stop: CancellationToken) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = node.apply_version_said();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = said.changed() => tracing::info!(version = *said.borrow(), "the apply version is raised"),
            _ = look.tick() => {}
        }
        if let Some(roster) = &roster {
            roster.say_apply_version(*said.borrow_and_update());
        }
        if node.leader(PartitionId(0)) == Some(node.id())
            && let Some((version, members)) = wanted(&node, roster.as_deref())
        {
            // Gates may take long while a partition has no leader; whoever leads then carries them on.
            tokio::select! {
                () = stop.cancelled() => return,
                // It is in force here: those who come have to hear of it.
                Ok(()) = said.changed() => said.mark_changed(),
                () = propose(&node, version, members) => {}
            }
        }
    }
}

/// The version to raise to, and the version of the map of members that it was looked at with.
fn wanted(node: &Node, roster: Option<&Roster>) -> Option<(u16, u64)> {
    if let Some(roster) = roster {
        return roster.formation.lock().raised();
    }
    let members = node.members_said().borrow().as_ref().map_or(0, |map| map.version);
    apply_version::raised(node.apply_version(), [Some(node.applies())]).map(|version| (version, members))
}

async fn propose(node: &Node, version: u16, members: u64) {
    // In force by now, or the members have changed: it is looked at again.
    if let Err(error) = node.propose_directory(&DirectoryCommand::RaiseApplyVersion { version, members }).await {
        tracing::debug!(%error, "raising the apply version has to wait");
    }
}
