//! A node whose disk is almost full refuses its clients' commands and gives its leaderships away, until there is room again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rove_core::disk::Reserve;
use tokio_util::sync::CancellationToken;

use super::unfit;
use crate::node::NodeStats;
use crate::nodes::Nodes;
use crate::storage::space::Space;

/// Looks until `stop`.
pub(crate) async fn watch(
    nodes: Arc<Nodes>,
    reserve: u64,
    space: impl Fn() -> io::Result<Space>,
    stop: CancellationToken,
) {
    let mut kept = Reserve::new(reserve);
    let low = || {
        match space() {
            Ok(space) => seen(nodes.node().stats(), &mut kept, space.free),
            Err(error) => tracing::error!(%error, "the free space of data_dir cannot be told"),
        }
        nodes.node().is_disk_low()
    };
    unfit::watch(&nodes, &stop, low).await;
}

/// So much is free.
fn seen(stats: &NodeStats, kept: &mut Reserve, free: u64) {
    let low = kept.look(free);
    stats.disk_free_bytes.store(free, Ordering::Relaxed);
    let was = stats.disk_low.swap(low, Ordering::AcqRel);
    if low && !was {
        tracing::error!(
            free_mib = free >> 20,
            "the disk of data_dir is almost full: new posts and requests are answered with Busy, and leaders go to other nodes. Free \
             some space; the node goes on by itself"
        );
    } else if was && !low {
        tracing::info!(free_mib = free >> 20, "the disk of data_dir has room again: posts are taken");
    }
}

#[cfg(test)]
mod tests {
    use rove_core::command::{Actor, ConversationCommand, Gate};
    use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PartitionId};
    use rove_protocol::registry::ErrorCode;

    use super::*;
    use crate::edge::EdgeStats;
    use crate::node::{Node, NodeConfig, ProposeError, Sinks};
    use crate::nodes::About;

    #[test]
    fn commands_are_refused_as_busy_while_the_disk_is_low_and_taken_again_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let (node, runner) = Node::start(NodeConfig::new(dir.path(), NodeId(1)), Sinks::none()).unwrap();
        let nodes = Nodes::new(node.clone(), About::default(), Arc::new(EdgeStats::default()), Arc::default(), None);
        let mut kept = Reserve::new(400);
        let mut propose_with = |free| {
            seen(node.stats(), &mut kept, free);
            let actor = Actor { account: AccountId(1), device: DeviceId(1) };
            let peer = AccountId(2);
            let partition = node.partition_of(ConversationId::direct(AccountId(1), peer));
            node.propose_conversation(partition, &ConversationCommand::CreateDirect { actor, peer }).map(drop)
        };
        assert_eq!(propose_with(399), Err(ProposeError::DiskLow));
        assert_eq!(ProposeError::DiskLow.code(), ErrorCode::Busy);
        assert!(!nodes.own().ready, "other nodes hand it nothing");
        // What the cluster tells itself goes on.
        let gate = ConversationCommand::Gate { number: 1, gate: Gate::DeviceRevoked(DeviceId(9)) };
        assert!(node.propose_conversation(PartitionId(1), &gate).is_ok());
        assert_eq!(propose_with(499), Err(ProposeError::DiskLow), "not back and forth");
        assert_eq!(propose_with(500), Ok(()));
        assert_eq!(NodeStats::get(&node.stats().commands_refused_disk), 2);
        runner.stop_blocking().unwrap();
    }
}
