//! Requests over HTTP/3: signing up, and asking whether a node serves.

use bytes::{Buf as _, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::{Request, StatusCode};
use quinn::Endpoint;
use tokio::task::JoinSet;

use super::error::{LoadError, io};
use super::server::Server;

/// An HTTP/3 connection.
pub(super) struct Http {
    sender: SendRequest<OpenStreams, Bytes>,
    // End with it.
    _driver: JoinSet<()>,
    _endpoint: Endpoint,
}

impl Http {
    /// Connects.
    pub(super) async fn connect(server: &Server) -> Result<Self, LoadError> {
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).map_err(io("binding a socket"))?;
        endpoint.set_default_client_config(rove_quic::client_tls(server.trust(), b"h3").map_err(unreachable)?);
        let connecting = endpoint.connect(server.quic(), "localhost").map_err(unreachable)?;
        let connection = h3_quinn::Connection::new(connecting.await.map_err(unreachable)?);
        let (mut connection, sender) = h3::client::new(connection).await.map_err(unreachable)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What ends the connection also fails the request that waits for it.
            let _ = std::future::poll_fn(|context| connection.poll_close(context)).await;
        });
        Ok(Self { sender, _driver: driver, _endpoint: endpoint })
    }

    /// What requests are made with, any number at a time.
    pub(super) fn sender(&self) -> Sender {
        Sender(self.sender.clone())
    }
}

/// Makes requests on an [`Http`] connection.
#[derive(Clone)]
pub(super) struct Sender(SendRequest<OpenStreams, Bytes>);

impl Sender {
    pub(super) async fn get(&mut self, path: &str) -> Result<(StatusCode, Vec<u8>), LoadError> {
        self.ask(Request::get(format!("https://localhost{path}")), Bytes::new()).await
    }

    pub(super) async fn post_json(&mut self, path: &str, body: Bytes) -> Result<(StatusCode, Vec<u8>), LoadError> {
        let request = Request::post(format!("https://localhost{path}")).header("content-type", "application/json");
        self.ask(request, body).await
    }

    async fn ask(&mut self, request: http::request::Builder, body: Bytes) -> Result<(StatusCode, Vec<u8>), LoadError> {
        let mut stream = self.0.send_request(request.body(()).map_err(unreachable)?).await.map_err(unreachable)?;
        if !body.is_empty() {
            stream.send_data(body).await.map_err(unreachable)?;
        }
        stream.finish().await.map_err(unreachable)?;
        let status = stream.recv_response().await.map_err(unreachable)?.status();
        let mut answer = Vec::new();
        while let Some(mut chunk) = stream.recv_data().await.map_err(unreachable)? {
            answer.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
        Ok((status, answer))
    }
}

fn unreachable(error: impl std::fmt::Display) -> LoadError {
    LoadError::Connect(error.to_string())
}
