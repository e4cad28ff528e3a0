//! Sockets, name resolution, and racing a server's addresses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use quinn::{EndpointConfig, TokioRuntime};
use rove_protocol::registry::{self, ErrorCode};
use rove_protocol::transport::TransportError;
use socket2::{Domain, Protocol, Socket, Type};

use crate::family::in_ipv6;
use crate::{Error, ServerAddress, SharedEndpoint, Trust};

/// Head start of an address over the next one: RFC 8305's recommendation.
const STAGGER: Duration = Duration::from_millis(250);
/// How long a connection may take: several retransmissions on a bad mobile network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// ALPN of HTTP/3.
const H3: &[u8] = b"h3";

/// The socket of a client and how it connects.
pub(crate) struct Network {
    endpoint: quinn::Endpoint,
    shared: bool,
    /// One for the client's life: it remembers TLS sessions.
    rove: quinn::ClientConfig,
    h3: quinn::ClientConfig,
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
        Ok(Self { endpoint, shared: shared.is_some(), rove: config(trust, registry::ALPN)?, h3: config(trust, H3)? })
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

    /// Connects for `rove/1`. `at` is another node's `host:port`, with the same certificate's name.
    pub(crate) async fn connect(&self, server: &ServerAddress, at: Option<&str>) -> Result<quinn::Connection, Error> {
        self.race(server, at, &self.rove).await
    }

    /// Connects for HTTP/3.
    pub(crate) async fn connect_h3(&self, server: &ServerAddress) -> Result<quinn::Connection, Error> {
        self.race(server, None, &self.h3).await
    }

    /// Waits until everything closed has said so.
    pub(crate) async fn wait_idle(&self) {
        if !self.shared {
            self.endpoint.wait_idle().await;
        }
    }

    async fn race(
        &self,
        server: &ServerAddress,
        at: Option<&str>,
        config: &quinn::ClientConfig,
    ) -> Result<quinn::Connection, Error> {
        let race = async {
            let addresses = resolve(server, at).await?;
            let mut attempts: FuturesUnordered<_> = addresses
                .into_iter()
                .enumerate()
                .map(|(index, address)| async move {
                    tokio::time::sleep(STAGGER * u32::try_from(index).unwrap_or(u32::MAX)).await;
                    let connecting = self
                        .endpoint
                        .connect_with(config.clone(), address, &server.host)
                        .map_err(|error| Error::Address(error.to_string()))?;
                    connecting.await.map_err(connection_error)
                })
                .collect();
            let mut last = Error::Transport(TransportError::Lost("the name has no address".to_owned()));
            while let Some(result) = attempts.next().await {
                match result {
                    Ok(connection) => return Ok(connection),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, race).await.map_err(|_| Error::Timeout("connecting"))?
    }
}

async fn resolve(server: &ServerAddress, at: Option<&str>) -> Result<Vec<SocketAddr>, Error> {
    let found = match at {
        Some(at) => tokio::net::lookup_host(at).await.map(Iterator::collect::<Vec<_>>),
        None => tokio::net::lookup_host((server.host.as_str(), server.port)).await.map(Iterator::collect),
    };
    found.map_err(|error| Error::Transport(TransportError::Lost(format!("{}: {error}", server.host))))
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
