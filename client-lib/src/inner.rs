//! What the parts of a running client share.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rove_client_core::places::Places;
use rove_protocol::ids::{ConversationId, PostTag, WriterId};
use rove_protocol::message::{Body, Request};
use rove_protocol::registry::{ErrorCode, Method};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::model::State;
use crate::net::Network;
use crate::store::{AccountRow, Loaded, Store};
use crate::types::{ConnectionState, PresenceInfo, PresenceMap, Version};
use crate::{Error, Options, ServerAddress};

/// How long a call waits for a connection and an answer: as long as a user looks at a spinner.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Between the end of a session and the time that is known, nobody can be told of it: long enough not to spin.
pub(crate) const SESSION_GAP: Duration = Duration::from_millis(20);
/// The least wait before an overloaded server is asked again: a replica that is a few entries behind has caught up.
const OVERLOAD_WAIT_MS: u64 = 100;

/// What the parts of a running client share.
pub(crate) struct Inner {
    pub(crate) state: Mutex<State>,
    pub(crate) store: Store,
    /// One writer at a time; those who wait find their changes written by the one before.
    flushing: Arc<tokio::sync::Mutex<()>>,
    /// Held while a refresh token is exchanged.
    pub(crate) exchanging: tokio::sync::Mutex<()>,
    pub(crate) network: Network,
    pub(crate) server: ServerAddress,
    /// Where to connect.
    pub(crate) places: Mutex<Places>,
    pub(crate) options: Options,
    pub(crate) connection: watch::Sender<ConnectionState>,
    /// The list of conversations has changed.
    pub(crate) list: watch::Sender<Version>,
    pub(crate) presence: watch::Sender<Arc<PresenceMap>>,
    /// Another set of conversations may be due for streams.
    pub(crate) reselect: Notify,
    /// A heartbeat is wanted at once, or the foreground changed.
    pub(crate) beat: Notify,
    /// The next connection attempt is wanted at once.
    pub(crate) hurry: Notify,
    /// Names or a watch set are to be asked for.
    pub(crate) ask: Notify,
    pub(crate) stop: CancellationToken,
    started: Instant,
}

/// A number nobody can guess.
#[allow(clippy::disallowed_methods, reason = "the shell brings the randomness")]
pub(crate) fn random_bytes() -> [u8; 16] {
    rand::random()
}

/// Any uniformly distributed number.
#[allow(clippy::disallowed_methods, reason = "the shell brings the randomness")]
pub(crate) fn random() -> u64 {
    rand::random()
}

/// A new writer (D1).
pub(crate) fn mint() -> WriterId {
    WriterId(random_bytes())
}

/// A new post's name in the log.
pub(crate) fn mint_tag() -> PostTag {
    PostTag(random_bytes())
}

/// The user's clock, only to be shown.
#[allow(clippy::disallowed_methods, reason = "the shell brings the time")]
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[allow(clippy::disallowed_methods, reason = "the shell brings the time")]
fn instant() -> Instant {
    Instant::now()
}

impl Inner {
    pub(crate) fn new(
        store: Store,
        loaded: Loaded,
        account: AccountRow,
        server: ServerAddress,
        network: Network,
        options: Options,
    ) -> Arc<Self> {
        let cap_ms = u64::try_from(options.max_backoff.as_millis()).unwrap_or(u64::MAX);
        let places = Places::new(server.nodes(), loaded.nodes.clone(), cap_ms);
        let state =
            State::new(loaded, account, options.outbox_posts.max(1), options.initial_events, options.foreground);
        Arc::new(Self {
            state: Mutex::new(state),
            store,
            flushing: Arc::default(),
            exchanging: tokio::sync::Mutex::default(),
            network,
            server,
            places: Mutex::new(places),
            options,
            connection: watch::Sender::new(ConnectionState::Connecting),
            list: watch::Sender::new(0),
            presence: watch::Sender::new(Arc::default()),
            reselect: Notify::new(),
            beat: Notify::new(),
            hurry: Notify::new(),
            ask: Notify::new(),
            stop: CancellationToken::new(),
            started: instant(),
        })
    }

