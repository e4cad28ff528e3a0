//! Two people chat: over a rebind, over a restart of the server, with an old copy of a store.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use rove_client::ids::{ConversationId, Seq};
use rove_client::{Client, Conversation, Outcome, StoreLocation};
use rove_tests::people::{self, alice_and_bob};
use rove_tests::talk::{holds, say, texts};
use rove_tests::{Server, within_patience};

async fn both_open(alice: &Client, bob: &Client, id: ConversationId) -> (Conversation, Conversation) {
    let (a, b) = tokio::join!(alice.open_conversation(id), bob.open_conversation(id));
    (a.expect("alice is a member"), b.expect("bob is a member"))
}

#[tokio::test]
async fn what_one_says_the_other_reads_in_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (alice, bob, id) = alice_and_bob(&server).await;
    let (at_alice, at_bob) = both_open(&alice, &bob, id).await;
    let mut last = Seq(0);
    for round in 0..20 {
        last = say(&at_alice, &format!("ping {round}")).await;
        last = last.max(say(&at_bob, &format!("pong {round}")).await);
    }
    holds(&at_alice, last).await;
    holds(&at_bob, last).await;
    let expected: Vec<_> = (0..20).flat_map(|n| [format!("ping {n}"), format!("pong {n}")]).collect();
    assert_eq!(texts(&at_alice).await, expected);
    assert_eq!(texts(&at_bob).await, expected);
}

#[tokio::test]
async fn a_change_of_socket_in_the_middle_loses_and_doubles_nothing_and_needs_no_reconnect() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (alice, bob, id) = alice_and_bob(&server).await;
    let (at_alice, at_bob) = both_open(&alice, &bob, id).await;
    let mut handles = Vec::new();
    for number in 0..200 {
        if number % 50 == 25 {
            alice.network_changed(None).expect("a new socket");
        }
        handles.push(at_alice.post(&format!("{number}")).await.expect("the outbox has room"));
    }
    let mut last = Seq(0);
    for handle in handles {
        let outcome = within_patience("the acknowledgement", handle.outcome()).await.expect("the client lives");
        let Outcome::Posted { seq, .. } = outcome else { panic!("{outcome:?}") };
        assert!(seq > last, "first in, first out");
        last = seq;
    }
    holds(&at_bob, last).await;
    assert_eq!(texts(&at_bob).await, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!((alice.stats().rebinds, alice.stats().reconnects), (4, 0));
}

#[tokio::test]
async fn an_app_may_hand_over_a_socket_of_either_family_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (alice, bob, id) = alice_and_bob(&server).await;
    let (at_alice, at_bob) = both_open(&alice, &bob, id).await;
    say(&at_alice, "from the first socket").await;
    for turn in 0..3 {
        let ipv4 = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        alice.network_changed(Some(ipv4)).unwrap();
        say(&at_alice, &format!("{turn}: from an IPv4 socket")).await;
        alice.network_changed(None).unwrap();
        let last = say(&at_alice, &format!("{turn}: from one of its own")).await;
        holds(&at_bob, last).await;
    }
    assert_eq!((alice.stats().rebinds, alice.stats().reconnects), (6, 0));
}

#[tokio::test]
async fn clients_resume_by_themselves_when_the_server_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let (alice, bob, id) = alice_and_bob(&server).await;
    let (at_alice, at_bob) = both_open(&alice, &bob, id).await;
    say(&at_alice, "before").await;
    server.kill();
    let offline = at_alice.post("while it was away").await.expect("the outbox takes it offline");
    server.restart();
    within_patience("the acknowledgement", offline.outcome()).await.expect("the client lives");
    let last = say(&at_bob, "after").await;
    holds(&at_alice, last).await;
    holds(&at_bob, last).await;
    assert_eq!(texts(&at_alice).await, ["before", "while it was away", "after"]);
    assert_eq!(texts(&at_bob).await, ["before", "while it was away", "after"]);
}

#[tokio::test]
async fn a_store_restored_from_an_old_copy_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let bob = people::sign_up(&server, "bob").await;
    let store = dir.path().join("alice.db");
    let alice = people::sign_up_with(&server, "alice", StoreLocation::File(store.clone())).await;
    let id = alice.create_direct("bob").await.unwrap();
    let at_alice = alice.open_conversation(id).await.unwrap();
    say(&at_alice, "one").await;
    drop(at_alice);
    alice.close().await;

    let backup = std::fs::read(&store).unwrap();
    let alice = people::open(StoreLocation::File(store.clone())).await;
    let at_alice = alice.open_conversation(id).await.unwrap();
    say(&at_alice, "two").await;
    drop(at_alice);
    alice.close().await;

    std::fs::write(&store, backup).unwrap();
    let alice = people::open(StoreLocation::File(store)).await;
    let at_alice = alice.open_conversation(id).await.unwrap();
    let last = say(&at_alice, "three").await;
    let at_bob = bob.open_conversation(id).await.unwrap();
    holds(&at_bob, last).await;
    holds(&at_alice, last).await;
    assert_eq!(texts(&at_bob).await, ["one", "two", "three"]);
    assert_eq!(texts(&at_alice).await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_full_outbox_and_a_wrong_certificate_are_typed_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let (alice, _bob, id) = alice_and_bob(&server).await;
    let at_alice = alice.open_conversation(id).await.unwrap();
    server.kill();
    let mut accepted = 0;
    let refused = loop {
        match at_alice.post("again").await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, rove_client::Error::OutboxFull { limit } if limit == accepted), "{refused}");
    server.restart();
    holds(&at_alice, Seq(accepted as u64 + 1)).await;

    let mut stranger = server.address();
    stranger.trust = rove_client::Trust::Pins(vec![[1; 32]]);
    let options = rove_client::Options::new(StoreLocation::Memory);
    let error = Client::sign_up(&stranger, "carol", people::PASSWORD, options).await.expect_err("not the pinned key");
    assert!(matches!(error, rove_client::Error::Tls(_)), "{error}");
}
