//! What apps see of a rolling restart: nothing.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::time::Duration;

use rove_client::{Client, ConnectionState};
use rove_tests::people::sign_up;
use rove_tests::talk::Posting;
use rove_tests::{Cluster, within_patience};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Posts of each person that are not answered yet: each restart meets some in every stage.
const IN_FLIGHT: usize = 8;
/// Between two requests of an app.
const ASK_EVERY: Duration = Duration::from_millis(50);

fn all_ready(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().expect("nodes");
    nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "ready")
}

/// Asks for this and that until `stop`, over the session and over HTTP. Returns how many answers came, or what went wrong.
async fn ask_on(client: &Client, peer: &str, mut stop: watch::Receiver<bool>) -> Result<u64, String> {
    let mut answers = 0;
    let mut beat = tokio::time::interval(ASK_EVERY);
    while !*stop.borrow_and_update() {
        beat.tick().await;
        let asked = async { client.create_direct(peer).await.map(drop).and(client.devices().await.map(drop)) };
        within_patience("two answers", asked).await.map_err(|error| format!("{error:?}"))?;
        answers += 2;
    }
    Ok(answers)
}

/// The same, while the app looks at its connection: there is always one, or one on the way.
async fn use_on(client: Client, peer: String, stop: watch::Receiver<bool>) -> Result<u64, String> {
    let mut state = client.state();
    let offline = |state: &ConnectionState| {
        matches!(state, ConnectionState::Disconnected { .. } | ConnectionState::Closed { .. })
    };
    let used = tokio::select! {
        asked = ask_on(&client, &peer, stop) => asked,
        state = state.wait_for(offline) => Err(format!("{:?}", *state.expect("the client lives"))),
    };
    used.map_err(|wrong| format!("{}: {wrong}", client.handle()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_app_sees_an_error_or_a_failed_post_while_each_node_is_restarted_in_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    cluster.status_until(1, "all three being ready", all_ready).await;
    // Two at each node.
    let mut people = Vec::new();
    for (node, handle) in [(1, "ann"), (1, "ben"), (2, "cat"), (2, "dan"), (3, "eve"), (3, "fay")] {
        people.push(sign_up(cluster.node(node), handle).await);
    }
    let accounts: Vec<_> = people[1..].iter().map(Client::account).collect();
    let group = within_patience("a group", people[0].create_group("all", &accounts)).await.unwrap();
    let mut conversations = Vec::new();
    for person in &people {
        within_patience("the inbox", person.synced()).await.unwrap();
        conversations.push(person.open_conversation(group).await.unwrap());
    }

    let posting = Posting::start(&conversations.iter().collect::<Vec<_>>(), IN_FLIGHT);
    let stop = watch::Sender::new(false);
    let mut apps = JoinSet::new();
    for (person, peer) in people.iter().zip(people.iter().cycle().skip(1)) {
        apps.spawn(use_on(person.clone(), peer.handle().to_owned(), stop.subscribe()));
    }
    posting.progress(100).await;
    for node in cluster.ids() {
        let status = tokio::task::block_in_place(|| cluster.node_mut(node).terminate());
        assert!(status.success(), "{status}: {}", cluster.node(node).log());
        posting.progress(50).await;
        tokio::task::block_in_place(|| cluster.node_mut(node).restart());
        // The next one goes only when this one is back: that is what makes it rolling.
        for asked in cluster.ids() {
            cluster.status_until(asked, &format!("node {node} being back"), all_ready).await;
        }
    }
    posting.progress(100).await;
    stop.send_replace(true);
    while let Some(app) = within_patience("the last answers", apps.join_next()).await {
        let answers = app.unwrap().unwrap_or_else(|wrong| panic!("an app has something to tell its user: {wrong}"));
        assert!(answers > 50, "{answers} answers are no use of an app");
    }
    assert!(posting.everything_is_there().await > 500);
    let moved: Vec<_> = people.iter().map(|person| person.stats().reconnects).collect();
    assert!(moved.iter().all(|moved| *moved > 0), "each was at a node that was restarted: {moved:?}");
}
