//! The HTTP API of any node, for what may fail: a node may be down, or cut off.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::Method;
use quinn::Endpoint;
use rove_client::Trust;
use rove_quic::client_tls;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a node that is well may take to shake hands or to answer, on a machine that is busy with three of them.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A connection to one node.
pub(crate) struct Api {
    // Dropping the endpoint would end the connection.
    _endpoint: Endpoint,
    sender: SendRequest<OpenStreams, Bytes>,
    _driver: JoinSet<()>,
}

impl Api {
    /// Connects.
    pub(crate) async fn connect(node: SocketAddr, trust: &Trust) -> Result<Self, String> {
        timeout(ANSWER_WITHIN, Self::connected(node, trust)).await.map_err(|_| "no connection in time".to_owned())?
    }

    async fn connected(node: SocketAddr, trust: &Trust) -> Result<Self, String> {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).map_err(|error| error.to_string())?;
        let config = client_tls(trust, b"h3").map_err(|error| error.to_string())?;
        let connecting = endpoint.connect_with(config, node, "localhost").map_err(|error| error.to_string())?;
        let connection = h3_quinn::Connection::new(connecting.await.map_err(|error| error.to_string())?);
        let (mut driver, sender) = h3::client::new(connection).await.map_err(|error| error.to_string())?;
        let mut tasks = JoinSet::new();
        // It ends with the connection.
        tasks.spawn(async move { drop(std::future::poll_fn(|context| driver.poll_close(context)).await) });
        Ok(Self { _endpoint: endpoint, sender, _driver: tasks })
    }

    /// Asks, and returns the status and the body of the answer.
    pub(crate) async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<(u16, Vec<u8>), String> {
        timeout(ANSWER_WITHIN, self.asked(method, path, body)).await.map_err(|_| "no answer in time".to_owned())?
    }

    async fn asked(&mut self, method: Method, path: &str, body: Bytes) -> Result<(u16, Vec<u8>), String> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .header("content-type", "application/json")
            .body(())
            .map_err(|error| error.to_string())?;
        let mut stream = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !body.is_empty() {
            stream.send_data(body).await.map_err(|error| error.to_string())?;
        }
        stream.finish().await.map_err(|error| error.to_string())?;
        let status = stream.recv_response().await.map_err(|error| error.to_string())?.status();
        let mut bytes = Vec::new();
        while let Some(mut chunk) = stream.recv_data().await.map_err(|error| error.to_string())? {
            bytes.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
        Ok((status.as_u16(), bytes))
    }
}
