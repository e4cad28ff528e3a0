//! `rove/1` on QUIC.
//!
//! - [`Connection`] is the [transport seam](rove_protocol::transport) on quinn;
//! - [`config`] has what both ends must agree on about windows, datagrams and time-outs;
//! - [`tls`] says whom a client trusts: the system's roots, or pinned keys;
//! - [`SessionStore`] has the TLS sessions a server remembers, for 0-RTT.
//!
//! Everything of QUIC that Rove uses goes through here, so that the two ends cannot drift apart.

pub mod config;
mod connection;
mod sessions;
mod stream;
pub mod tls;

pub use config::{accept_early_data, client_transport, server_config, server_transport};
pub use connection::Connection;
pub use sessions::SessionStore;
pub use stream::{RecvStream, SendStream};
pub use tls::{TlsError, Trust, client_tls, client_tls_with, provider, spki_pin};
