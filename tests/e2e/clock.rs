//! A node on a machine whose clock is wrong.

#![allow(clippy::unwrap_used, reason = "a test fails when what it needs is not there")]

use std::time::{Duration, SystemTime};

use rove_client::ids::Seq;
use rove_tests::people::sign_up;
use rove_tests::talk::{holds, say};
use rove_tests::{Cluster, http3, within_patience};
use serde_json::Value;

/// Nobody takes that for the time it takes to deliver.
const AHEAD: Duration = Duration::from_secs(3_600);

fn led_by(status: &Value, node: u64) -> usize {
    status["partitions"].as_array().unwrap().iter().filter(|one| one["leader"] == node).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_fast_says_so_and_leads_nothing_and_dates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let (alice, bob) = tokio::join!(sign_up(cluster.node(1), "alice"), sign_up(cluster.node(3), "bob"));
    let id = within_patience("a conversation", alice.create_direct("bob")).await.unwrap();
    let (at_alice, at_bob) = tokio::join!(alice.open_conversation(id), bob.open_conversation(id));
    let (at_alice, at_bob) = (at_alice.unwrap(), at_bob.unwrap());
    cluster.node_mut(3).kill();
    cluster.node_mut(3).restart_with_clock_ahead(AHEAD);
    let noticed = |status: &Value| {
        let warnings = status["warnings"].as_array().unwrap();
        let said = warnings.iter().any(|warning| warning.as_str().unwrap().contains("this node's clock is 36"));
        said && led_by(status, 3) == 0
    };
    cluster.status_until(3, "node 3 noticing that its clock is fast", noticed).await;
    assert_eq!(http3::metric(cluster.node(3), "rove_clock_far").await, 1);
    assert_eq!(http3::metric(cluster.node(1), "rove_clock_far").await, 0);
    // Leadership is not given to it either, once the others have heard of it.
    let heard = |status: &Value| status["warnings"].to_string().contains("node 3 leads nothing, as its clock is wrong");
    cluster.status_until(1, "node 1 hearing of it", heard).await;
    let (_, _, refused) = cluster.command(1, &["transfer-leader", "1", "3"]);
    assert!(refused.contains("clock"), "{refused}");
    let last = say(&at_bob, "what time is it?").await.max(say(&at_alice, "time to set a clock").await);
    holds(&at_alice, last).await;
    holds(&at_bob, last).await;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let events = at_alice.events_after(Seq(0), 100).await.unwrap();
    let latest = events.iter().map(|event| event.event.time_ms).max().unwrap();
    assert!(Duration::from_millis(latest) < now + AHEAD / 2, "it was dated by the node whose clock is fast");
    cluster.node_mut(3).kill();
    cluster.node_mut(3).restart();
    cluster.status_until(2, "node 3 leading its part again", |status| led_by(status, 3) > 0).await;
}
