//! Nodes that cannot take part as they are: each says in its own log, or with its last words, what is wrong and what to do, and the
//! cluster whose people talk all the time loses nothing by it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rove_client::Client;
use rove_tests::certificates::{self, CLUSTER};
use rove_tests::cluster::edit;
use rove_tests::people::sign_up;
use rove_tests::server::run;
use rove_tests::talk::Posting;
use rove_tests::{Cluster, within_patience};
use serde_json::Value;

/// Posts of each person that are not answered yet.
const IN_FLIGHT: usize = 4;
/// Acknowledged while something is wrong: the cluster goes on.
const MEANWHILE: u64 = 20;
/// As good as for ever.
const DAY: Duration = Duration::from_secs(86_400);

fn in_state(status: &Value, node: u64) -> &str {
    let nodes = status["nodes"].as_array().expect("nodes");
    let found = nodes.iter().find(|one| one["node"] == node).expect("a node of the cluster");
    found["state"].as_str().expect("text")
}

fn all_ready(status: &Value) -> bool {
    (1..=3).all(|node| in_state(status, node) == "ready")
        && status["nodes"].as_array().is_some_and(|all| all.len() == 3)
}

/// Alice at node 1 and Bob at node 2, who talk all the time.
async fn people_who_talk(cluster: &Cluster) -> (Client, Client, Posting) {
    for node in cluster.ids() {
        cluster.status_until(node, "all three being ready", all_ready).await;
    }
    let (alice, bob) = tokio::join!(sign_up(cluster.node(1), "alice"), sign_up(cluster.node(2), "bob"));
    let id = within_patience("a conversation", alice.create_direct("bob")).await.unwrap();
    let (at_alice, at_bob) = tokio::join!(alice.open_conversation(id), bob.open_conversation(id));
    let posting = Posting::start(&[&at_alice.unwrap(), &at_bob.unwrap()], IN_FLIGHT);
    posting.progress(MEANWHILE).await;
    (alice, bob, posting)
}

/// The cluster is as it was, and nothing is lost.
async fn unharmed(cluster: &Cluster, posting: Posting) {
    for node in cluster.ids() {
        cluster.status_until(node, "all three being ready", all_ready).await;
    }
    posting.everything_is_there().await;
}

fn log(home: &Path) -> String {
    std::fs::read_to_string(home.join("log")).unwrap_or_default()
}

