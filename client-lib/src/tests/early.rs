//! The first flight of a client that comes back: taken before the handshake is complete, or rejected and sent again.

use rove_protocol::registry::ErrorCode;

use super::fake::Fake;
use super::{holds, in_memory, numbered, post_all, room, soon, texts};
use crate::{Client, ConnectionState};

/// The connection is lost, and the client on its way back.
async fn lost(client: &Client, hang_up: impl FnOnce()) {
    let mut state = client.state();
    state.mark_unchanged();
    hang_up();
    soon(state.wait_for(|state| !matches!(state, ConnectionState::Connected { .. }))).await.unwrap();
}

async fn back(client: &Client) {
    let mut state = client.state();
    soon(state.wait_for(|state| matches!(state, ConnectionState::Connected { .. }))).await.unwrap();
}

/// Connections and sessions that the server has seen.
fn counts(fake: &Fake) -> (u64, u64) {
    let world = fake.world.lock();
    (world.connections, world.sessions)
}

#[tokio::test]
async fn a_client_that_comes_back_posts_before_its_handshake_is_complete() {
    let fake = Fake::start();
    let client = in_memory(&fake.address).await;
    let room = room(&client).await;
    post_all(&room, 1, 3).await;
    assert_eq!(client.inner.network.early_data(), (0, 0), "the first time there is nothing to resume");
    // The server gives two TLS sessions at the end of a handshake, which these rounds need not outlive.
    for round in 1..=2 {
        lost(&client, || fake.hang_up()).await;
        let from = 1 + 3 * round;
        post_all(&room, from, from + 2).await;
        back(&client).await;
        assert_eq!(client.inner.network.early_data(), (u64::from(round), 0));
    }
    assert_eq!(fake.world.lock().texts(), numbered(1, 9));
    assert_eq!(counts(&fake), (3, 3));
    assert_eq!(client.stats().reconnects, 2);
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_client_gets_it_all_again_on_the_same_connection() {
    let fake = Fake::start();
    let client = in_memory(&fake.address).await;
    let room = room(&client).await;
    post_all(&room, 1, 5).await;
    lost(&client, || fake.restart()).await;
    post_all(&room, 6, 40).await;
    back(&client).await;
    assert_eq!(client.inner.network.early_data(), (0, 1));
    assert_eq!(fake.world.lock().texts(), numbered(1, 40));
    assert_eq!(counts(&fake), (2, 2), "no third connection");
    assert_eq!(client.stats().reconnects, 1, "an app sees one");
    // And it is known again.
    lost(&client, || fake.hang_up()).await;
    post_all(&room, 41, 42).await;
    back(&client).await;
    assert_eq!(client.inner.network.early_data(), (1, 1));
    holds(&room, 42).await;
    assert_eq!(texts(&room).await, numbered(1, 42));
}

#[tokio::test]
async fn posts_come_once_and_in_order_however_often_the_server_forgets_and_hangs_up() {
    let fake = Fake::start();
    fake.world.lock().drop_every = Some(13);
    let client = in_memory(&fake.address).await;
    let room = room(&client).await;
    for round in 0..6 {
        let post = post_all(&room, 1 + 30 * round, 30 + 30 * round);
        let hang_up = async { if round % 2 == 0 { fake.restart() } else { fake.hang_up() } };
        tokio::join!(post, hang_up);
    }
    assert_eq!(fake.world.lock().texts(), numbered(1, 180));
    holds(&room, 180).await;
    assert_eq!(texts(&room).await, numbered(1, 180));
    let (accepted, _) = client.inner.network.early_data();
    assert!(accepted > 0, "it was really tried");
}

#[tokio::test]
async fn a_device_that_was_revoked_meanwhile_learns_it_from_its_early_hello_or_soon_after() {
    let fake = Fake::start();
    let client = in_memory(&fake.address).await;
    post_all(&room(&client).await, 1, 2).await;
    fake.world.lock().turn_away = Some(ErrorCode::Revoked);
    fake.hang_up();
    let mut state = client.state();
    let closed = soon(state.wait_for(|state| matches!(state, ConnectionState::Closed { .. }))).await.unwrap().clone();
    assert_eq!(closed, ConnectionState::Closed { code: ErrorCode::Revoked });
}

#[tokio::test]
async fn a_client_that_moved_to_another_socket_still_resumes_early() {
    let fake = Fake::start();
    let client = in_memory(&fake.address).await;
    let room = room(&client).await;
    post_all(&room, 1, 5).await;
    let ipv4 = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.network_changed(Some(ipv4)).unwrap();
    post_all(&room, 6, 10).await;
    lost(&client, || fake.hang_up()).await;
    post_all(&room, 11, 15).await;
    back(&client).await;
    assert_eq!(client.inner.network.early_data(), (1, 0));
    assert_eq!(fake.world.lock().texts(), numbered(1, 15));
}
