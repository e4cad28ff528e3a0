//! The client between several nodes.

use rove_protocol::ids::Seq;

use super::*;

/// Two nodes with one log, each of which tells of both.
fn two_nodes() -> (Fake, Fake) {
    let first = Fake::start();
    let second = Fake::with_world(first.world.clone());
    first.world.lock().others = vec![first.socket_address(), second.socket_address()];
    (first, second)
}

#[tokio::test]
async fn a_client_whose_node_is_gone_goes_on_at_the_next_and_still_knows_it_after_a_restart() {
    let (first, second) = two_nodes();
    let folder = Folder::new();
    let client = logged_in(&first.trusting(&second), folder.options()).await;
    let conversation = room(&client).await;
    post_all(&conversation, 1, 5).await;
    let mut state = client.state();
    state.mark_unchanged();
    first.shut();
    post_all(&conversation, 6, 10).await;
    holds(&conversation, 10).await;
    assert_eq!(texts(&conversation).await, numbered(1, 10));
    assert!(!matches!(*state.borrow(), ConnectionState::Disconnected { .. }), "it went there at once");
    drop(conversation);
    client.close().await;

    // What the app gave is gone; what was told is remembered.
    let client = folder.open().await;
    let conversation = room(&client).await;
    post_all(&conversation, 11, 12).await;
    holds(&conversation, 12).await;
    assert_eq!(texts(&conversation).await, numbered(1, 12));
    assert_eq!(first.world.lock().texts(), numbered(1, 12));
    assert_eq!(client.stats().writers_minted, 0);
}

#[tokio::test]
async fn a_client_whose_node_has_vanished_without_a_word_is_at_another_before_it_gives_it_up() {
    let (first, second) = two_nodes();
    let client = in_memory(&first.trusting(&second)).await;
    let conversation = room(&client).await;
    post_all(&conversation, 1, 3).await;
    let mut state = client.state();
    state.mark_unchanged();
    first.vanish();
    let moved = async {
        soon(state.changed()).await.unwrap();
        assert!(matches!(*state.borrow(), ConnectionState::Connected { .. }), "{:?}", *state.borrow());
    };
    tokio::join!(post_all(&conversation, 4, 6), moved);
    assert_eq!(first.world.lock().texts(), numbered(1, 6));
}

#[tokio::test]
async fn of_several_addresses_one_that_answers_is_enough() {
    let (first, second) = two_nodes();
    first.world.lock().others.clear();
    let mut address = first.trusting(&second);
    address.others.push(second.socket_address().to_string());
    first.shut();
    let client = in_memory(&address).await;
    let conversation = room(&client).await;
    post_all(&conversation, 1, 3).await;
    holds(&conversation, 3).await;
    assert_eq!(conversation.cursor(), Seq(3));
}

#[tokio::test]
async fn a_node_that_leaves_names_one_that_is_gone_and_one_that_is_not() {
    let (first, gone) = two_nodes();
    let third = Fake::with_world(first.world.clone());
    first.world.lock().others.clear();
    let client = in_memory(&first.trusting(&third)).await;
    let conversation = room(&client).await;
    post_all(&conversation, 1, 3).await;
    gone.shut();
    let mut state = client.state();
    state.mark_unchanged();
    first.leave_for_all(&[gone.socket_address(), third.socket_address()]);
    soon(state.changed()).await.unwrap();
    assert!(matches!(*state.borrow(), ConnectionState::Connected { .. }), "made before the old one was broken");
    first.shut();
    post_all(&conversation, 4, 6).await;
    assert_eq!(first.world.lock().texts(), numbered(1, 6));
}

#[tokio::test]
async fn a_client_of_a_node_that_is_only_slow_asks_the_others_less_and_less_often() {
    let (first, second) = two_nodes();
    let client = in_memory(&first.trusting(&second)).await;
    let conversation = room(&client).await;
    post_all(&conversation, 1, 3).await;
    // The other node has as much to do, and takes nobody.
    first.world.lock().turn_away = Some(ErrorCode::Busy);
    first.hold_posts(true);
    let counts = || {
        let world = first.world.lock();
        (world.sessions, world.heartbeats)
    };
    let (sessions, beats) = counts();
    let state = client.state();
    let post = conversation.post("4").await.unwrap();
    soon(async {
        // A heartbeat asks every two seconds of silence; each is answered.
        while counts().1 < beats + 4 {
            // The server is not told what the test waits for, so it is asked now and then.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let asked = counts().0 - sessions;
    assert!((1..=4).contains(&asked), "asked {asked} times within eight seconds");
    assert!(matches!(*state.borrow(), ConnectionState::Connected { .. }));
    first.hold_posts(false);
    assert!(matches!(soon(post.outcome()).await.unwrap(), Outcome::Posted { .. }));
    assert_eq!(first.world.lock().texts(), numbered(1, 4));
    assert!(!state.has_changed().unwrap(), "it stayed where it was");
}
