//! Peers that come and go while the transport runs.

use super::*;

fn without(fixture: &Fixture, node: u64, other: u64) -> ClusterConfig {
    let mut config = fixture.config(node);
    config.peers.retain(|peer| peer.node.0 != other);
    config
}

fn peers(fixture: &Fixture, nodes: &[u64]) -> Vec<PeerAddress> {
    let address = |node: &u64| PeerAddress { node: NodeId(*node), address: fixture.addresses[node].to_string() };
    nodes.iter().map(address).collect()
}

#[tokio::test]
async fn a_node_that_becomes_a_peer_is_linked_and_one_that_is_none_any_more_is_refused() {
    let fixture = Fixture::new(3);
    let one = TestNode::start(without(&fixture, 1, 3));
    let (two, three) = (fixture.start(2), fixture.start(3));
    one.ear.up(2).await;
    let refused = || three.peer(1).last_error.is_some_and(|error| error.contains("node 3 is not among"));
    eventually("the refusal of node 3", refused).await;

    one.cluster.set_peers(peers(&fixture, &[1, 2, 3]));
    one.ear.up(3).await;
    three.ear.up(1).await;
    assert_eq!(one.cluster.call(NodeId(3), Bytes::new()).await.unwrap()[..], 1u64.to_le_bytes());
    assert_eq!(one.peer(2).links, 1, "a peer that stays keeps its connection");

    one.cluster.set_peers(peers(&fixture, &[3]));
    one.ear.exactly(Heard::Down(2)).await;
    two.ear.exactly(Heard::Down(1)).await;
    assert_eq!(one.cluster.peers().len(), 1);
    assert_eq!(one.cluster.call(NodeId(2), Bytes::new()).await, Err(CallError::Unlinked));
    eventually("the refusal of node 2", || {
        two.peer(1).last_error.is_some_and(|error| error.contains("node 2 is not among"))
    })
    .await;
    for node in [one, two, three] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_peer_at_another_address_is_dialled_there() {
    let fixture = Fixture::new(2);
    let mut config = fixture.config(1);
    config.peers[1].address = "127.0.0.1:1".to_owned();
    let one = TestNode::start(config);
    eventually("a failed dial", || one.peer(2).last_error.is_some()).await;
    // Node 2 does not dial: only the other may.
    let two = TestNode::start(without(&fixture, 2, 1));
    one.cluster.set_peers(peers(&fixture, &[2]));
    eventually("the refusal of node 2", || {
        one.peer(2).last_error.is_some_and(|error| error.contains("node 1 is not among"))
    })
    .await;
    two.cluster.set_peers(peers(&fixture, &[1]));
    one.ear.up(2).await;
    for node in [one, two] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_peer_that_would_not_be_let_in_now_is_cut_off_with_the_reason() {
    let fixture = Fixture::new(2);
    let (one, two) = (fixture.start(1), fixture.start(2));
    one.ear.up(2).await;
    two.ear.up(1).await;
    *one.ear.allowed.lock() = Some("it has another disk".to_owned());
    one.cluster.set_peers(peers(&fixture, &[1, 2]));
    one.ear.exactly(Heard::Down(2)).await;
    two.ear.exactly(Heard::Down(1)).await;
    eventually("the reason", || two.peer(1).last_error.is_some_and(|error| error.contains("it has another disk")))
        .await;
    *one.ear.allowed.lock() = None;
    one.ear.up_times(2, 2).await;
    for node in [one, two] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_transport_that_stops_ends_peers_that_came_late_too() {
    let fixture = Fixture::new(2);
    let one = TestNode::start(without(&fixture, 1, 2));
    let two = fixture.start(2);
    one.cluster.set_peers(peers(&fixture, &[2]));
    one.ear.up(2).await;
    let late = one.cluster.clone();
    one.stop().await;
    two.ear.exactly(Heard::Down(1)).await;
    late.set_peers(Vec::new());
    late.set_peers(peers(&fixture, &[2]));
    assert!(late.0.tasks.is_empty());
    two.stop().await;
}
