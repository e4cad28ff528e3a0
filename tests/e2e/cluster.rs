//! Three real nodes as one: any of them serves, and clients go from one to another by themselves.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use rove_client::ids::{AccountId, PostNo, Seq, WriterId};
use rove_client::registry::{ErrorCode, PresenceStatus};
use rove_client::{
    Client, ConnectionState, Conversation, Options, Outcome, PostHandle, PresenceInfo, PresenceMap, StoreLocation,
};
use rove_protocol::message::{ConversationDown, Message as _};
use rove_tests::people::{PASSWORD, credentials, sign_up};
use rove_tests::raw::{Raw, text_post};
use rove_tests::talk::{holds, say, texts};
use rove_tests::{Cluster, within_patience};
use serde_json::Value;

/// Of a device that speaks by hand.
const WRITER: WriterId = WriterId([7; 16]);

#[tokio::test(flavor = "multi_thread")]
async fn any_node_serves_any_session() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let (alice, bob) = tokio::join!(sign_up(cluster.node(1), "alice"), sign_up(cluster.node(2), "bob"));
    let id = within_patience("bob's account at node 1", alice.create_direct("bob")).await.unwrap();
    let at_alice = alice.open_conversation(id).await.unwrap();
    let at_bob = bob.open_conversation(id).await.unwrap();
    let mut last = Seq(0);
    for round in 0..10 {
        last = say(&at_alice, &format!("ping {round}")).await;
        last = last.max(say(&at_bob, &format!("pong {round}")).await);
    }
    holds(&at_alice, last).await;
    holds(&at_bob, last).await;
    let expected: Vec<_> = (0..10).flat_map(|n| [format!("ping {n}"), format!("pong {n}")]).collect();
    assert_eq!(texts(&at_alice).await, expected);
    assert_eq!(texts(&at_bob).await, expected);
}

/// Alice at node 1 and Bob at node 2, with a conversation open at both.
async fn alice_and_bob(cluster: &Cluster) -> (Client, Client, Conversation, Conversation) {
    let (alice, bob) = tokio::join!(sign_up(cluster.node(1), "alice"), sign_up(cluster.node(2), "bob"));
    let id = within_patience("a conversation", alice.create_direct("bob")).await.expect("bob is there");
    let (at_alice, at_bob) = tokio::join!(alice.open_conversation(id), bob.open_conversation(id));
    (alice, bob, at_alice.expect("a member"), at_bob.expect("a member"))
}

/// Waits until a client is connected to another node than `left`.
async fn connected_elsewhere(client: &Client, left: u64) {
    let mut state = client.state();
    let elsewhere =
        |state: &ConnectionState| matches!(state, ConnectionState::Connected { node, .. } if node.0 != left);
    within_patience("a connection elsewhere", state.wait_for(elsewhere)).await.expect("the client lives");
}

