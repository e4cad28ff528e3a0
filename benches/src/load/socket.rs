//! One socket for many clients.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use socket2::SockRef;

use super::error::{LoadError, io};

/// Bytes that the system may hold of datagrams that were not read yet. Each client of the world has a socket to itself with some 200 kB: a
/// hundred that share one of that size lose every twelfth packet of a fan-out, and wait for it to be sent again.
const BUFFER: usize = 4 * 1024 * 1024;

/// A socket on loopback.
///
/// # Errors
/// [`LoadError::Io`].
pub(super) fn bind() -> Result<UdpSocket, LoadError> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io("binding a socket"))?;
    let buffers = SockRef::from(&socket);
    // The system may give less.
    let set = buffers.set_recv_buffer_size(BUFFER).and_then(|()| buffers.set_send_buffer_size(BUFFER));
    set.map_err(io("giving a socket its buffers"))?;
    Ok(socket)
}

/// QUIC on such a socket: of clients, or of this server.
///
/// # Errors
/// [`LoadError::Io`].
pub(super) fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint, LoadError> {
    let made = Endpoint::new(EndpointConfig::default(), server, bind()?, Arc::new(TokioRuntime));
    made.map_err(io("binding a socket"))
}
