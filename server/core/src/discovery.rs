//! Where a client should connect: nodes in the order it should try them.
//!
//! Healthy before not; staying before draining; then, as a busy node next door serves worse than an idle one far away but
//! a few percent of load are no reason to cross an ocean, by load in quarters; then the client's region; then the load
//! itself. The node id settles the rest, so that every node gives the same answer.

use rove_protocol::ids::NodeId;

/// A node as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Which.
    pub node: NodeId,
    /// `host:port` of its QUIC endpoint.
    pub address: String,
    /// The operator's name for where it stands; may be empty.
    pub region: String,
    /// Whether it answers its peers and may serve.
    pub healthy: bool,
    /// Whether it is about to leave.
    pub draining: bool,
    /// Sessions it has, in thousandths of those it takes.
    pub load_permille: u16,
}

/// Load in steps that matter: below a quarter, a half, three quarters, nearly full, and full.
fn load_step(permille: u16) -> u16 {
    match permille {
        0..250 => 0,
        250..500 => 1,
        500..750 => 2,
        750..1000 => 3,
        1000.. => 4,
    }
}

/// The nodes to try, best first, for a client in `region` (empty: unknown). Unhealthy nodes are at the end: clients remember what they
/// are told, and by the time they need it such a node may be the one that is left.
pub fn rank(mut nodes: Vec<NodeState>, region: &str) -> Vec<NodeState> {
    let elsewhere = |node: &NodeState| region.is_empty() || node.region != region;
    nodes.sort_by_key(|node| {
        (!node.healthy, node.draining, load_step(node.load_permille), elsewhere(node), node.load_permille, node.node)
    });
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, region: &str, load_permille: u16) -> NodeState {
        NodeState {
            node: NodeId(id),
            address: format!("node{id}.example:4433"),
            region: region.to_owned(),
            healthy: true,
            draining: false,
            load_permille,
        }
    }

    fn order(nodes: Vec<NodeState>, region: &str) -> Vec<u64> {
        rank(nodes, region).into_iter().map(|node| node.node.0).collect()
    }

    #[test]
    fn the_nearest_comes_first_among_nodes_about_as_loaded() {
        let nodes = vec![node(1, "us", 10), node(2, "eu", 200), node(3, "ap", 5)];
        assert_eq!(order(nodes, "eu"), [2, 3, 1]);
    }

    #[test]
    fn a_much_less_loaded_node_comes_before_a_nearer_one() {
        assert_eq!(order(vec![node(1, "us", 100), node(2, "eu", 900)], "eu"), [1, 2]);
    }

    #[test]
    fn a_draining_node_comes_after_those_that_stay_and_an_unhealthy_one_last() {
        let draining = NodeState { draining: true, ..node(1, "eu", 0) };
        let unhealthy = NodeState { healthy: false, ..node(2, "eu", 0) };
        assert_eq!(order(vec![draining, unhealthy, node(3, "us", 990)], "eu"), [3, 1, 2]);
    }

    #[test]
    fn without_a_region_the_least_loaded_comes_first_and_ids_settle_the_rest() {
        assert_eq!(order(vec![node(3, "us", 20), node(2, "", 10), node(1, "eu", 20)], ""), [2, 1, 3]);
    }
}
