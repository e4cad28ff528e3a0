//! Load on a real server: what `rove-bench` is made of.
//!
//! The load speaks `rove/1` by hand, on `rove-quic` and the messages of `rove-protocol`, and keeps no store and no
//! outbox: it must cost as little as it can, because it runs on the cores of the server it measures.

pub mod accounts;
pub mod device;
pub mod disk;
pub mod echo;
pub mod error;
pub mod gate;
mod http;
mod leaders;
pub mod listener;
pub mod pace;
pub mod path;
pub mod poster;
pub mod server;
pub mod service;
pub mod session;
mod socket;

pub use accounts::{Accounts, Credentials};
pub use device::Device;
pub use error::LoadError;
pub use pace::Pace;
pub use path::{Path, Weather};
pub use poster::Poster;
pub use server::Server;
pub use service::Service;
pub use session::{Conversation, Dialer, Session};
