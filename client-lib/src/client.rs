//! The client.

mod list;
mod requests;

use std::fmt;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use http::Method as HttpMethod;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId};
use rove_protocol::limits;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Call, Credentials, Devices};
use crate::inner::{Inner, mint};
use crate::net::Network;
use crate::store::{AccountRow, Change, Loaded, Store};
use crate::types::{ClientStats, ConnectionState, DeviceInfo, PresenceMap};
use crate::{Conversation, Error, Options, ServerAddress, SharedEndpoint, StoreLocation, net, supervisor};
pub use list::Conversations;

/// How long closing waits for the network: the server hears a goodbye in one round trip, or its lease runs out.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client: one device of one account, its store and its connection. Clones are the same client; when the last clone
/// and the last [`Conversation`] are dropped, the connection ends.
///
/// ```no_run
/// use rove_client::{Client, ConnectionState, Options, StoreLocation};
///
/// # async fn run() -> Result<(), rove_client::Error> {
/// // The first time:
/// let options = Options::new(StoreLocation::File("alice.db".into()));
/// let client = Client::sign_up(&"rove://chat.example".parse()?, "alice", "correct horse", options).await?;
/// client.close().await;
/// // Later, with or without a network:
/// let client = Client::open(Options::new(StoreLocation::File("alice.db".into()))).await?;
/// let mut state = client.state();
/// while !matches!(*state.borrow_and_update(), ConnectionState::Connected { .. }) {
///     if state.changed().await.is_err() {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    pub(crate) guard: Arc<Guard>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("account", &self.account())
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}

/// Ends the supervisor with the last handle.
pub(crate) struct Guard {
    stop: CancellationToken,
    tasks: TaskTracker,
    account: AccountId,
    device: DeviceId,
    handle: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Opens the store off the runtime's threads.
async fn open_store(location: &StoreLocation) -> Result<(Store, Loaded), Error> {
    let location = location.clone();
    tokio::task::spawn_blocking(move || Store::open(&location, mint))
        .await
        .map_err(|error| Error::Store(error.to_string()))?
}

impl Client {
    /// A socket for several clients of this process, see [`SharedEndpoint`].
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn shared_endpoint() -> Result<SharedEndpoint, Error> {
        net::endpoint().map(SharedEndpoint)
    }

    /// Makes an account and its first device, and starts.
    ///
    /// # Errors
    /// [`Error::Server`] with `NameTaken` or `InvalidArgument`, [`Error::AlreadyLoggedIn`], those of the store and of
    /// the network.
    pub async fn sign_up(
        server: &ServerAddress,
        handle: &str,
        password: &str,
        options: Options,
    ) -> Result<Self, Error> {
        Self::enter(server, "/v1/sign-up", handle, password, options).await
    }

    /// Adds this device to an account, and starts.
    ///
    /// # Errors
    /// [`Error::Server`] with `Unauthenticated`, [`Error::AlreadyLoggedIn`], those of the store and of the network.
    pub async fn log_in(server: &ServerAddress, handle: &str, password: &str, options: Options) -> Result<Self, Error> {
        Self::enter(server, "/v1/log-in", handle, password, options).await
    }

    async fn enter(
        server: &ServerAddress,
        path: &str,
        handle: &str,
        password: &str,
        options: Options,
    ) -> Result<Self, Error> {
        let (store, mut loaded) = open_store(&options.store).await?;
        if loaded.account.is_some() {
            return Err(Error::AlreadyLoggedIn);
        }
        let network = Network::new(&server.trust, options.endpoint.as_ref())?;
        let device_name = options.device_name.as_deref().unwrap_or(&options.name);
        let credentials = Credentials { handle, password, device_name };
        let entered = api::enter(&network, server, path, &credentials).await?;
        let account = AccountRow {
            server: server.to_string(),
            account: entered.account,
            device: entered.device,
            handle: handle.to_owned(),
            secret: entered.secret,
            access_token: entered.access_token,
            refresh_token: entered.refresh_token,
        };
        loaded.account = Some(account.clone());
        let client = Self::start(store, loaded, account.clone(), server.clone(), network, options);
        client.inner.state.lock().change(Change::Account(Box::new(account)));
        client.inner.flush().await?;
        client.supervise();
        Ok(client)
    }

