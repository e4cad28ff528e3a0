use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use bytes::Buf as _;
use h3_quinn::OpenStreams;
use http::{Request, StatusCode};
use quinn::{Endpoint, VarInt};
use rove_quic::Trust;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::serve_h3;
use crate::http::BODY;
use crate::tls::{ALPN_H3, Identity, make_development_certificate};

/// Everything here is over within this time, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of one connection, and that connection.
struct Pair {
    connection: quinn::Connection,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    _endpoints: (Endpoint, Endpoint),
}

impl Pair {
    async fn new(router: Router) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        make_development_certificate(&cert, &key, None).unwrap();
        let identity = Identity::load(&cert, &key).unwrap();
        let pin = rove_quic::spki_pin(&identity.chain()[0]).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sessions = Arc::new(rove_quic::SessionStore::new(16));
        let server =
            Endpoint::server(rove_quic::server_config(identity.quic(sessions).unwrap()).unwrap(), any).unwrap();
        let client = Endpoint::client(any).unwrap();
        let config = rove_quic::client_tls(&Trust::Pins(vec![pin]), ALPN_H3).unwrap();
        let connecting = client.connect_with(config, server.local_addr().unwrap(), "localhost").unwrap();
        let accepted = async { server.accept().await.unwrap().await.unwrap() };
        let (connection, accepted) = tokio::join!(connecting, accepted);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve_h3(accepted, router, shutdown.clone()));
        Self { connection: connection.unwrap(), shutdown, server: task, _endpoints: (server, client) }
    }

    async fn client(&self) -> Client {
        let (mut driver, sender) = ::h3::client::new(h3_quinn::Connection::new(self.connection.clone())).await.unwrap();
        let driver = tokio::spawn(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
        Client { sender, driver }
    }
}

struct Client {
    sender: ::h3::client::SendRequest<OpenStreams, Bytes>,
    driver: JoinHandle<::h3::error::ConnectionError>,
}

impl Client {
    async fn post(&mut self, path: &str, body: Bytes) -> (StatusCode, Bytes) {
        let request = Request::post(format!("https://localhost{path}")).body(()).unwrap();
        let mut stream = self.sender.send_request(request).await.unwrap();
        // The server may have stopped reading, and answers all the same.
        let _ = stream.send_data(body).await;
        let _ = stream.finish().await;
        let response = stream.recv_response().await.unwrap();
        let mut answer = Vec::new();
        while let Some(mut chunk) = stream.recv_data().await.unwrap() {
            answer.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
        (response.status(), answer.into())
    }
}

fn echo() -> Router {
    Router::new().route("/echo", post(|body: Bytes| async { body })).layer(axum::extract::DefaultBodyLimit::max(BODY))
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

#[tokio::test]
async fn requests_are_answered_and_a_body_that_is_too_large_is_refused() {
    let pair = Pair::new(echo()).await;
    let mut client = pair.client().await;
    let body = Bytes::from(vec![7; BODY]);
    assert_eq!(within("an echo", client.post("/echo", body.clone())).await, (StatusCode::OK, body));
    let (status, _) = within("a refusal", client.post("/echo", Bytes::from(vec![7; BODY + 1]))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = within("a miss", client.post("/none", Bytes::new())).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_empty_piece_is_not_the_end_of_a_body() {
    let pair = Pair::new(echo()).await;
    let mut client = pair.client().await;
    let request = Request::post("https://localhost/echo").body(()).unwrap();
    let mut stream = client.sender.send_request(request).await.unwrap();
    for piece in ["", "on ", "", "", "and ", "", "on", ""] {
        stream.send_data(Bytes::from_static(piece.as_bytes())).await.expect("the server reads to the end");
    }
    stream.finish().await.expect("the server reads to the end");
    within("a response", stream.recv_response()).await.unwrap();
    let mut answer = Vec::new();
    while let Some(mut chunk) = within("an echo", stream.recv_data()).await.unwrap() {
        answer.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
    }
    assert_eq!(answer, b"on and on");
}

#[tokio::test]
async fn on_shutdown_the_request_under_way_is_answered_and_the_connection_ends() {
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began_there, go_on_there) = (began.clone(), go_on.clone());
    let slow = post(move || async move {
        began_there.notify_one();
        go_on_there.notified().await;
        "done"
    });
    let pair = Pair::new(Router::new().route("/slow", slow)).await;
    let mut client = pair.client().await;
    let mut answered = Box::pin(client.post("/slow", Bytes::new()));
    tokio::select! {
        () = began.notified() => {}
        _ = &mut answered => panic!("answered too early"),
    }
    pair.shutdown.cancel();
    go_on.notify_one();
    assert_eq!(within("the answer", answered).await, (StatusCode::OK, Bytes::from_static(b"done")));
    let Client { sender, driver } = client;
    drop(sender);
    assert!(within("the end", driver).await.unwrap().is_h3_no_error());
    within("the server", pair.server).await.unwrap();
}

#[tokio::test]
async fn fields_that_never_end_are_cut_off() {
    let pair = Pair::new(echo()).await;
    let (mut send, _recv) = pair.connection.open_bi().await.unwrap();
    // A HEADERS frame (type 1) that says it is 1 GiB long: a varint of eight bytes.
    let mut frame = vec![0x01];
    frame.extend_from_slice(&(0xc000_0000_0000_0000_u64 | (1 << 30)).to_be_bytes());
    send.write_all(&frame).await.unwrap();
    let stopped = async {
        loop {
            match send.write(&[0; 4_096]).await {
                Ok(_) => {}
                Err(quinn::WriteError::Stopped(code)) => return code,
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert_eq!(within("being stopped", stopped).await, VarInt::from_u32(0x107), "H3_EXCESSIVE_LOAD");
}