/// Waits until a line of the log in `home` has all of these words.
async fn says(home: &Path, words: &[&str]) {
    let said = || log(home).lines().any(|line| words.iter().all(|word| line.contains(word)));
    let deadline = tokio::time::Instant::now() + rove_tests::PATIENCE;
    while !said() {
        assert!(tokio::time::Instant::now() < deadline, "{words:?} is not in\n{}", log(home));
        // Another process: there is nothing to be told by.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a test is text")
}

/// Makes another authority for a cluster of the same name, and in `home` a certificate of it for node `node`.
fn of_another_authority(dir: &Path, node: u64, home: &Path) {
    let other = dir.join("ca-other");
    if !other.exists() {
        run(&["pki", "ca", "--cluster", CLUSTER, "--out", text(&other)]);
    }
    for file in ["ca.pem".to_owned(), format!("node-{node}.pem"), format!("node-{node}.key")] {
        std::fs::remove_file(home.join(file)).unwrap();
    }
    run(&["pki", "node", "--ca", text(&other), "--node", &node.to_string(), "--out", text(home)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_certificate_that_no_other_would_take_ends_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let (alice, bob, posting) = people_who_talk(&cluster).await;
    tokio::task::block_in_place(|| assert!(cluster.node_mut(3).terminate().success()));
    let (home, ca) = (cluster.node(3).dir().to_owned(), dir.path().join("ca"));
    let kept: Vec<(PathBuf, Vec<u8>)> = ["rove.toml", "ca.pem", "node-3.pem", "node-3.key"]
        .map(|file| (home.join(file), std::fs::read(home.join(file)).unwrap()))
        .into();

    let expired = || certificates::write(&ca, CLUSTER, 3, SystemTime::now() - DAY, &home);
    let other_authority = || {
        of_another_authority(dir.path(), 3, &home);
        std::fs::copy(ca.join("ca.pem"), home.join("ca.pem")).unwrap();
    };
    let other_cluster = || edit(&home, |text| text.replace("name = \"test\"", "name = \"other\""));
    let other_node = || {
        for end in ["pem", "key"] {
            std::fs::copy(cluster.node(2).dir().join(format!("node-2.{end}")), home.join(format!("node-3.{end}")))
                .unwrap();
        }
    };
    let cases: [(&dyn Fn(), &[&str]); 4] = [
        (&expired, &["it has expired", "`rove-server pki node --node 3` makes a new one"]),
        (&other_authority, &["it is not of the authority in cluster.ca", "use the ca.pem it was made with"]),
        (&other_cluster, &["it is not the certificate of node 3 of cluster other", "check node_id and cluster.name"]),
        (&other_node, &["it is not the certificate of node 3 of cluster test", "check node_id and cluster.name"]),
    ];
    for (make_wrong, words) in cases {
        make_wrong();
        let ended = tokio::task::block_in_place(|| cluster.start_in(home.clone()).ended());
        let log = log(&home);
        let last = log.lines().last().unwrap_or_default();
        assert!(!ended.success(), "{words:?}: {ended}");
        assert!(last.contains("cluster.certificate = ") && words.iter().all(|word| last.contains(word)), "{last}");
        posting.progress(MEANWHILE).await;
        for (path, bytes) in &kept {
            std::fs::write(path, bytes).unwrap();
        }
    }
    tokio::task::block_in_place(|| cluster.node_mut(3).restart());
    unharmed(&cluster, posting).await;
    drop((alice, bob));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_on_a_node_that_runs_is_named_by_both_ends_and_renewed_without_a_restart() {
    // Enough for a start on a busy machine; the rest is waited for.
    const GOOD_FOR: Duration = Duration::from_secs(15);
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let (alice, bob, posting) = people_who_talk(&cluster).await;
    let (home, ca) = (cluster.node(3).dir().to_owned(), dir.path().join("ca"));
    tokio::task::block_in_place(|| assert!(cluster.node_mut(3).terminate().success()));
    let expires = tokio::time::Instant::now() + GOOD_FOR;
    certificates::write(&ca, CLUSTER, 3, SystemTime::now() + GOOD_FOR, &home);
    tokio::task::block_in_place(|| cluster.node_mut(3).restart());
    cluster.status_until(3, "all three being ready", all_ready).await;

    // A time of the calendar: only the clock can tell. In a certificate it has whole seconds.
    tokio::time::sleep_until(expires + Duration::from_secs(1)).await;
    posting.progress(MEANWHILE).await;
    assert!(all_ready(&tokio::task::block_in_place(|| cluster.status(3))), "what is connected stays so");
    cluster.node_mut(2).kill();
    tokio::task::block_in_place(|| cluster.node_mut(2).restart());
    let what_to_do = ["has expired", "make a new one with `rove-server pki node`", "a running node reads it"];
    says(cluster.node(2).dir(), &[&["no connection with node 3: its certificate"], &what_to_do[..]].concat()).await;
    says(&home, &[&["no connection with node 2: this node's certificate"], &what_to_do[..]].concat()).await;
    let status =
        cluster.status_until(2, "node 3 being out of reach", |status| in_state(status, 3) == "unreachable").await;
    assert!(status["nodes"][2]["last_error"].to_string().contains("has expired"), "{status:#}");
    posting.progress(MEANWHILE).await;

    certificates::write(&ca, CLUSTER, 3, SystemTime::now() + DAY, &home);
    unharmed(&cluster, posting).await;
    says(&home, &["the node's certificate was read anew"]).await;
    drop((alice, bob));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_is_too_new_to_talk_to_the_others_is_named_by_both_ends_and_the_right_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let (alice, bob, posting) = people_who_talk(&cluster).await;
    tokio::task::block_in_place(|| assert!(cluster.node_mut(3).terminate().success()));
    let starting = cluster.node(3).begin_too_new();
    let what_to_do = ["no common version of the protocol", "upgrade the older of the two by one release at a time"];
    says(cluster.node(3).dir(), &[&["no connection with node 1"], &what_to_do[..]].concat()).await;
    says(cluster.node(1).dir(), &[&["no connection with node 3"], &what_to_do[..]].concat()).await;
    posting.progress(MEANWHILE).await;
    drop(starting);
    tokio::task::block_in_place(|| cluster.node_mut(3).restart());
    unharmed(&cluster, posting).await;
    drop((alice, bob));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_other_clusters_and_with_an_id_that_is_in_use_are_kept_out_and_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let (alice, bob, posting) = people_who_talk(&cluster).await;
    let ca = dir.path().join("ca");

    // All of its own authority, as a node of another cluster with the same name.
    let home = cluster.stranger(4);
    of_another_authority(dir.path(), 4, &home);
    let starting = cluster.start_in(home.clone());
    let why = ["certificate is not of the cluster's authority", "all nodes need the same cluster.ca"];
    says(&home, &[&["no connection with node 1"], &why[..]].concat()).await;
    says(cluster.node(1).dir(), &[&["a connection from", "was refused"], &why[..]].concat()).await;
    posting.progress(MEANWHILE).await;
    drop(starting);

    // Of the same authority, and of a cluster with another name.
    let home = cluster.stranger(5);
    edit(&home, |text| text.replace("name = \"test\"", "name = \"other\""));
    certificates::write(&ca, "other", 5, SystemTime::now() + DAY, &home);
    let starting = cluster.start_in(home.clone());
    let why =
        ["certificate is not that of the node which was dialled", "check cluster.name, the node ids and addresses"];
    says(&home, &[&["no connection with node 1"], &why[..]].concat()).await;
    posting.progress(MEANWHILE).await;
    drop(starting);

    // With everything that node 2 has but its data.
    let home = cluster.stranger(6);
    edit(&home, |text| {
        let (known, _) = text.split_once("[[cluster.peers]]\nnode = 4").expect("peers come last");
        known.replace("\nnode_id = 6\n", "\nnode_id = 2\n").replace("node-6.", "node-2.")
    });
    certificates::write(&ca, CLUSTER, 2, SystemTime::now() + DAY, &home);
    let starting = cluster.start_in(home.clone());
    let why = ["node 2 has another data directory than the cluster knows", "put the one that it had last back"];
    says(&home, &[&["no connection with node 1: it says"], &why[..]].concat()).await;
    says(cluster.node(1).dir(), &why).await;
    posting.progress(MEANWHILE).await;
    for node in [1, 3] {
        let status = tokio::task::block_in_place(|| cluster.status(node));
        assert_eq!(in_state(&status, 2), "ready", "the real one is there all the time: {status:#}");
    }
    drop(starting);
    unharmed(&cluster, posting).await;
    drop((alice, bob));
}
