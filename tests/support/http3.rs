//! A plain HTTP/3 request, for what no client library should have to offer.

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::Method;
use quinn::Endpoint;
use rove_quic::client_tls;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{Server, within_patience};

/// POSTs `body` to `path` and returns the status and the JSON of the answer.
///
/// # Panics
/// If there is no answer.
pub async fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let (status, bytes) = send(server, Method::POST, path, body.to_string().into()).await;
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// GETs `path` and returns the status and the JSON of the answer.
///
/// # Panics
/// If there is no answer.
pub async fn get(server: &Server, path: &str) -> (u16, Value) {
    let (status, bytes) = send(server, Method::GET, path, Bytes::new()).await;
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// GETs `path` and returns the status and the text of the answer.
///
/// # Panics
/// If there is no answer, or it is not text.
pub async fn get_text(server: &Server, path: &str) -> (u16, String) {
    let (status, bytes) = send(server, Method::GET, path, Bytes::new()).await;
    (status, String::from_utf8(bytes).expect("text"))
}

/// The value of a metric, named with its labels if it has any.
///
/// # Panics
/// If there is no answer, or no such metric.
pub async fn metric(server: &Server, name: &str) -> u64 {
    Metrics::connect(server).await.get(name).await
}

/// A connection to ask for metrics again and again: a busy server answers sooner than it shakes hands.
pub struct Metrics {
    // Dropping the endpoint would end the connection.
    _endpoint: Endpoint,
    sender: SendRequest<OpenStreams, Bytes>,
    _driver: JoinSet<()>,
}

impl Metrics {
    /// Connects.
    ///
    /// # Panics
    /// If there is no connection.
    pub async fn connect(server: &Server) -> Self {
        within_patience("the HTTP/3 connection", Self::connected(server)).await
    }

    async fn connected(server: &Server) -> Self {
        let (endpoint, connection) = connect(server).await;
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection)).await.expect("HTTP/3 starts");
        let mut tasks = JoinSet::new();
        // It ends with the connection.
        tasks.spawn(async move { drop(std::future::poll_fn(|context| driver.poll_close(context)).await) });
        Self { _endpoint: endpoint, sender, _driver: tasks }
    }

    /// The value of a metric, named with its labels if it has any.
    ///
    /// # Panics
    /// If there is no answer, or no such metric.
    pub async fn get(&mut self, name: &str) -> u64 {
        let asked = exchange(&mut self.sender, Method::GET, "/metrics", Bytes::new());
        let (status, bytes) = within_patience("the metrics", asked).await;
        let text = String::from_utf8(bytes).expect("metrics are text");
        assert_eq!(status, 200, "{text}");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }
}

async fn connect(server: &Server) -> (Endpoint, quinn::Connection) {
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = client_tls(&server.address().trust, b"h3").expect("pins make a configuration");
    let connecting = endpoint.connect_with(config, server.quic, "localhost").expect("a valid name");
    let connection = connecting.await.expect("the server accepts");
    (endpoint, connection)
}

async fn send(server: &Server, method: Method, path: &str, body: Bytes) -> (u16, Vec<u8>) {
    within_patience("the HTTP/3 answer", request(server, method, path, body)).await
}

async fn request(server: &Server, method: Method, path: &str, body: Bytes) -> (u16, Vec<u8>) {
    let (_endpoint, connection) = connect(server).await;
    let (mut driver, mut sender): (_, SendRequest<OpenStreams, Bytes>) =
        h3::client::new(h3_quinn::Connection::new(connection)).await.expect("HTTP/3 starts");
    tokio::select! {
        answer = exchange(&mut sender, method, path, body) => answer,
        closed = std::future::poll_fn(|context| driver.poll_close(context)) => panic!("closed early: {closed}"),
    }
}

async fn exchange(
    sender: &mut SendRequest<OpenStreams, Bytes>,
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
    if !body.is_empty() {
        stream.send_data(body).await.expect("the body is sent");
    }
    stream.finish().await.expect("the body ends");
    let response = stream.recv_response().await.expect("a response");
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.recv_data().await.expect("the body comes") {
        bytes.extend_from_slice(chunk.chunk());
    }
    (response.status().as_u16(), bytes)
}
