//! The few calls of the HTTP API a client makes, over HTTP/3 on the chat's own port.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf, Bytes};
use http::{Method, Request, StatusCode};
use rove_protocol::ids::{AccountId, DeviceId};
use rove_protocol::limits;
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::TransportError;
use serde::{Deserialize, Serialize};

use crate::inner::random_bytes;
use crate::net::Network;
use crate::{Error, ServerAddress};

/// How long one call may take: hashing a password on a loaded server is slow on purpose.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer taken: a list of a few hundred devices.
const MAX_ANSWER: usize = 256 * 1024;
/// Attempts at a call the server is too busy for, or gone; its waits are about a second.
const ATTEMPTS: u32 = 5;

#[derive(Serialize)]
pub(crate) struct Credentials<'a> {
    pub(crate) handle: &'a str,
    pub(crate) password: &'a str,
    pub(crate) device_name: &'a str,
}

#[derive(Deserialize)]
struct SignedInJson {
    account: u64,
    device: u64,
    device_secret: String,
    access_token: String,
    refresh_token: String,
}

/// A device that is signed in.
pub(crate) struct SignedIn {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) secret: Bytes,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

#[derive(Deserialize)]
pub(crate) struct Tokens {
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

#[derive(Deserialize)]
pub(crate) struct Devices {
    pub(crate) devices: Vec<Device>,
}

#[derive(Deserialize)]
pub(crate) struct Device {
    pub(crate) device: u64,
    #[serde(default)]
    pub(crate) name: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    number: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retry_after_ms: u64,
}

/// What to call.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) bearer: Option<&'a str>,
    pub(crate) body: Option<Vec<u8>>,
}

/// Signs up (`/v1/sign-up`) or logs in (`/v1/log-in`).
pub(crate) async fn enter(
    network: &Network,
    server: &ServerAddress,
    path: &str,
    credentials: &Credentials<'_>,
) -> Result<SignedIn, Error> {
    let body = serde_json::to_vec(credentials).map_err(|error| Error::InvalidArgument(error.to_string()))?;
    let answer = call(network, server, &Call { method: Method::POST, path, bearer: None, body: Some(body) }).await?;
    let json: SignedInJson = parse(&answer)?;
    let secret = URL_SAFE_NO_PAD.decode(json.device_secret.trim_end_matches('=')).map_err(|_| strange("a secret"))?;
    if secret.len() != limits::SECRET {
        return Err(strange("a secret"));
    }
    Ok(SignedIn {
        account: AccountId(json.account),
        device: DeviceId(json.device),
        secret: secret.into(),
        access_token: json.access_token,
        refresh_token: json.refresh_token,
    })
}

/// Changes a refresh token for new tokens.
pub(crate) async fn refresh(network: &Network, server: &ServerAddress, token: &str) -> Result<Tokens, Error> {
    let body = serde_json::to_vec(&serde_json::json!({ "refresh_token": token }))
        .map_err(|error| Error::InvalidArgument(error.to_string()))?;
    let call_it = Call { method: Method::POST, path: "/v1/refresh", bearer: None, body: Some(body) };
    parse(&call(network, server, &call_it).await?)
}

/// An answer that does not say what the API says it does.
fn strange(what: &str) -> Error {
    Error::Server {
        code: ErrorCode::Malformed,
        message: format!("the server sent {what} that makes no sense"),
        retry_after_ms: 0,
    }
}

/// Reads an answer's JSON.
pub(crate) fn parse<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(answer).map_err(|_| strange("an answer"))
}

/// Makes a call, again for a while if the server says that it is busy, or is gone before it has answered: another node may have the
/// answer. The same idempotency key each time makes that safe. A server that cannot be reached at all is not tried again.
pub(crate) async fn call(network: &Network, server: &ServerAddress, call: &Call<'_>) -> Result<Vec<u8>, Error> {
    let key = URL_SAFE_NO_PAD.encode(random_bytes());
    let mut attempt = 1;
    loop {
        let mut reached = false;
        // Boxed: whoever calls should not be as large as an HTTP/3 connection.
        let once = Box::pin(async {
            let connection = network.connect_h3(server).await?;
            reached = true;
            once(&connection, server, call, &key).await
        });
        let result = tokio::time::timeout(TIMEOUT, once).await.unwrap_or(Err(Error::Timeout("an HTTP call")));
        match &result {
            Err(Error::Transport(_)) if reached && attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(crate::inner::random() % 200)).await;
                attempt += 1;
            }
            Err(Error::Server { code: ErrorCode::Busy | ErrorCode::Unavailable, retry_after_ms, .. })
                if attempt < ATTEMPTS =>
            {
                let wait = u64::from(*retry_after_ms).clamp(100, 5_000) + crate::inner::random() % 500;
                tokio::time::sleep(Duration::from_millis(wait)).await;
                attempt += 1;
            }
            _ => return result,
        }
    }
}

