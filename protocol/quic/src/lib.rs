//! `rove/1` on QUIC.
//!
//! - [`Connection`] is the [transport seam](rove_protocol::transport) on quinn;
//! - [`config`] has what both ends must agree on about windows, datagrams and time-outs;
//! - [`tls`] says whom a client trusts: the system's roots, or pinned keys.
//!
//! Everything of QUIC that Rove uses goes through here, so that the two ends cannot drift apart.

pub mod config;
mod connection;
mod stream;
pub mod tls;

pub use config::{client_transport, server_config, server_transport};
pub use connection::Connection;
pub use stream::{RecvStream, SendStream};
pub use tls::{TlsError, Trust, client_tls, client_tls_with, spki_pin};
