//! The client.

use std::net::UdpSocket;
use std::sync::Arc;

use rove_protocol::ids::{AccountId, ConversationId, DeviceId};
use rove_protocol::registry::{ErrorCode, Role};
use tokio::sync::watch;

use crate::types::{
    AccountInfo, ClientStats, ConnectionState, ConversationDetails, ConversationSummary, DeviceInfo, PresenceMap,
    Version,
};
use crate::{Conversation, Error, Options, ServerAddress, SharedEndpoint};

/// A client: one device of one account, its store and its connection. Clones are the same client; when the last is
/// dropped the connection ends.
#[derive(Debug, Clone)]
pub struct Client {
    state: watch::Receiver<ConnectionState>,
}

/// The list of conversations, as it changes.
#[derive(Debug, Clone)]
pub struct Conversations {
    version: watch::Receiver<Version>,
}

impl Conversations {
    /// The list now, the conversation with the newest event first.
    pub fn list(&self) -> Vec<ConversationSummary> {
        Vec::new()
    }

    /// Waits until the list may have changed since this was last called (or made).
    ///
    /// # Errors
    /// [`Error::Closed`] once the client is closed.
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.version.changed().await.map_err(|_| Error::Closed(ErrorCode::None))
    }
}

fn not_yet<T>() -> Result<T, Error> {
    Err(Error::Closed(ErrorCode::Unsupported))
}

#[allow(clippy::unused_async, unused_variables, reason = "bodies follow")]
impl Client {
    /// A socket for several clients of this process, see [`SharedEndpoint`].
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn shared_endpoint() -> Result<SharedEndpoint, Error> {
        not_yet()
    }

    /// Makes an account and its first device, and starts.
    pub async fn sign_up(
        server: &ServerAddress,
        handle: &str,
        password: &str,
        options: Options,
    ) -> Result<Self, Error> {
        not_yet()
    }

    /// Adds this device to an account, and starts.
    pub async fn log_in(server: &ServerAddress, handle: &str, password: &str, options: Options) -> Result<Self, Error> {
        not_yet()
    }

    /// Opens an existing store. Works offline at once.
    pub async fn open(options: Options) -> Result<Self, Error> {
        not_yet()
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        AccountId(0)
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        DeviceId(0)
    }

    /// The account's handle.
    pub fn handle(&self) -> &str {
        ""
    }

    /// The server.
    pub fn server(&self) -> Result<ServerAddress, Error> {
        not_yet()
    }

    /// How the connection is.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Waits for the next time the client is connected.
    pub async fn connected(&self) -> Result<(), Error> {
        not_yet()
    }

    /// Waits until the list of conversations is in step with the server for the first time since it was opened.
    pub async fn synced(&self) -> Result<(), Error> {
        not_yet()
    }

    /// The conversations.
    pub fn conversations(&self) -> Result<Conversations, Error> {
        not_yet()
    }

    /// Makes (or finds) the direct conversation with the account of that handle.
    pub async fn create_direct(&self, handle: &str) -> Result<ConversationId, Error> {
        not_yet()
    }

    /// Makes (or finds) the direct conversation with an account.
    pub async fn create_direct_with(&self, account: AccountId) -> Result<ConversationId, Error> {
        not_yet()
    }

    /// Makes a group. This account becomes its owner.
    pub async fn create_group(&self, title: &str, members: &[AccountId]) -> Result<ConversationId, Error> {
        not_yet()
    }

    /// Adds members to a group, changes their roles, removes them ([`Role::None`]).
    pub async fn change_members(&self, id: ConversationId, changes: &[(AccountId, Role)]) -> Result<(), Error> {
        not_yet()
    }

    /// Describes a conversation and lists its members after `after`.
    pub async fn details(&self, id: ConversationId, after: AccountId) -> Result<ConversationDetails, Error> {
        not_yet()
    }

    /// Finds accounts by handle; those there are not are missing from the answer.
    pub async fn find_accounts(&self, handles: &[&str]) -> Result<Vec<AccountInfo>, Error> {
        not_yet()
    }

    /// Who an account is, from the store if it is known there.
    pub async fn account_info(&self, account: AccountId) -> Result<AccountInfo, Error> {
        not_yet()
    }

    /// What to call an account: its name, or its handle.
    pub async fn name_of(&self, account: AccountId) -> Result<String, Error> {
        not_yet()
    }

    /// Opens a conversation and keeps it in step while a handle to it lives.
    pub async fn open_conversation(&self, id: ConversationId) -> Result<Conversation, Error> {
        not_yet()
    }

    /// The network has changed: moves the connection to `socket`, or to a new one.
    pub fn network_changed(&self, socket: Option<UdpSocket>) -> Result<(), Error> {
        not_yet()
    }

    /// Says whether the app is on screen.
    pub fn set_foreground(&self, foreground: bool) {}

    /// Replaces the set of accounts whose presence is wanted; at most 256.
    pub fn watch_presence(&self, accounts: &[AccountId]) -> Result<(), Error> {
        not_yet()
    }

    /// The presence of the watched accounts.
    pub fn presence(&self) -> Result<watch::Receiver<Arc<PresenceMap>>, Error> {
        not_yet()
    }

    /// The devices of the account.
    pub async fn devices(&self) -> Result<Vec<DeviceInfo>, Error> {
        not_yet()
    }

    /// Revokes a device of the account.
    pub async fn revoke_device(&self, device: DeviceId) -> Result<(), Error> {
        not_yet()
    }

    /// Numbers for tests, benchmarks and support.
    pub fn stats(&self) -> ClientStats {
        ClientStats::default()
    }

    /// Revokes this device, forgets the account in the store and ends.
    pub async fn log_out(self) -> Result<(), Error> {
        not_yet()
    }

    /// Says goodbye and ends. Queued posts stay in the store.
    pub async fn close(self) {}
}
