//! Accounts to put load on with, signed up over HTTP/3.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::StreamExt as _;
use rove_protocol::ids::{AccountId, DeviceId};
use serde_json::{Value, json};

use super::error::LoadError;
use super::http::{Http, Sender};
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
    http: Http,
    /// Signed up so far, for names.
    made: usize,
}

impl Accounts {
    /// Connects.
    ///
    /// # Errors
    /// [`LoadError::Connect`].
    pub async fn connect(server: &Server) -> Result<Self, LoadError> {
        Ok(Self { http: Http::connect(server).await?, made: 0 })
    }

    /// Signs up `load-0`, `load-1`, …: `count` more accounts.
    ///
    /// # Errors
    /// [`LoadError::SignUp`], [`LoadError::Connect`].
    pub async fn sign_up(&mut self, count: usize) -> Result<Vec<Credentials>, LoadError> {
        let mut progress = Progress::new("signing up");
        let names = self.made..self.made + count;
        self.made += count;
        let mut signing = futures::stream::iter(names)
            .map(|number| sign_up(self.http.sender(), format!("load-{number}")))
            .buffered(AT_ONCE);
        let mut accounts = Vec::with_capacity(count);
        while let Some(account) = signing.next().await {
            accounts.push(account?);
            progress.at(accounts.len(), count);
        }
        Ok(accounts)
    }
}

async fn sign_up(mut sender: Sender, handle: String) -> Result<Credentials, LoadError> {
    let body = json!({ "handle": handle, "password": "a long enough password" }).to_string();
    let (status, answer) = sender.post_json("/v1/sign-up", body.into()).await?;
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
