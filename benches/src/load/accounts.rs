//! Accounts to put load on with, signed up over HTTP/3.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use quinn::Endpoint;
use rove_protocol::ids::{AccountId, DeviceId};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::error::{LoadError, io};
use super::server::Server;
use crate::Progress;

/// Sign-ups under way: as many as keep the cores of the server's hashing busy, and far less than may wait.
const AT_ONCE: usize = 8;

/// What a device proves itself with.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The account.
    pub account: AccountId,
    /// Its one device.
    pub device: DeviceId,
    /// The device's secret.
    pub secret: Bytes,
}

/// An HTTP/3 connection that signs accounts up. Every sign-up costs the server a slow hash, on purpose: hundreds take
/// a while.
pub struct Accounts {
    sender: SendRequest<OpenStreams, Bytes>,
    /// Signed up so far, for names.
    made: usize,
    // Ends with it.
    _driver: JoinSet<()>,
    _endpoint: Endpoint,
}

impl Accounts {
    /// Connects.
    ///
    /// # Errors
    /// [`LoadError::Connect`].
    pub async fn connect(server: &Server) -> Result<Self, LoadError> {
        let unreachable = |error: &dyn std::fmt::Display| LoadError::Connect(error.to_string());
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).map_err(io("binding a socket"))?;
        endpoint.set_default_client_config(rove_quic::client_tls(server.trust(), b"h3").map_err(|e| unreachable(&e))?);
        let connecting = endpoint.connect(server.quic(), "localhost").map_err(|e| unreachable(&e))?;
        let connection = h3_quinn::Connection::new(connecting.await.map_err(|e| unreachable(&e))?);
        let (mut connection, sender) = h3::client::new(connection).await.map_err(|e| unreachable(&e))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What ends the connection also fails the request that waits for it.
            let _ = std::future::poll_fn(|context| connection.poll_close(context)).await;
        });
        Ok(Self { sender, made: 0, _driver: driver, _endpoint: endpoint })
    }

    /// Signs up `load-0`, `load-1`, …: `count` more accounts.
    ///
    /// # Errors
    /// [`LoadError::SignUp`].
    pub async fn sign_up(&mut self, count: usize) -> Result<Vec<Credentials>, LoadError> {
        let mut progress = Progress::new("signing up");
        let names = self.made..self.made + count;
        self.made += count;
        let mut signing = futures::stream::iter(names)
            .map(|number| sign_up(self.sender.clone(), format!("load-{number}")))
            .buffered(AT_ONCE);
        let mut accounts = Vec::with_capacity(count);
        while let Some(account) = signing.next().await {
            accounts.push(account?);
            progress.at(accounts.len(), count);
        }
        Ok(accounts)
    }
}

async fn sign_up(mut sender: SendRequest<OpenStreams, Bytes>, handle: String) -> Result<Credentials, LoadError> {
    let failed = |error: &dyn std::fmt::Display| LoadError::SignUp(error.to_string());
    let body = json!({ "handle": handle, "password": "a long enough password" }).to_string();
    let request = http::Request::post("https://localhost/v1/sign-up")
        .header("content-type", "application/json")
        .body(())
        .map_err(|e| failed(&e))?;
    let mut stream = sender.send_request(request).await.map_err(|e| failed(&e))?;
    stream.send_data(body.into()).await.map_err(|e| failed(&e))?;
    stream.finish().await.map_err(|e| failed(&e))?;
    let status = stream.recv_response().await.map_err(|e| failed(&e))?.status();
    let mut answer = Vec::new();
    while let Some(mut chunk) = stream.recv_data().await.map_err(|e| failed(&e))? {
        answer.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
    }
    let text = String::from_utf8_lossy(&answer);
    if status != http::StatusCode::CREATED {
        return Err(LoadError::SignUp(format!("{status}: {text}")));
    }
    serde_json::from_slice(&answer)
        .ok()
        .and_then(|answer| credentials(&answer))
        .ok_or_else(|| LoadError::SignUp(format!("an answer without credentials: {text}")))
}

fn credentials(answer: &Value) -> Option<Credentials> {
    // Ids are numbers or, for JavaScript's sake, texts.
    let id = |name: &str| answer[name].as_u64().or_else(|| answer[name].as_str()?.parse().ok());
    Some(Credentials {
        account: AccountId(id("account")?),
        device: DeviceId(id("device")?),
        secret: URL_SAFE_NO_PAD.decode(answer["device_secret"].as_str()?).ok()?.into(),
    })
}
