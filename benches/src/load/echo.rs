//! The floor: what quinn and the machine can do with the same bytes if the server does nothing but send them back.
//!
//! The same TLS, the same windows, the same runtime as the server's; no log, no disk, no protocol. Whatever Rove does costs something
//! on top of that, and what it costs, as a share of the floor, depends much less on the machine and its mood than either figure.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use quinn::{Endpoint, VarInt};
use rove_protocol::message::Message as _;
use rove_protocol::registry::ALPN;
use rove_protocol::transport::{Connection as _, RecvStream as _, SendStream as _};
use rove_quic::{Connection, RecvStream, SendStream, Trust};
use rustls::pki_types::PrivateKeyDer;
use tokio::task::JoinSet;

use super::error::LoadError;
use super::pace::Pace;
use super::poster::Outcome;
use super::socket;
use crate::{Span, sample};

/// A server that echoes, and the pin of its key.
///
/// # Errors
/// [`LoadError::Connect`], [`LoadError::Io`].
pub fn server() -> Result<(Endpoint, [u8; 32]), LoadError> {
    let failed = |error: &dyn std::fmt::Display| LoadError::Connect(error.to_string());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(|e| failed(&e))?;
    let pin = rove_quic::spki_pin(made.cert.der()).map_err(|e| failed(&e))?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = rove_quic::provider();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .map_err(|e| failed(&e))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = rove_quic::server_config(tls).map_err(|e| failed(&e))?;
    Ok((socket::endpoint(Some(config))?, pin))
}

/// Echoes whatever comes on whichever stream, for as long as the endpoint lives.
pub async fn serve(endpoint: Endpoint) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        connections.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            // As the edge does with the `Welcome`.
            connection.set_receive_window(VarInt::from_u32(rove_quic::config::SERVER_WINDOW));
            let connection = Connection::from(connection);
            let mut streams = JoinSet::new();
            while let Ok((send, recv)) = connection.accept().await {
                streams.spawn(echo(send, recv));
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn echo(mut send: SendStream, mut recv: RecvStream) {
    while let Ok(Some(bytes)) = recv.read().await {
        if send.write(bytes).await.is_err() {
            return;
        }
    }
}

/// A connection to it with one stream.
#[derive(Debug)]
pub struct Echo {
    // Dropping it would close the connection.
    _connection: Connection,
    send: SendStream,
    recv: RecvStream,
}

/// A socket to connect from, as [`super::Dialer`] is.
#[derive(Debug)]
pub struct EchoDialer {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    server: SocketAddr,
    pin: [u8; 32],
}

fn client_config(pin: [u8; 32]) -> Result<quinn::ClientConfig, LoadError> {
    rove_quic::client_tls(&Trust::Pins(vec![pin]), ALPN).map_err(|error| LoadError::Connect(error.to_string()))
}

impl EchoDialer {
    /// To the server there.
    ///
    /// # Errors
    /// [`LoadError::Connect`], [`LoadError::Io`].
    pub fn new(server: SocketAddr, pin: [u8; 32]) -> Result<Self, LoadError> {
        Ok(Self { endpoint: socket::endpoint(None)?, config: client_config(pin)?, server, pin })
    }

    /// Connects.
    ///
    /// # Errors
    /// [`LoadError::Connect`], and that of opening a stream.
    pub async fn connect(&self) -> Result<Echo, LoadError> {
        self.connect_as(self.config.clone()).await
    }

    /// The same, by somebody who was never there: nothing is resumed.
    ///
    /// # Errors
    /// As [`EchoDialer::connect`].
    pub async fn connect_first(&self) -> Result<Echo, LoadError> {
        self.connect_as(client_config(self.pin)?).await
    }

    async fn connect_as(&self, config: quinn::ClientConfig) -> Result<Echo, LoadError> {
        let failed = |error: &dyn std::fmt::Display| LoadError::Connect(error.to_string());
        let connecting = self.endpoint.connect_with(config, self.server, "localhost");
        let connection = Connection::from(connecting.map_err(|e| failed(&e))?.await.map_err(|e| failed(&e))?);
        let (send, recv) = connection.open().await?;
        Ok(Echo { _connection: connection, send, recv })
    }
}

impl Echo {
    /// Sends posts and takes their echoes, at this pace, with at most `window` under way. An echo counts as an acknowledgement.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn run(mut self, mut pace: Pace, span: Span, window: usize) -> Result<Outcome, LoadError> {
        let (frame, mut outcome) = (Bytes::from(sample::post(1).to_frame()), Outcome::default());
        let (mut waiting, mut came, mut ended) = (VecDeque::<Instant>::with_capacity(window), 0, false);
        while !(ended && waiting.is_empty()) {
            tokio::select! {
                biased;
                bytes = self.recv.read() => {
                    came += bytes?.ok_or(LoadError::Ended("the echo"))?.len();
                    let now = Instant::now();
                    while came >= frame.len() {
                        came -= frame.len();
                        let since = waiting.pop_front().ok_or(LoadError::Ended("the echo"))?;
                        let counts = span.contains(now);
                        outcome.acknowledged += u64::from(counts);
                        if if pace.is_open() { span.contains(since) } else { counts } {
                            outcome.times.record(now.saturating_duration_since(since));
                        }
                    }
                }
                due = pace.next(), if !ended && waiting.len() < window => {
                    let mut out = Vec::new();
                    let mut next = due;
                    ended = due.is_none();
                    while let Some(since) = next {
                        out.extend_from_slice(&frame);
                        waiting.push_back(since);
                        next = if waiting.len() < window { pace.at_once() } else { None };
                    }
                    if !out.is_empty() {
                        self.send.write(out.into()).await?;
                    }
                }
            }
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_post_comes_back() {
        let (endpoint, pin) = server().unwrap();
        let dialer = EchoDialer::new(endpoint.local_addr().unwrap(), pin).unwrap();
        let start = Instant::now();
        let span = Span::new(start, Duration::ZERO, Duration::from_secs(3_600));
        let schedule = crate::Schedule::new(start, 1e6, 500).unwrap();
        let outcome = tokio::select! {
            () = serve(endpoint) => panic!("it serves for ever"),
            outcome = async { dialer.connect().await.unwrap().run(Pace::Due(schedule), span, 16).await } => outcome.unwrap(),
        };
        assert_eq!((outcome.acknowledged, outcome.times.count()), (500, 500));
    }
}