fn lost(error: impl std::fmt::Display) -> Error {
    Error::Transport(TransportError::Lost(error.to_string()))
}

async fn once(
    connection: &quinn::Connection,
    server: &ServerAddress,
    call: &Call<'_>,
    key: &str,
) -> Result<Vec<u8>, Error> {
    let (mut driver, mut requests) = h3::client::builder()
        .max_field_section_size(16 * 1024)
        .build::<_, _, Bytes>(h3_quinn::Connection::new(connection.clone()))
        .await
        .map_err(lost)?;
    let exchange = async {
        let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("https://{host}:{}{}", server.port, call.path))
            .header(http::header::CONTENT_TYPE, "application/json");
        if call.method == Method::POST {
            request = request.header("idempotency-key", key);
        }
        if let Some(bearer) = call.bearer {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let request = request.body(()).map_err(|error| Error::InvalidArgument(error.to_string()))?;
        let mut stream = requests.send_request(request).await.map_err(lost)?;
        // A server may answer without reading to the end (RFC 9114, section 4.1): what it says counts, not that it stopped.
        if let Some(body) = &call.body {
            let _ = stream.send_data(Bytes::copy_from_slice(body)).await;
        }
        let _ = stream.finish().await;
        let response = stream.recv_response().await.map_err(lost)?;
        let mut answer = Vec::new();
        while let Some(mut chunk) = stream.recv_data().await.map_err(lost)? {
            if answer.len() + chunk.remaining() > MAX_ANSWER {
                return Err(strange("an answer too long"));
            }
            answer.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
        if response.status().is_success() { Ok(answer) } else { Err(refused(response.status(), &answer)) }
    };
    let result = tokio::select! {
        result = exchange => result,
        // It ends only with the connection.
        error = std::future::poll_fn(|context| driver.poll_close(context)) => Err(lost(error)),
    };
    // H3_NO_ERROR.
    connection.close(quinn::VarInt::from_u32(0x100), b"");
    result
}

fn refused(status: StatusCode, answer: &[u8]) -> Error {
    match serde_json::from_slice::<ErrorBody>(answer) {
        Ok(body) => Error::Server {
            code: ErrorCode(body.error.number),
            message: body.error.message,
            retry_after_ms: u32::try_from(body.error.retry_after_ms).unwrap_or(u32::MAX),
        },
        Err(_) => Error::Server {
            code: if status.is_server_error() { ErrorCode::Unavailable } else { ErrorCode::Internal },
            message: format!("HTTP status {status}"),
            retry_after_ms: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rove_7_1_1_members_of_an_answer_that_are_not_known_are_passed_over() {
        let newer = br#"{"account":1,"device":2,"device_secret":"s","access_token":"a","access_expires_in_s":900,
            "refresh_token":"r","passkey":{"of":["tomorrow"]}}"#;
        let signed_in: SignedInJson = parse(newer).unwrap();
        assert_eq!((signed_in.account, signed_in.device, signed_in.access_token.as_str()), (1, 2, "a"));
        let newer = br#"{"access_token":"a","refresh_token":"r","family":7}"#;
        assert_eq!(parse::<Tokens>(newer).unwrap().refresh_token, "r");
        let newer = br#"{"devices":[{"device":2,"name":"phone","current":true,"battery":0.4}],"total":1}"#;
        assert_eq!(parse::<Devices>(newer).unwrap().devices[0].device, 2);
        let newer = br#"{"error":{"code":"NameTaken","number":36,"message":"taken","retry_after_ms":0,"docs":null}}"#;
        let error = refused(StatusCode::CONFLICT, newer);
        assert!(matches!(error, Error::Server { code: ErrorCode::NameTaken, .. }), "{error}");
    }
}
