//! Sockets, name resolution, racing a server's addresses, and sending before the handshake is complete.
//!
//! Early data (0-RTT, D5) goes to one address only, the one that answered last: what is sent there is the session's first
//! flight, and a race would send it several times. The server may reject it, and the session then starts again on the
//! same connection.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use quinn::{Connecting, EndpointConfig, TokioRuntime, ZeroRttAccepted};
use rove_protocol::registry::{self, ErrorCode};
use rove_protocol::transport::TransportError;
use socket2::{Domain, Protocol, Socket, Type};

use crate::family::in_ipv6;
use crate::{Error, ServerAddress, SharedEndpoint, Trust};

/// Head start of an address over the next one: RFC 8305's recommendation.
const STAGGER: Duration = Duration::from_millis(250);
/// How long a connection may take: several retransmissions on a bad mobile network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take if there are other nodes to try: the first packet and its first retransmission, 1 s later, have had their time to be
/// answered. After a round without success the next one is as patient.
const NEXT_NODE_AFTER: Duration = Duration::from_secs(3);
/// How long the address that answered last is given to complete a handshake before all of them are raced: time for one
/// packet each way to be lost and sent again. A race would begin with the next after [`STAGGER`], but what was sent early
/// must be sent again then.
const EARLY_PATIENCE: Duration = Duration::from_secs(1);
/// ALPN of HTTP/3.
const H3: &[u8] = b"h3";

/// The socket of a client and how it connects.
pub(crate) struct Network {
    endpoint: quinn::Endpoint,
    shared: bool,
    /// One for the client's life: it remembers TLS sessions.
    rove: quinn::ClientConfig,
    h3: quinn::ClientConfig,
    /// Where the last handshake for `rove/1` was completed.
    answered: Mutex<Option<SocketAddr>>,
    /// The next connection is raced: what answered last has just been tried.
    race_next: AtomicBool,
    early: Counts,
}

/// How often early data was accepted and rejected.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    rejected: AtomicU64,
}

/// A connection that may be used.
pub(crate) struct Dialled {
    pub(crate) connection: quinn::Connection,
    /// If the handshake is not complete.
    pub(crate) early: Option<Early>,
}

/// A connection whose handshake is not complete. What is sent on it is early data, and may be rejected.
pub(crate) struct Early {
    /// Until it has said so.
    accepted: Option<ZeroRttAccepted>,
    connection: quinn::Connection,
    /// When to try the server's other addresses instead, if it has any.
    pub(crate) patience: Option<Duration>,
}

/// What became of early data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlyData {
    Accepted,
    /// The connection is there and what was sent on it is lost.
    Rejected,
}

impl Early {
    /// Waits for the end of the handshake; for ever if the connection has ended instead, which others notice. Cancelling it
    /// loses nothing.
    pub(crate) async fn decided(&mut self) -> EarlyData {
        let Some(accepted) = &mut self.accepted else { return std::future::pending().await };
        let accepted = accepted.await;
        self.accepted = None;
        if self.connection.close_reason().is_some() {
            return std::future::pending().await;
        }
        if accepted { EarlyData::Accepted } else { EarlyData::Rejected }
    }
}

fn socket_error(error: &std::io::Error) -> Error {
    Error::Socket(error.to_string())
}

/// A UDP socket for both families if the system has both, otherwise for IPv4.
pub(crate) fn bind() -> Result<UdpSocket, Error> {
    let dual = || -> std::io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        Ok(socket.into())
    };
    dual().or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).map_err(|error| socket_error(&error))
}

/// An endpoint on a socket of its own.
pub(crate) fn endpoint() -> Result<quinn::Endpoint, Error> {
    in_ipv6(bind()?)
        .and_then(|socket| {
            quinn::Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
        })
        .map_err(|error| socket_error(&error))
}

fn config(trust: &Trust, alpn: &[u8]) -> Result<quinn::ClientConfig, Error> {
    rove_quic::client_tls(trust, alpn).map_err(|error| Error::Tls(error.to_string()))
}

impl Network {
    pub(crate) fn new(trust: &Trust, shared: Option<&SharedEndpoint>) -> Result<Self, Error> {
        let endpoint = match shared {
            Some(shared) => shared.0.clone(),
            None => endpoint()?,
        };
        let (rove, h3) = (config(trust, registry::ALPN)?, config(trust, H3)?);
        Ok(Self {
            endpoint,
            shared: shared.is_some(),
            rove,
            h3,
            answered: Mutex::default(),
            race_next: AtomicBool::new(false),
            early: Counts::default(),
        })
    }

    /// Moves the connections to `socket` or a new one. A shared socket stays: false.
    pub(crate) fn rebind(&self, socket: Option<UdpSocket>) -> Result<bool, Error> {
        if self.shared {
            return match socket {
                None => Ok(false),
                Some(_) => Err(Error::InvalidArgument("a shared socket is not this client's to change".to_owned())),
            };
        }
        let socket = socket.map_or_else(bind, Ok)?;
        in_ipv6(socket)
            .and_then(|socket| self.endpoint.rebind_abstract(socket))
            .map_err(|error| socket_error(&error))?;
        Ok(true)
    }