    /// Opens an existing store. Works offline at once: what is in the store can be read and posts can be queued.
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`], [`Error::StoreLocked`], [`Error::StoreVersion`], [`Error::Store`].
    pub async fn open(options: Options) -> Result<Self, Error> {
        let (store, loaded) = open_store(&options.store).await?;
        let account = loaded.account.clone().ok_or(Error::NotLoggedIn)?;
        let server: ServerAddress = account.server.parse()?;
        let network = Network::new(&server.trust, options.endpoint.as_ref())?;
        let client = Self::start(store, loaded, account, server, network, options);
        client.inner.flush().await?;
        client.supervise();
        Ok(client)
    }

    pub(crate) fn start(
        store: Store,
        loaded: Loaded,
        account: AccountRow,
        server: ServerAddress,
        network: Network,
        options: Options,
    ) -> Self {
        let (id, device, handle) = (account.account, account.device, account.handle.clone());
        let inner = Inner::new(store, loaded, account, server, network, options);
        let guard = Guard { stop: inner.stop.clone(), tasks: TaskTracker::new(), account: id, device, handle };
        Self { inner, guard: Arc::new(guard) }
    }

    /// Starts the one task that keeps the client connected.
    pub(crate) fn supervise(&self) {
        self.guard.tasks.spawn(supervisor::run(self.inner.clone()));
        self.guard.tasks.close();
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        self.guard.account
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.guard.device
    }

    /// The account's handle, as given when signing up or logging in.
    pub fn handle(&self) -> &str {
        &self.guard.handle
    }

    /// The server.
    ///
    /// # Errors
    /// None at present.
    pub fn server(&self) -> Result<ServerAddress, Error> {
        Ok(self.inner.server.clone())
    }

    /// How the connection is.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.inner.connection.subscribe()
    }

    /// Waits for the next time the client is connected. No time limit.
    ///
    /// # Errors
    /// [`Error::Closed`] once the client is closed.
    pub async fn connected(&self) -> Result<(), Error> {
        self.inner.wait_connected().await
    }

    /// Waits until the list of conversations is in step with the server. No time limit.
    ///
    /// # Errors
    /// [`Error::Closed`] once the client is closed.
    pub async fn synced(&self) -> Result<(), Error> {
        let mut conversations = self.conversations()?;
        loop {
            self.inner.wait_connected().await?;
            if self.inner.state.lock().inbox_synced {
                return Ok(());
            }
            conversations.changed().await?;
        }
    }

    /// The conversations.
    ///
    /// # Errors
    /// None at present.
    pub fn conversations(&self) -> Result<Conversations, Error> {
        Ok(Conversations { client: self.clone(), version: self.inner.list.subscribe() })
    }

    /// Opens a conversation and keeps it in step while a handle to it lives. A known one opens offline.
    ///
    /// # Errors
    /// For one that is not in the store, those of [`Client::details`].
    pub async fn open_conversation(&self, id: ConversationId) -> Result<Conversation, Error> {
        let known = self.inner.state.lock().conversations.contains_key(&id);
        if !known {
            self.details(id, AccountId(0)).await?;
        }
        Ok(Conversation::open(self.clone(), id))
    }

    /// The network has changed: moves the connection to `socket`, or to a new socket on the system's present default
    /// route, and checks at once that the new path lives. Sessions, streams and everything under way go on.
    ///
    /// # Errors
    /// [`Error::Socket`]; [`Error::InvalidArgument`] for a socket given to a client with a shared one.
    pub fn network_changed(&self, socket: Option<UdpSocket>) -> Result<(), Error> {
        if self.inner.network.rebind(socket)? {
            self.inner.state.lock().stats.rebinds += 1;
        }
        self.inner.beat.notify_one();
        // If there is no session, the wait for the next attempt is over.
        self.inner.hurry.notify_waiters();
        Ok(())
    }

    /// Says whether the app is on screen: then it sends heartbeats, is seen by others and hears who types.
    pub fn set_foreground(&self, foreground: bool) {
        self.inner.state.lock().foreground = foreground;
        self.inner.ask.notify_one();
        self.inner.beat.notify_one();
    }

    /// Replaces the set of accounts whose presence is wanted; at most 256.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for more.
    pub fn watch_presence(&self, accounts: &[AccountId]) -> Result<(), Error> {
        if accounts.len() > limits::WATCHED_ACCOUNTS {
            return Err(Error::InvalidArgument(format!(
                "at most {} accounts can be watched",
                limits::WATCHED_ACCOUNTS
            )));
        }
        {
            let mut state = self.inner.state.lock();
            let mut accounts = accounts.to_vec();
            accounts.sort_unstable();
            accounts.dedup();
            state.presence.retain(&accounts);
            state.watched = accounts;
        }
        self.inner.ask.notify_one();
        self.inner.publish_presence();
        Ok(())
    }

    /// The presence of the watched accounts.
    ///
    /// # Errors
    /// None at present.
    pub fn presence(&self) -> Result<watch::Receiver<Arc<PresenceMap>>, Error> {
        Ok(self.inner.presence.subscribe())
    }

    /// The devices of the account.
    ///
    /// # Errors
    /// [`Error::Server`], and those of the network.
    pub async fn devices(&self) -> Result<Vec<DeviceInfo>, Error> {
        let answer = self.authorised(HttpMethod::GET, "/v1/devices").await?;
        let devices: Devices = api::parse(&answer)?;
        Ok(devices
            .devices
            .into_iter()
            .map(|device| DeviceInfo { device: DeviceId(device.device), name: device.name })
            .collect())
    }

    /// Revokes a device of the account: its sessions end and its secret is worth nothing.
    ///
    /// # Errors
    /// [`Error::Server`] with `NotFound`, and those of the network.
    pub async fn revoke_device(&self, device: DeviceId) -> Result<(), Error> {
        self.authorised(HttpMethod::DELETE, &format!("/v1/devices/{device}")).await.map(|_| ())
    }

    /// A call with the access token, with a new one if the old one is not taken any more.
    async fn authorised(&self, method: HttpMethod, path: &str) -> Result<Vec<u8>, Error> {
        let access = self.inner.state.lock().account.access_token.clone();
        let (network, server) = (&self.inner.network, &self.inner.server);
        let call = |bearer| Call { method: method.clone(), path, bearer: Some(bearer), body: None };
        match api::call(network, server, &call(&access)).await {
            Err(error) if supervisor::is_signed_out(&error) => {}
            result => return result,
        }
        // One exchange at a time: of two with the same token, the loser would keep tokens that are used up.
        let exchanging = self.inner.exchanging.lock().await;
        let (current, refresh) = {
            let state = self.inner.state.lock();
            (state.account.access_token.clone(), state.account.refresh_token.clone())
        };
        if current != access {
            // Somebody else was faster.
            drop(exchanging);
            return api::call(network, server, &call(&current)).await;
        }
        let tokens = api::refresh(network, server, &refresh).await?;
        {
            let mut state = self.inner.state.lock();
            state.account.access_token.clone_from(&tokens.access_token);
            state.account.refresh_token = tokens.refresh_token;
            let account = Box::new(state.account.clone());
            state.change(Change::Account(account));
        }
        self.inner.flush().await?;
        drop(exchanging);
        api::call(network, server, &call(&tokens.access_token)).await
    }

    /// Numbers for tests, benchmarks and support.
    pub fn stats(&self) -> ClientStats {
        let state = self.inner.state.lock();
        let rtt = state.session.as_ref().map_or(state.stats.rtt, crate::session::SessionHandle::rtt);
        ClientStats { rtt, ..state.stats }
    }

    /// Revokes this device, empties the store and ends.
    ///
    /// # Errors
    /// Those of the network: then nothing has changed. Those of the store.
    pub async fn log_out(self) -> Result<(), Error> {
        match self.authorised(HttpMethod::POST, "/v1/log-out").await {
            // Revoked already, here or elsewhere: what is left to do is to forget.
            Err(error) if !supervisor::is_signed_out(&error) => return Err(error),
            _ => {}
        }
        self.end().await;
        self.inner.store.wipe().await
    }

    /// Says goodbye and ends. Queued posts stay in the store.
    pub async fn close(self) {
        self.end().await;
    }

    async fn end(&self) {
        self.guard.stop.cancel();
        self.guard.tasks.wait().await;
        // A goodbye that is not heard is a lease that runs out.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.inner.network.wait_idle()).await;
    }
}
