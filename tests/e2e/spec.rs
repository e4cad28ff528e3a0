//! Requirements of the specification that only show on a whole server and a whole client.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rove_client::{Client, StoreLocation};
use rove_tests::people::{self, PASSWORD};
use rove_tests::{Server, http3, within_patience};
use serde_json::json;

/// The bytes of every file below `dir`, with its name.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn rove_7_3_1_no_secret_and_no_password_is_on_the_servers_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let account = json!({ "handle": "alice", "password": PASSWORD });
    let (status, signed_up) = http3::post(&server, "/v1/sign-up", &account).await;
    assert_eq!(status, 201);
    let (status, refreshed) =
        http3::post(&server, "/v1/refresh", &json!({ "refresh_token": signed_up["refresh_token"] })).await;
    assert_eq!(status, 200);
    assert!(server.terminate().success());

    let mut secrets = vec![PASSWORD.as_bytes().to_vec()];
    for (answer, members) in [
        (&signed_up, &["device_secret", "access_token", "refresh_token"][..]),
        (&refreshed, &["access_token", "refresh_token"]),
    ] {
        for member in members {
            let text = answer[*member].as_str().expect("a secret");
            secrets.push(text.as_bytes().to_vec());
            // As it is shown, and what it stands for.
            secrets.push(URL_SAFE_NO_PAD.decode(text).expect("base64url"));
        }
    }
    let files = files(dir.path());
    for (name, bytes) in &files {
        for secret in &secrets {
            assert!(!contains(bytes, secret), "a secret is in {name}");
        }
    }
    let hash = b"$argon2id$v=19$m=19456,t=2,p=1$";
    assert!(files.iter().any(|(_, bytes)| contains(bytes, hash)), "the password is there as its hash");
}

/// A client whose access token is not taken any more, as after a quarter of an hour.
async fn with_expired_token(store: &Path, client: Client) -> Client {
    client.close().await;
    let database = rusqlite::Connection::open(store).unwrap();
    assert_eq!(database.execute("UPDATE account SET access_token = 'expired'", []).unwrap(), 1);
    drop(database);
    people::open(StoreLocation::File(store.to_owned())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_7_4_3_calls_at_the_same_time_exchange_a_refresh_token_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let store = dir.path().join("alice.db");
    let mut client = people::sign_up_with(&server, "alice", StoreLocation::File(store.clone())).await;
    for exchanges in 1..=2 {
        client = with_expired_token(&store, client).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let client = client.clone();
            calls.spawn(async move { client.devices().await.map(|devices| devices.len()) });
        }
        while let Some(listed) = within_patience("the list of devices", calls.join_next()).await {
            assert_eq!(listed.expect("nobody panicked").expect("the token was exchanged"), 1);
        }
        let refreshed = "rove_http_requests_total{route=\"/v1/refresh\",status=\"200\"}";
        assert_eq!(http3::metric(&server, refreshed).await, exchanges);
    }
}
