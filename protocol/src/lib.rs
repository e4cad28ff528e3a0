//! `rove/1`: every byte on the wire.
//!
//! A connection carries bidirectional streams and datagrams. Each stream begins with its [type](registry::StreamType),
//! then frames: `length, type, body`. A body is a frozen struct in postcard's encoding and, after it, extensions. The
//! specification in `spec/` says what the bytes mean; this crate is that specification as code, for both ends:
//!
//! - [`registry`] names every number, [`limits`] every bound, [`ids`] every thing;
//! - [`wire`], [`extension`] and [`frame`] turn values into bytes and back, strictly;
//! - [`message`] has the messages, and which of them a stream carries in which direction;
//! - [`session`] says which frame is legal when, at both ends, without doing any I/O;
//! - [`transport`] is what Rove needs of QUIC or whatever else carries it.
//!
//! Nothing here has a clock, a socket, a thread or a random number.

pub mod error;
pub mod extension;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod message;
pub mod registry;
pub mod session;
pub mod transport;
pub mod wire;
