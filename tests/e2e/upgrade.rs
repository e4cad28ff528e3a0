//! Binaries of two versions in one cluster, on real processes.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use rove_tests::people::sign_up;
use rove_tests::talk::{say, texts};
use rove_tests::{Cluster, within_patience};
use serde_json::{Value, json};

fn all_ready(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().expect("nodes");
    nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "ready")
}

/// What the binary of each node applies, as far as the one that was asked knows.
fn applies(status: &Value) -> Vec<&Value> {
    status["members"]["nodes"].as_array().expect("members").iter().map(|member| &member["applies"]).collect()
}

async fn upgrade(cluster: &mut Cluster, node: u64) {
    tokio::task::block_in_place(|| {
        assert!(cluster.node_mut(node).terminate().success());
        let starting = cluster.node(node).begin_upgraded();
        cluster.back(node, starting);
    });
    for node in cluster.ids() {
        cluster.status_until(node, "all three being ready", all_ready).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apply_version_is_raised_when_the_last_node_is_upgraded_and_older_binaries_do_not_start_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let (alice, bob) = tokio::join!(sign_up(cluster.node(1), "alice"), sign_up(cluster.node(2), "bob"));
    let id = within_patience("a conversation", alice.create_direct("bob")).await.unwrap();
    let talk = alice.open_conversation(id).await.unwrap();
    say(&talk, "before").await;
    assert_eq!(cluster.status(1)["apply_version"], 1);

    upgrade(&mut cluster, 3).await;
    upgrade(&mut cluster, 2).await;
    say(&talk, "with two kinds").await;
    let known = |status: &Value| applies(status) == [&json!([1, 1]), &json!([1, 2]), &json!([1, 2])];
    let status = cluster.status_until(3, "each being heard", known).await;
    assert_eq!(status["apply_version"], 1);
    let (_, text, _) = cluster.command(3, &["status"]);
    assert!(text.contains("apply version 1; 2 waits for node 1, which has 1"), "{text}");

    // The last is upgraded while the second is away, which was heard before by the node that raises the version.
    let (code, _, error) = cluster.command(1, &["transfer-leader", "0", "3"]);
    assert!(code == Some(0) || error.contains("leads already"), "{error}");
    tokio::task::block_in_place(|| {
        assert!(cluster.node_mut(2).terminate().success());
        assert!(cluster.node_mut(1).terminate().success());
        let starting = cluster.node(1).begin_upgraded();
        cluster.back(1, starting);
    });
    let leads = |status: &Value| !status["partitions"][0]["leader"].is_null();
    let status = cluster.status_until(3, "the directory having a leader", leads).await;
    if status["partitions"][0]["leader"] != 3 {
        let (code, _, error) = cluster.command(3, &["transfer-leader", "0", "3"]);
        assert!(code == Some(0), "{error}");
    }
    for node in [1, 3] {
        cluster.status_until(node, "the version being raised", |status| status["apply_version"] == 2).await;
    }
    say(&talk, "raised").await;

    // What is on the second's disk was applied in the old way: it learns from the others that this is over.
    let refused = |cluster: &Cluster, node: u64, why: &str| {
        let ended = tokio::task::block_in_place(|| cluster.node(node).begin().ended());
        let log = cluster.node(node).log();
        assert_eq!(ended.code(), Some(1), "{log}");
        assert!(log.lines().last().unwrap().contains(why), "{log}");
        assert!(log.contains("apply version 2 is in force, and this binary has 1: start the binary"), "{log}");
    };
    refused(&cluster, 2, "this node does not take part: node 2 cannot take part");
    tokio::task::block_in_place(|| {
        let starting = cluster.node(2).begin_upgraded();
        cluster.back(2, starting);
    });
    for node in cluster.ids() {
        let raised = |status: &Value| all_ready(status) && status["apply_version"] == 2;
        cluster.status_until(node, "all three being ready", raised).await;
    }
    say(&talk, "together").await;

    // And now its own disk says so.
    tokio::task::block_in_place(|| assert!(cluster.node_mut(2).terminate().success()));
    refused(&cluster, 2, "do not delete anything");
    assert_eq!(texts(&talk).await, ["before", "with two kinds", "raised", "together"]);
    drop((alice, bob));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_its_own_raises_the_apply_version_when_it_is_upgraded() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = rove_tests::Server::start(dir.path());
    let status = |wanted: u64| {
        let config = dir.path().join("rove.toml");
        let asked = move || loop {
            let (_, out, _) = rove_tests::cluster::command(&config, &["status", "--json"]);
            let status: Value = serde_json::from_str(&out).unwrap();
            if status["apply_version"] == wanted {
                return;
            }
        };
        within_patience("the version", tokio::task::spawn_blocking(asked))
    };
    status(1).await.unwrap();
    tokio::task::block_in_place(|| {
        assert!(server.terminate().success());
        server = server.begin_upgraded().listening();
    });
    status(2).await.unwrap();
    tokio::task::block_in_place(|| assert!(server.terminate().success()));
    let ended = tokio::task::block_in_place(|| server.begin().ended());
    assert_eq!(ended.code(), Some(1));
    assert!(server.log().contains("apply version 2 is in force, and this binary has 1"), "{}", server.log());
}
