//! Acknowledged means durable: the server is killed again and again under load.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::collections::BTreeMap;

use rove_client::ids::Seq;
use rove_client::{Conversation, Outcome};
use rove_tests::people::alice_and_bob;
use rove_tests::{Server, within_patience};
use tokio::task::JoinSet;

/// Enough to meet the log in many states, few enough for every run of the tests.
const KILLS: usize = 8;
/// Posts acknowledged before each kill, over both people.
const POSTS_PER_LIFE: u64 = 150;

/// Every post a person was told of, by the seq it was told.
async fn post_for_ever(
    conversation: Conversation,
    name: &'static str,
    acknowledged: tokio::sync::watch::Sender<u64>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> BTreeMap<Seq, String> {
    let mut told = BTreeMap::new();
    let mut number = 0;
    let mut waiting = std::collections::VecDeque::new();
    while !*stop.borrow_and_update() || !waiting.is_empty() {
        // A window, so that the kill meets posts in every stage.
        while waiting.len() < 32 && !*stop.borrow() {
            let text = format!("{name} {number}");
            number += 1;
            waiting.push_back((text.clone(), conversation.post(&text).await.expect("the outbox has room")));
        }
        let Some((text, handle)) = waiting.pop_front() else { break };
        let outcome = within_patience("the acknowledgement", handle.outcome()).await.expect("the client lives");
        let Outcome::Posted { seq, .. } = outcome else { panic!("{text}: {outcome:?}") };
        assert_eq!(told.insert(seq, text), None, "one seq, one post");
        acknowledged.send_modify(|count| *count += 1);
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_post_survives_sigkill_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let (alice, bob, id) = alice_and_bob(&server).await;
    let at_alice = alice.open_conversation(id).await.unwrap();
    let at_bob = bob.open_conversation(id).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (acknowledged, mut count) = tokio::sync::watch::channel(0);
    let mut people = JoinSet::new();
    people.spawn(post_for_ever(at_alice.clone(), "alice", acknowledged.clone(), stopped.clone()));
    people.spawn(post_for_ever(at_bob.clone(), "bob", acknowledged, stopped));

    for _ in 0..KILLS {
        let enough = *count.borrow_and_update() + POSTS_PER_LIFE;
        within_patience("progress", count.wait_for(|count| *count >= enough)).await.expect("people post");
        server.kill();
        server.restart();
    }
    stop.send(true).expect("people listen");
    let mut told = BTreeMap::new();
    while let Some(person) = people.join_next().await {
        for (seq, text) in person.expect("nobody panicked") {
            assert_eq!(told.insert(seq, text), None, "{seq} was given twice");
        }
    }

    let last = *told.keys().next_back().expect("there are posts");
    for conversation in [at_alice, at_bob] {
        let mut updates = conversation.updates();
        within_patience("catching up", async {
            while conversation.cursor() < last {
                updates.changed().await.expect("the client lives");
            }
        })
        .await;
        let events = conversation.events_after(Seq(0), 1_000_000).await.unwrap();
        let mut read = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event.seq, Seq(index as u64 + 1), "seqs are dense");
            if event.event.post_no.0 > 0 {
                read.insert(event.seq, event.text().unwrap().to_owned());
            }
        }
        assert_eq!(read, told, "the log is exactly what was acknowledged");
    }
    // One of them may sleep through a short life of the server; both cannot.
    let felt = alice.stats().reconnects + bob.stats().reconnects;
    assert!(felt >= KILLS as u64, "each kill was really felt: {felt}");
}
