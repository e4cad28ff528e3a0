//! A node that is cut off from the other nodes, but not from its clients: they move, by themselves.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Method;
use rove_client::ids::{ConversationId, Seq};
use rove_client::{Client, ConnectionState, Conversation, Options, ServerAddress, StoreLocation};
use rove_tests::people::PASSWORD;
use rove_tests::raw::Credentials;
use rove_tests::talk::{holds, say, texts};
use rove_tests::within_patience;
use serde_json::json;
use tokio::time::Instant;

use crate::api::Api;
use crate::arena::credentials;
use crate::client::{World, full_read};
use crate::nodes::{ASK_EVERY, NODES, Nodes};
use crate::relay::Rule;

async fn sign_up(nodes: &Nodes, node: u64, handle: &str) -> Client {
    let place = nodes.home(node).clients;
    let address = ServerAddress {
        host: place.ip().to_string(),
        port: place.port(),
        others: Vec::new(),
        trust: nodes.trust.clone(),
    };
    let signed_up = Client::sign_up(&address, handle, PASSWORD, Options::new(StoreLocation::Memory));
    within_patience(handle, signed_up).await.expect("the node takes people in")
}

/// Another device of `handle`, that does not move: it shows what one node has.
async fn another_device(nodes: &Nodes, handle: &str) -> Credentials {
    let mut api = Api::connect(nodes.home(1).clients, &nodes.trust).await.expect("node 1 serves");
    let body = json!({ "handle": handle, "password": PASSWORD }).to_string();
    let (status, answer) = api.ask(Method::POST, "/v1/log-in", body.into()).await.expect("node 1 answers");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    credentials(&serde_json::from_slice(&answer).expect("JSON")).expect("credentials")
}

/// Waits until `GET path` on `node` answers as wanted.
async fn asked_until(nodes: &Nodes, node: u64, path: &str, wanted: impl Fn(u16, &str) -> bool) {
    let mut said = String::new();
    let deadline = Instant::now() + rove_tests::PATIENCE;
    let mut api = Api::connect(nodes.home(node).clients, &nodes.trust).await.expect("clients reach it");
    loop {
        let (status, answer) = api.ask(Method::GET, path, Bytes::new()).await.expect("clients reach it");
        let answer = String::from_utf8_lossy(&answer);
        if wanted(status, &answer) {
            return;
        }
        said.replace_range(.., &format!("{status} {answer}"));
        assert!(Instant::now() < deadline, "node {node} says of {path}: {said}");
        // Another process: there is nothing to be told by.
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Which seqs `node` shows of a conversation, whose first `head` events are known to be there.
async fn read_at(
    nodes: &Nodes,
    node: u64,
    who: &Credentials,
    conversation: ConversationId,
    head: Seq,
) -> BTreeSet<Seq> {
    let place = nodes.home(node).clients;
    let read = full_read(place, &World::tls(&nodes.trust), who, conversation, head).await;
    read.unwrap_or_else(|error| panic!("node {node}: {error}")).into_iter().map(|(seq, _)| seq).collect()
}

/// Waits until the client is connected to a node that is wanted.
async fn connected(client: &Client, wanted: impl Fn(u64) -> bool) {
    let mut state = client.state();
    let there = |state: &ConnectionState| matches!(state, ConnectionState::Connected { node, .. } if wanted(node.0));
    within_patience("a connection there", state.wait_for(there)).await.expect("the client lives");
}

async fn direct(one: &Client, other: &Client) -> (Conversation, Conversation) {
    let handle = within_patience("a conversation", one.create_direct("bob")).await.expect("bob is there");
    let (at_one, at_other) = tokio::join!(one.open_conversation(handle), other.open_conversation(handle));
    (at_one.expect("a member"), at_other.expect("a member"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_reaches_no_other_hands_its_clients_over_and_shows_them_history_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut nodes, mesh) = Nodes::prepare(dir.path(), 1).await;
    for node in NODES {
        nodes.start(node);
    }
    for node in NODES {
        nodes.serves(node).await.unwrap_or_else(|error| panic!("{error}"));
    }
    let knows_all = |_, found: &str| NODES.iter().all(|node| found.contains(&nodes.home(*node).clients.to_string()));
    asked_until(&nodes, 1, "/v1/discovery", knows_all).await;
    let (alice, bob) = tokio::join!(sign_up(&nodes, 1, "alice"), sign_up(&nodes, 2, "bob"));
    let (at_alice, at_bob) = direct(&alice, &bob).await;
    let before = say(&at_alice, "before").await;
    let witness = another_device(&nodes, "alice").await;
    connected(&alice, |node| node == 1).await;

    for other in [2, 3] {
        mesh.links.set_both(1, other, Rule { cut: true, ..Rule::default() });
    }
    // Alice says nothing meanwhile: with a post that is not answered she would go by herself, before she is told.
    asked_until(&nodes, 1, "/readyz", |status, why| status == 503 && why.contains("no leader can be reached")).await;
    // Hers is the only session there: it is she who is told.
    let told = |line: &str| line.strip_prefix("rove_sessions_told_to_go_total ").is_some_and(|count| count != "0");
    asked_until(&nodes, 1, "/metrics", |_, metrics| metrics.lines().any(told)).await;
    connected(&alice, |node| node != 1).await;
    let during = say(&at_alice, "during").await;
    holds(&at_bob, during).await;
    // Node 1 is still cut off: it has what it had, and shows it.
    let shown = read_at(&nodes, 1, &witness, at_alice.id(), before).await;
    assert!(shown.contains(&before) && !shown.contains(&during), "{shown:?}");
    assert!(nodes.log(1).contains("this node reaches no majority"), "{}", nodes.log(1));

    mesh.links.heal();
    asked_until(&nodes, 1, "/readyz", |status, _| status == 200).await;
    assert!(read_at(&nodes, 1, &witness, at_alice.id(), during).await.contains(&during));
    // It takes people in again, who may stay.
    let carol = sign_up(&nodes, 1, "carol").await;
    connected(&carol, |node| node == 1).await;
    let after = say(&at_bob, "after").await;
    tokio::join!(holds(&at_alice, after), holds(&at_bob, after));
    assert_eq!(texts(&at_alice).await, ["before", "during", "after"]);
    assert_eq!(texts(&at_bob).await, ["before", "during", "after"]);
    assert_eq!(alice.stats().reconnects, 1, "she moved once");
}
