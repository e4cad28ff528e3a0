//! Accounts with names.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rove_client::ids::{AccountId, ConversationId, DeviceId};
use rove_client::{Client, Options, StoreLocation};
use serde_json::{Value, json};

use crate::raw::Credentials;
use crate::{Server, http3};

/// A password that is long enough.
pub const PASSWORD: &str = "correct horse battery";

/// Signs `handle` up with a store in memory.
///
/// # Panics
/// If the server refuses.
pub async fn sign_up(server: &Server, handle: &str) -> Client {
    sign_up_with(server, handle, StoreLocation::Memory).await
}

/// Signs `handle` up with a store at `store`.
///
/// # Panics
/// If the server refuses.
pub async fn sign_up_with(server: &Server, handle: &str, store: StoreLocation) -> Client {
    let options = Options { name: "rove-tests".to_owned(), ..Options::new(store) };
    Client::sign_up(&server.address(), handle, PASSWORD, options)
        .await
        .unwrap_or_else(|error| panic!("{handle} cannot sign up: {error}"))
}

/// Alice and Bob, and their direct conversation, made by Alice.
///
/// # Panics
/// If the server refuses.
pub async fn alice_and_bob(server: &Server) -> (Client, Client, ConversationId) {
    let (alice, bob) = tokio::join!(sign_up(server, "alice"), sign_up(server, "bob"));
    let conversation = alice.create_direct("bob").await.expect("a direct conversation can always be made");
    (alice, bob, conversation)
}

/// Signs `handle` up over HTTP/3 and returns what a device needs for `Hello`.
///
/// # Panics
/// If the server refuses.
pub async fn credentials(server: &Server, handle: &str) -> Credentials {
    let (status, answer) = http3::post(server, "/v1/sign-up", &json!({ "handle": handle, "password": PASSWORD })).await;
    assert_eq!(status, 201, "{answer}");
    let number = |name: &str| number(&answer[name]).unwrap_or_else(|| panic!("no {name} in {answer}"));
    let secret = answer["device_secret"].as_str().expect("a secret");
    Credentials {
        account: AccountId(number("account")),
        device: DeviceId(number("device")),
        secret: URL_SAFE_NO_PAD.decode(secret).expect("base64url").into(),
    }
}

/// Ids are numbers or, for JavaScript's sake, strings.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Opens a store that was signed up with before.
///
/// # Panics
/// If it cannot be opened.
pub async fn open(store: StoreLocation) -> Client {
    let options = Options { name: "rove-tests".to_owned(), ..Options::new(store) };
    Client::open(options).await.unwrap_or_else(|error| panic!("the store does not open: {error}"))
}
