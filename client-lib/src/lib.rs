//! The Rove client.
//!
//! [`Client`] owns the connection and a local store. An app sees lists and timelines that change, and posts that go
//! from queued to posted or refused; it never handles a reconnect.
//!
//! ```no_run
//! use rove_client::{Client, Options, StoreLocation};
//!
//! # async fn run() -> Result<(), rove_client::Error> {
//! let server = "rove://chat.example".parse()?;
//! let options = Options::new(StoreLocation::File("alice.db".into()));
//! let client = Client::log_in(&server, "alice", "correct horse", options).await?;
//! let id = client.create_direct("bob").await?;
//! let conversation = client.open_conversation(id).await?;
//! let post = conversation.post("Hello, Bob").await?;
//! println!("{:?}", post.outcome().await?);
//! client.close().await;
//! # Ok(())
//! # }
//! ```

mod address;
mod api;
mod client;
mod conversation;
mod error;
mod family;
mod inner;
mod model;
mod net;
mod options;
mod session;
mod store;
mod supervisor;
#[cfg(test)]
mod tests;
mod types;

pub use address::{DEFAULT_PORT, ServerAddress, Trust};
pub use client::{Client, Conversations};
pub use conversation::Conversation;
pub use error::Error;
pub use options::{Options, SharedEndpoint, StoreLocation};
pub use rove_client_core::timeline::{Content, Delivery, LocalId, TimelineItem};
pub use rove_protocol::ids;
pub use rove_protocol::message::Event;
pub use rove_protocol::registry;
pub use types::{
    AccountInfo, Cancel, ClientStats, ConnectionState, ConversationDetails, ConversationSummary, DeviceInfo, Outcome,
    PostHandle, PresenceInfo, PresenceMap, ReceiptInfo, StoredEvent, Version,
};
