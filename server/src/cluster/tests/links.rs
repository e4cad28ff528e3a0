//! Nodes that have nothing against each other.

use super::*;

#[tokio::test]
async fn two_nodes_exchange_every_class_in_both_directions() {
    let fixture = Fixture::new(2);
    let (one, two) = (fixture.start(1), fixture.start(2));
    assert_eq!(one.ear.up(2).await.version, 1);
    two.ear.up(1).await;
    for (from, to, name) in [(&one, &two, 1), (&two, &one, 2)] {
        let other = NodeId(3 - name);
        let heartbeat =
            vec![(PartitionId(0), message(name, other.0, 1, 0)), (PartitionId(6), message(name, other.0, 2, 0))];
        let append = vec![(PartitionId(1), message(name, other.0, 1, 100_000))];
        from.cluster.send_raft(other, heartbeat.iter().chain(&append).cloned().collect());
        from.cluster.send_forward(other, &forward(1)).unwrap();
        let ack = ForwardAck { partition: PartitionId(3), term: 4, next: 9 };
        from.cluster.send_forward_ack(other, ack);
        from.cluster.send_presence(other, Bytes::from_static(b"here")).unwrap();
        to.ear.exactly(Heard::Raft(name, heartbeat)).await;
        to.ear.exactly(Heard::Raft(name, append)).await;
        to.ear.exactly(Heard::Forward(name, forward(1))).await;
        to.ear.exactly(Heard::ForwardAck(name, ack)).await;
        to.ear.exactly(Heard::Presence(name, Bytes::from_static(b"here"))).await;
        let answer = from.cluster.call(other, Bytes::from_static(b"?")).await.unwrap();
        assert_eq!(answer[..], [&name.to_le_bytes()[..], b"?"].concat());
    }
    let status = one.peer(2);
    assert!(status.connected && status.rtt.is_some() && status.last_error.is_none());
    assert_eq!(status.hello.unwrap().store, [2; 16]);
    assert_eq!((one.class(2, Class::Append).sent_frames, one.class(2, Class::Append).received_frames), (1, 1));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn three_nodes_have_one_connection_for_each_pair_and_keep_it() {
    let fixture = Fixture::new(3);
    let nodes = [fixture.start(1), fixture.start(2), fixture.start(3)];
    for (index, node) in (1u64..).zip(&nodes) {
        for other in (1..=3).filter(|other| *other != index) {
            node.ear.up(other).await;
        }
    }
    // Questions over every link, there and back: nothing was replaced meanwhile.
    for node in &nodes {
        for peer in node.cluster.peers() {
            node.cluster.call(peer.node, Bytes::new()).await.unwrap();
        }
    }
    for node in &nodes {
        assert!(node.cluster.peers().iter().all(|peer| peer.connected && peer.links == 1));
        assert_eq!(node.cluster.0.endpoint.open_connections(), 2);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn frames_of_a_class_arrive_in_order() {
    let fixture = Fixture::new(2);
    let (one, two) = (fixture.start(1), fixture.start(2));
    one.ear.up(2).await;
    for number in 0..300 {
        one.cluster.send_raft(NodeId(2), vec![(PartitionId(1), message(1, 2, number, 5_000))]);
        one.cluster.send_raft(NodeId(2), vec![(PartitionId(1), message(1, 2, number, 0))]);
        one.cluster.send_forward(NodeId(2), &forward(number)).unwrap();
    }
    let expected: Vec<_> = (0..300).map(|number| Heard::Forward(1, forward(number))).collect();
    let of = |heard: &[Heard], entries: bool| -> Vec<PeerMessage> {
        let raft =
            heard.iter().filter_map(|heard| if let Heard::Raft(_, messages) = heard { Some(messages) } else { None });
        raft.flatten()
            .map(|(_, message)| message.clone())
            .filter(|message| message.carries_entries() == entries)
            .collect()
    };
    let messages = |entries| (0..300).map(|number| message(1, 2, number, entries)).collect::<Vec<_>>();
    two.ear
        .wait("all of it", |heard| {
            let forwards: Vec<_> = heard.iter().filter(|heard| matches!(heard, Heard::Forward(..))).cloned().collect();
            (forwards == expected && of(heard, true) == messages(5_000) && of(heard, false) == messages(0))
                .then_some(())
        })
        .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn heartbeats_of_all_partitions_are_one_frame() {
    let fixture = Fixture::new(2);
    let (one, two) = (fixture.start(1), fixture.start(2));
    one.ear.up(2).await;
    let all: Vec<_> = (0..=256).map(|partition| (PartitionId(partition), message(1, 2, 1_000_000, 0))).collect();
    one.cluster.send_raft(NodeId(2), all.clone());
    two.ear.exactly(Heard::Raft(1, all)).await;
    assert_eq!(one.class(2, Class::Urgent).sent_frames, 1);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_node_that_is_killed_and_started_again_is_linked_again() {
    let fixture = Fixture::new(2);
    let one = fixture.start(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let two = runtime.block_on_spawned(fixture.config(2));
    assert_eq!(one.ear.up(2).await.incarnation, 1);
    // Its tasks and its socket vanish without a word.
    runtime.shutdown_background();
    drop(two);
    eventually("the port to be free", || bind(fixture.addresses[&2]).is_ok()).await;
    let again = TestNode::start(ClusterConfig { incarnation: 2, ..fixture.config(2) });
    assert_eq!(one.ear.up_times(2, 2).await.incarnation, 2);
    again.ear.up(1).await;
    one.cluster.call(NodeId(2), Bytes::new()).await.unwrap();
    one.stop().await;
    again.stop().await;
}

trait BlockOnSpawned {
    fn block_on_spawned(&self, config: ClusterConfig) -> TestNode;
}

impl BlockOnSpawned for tokio::runtime::Runtime {
    /// Starts a node on another runtime than the caller's.
    fn block_on_spawned(&self, config: ClusterConfig) -> TestNode {
        let _inside = self.enter();
        TestNode::start(config)
    }
}

#[tokio::test]
async fn a_node_that_stops_is_missed_at_once_and_linked_again_when_it_is_back() {
    let fixture = Fixture::new(2);
    let (one, two) = (fixture.start(1), fixture.start(2));
    one.ear.up(2).await;
    two.ear.up(1).await;
    two.stop().await;
    one.ear.exactly(Heard::Down(2)).await;
    assert_eq!(one.cluster.send_forward(NodeId(2), &forward(1)), Err(SendError::Unlinked));
    assert_eq!(one.cluster.call(NodeId(2), Bytes::new()).await, Err(CallError::Unlinked));
    assert_eq!(one.class(2, Class::Forward).unlinked_frames, 1);
    eventually("the port to be free", || bind(fixture.addresses[&2]).is_ok()).await;
    let two = TestNode::start(ClusterConfig { incarnation: 2, ..fixture.config(2) });
    one.ear.up_times(2, 2).await;
    two.ear.up(1).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn news_of_the_formation_reach_the_peers() {
    let fixture = Fixture::new(2);
    let first = Bytes::from_static(b"forming");
    let one = TestNode::start(ClusterConfig { formation: first.clone(), ..fixture.config(1) });
    let two = fixture.start(2);
    assert_eq!(two.ear.up(1).await.formation, first);
    one.cluster.set_formation(Bytes::from_static(b"formed")).unwrap();
    two.ear.exactly(Heard::Formation(1, Bytes::from_static(b"formed"))).await;
    assert_eq!(two.peer(1).formation.unwrap(), Bytes::from_static(b"formed"));
    assert_eq!(one.cluster.set_formation(vec![0; registry::FORMATION_BYTES + 1].into()), Err(SendError::TooLarge));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn questions_that_are_not_answered_are_bounded_in_number_and_in_time() {
    let fixture = Fixture::new(2);
    let (one, two) = (fixture.start(1), fixture.start(2));
    one.ear.up(2).await;
    two.ear.silent.store(true, std::sync::atomic::Ordering::Relaxed);
    let ask = || one.cluster.call(NodeId(2), Bytes::from_static(b"?"));
    let asked = futures::future::join_all((0..=registry::CALLS_AT_ONCE).map(|_| ask()));
    let answers = soon("the time-outs", asked).await;
    let count = |error: &CallError| answers.iter().filter(|answer| answer.as_ref() == Err(error)).count();
    assert_eq!(count(&CallError::Busy), 1);
    // The other end may give up a moment before this one.
    let others = count(&CallError::Timeout) + count(&CallError::Unanswered) + resets(&answers);
    assert_eq!(others, registry::CALLS_AT_ONCE);
    two.ear.silent.store(false, std::sync::atomic::Ordering::Relaxed);
    ask().await.unwrap();
    assert_eq!(one.cluster.call(NodeId(2), vec![0; 70_000].into()).await, Err(CallError::TooLarge));
    one.stop().await;
    two.stop().await;
}

fn resets(answers: &[Result<Bytes, CallError>]) -> usize {
    answers.iter().filter(|answer| matches!(answer, Err(CallError::Lost(_)))).count()
}

#[tokio::test]
async fn a_stopped_transport_leaves_no_task() {
    let fixture = Fixture::new(3);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let nodes = [fixture.start(1), fixture.start(2)];
    nodes[0].ear.up(2).await;
    assert!(alive() > before + 10);
    // Node 3 is never there: it is still being dialled.
    let trackers: Vec<_> = nodes.iter().map(|node| node.runner.tasks.clone()).collect();
    for node in nodes {
        node.stop().await;
    }
    assert!(trackers.iter().all(tokio_util::task::TaskTracker::is_empty));
    // quinn's own, once the last handle is gone.
    eventually("no task", || alive() == before).await;
}

#[tokio::test]
async fn certificates_are_read_again_and_new_connections_use_them() {
    let fixture = Fixture::new(2);
    let (one, two) = (fixture.start(1), fixture.start(2));
    one.ear.up(2).await;
    let shown = |node: &TestNode| {
        let link = node.cluster.0.peer(NodeId(2)).unwrap().link().unwrap();
        let chain = link.connection.peer_identity().unwrap();
        chain.downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>().unwrap()[0].clone()
    };
    let before = shown(&one);
    let renewed = fixture.dir.path().join("renewed");
    let made = make_node(&fixture.ca(), NodeId(2), &renewed, 10).unwrap();
    copy(&made.key, &fixture.files(2).key);
    copy(&made.certificate, &fixture.files(2).certificate);
    assert_eq!(shown(&one), before, "the connection there is goes on");
    one.stop().await;
    eventually("the port to be free", || bind(fixture.addresses[&1]).is_ok()).await;
    let one = TestNode::start(ClusterConfig { incarnation: 2, ..fixture.config(1) });
    one.ear.up(2).await;
    assert_ne!(shown(&one), before);
    one.stop().await;
    two.stop().await;
}
