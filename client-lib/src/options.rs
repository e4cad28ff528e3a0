//! How a client is set up.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rove_client_core::reconnect::CAP_MS;

/// Where a client keeps what it must not forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A SQLite database; beside it `FILE.writer` and `FILE.lock`. Made if it is not there; readable by its owner only.
    File(PathBuf),
    /// Nowhere: for tests and for replaying. Everything is gone with the client.
    Memory,
}

/// A UDP socket several clients of one process share.
///
/// It saves a socket per client when one process runs hundreds of them. Such clients cannot be moved to another socket
/// ([`crate::Client::network_changed`] only sends a heartbeat), since that would move all of them.
#[derive(Clone)]
pub struct SharedEndpoint(pub(crate) quinn::Endpoint);

impl fmt::Debug for SharedEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedEndpoint").field(&self.0.local_addr().ok()).finish()
    }
}

/// How a client is set up.
///
/// ```
/// use rove_client::{Options, StoreLocation};
///
/// let options = Options { name: "my app 1.0".into(), ..Options::new(StoreLocation::Memory) };
/// assert!(options.foreground);
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    /// Name and version of the app, for the operator's logs; at most 64 bytes.
    pub name: String,
    /// Where the store is.
    pub store: StoreLocation,
    /// What the device is called in the account's list of devices.
    pub device_name: Option<String>,
    /// The socket to use; `None`: one of its own.
    pub endpoint: Option<SharedEndpoint>,
    /// Whether the app is on screen: heartbeats, presence, typing.
    pub foreground: bool,
    /// Posts one conversation may have queued before [`crate::Error::OutboxFull`].
    pub outbox_posts: usize,
    /// The longest wait between two attempts to connect.
    pub max_backoff: Duration,
    /// Events a conversation seen for the first time is filled with; older ones come with `fetch_older`.
    pub initial_events: u64,
}

impl Options {
    /// The usual options with this store.
    pub fn new(store: StoreLocation) -> Self {
        Self {
            name: concat!("rove-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            store,
            device_name: None,
            endpoint: None,
            foreground: true,
            outbox_posts: OUTBOX_POSTS,
            max_backoff: Duration::from_millis(CAP_MS),
            initial_events: INITIAL_EVENTS,
        }
    }
}

/// A flight's worth of typing: 16 KiB bodies times this is 16 MiB of store, and nobody types a thousand messages offline
/// in one conversation without wanting to be told.
const OUTBOX_POSTS: usize = 1_000;
/// Some twenty screens: enough that scrolling does not stop at once, little enough for a phone on a slow link.
const INITIAL_EVENTS: u64 = 1_000;
