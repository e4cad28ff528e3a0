//! Three real nodes as one: any of them serves, and clients go from one to another by themselves.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use rove_client::ids::Seq;
use rove_client::{Conversation, Outcome};
use rove_tests::people::sign_up;
use rove_tests::{Cluster, within_patience};

/// Posts and waits for the acknowledgement.
async fn say(conversation: &Conversation, text: &str) -> Seq {
    let handle = conversation.post(text).await.expect("the outbox has room");
    match within_patience("the acknowledgement", handle.outcome()).await.expect("the client lives") {
        Outcome::Posted { seq, .. } => seq,
        Outcome::Refused(code) => panic!("{text:?} was refused: {code}"),
    }
}

/// Waits until `conversation` holds everything up to `seq`.
async fn holds(conversation: &Conversation, seq: Seq) {
    let mut updates = conversation.updates();
    within_patience(&format!("holding {seq}"), async {
        while conversation.cursor() < seq {
            updates.changed().await.expect("the client lives");
        }
    })
    .await;
}

/// The texts of the messages in the store, in the order of the log, after checking that the seqs are dense.
async fn texts(conversation: &Conversation) -> Vec<String> {
    let events = conversation.events_after(Seq(0), 100_000).await.expect("the store reads");
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, Seq(seq), "seqs are dense");
    }
    let posts = events.iter().filter(|event| event.event.post_no.0 > 0);
    posts.map(|event| event.text().expect("UTF-8").to_owned()).collect()
}

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
