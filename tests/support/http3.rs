//! A plain HTTP/3 request, for what no client library should have to offer.

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::Method;
use quinn::Endpoint;
use rove_quic::client_tls;
use serde_json::Value;

use crate::{Server, within_patience};

/// POSTs `body` to `path` and returns the status and the JSON of the answer.
///
/// # Panics
/// If there is no answer.
pub async fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let (status, bytes) = send(server, Method::POST, path, body.to_string().into()).await;
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// The value of a metric that has no labels.
///
/// # Panics
/// If there is no answer, or no such metric.
pub async fn metric(server: &Server, name: &str) -> u64 {
    let (status, bytes) = send(server, Method::GET, "/metrics", Bytes::new()).await;
    let text = String::from_utf8(bytes).expect("metrics are text");
    assert_eq!(status, 200, "{text}");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

async fn send(server: &Server, method: Method, path: &str, body: Bytes) -> (u16, Vec<u8>) {
    within_patience("the HTTP/3 answer", request(server, method, path, body)).await
}

async fn request(server: &Server, method: Method, path: &str, body: Bytes) -> (u16, Vec<u8>) {
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = client_tls(&server.address().trust, b"h3").expect("pins make a configuration");
    let connecting = endpoint.connect_with(config, server.quic, "localhost").expect("a valid name");
    let connection = connecting.await.expect("the server accepts");
    let (mut driver, sender): (_, SendRequest<OpenStreams, Bytes>) =
        h3::client::new(h3_quinn::Connection::new(connection)).await.expect("HTTP/3 starts");
    tokio::select! {
        answer = exchange(sender, method, path, body) => answer,
        closed = std::future::poll_fn(|context| driver.poll_close(context)) => panic!("closed early: {closed}"),
    }
}

async fn exchange(
    mut sender: SendRequest<OpenStreams, Bytes>,
    method: Method,
    path: &str,
    body: Bytes,
) -> (u16, Vec<u8>) {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"))
        .header("content-type", "application/json")
        .body(())
        .expect("a valid request");
    let mut stream = sender.send_request(request).await.expect("the request is sent");
    stream.send_data(body).await.expect("the body is sent");
    stream.finish().await.expect("the body ends");
    let response = stream.recv_response().await.expect("a response");
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.recv_data().await.expect("the body comes") {
        bytes.extend_from_slice(chunk.chunk());
    }
    (response.status().as_u16(), bytes)
}
