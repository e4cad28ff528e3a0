//! A cluster that is brought back from copies of its data directories, as docs/operations.md says.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::path::Path;

use rove_tests::people::sign_up;
use rove_tests::talk::{holds, say, texts};
use rove_tests::{Cluster, within_patience};
use serde_json::Value;

fn ready(status: &Value) -> usize {
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    nodes.filter(|node| node["state"] == "ready").count()
}

/// A copy as `cp -r` makes it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_two_nodes_that_were_made_while_all_were_stopped_bring_a_cluster_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let (alice, bob) = tokio::join!(sign_up(cluster.node(1), "alice"), sign_up(cluster.node(2), "bob"));
    let id = within_patience("a conversation", alice.create_direct("bob")).await.unwrap();
    let (at_alice, at_bob) = tokio::join!(alice.open_conversation(id), bob.open_conversation(id));
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    say(&at_alice, "before").await;

    let data = |node: u64| dir.path().join(format!("node-{node}/data"));
    let kept = |node: u64| dir.path().join(format!("backup-{node}"));
    tokio::task::block_in_place(|| {
        for node in cluster.ids() {
            assert!(cluster.node_mut(node).terminate().success(), "{}", cluster.node(node).log());
        }
        for node in [1, 2] {
            copy(&data(node), &kept(node));
        }
        // All is lost.
        for node in cluster.ids() {
            std::fs::remove_dir_all(data(node)).unwrap();
        }
        for node in [1, 2] {
            copy(&kept(node), &data(node));
        }
        let starting = [1, 2].map(|node| (node, cluster.node(node).begin()));
        for (node, starting) in starting {
            cluster.back(node, starting);
        }
    });
    cluster.status_until(1, "two of three being ready", |status| ready(status) == 2).await;
    let last = say(&at_alice, "from the copies").await;

    let starting = cluster.node(3).begin();
    let waits = |status: &Value| status["warnings"].to_string().contains("rove-server cluster replace 3");
    cluster.status_until(1, "node 3 being noticed with an empty disk", waits).await;
    let (code, out, error) = tokio::task::block_in_place(|| cluster.command(1, &["replace", "3"]));
    assert_eq!(code, Some(0), "{out}{error}");
    cluster.back(3, starting);
    for node in cluster.ids() {
        let whole = |status: &Value| ready(status) == 3 && status["warnings"] == serde_json::json!([]);
        cluster.status_until(node, "the cluster being whole again", whole).await;
    }
    holds(&at_bob, last).await;
    assert_eq!(texts(&at_bob).await, ["before", "from the copies"]);
    drop((alice, bob));
}