    /// Connects for `rove/1` to the node `at` (`host:port`), which has the certificate of the server's name. `others`: there are more nodes to
    /// try.
    ///
    /// The connection may be an early one if the address answered the last time and the server's TLS session is known.
    pub(crate) async fn connect(&self, server: &ServerAddress, at: &str, others: bool) -> Result<Dialled, Error> {
        let patience = if others { NEXT_NODE_AFTER } else { CONNECT_TIMEOUT };
        let connect = async {
            let mut addresses = resolve(at).await?;
            let answered =
                (*self.answered.lock()).and_then(|last| addresses.iter().position(|address| *address == last));
            let mut begun = None;
            if let Some(index) = answered
                && !self.race_next.swap(false, Ordering::Relaxed)
            {
                addresses.swap(0, index);
                match self.dial(server, addresses[0], &self.rove)?.into_0rtt() {
                    Ok((connection, accepted)) => {
                        let patience = (addresses.len() > 1).then_some(EARLY_PATIENCE);
                        let early = Early { accepted: Some(accepted), connection: connection.clone(), patience };
                        return Ok(Dialled { connection, early: Some(early) });
                    }
                    Err(connecting) => begun = Some(connecting),
                }
            }
            let (connection, address) = self.race(server, addresses, begun, &self.rove).await?;
            *self.answered.lock() = Some(address);
            Ok(Dialled { connection, early: None })
        };
        tokio::time::timeout(patience, connect).await.map_err(|_| Error::Timeout("connecting"))?
    }

    /// The address that answered last does not: the next connection is raced to all of them.
    pub(crate) fn race_next(&self) {
        self.race_next.store(true, Ordering::Relaxed);
    }

    /// Early data was accepted, or not.
    pub(crate) fn decided(&self, early: EarlyData) {
        let counter = match early {
            EarlyData::Accepted => &self.early.accepted,
            EarlyData::Rejected => &self.early.rejected,
        };
        let times = counter.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::debug!(times, "early data {early:?}");
    }

    /// How often early data was accepted, and how often rejected.
    #[cfg(test)]
    pub(crate) fn early_data(&self) -> (u64, u64) {
        (self.early.accepted.load(Ordering::Relaxed), self.early.rejected.load(Ordering::Relaxed))
    }

    /// Connects for HTTP/3, to the node that answers first; each has a head start over the next.
    pub(crate) async fn connect_h3(&self, server: &ServerAddress) -> Result<quinn::Connection, Error> {
        let connect = async {
            let mut addresses = Vec::new();
            let mut failed = None;
            for node in server.nodes() {
                match resolve(&node).await {
                    Ok(found) => addresses.extend(found),
                    Err(error) => failed = Some(error),
                }
            }
            if let (true, Some(error)) = (addresses.is_empty(), failed) {
                return Err(error);
            }
            self.race(server, addresses, None, &self.h3).await.map(|(connection, _)| connection)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| Error::Timeout("connecting"))?
    }

    /// Waits until everything closed has said so.
    pub(crate) async fn wait_idle(&self) {
        if !self.shared {
            self.endpoint.wait_idle().await;
        }
    }

    fn dial(
        &self,
        server: &ServerAddress,
        address: SocketAddr,
        config: &quinn::ClientConfig,
    ) -> Result<Connecting, Error> {
        self.endpoint
            .connect_with(config.clone(), address, &server.host)
            .map_err(|error| Error::Address(error.to_string()))
    }

    /// The first connection whose handshake is complete, and its address. `begun` is on its way to the first already.
    async fn race(
        &self,
        server: &ServerAddress,
        addresses: Vec<SocketAddr>,
        mut begun: Option<Connecting>,
        config: &quinn::ClientConfig,
    ) -> Result<(quinn::Connection, SocketAddr), Error> {
        let mut attempts: FuturesUnordered<_> = addresses
            .into_iter()
            .enumerate()
            .map(|(index, address)| {
                let begun = begun.take();
                async move {
                    tokio::time::sleep(STAGGER * u32::try_from(index).unwrap_or(u32::MAX)).await;
                    let connecting = begun.map_or_else(|| self.dial(server, address, config), Ok)?;
                    connecting.await.map(|connection| (connection, address)).map_err(connection_error)
                }
            })
            .collect();
        let mut last = Error::Transport(TransportError::Lost("the name has no address".to_owned()));
        while let Some(result) = attempts.next().await {
            match result {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn resolve(at: &str) -> Result<Vec<SocketAddr>, Error> {
    let found = tokio::net::lookup_host(at).await.map(Iterator::collect);
    found.map_err(|error| Error::Transport(TransportError::Lost(format!("{at}: {error}"))))
}

fn connection_error(error: quinn::ConnectionError) -> Error {
    match error {
        // TLS alerts: the server's certificate is not trusted, or it speaks something else.
        quinn::ConnectionError::TransportError(error) if (0x100..0x200).contains(&u64::from(error.code)) => {
            Error::Tls(error.to_string())
        }
        quinn::ConnectionError::ApplicationClosed(close) => Error::Transport(TransportError::Closed {
            code: u32::try_from(close.error_code.into_inner()).map_or(ErrorCode::Internal, ErrorCode),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        }),
        error => Error::Transport(TransportError::Lost(error.to_string())),
    }
}