    /// Milliseconds since the client was made, by a clock that never goes back.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When `ms` of [`Inner::now_ms`] is, for timers.
    pub(crate) fn at(&self, ms: u64) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + Duration::from_millis(ms))
    }

    /// Writes everything changed so far to the store, with whatever else is waiting, in one transaction.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), Error> {
        let ticket = self.state.lock().ticket;
        if !self.store.is_blocking() {
            return self.write(ticket);
        }
        if self.state.lock().flushed >= ticket {
            return Ok(());
        }
        let guard = self.flushing.clone().lock_owned().await;
        let inner = self.clone();
        // Begun, it ends, even if whoever asked is gone: nothing taken from the state is lost.
        tokio::task::spawn_blocking(move || {
            let _guard = guard;
            inner.write(ticket)
        })
        .await
        .map_err(|error| Error::Store(error.to_string()))?
    }

    fn write(&self, ticket: u64) -> Result<(), Error> {
        let (changes, upto) = {
            let mut state = self.state.lock();
            if state.flushed >= ticket {
                return Ok(());
            }
            let upto = state.ticket;
            let changes = std::mem::take(&mut state.pending);
            if !self.store.is_blocking() {
                // Nothing to wait for, so the lock keeps the order.
                self.store.write(&changes)?;
                state.flushed = upto;
                return Ok(());
            }
            (changes, upto)
        };
        let result = self.store.write(&changes);
        let mut state = self.state.lock();
        if result.is_ok() {
            state.flushed = upto;
        } else {
            // Kept, before what came since, for the next attempt.
            let since = std::mem::replace(&mut state.pending, changes);
            state.pending.extend(since);
        }
        result
    }

    /// Says that a conversation has changed.
    pub(crate) fn updated(&self, id: ConversationId) {
        if let Some(conv) = self.state.lock().conversations.get(&id) {
            conv.updates.send_modify(|version| *version += 1);
        }
        self.list.send_modify(|version| *version += 1);
    }

    /// Wakes the writer of a conversation's stream.
    pub(crate) fn wake(&self, id: ConversationId) {
        if let Some(conv) = self.state.lock().conversations.get(&id) {
            conv.wake.notify_one();
        }
    }

    /// Shows the presence table.
    pub(crate) fn publish_presence(&self) {
        let map: PresenceMap = self
            .state
            .lock()
            .presence
            .iter()
            .map(|(account, status, last_seen_ms)| (account, PresenceInfo { status, last_seen_ms }))
            .collect();
        self.presence.send_replace(Arc::new(map));
    }

    /// Waits for a session, or for the end of the client.
    async fn connected(&self) -> Result<(), Error> {
        let mut connection = self.connection.subscribe();
        let state = connection
            .wait_for(|state| matches!(state, ConnectionState::Connected { .. } | ConnectionState::Closed { .. }))
            .await
            .map_err(|_| Error::Closed(ErrorCode::None))?;
        match &*state {
            ConnectionState::Closed { code } => Err(Error::Closed(*code)),
            _ => Ok(()),
        }
    }

    /// Waits for the next session, at most as long as a request.
    pub(crate) async fn wait_connected(&self) -> Result<(), Error> {
        self.connected().await
    }

    /// Asks the server something. A session that is lost before the answer is no error: every method may be repeated.
    pub(crate) async fn request<A: Body>(&self, method: Method, body: &impl Body) -> Result<A, Error> {
        let body = bytes::Bytes::from(body.encode_body());
        let ask = async {
            loop {
                self.connected().await?;
                let session = self.state.lock().session.clone();
                if let Some(session) = session
                    && let Some(response) = session.request(method, body.clone()).await
                {
                    match response.code {
                        ErrorCode::None => {
                            return A::decode_body(response.body).map_err(|error| Error::Violation(error.into()));
                        }
                        // Overload passes; the caller's patience decides how long that is asked again.
                        ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::Behind => {
                            tokio::time::sleep(overload_wait(response.retry_after_ms)).await;
                            continue;
                        }
                        code => {
                            return Err(Error::Server {
                                code,
                                message: format!("{method} failed"),
                                retry_after_ms: response.retry_after_ms,
                            });
                        }
                    }
                }
                // The session is just over: wait until that is known.
                tokio::time::sleep(SESSION_GAP).await;
            }
        };
        tokio::time::timeout(REQUEST_TIMEOUT, ask).await.map_err(|_| Error::Timeout("a request"))?
    }
}

/// How long to leave a server alone that is overloaded or behind, given its advice (0: none). Spread, so that many
/// clients turned away at once do not come back at once.
pub(crate) fn overload_wait(advice_ms: u32) -> Duration {
    Duration::from_millis(u64::from(advice_ms).max(OVERLOAD_WAIT_MS) + random() % (2 * OVERLOAD_WAIT_MS))
}

/// A request's frame.
pub(crate) fn request_frame(id: u64, method: Method, body: bytes::Bytes) -> Request {
    Request { id: rove_protocol::ids::RequestId(id), method, body }
}