/// Waits for the acknowledgements, in order; each must be a post.
async fn acknowledged(handles: Vec<PostHandle>) -> Seq {
    let mut last = Seq(0);
    for handle in handles {
        let outcome = within_patience("the acknowledgement", handle.outcome()).await.expect("the client lives");
        let Outcome::Posted { seq, .. } = outcome else { panic!("{outcome:?}") };
        assert!(seq > last, "first in, first out");
        last = seq;
    }
    last
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn nodes_in_state(status: &Value, state: &str) -> BTreeSet<u64> {
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    nodes.filter(|node| node["state"] == state).filter_map(|node| node["node"].as_u64()).collect()
}

/// Partitions that `node` leads, as the node that was asked sees it.
fn led_by(status: &Value, node: u64) -> usize {
    status["partitions"].as_array().expect("partitions").iter().filter(|one| one["leader"] == node).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_of_all_three_and_clients_go_on_when_theirs_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    for node in cluster.ids() {
        let all =
            |status: &Value| nodes_in_state(status, "ready").len() == 3 && status["warnings"] == serde_json::json!([]);
        cluster.status_until(node, "all three being ready", all).await;
        let (status, found) = rove_tests::http3::get(cluster.node(node), "/v1/discovery").await;
        assert_eq!(status, 200);
        let addresses: BTreeSet<_> =
            found["nodes"].as_array().unwrap().iter().map(|node| node["address"].clone().to_string()).collect();
        let expected: BTreeSet<_> = cluster.ids().map(|node| format!("\"{}\"", cluster.node(node).quic)).collect();
        assert_eq!(addresses, expected, "as node {node} tells");
    }
    let (alice, bob, at_alice, at_bob) = alice_and_bob(&cluster).await;
    let mut handles = Vec::new();
    for text in numbered(100) {
        if text == "40" {
            cluster.node_mut(1).kill();
        }
        handles.push(at_alice.post(&text).await.expect("the outbox has room"));
    }
    let last = acknowledged(handles).await;
    connected_elsewhere(&alice, 1).await;
    holds(&at_alice, last).await;
    holds(&at_bob, last).await;
    assert_eq!(texts(&at_alice).await, numbered(100));
    assert_eq!(texts(&at_bob).await, numbered(100));
    cluster.node_mut(1).restart();
    cluster.status_until(2, "node 1 being back", |status| nodes_in_state(status, "ready").len() == 3).await;
    drop((alice, bob));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_gives_up_its_leaders_and_then_its_sessions_and_takes_both_back() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    cluster.status_until(1, "all three being ready", |status| nodes_in_state(status, "ready").len() == 3).await;
    let (alice, _bob, at_alice, at_bob) = alice_and_bob(&cluster).await;
    let (code, out, error) = tokio::task::block_in_place(|| cluster.command(1, &["drain"]));
    assert_eq!(code, Some(0), "{out}{error}");
    assert!(out.contains("drained"), "{out}");
    let status =
        cluster.status_until(2, "node 1 draining", |status| nodes_in_state(status, "draining").contains(&1)).await;
    assert_eq!(led_by(&status, 1), 0, "{status:#}");
    connected_elsewhere(&alice, 1).await;
    assert_eq!(alice.stats().reconnects, 1);
    let last = say(&at_alice, "from elsewhere").await;
    holds(&at_bob, last).await;
    let (status, why) = rove_tests::http3::get_text(cluster.node(1), "/readyz").await;
    assert_eq!((status, why.as_str()), (503, "draining\n"));

    let (code, out, error) = tokio::task::block_in_place(|| cluster.command(1, &["drain", "--undo"]));
    assert_eq!(code, Some(0), "{out}{error}");
    cluster.status_until(2, "node 1 being ready", |status| nodes_in_state(status, "ready").len() == 3).await;
    for partition in 0..=1 {
        let partition = partition.to_string();
        let (code, out, error) =
            tokio::task::block_in_place(|| cluster.command(3, &["transfer-leader", &partition, "1"]));
        assert_eq!(code, Some(0), "{out}{error}");
    }
    cluster.status_until(1, "node 1 leading two", |status| led_by(status, 1) >= 2).await;
    // Errors say what to do.
    for (arguments, words) in [
        (&["transfer-leader", "0", "1"][..], "leads already"),
        (&["transfer-leader", "99", "1"], "no partition 99"),
        (&["transfer-leader", "0", "9"], "no node 9"),
    ] {
        let (code, _, error) = tokio::task::block_in_place(|| cluster.command(1, arguments));
        assert!(code == Some(1) && error.contains(words), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_spread_again_when_a_node_that_was_killed_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    // Seven partitions with the directory: two, two and three.
    let spread = |status: &Value| (1..=3).all(|node| (2..=3).contains(&led_by(status, node)));
    cluster.status_until(1, "leaders being spread", spread).await;
    cluster.node_mut(3).kill();
    let taken = |status: &Value| led_by(status, 3) == 0 && led_by(status, 1) + led_by(status, 2) == 7;
    cluster.status_until(1, "the others leading all", taken).await;
    cluster.node_mut(3).restart();
    cluster.status_until(2, "leaders being spread again", spread).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_majority_says_so_refuses_posts_and_still_serves_history() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    cluster.status_until(1, "all three being ready", |status| nodes_in_state(status, "ready").len() == 3).await;
    let (alice, _bob, at_alice, _) = alice_and_bob(&cluster).await;
    for number in 0..5 {
        say(&at_alice, &number.to_string()).await;
    }
    // Carol speaks the protocol by hand.
    let carol = credentials(cluster.node(1), "carol").await;
    let (raw, mut control) = Raw::welcomed(cluster.node(1), &carol).await;
    let by_hand = control.create_direct(alice.account()).await;
    let mut stream = raw.open(by_hand, WRITER).await;
    cluster.node_mut(2).kill();
    cluster.node_mut(3).kill();
    let cut_off = |status: &Value| status["warnings"].to_string().contains("no majority");
    cluster.status_until(1, "node 1 knowing that it is cut off", cut_off).await;
    let (status, why) = rove_tests::http3::get_text(cluster.node(1), "/readyz").await;
    assert_eq!((status, why.as_str()), (503, "no leader can be reached of partitions 0, 1, 2, 3, 4, 5, 6\n"));
    // The refusal itself: the post is to be sent again, and when.
    stream.write(text_post(1, "by hand").to_frame()).await;
    let ConversationDown::Refused(refused) = stream.next_answer().await else { panic!("it was posted") };
    assert_eq!((refused.code, refused.consumed, refused.expected), (ErrorCode::Unavailable, false, PostNo(1)));
    assert!(refused.retry_after_ms > 0, "{refused:?}");
    assert!(rove_tests::http3::metric(cluster.node(1), "rove_commands_refused_no_leader_total").await > 0);
    // A post waits in the outbox: it is neither lost nor refused for good.
    let waiting = at_alice.post("after the cut").await.expect("the outbox has room");
    within_patience("history", alice.connected()).await.expect("the client lives");
    within_patience("a page", at_alice.fetch_older(Seq(4), 3)).await.expect("history is served");
    cluster.node_mut(2).restart();
    let outcome = within_patience("the acknowledgement", waiting.outcome()).await.expect("the client lives");
    assert!(matches!(outcome, Outcome::Posted { .. }), "{outcome:?}");
    // The same post under the same number is taken now.
    cluster.status_until(2, "two being ready", |status| nodes_in_state(status, "ready").len() == 2).await;
    let (raw, _control) = Raw::welcomed(cluster.node(2), &carol).await;
    let mut stream = raw.open(by_hand, WRITER).await;
    stream.write(text_post(1, "by hand").to_frame()).await;
    let answer = stream.next_answer().await;
    assert!(matches!(&answer, ConversationDown::Posted(posted) if posted.post_no == PostNo(1)), "{answer:?}");
}

fn is_online(info: &PresenceInfo) -> bool {
    info.status == PresenceStatus::Online
}

/// Waits until `watcher` sees `account` online, or offline.
async fn seen(watcher: &Client, account: AccountId, online: bool) {
    let mut presence = watcher.presence().expect("the client lives");
    let shown = |map: &Arc<PresenceMap>| map.get(&account).is_some_and(|info| is_online(info) == online);
    let what = if online { "somebody seen online" } else { "somebody seen offline" };
    within_patience(what, presence.wait_for(shown)).await.expect("the client lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_at_different_nodes_see_each_other_online_typing_and_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let (alice, bob, at_alice, at_bob) = alice_and_bob(&cluster).await;
    let (alice_id, bob_id) = (alice.account(), bob.account());
    alice.watch_presence(&[bob_id]).unwrap();
    bob.watch_presence(&[alice_id]).unwrap();
    seen(&alice, bob_id, true).await;
    seen(&bob, alice_id, true).await;

    let mut updates = at_bob.updates();
    at_alice.set_typing(true);
    within_patience("typing", async {
        while at_bob.typing() != [alice_id] {
            updates.changed().await.expect("the client lives");
        }
    })
    .await;

    // Who leaves says so, and who comes back is seen again.
    drop(at_bob);
    within_patience("a goodbye", bob.close()).await;
    seen(&alice, bob_id, false).await;
    let options = Options { name: "another device".to_owned(), ..Options::new(StoreLocation::Memory) };
    let bob = Client::log_in(&cluster.address(2), "bob", PASSWORD, options).await.expect("the password is right");
    seen(&alice, bob_id, true).await;

    // A node that dies takes nobody with it who goes elsewhere, and nobody sees him gone meanwhile.
    let mut watched = alice.presence().expect("the client lives");
    cluster.node_mut(2).kill();
    tokio::select! {
        () = connected_elsewhere(&bob, 2) => {}
        _ = watched.wait_for(|map| map.get(&bob_id).is_none_or(|bob| !is_online(bob))) => panic!("bob seems gone"),
    }
}
