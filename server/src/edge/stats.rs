//! What the edge counts. Plain atomics: `http/metrics` gives them names and units.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rove_protocol::registry::ErrorCode;
use rove_quic::SessionStore;

/// Counters and gauges of one edge. Counters only rise from the start of the process.
#[derive(Debug, Default)]
pub struct EdgeStats {
    /// Connections there are, authenticated or not.
    pub connections: AtomicUsize,
    /// Connections whose handshake is under way.
    pub handshakes: AtomicUsize,
    /// Authenticated sessions there are.
    pub sessions: AtomicUsize,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections refused because there are as many as there may be, in all.
    pub refused_total: AtomicU64,
    /// Connections refused because their address has as many as it may.
    pub refused_per_address: AtomicU64,
    /// Connections asked to prove their address first (Retry).
    pub retried: AtomicU64,
    /// Sessions that said hello as early data (0-RTT) which was taken, and acted before their handshake was complete.
    pub early_sessions: AtomicU64,
    /// Sessions told to go elsewhere (`GoAway`).
    pub told_to_go: AtomicU64,
    /// Hellos that failed.
    pub unauthenticated: AtomicU64,
    /// Conversation streams open.
    pub conversation_streams: AtomicUsize,
    /// Inbox streams open.
    pub inbox_streams: AtomicUsize,
    /// Fetch streams open.
    pub fetch_streams: AtomicUsize,
    /// Posts taken from clients.
    pub posts: AtomicU64,
    /// Requests taken from clients.
    pub requests: AtomicU64,
    /// Events handed to streams.
    pub events_sent: AtomicU64,
    /// Times a stream had to read from the store what the ring no longer had.
    pub ring_misses: AtomicU64,
    /// Inbox lines handed to streams.
    pub lines_sent: AtomicU64,
    /// Pages of history served.
    pub pages: AtomicU64,
    /// Datagrams taken from clients.
    pub datagrams: AtomicU64,
    /// Datagrams dropped because a session sent too many.
    pub datagrams_dropped: AtomicU64,
    /// Members read from the store because they were not in the cache.
    pub member_loads: AtomicU64,
    /// Sessions whose connection was lost without a word.
    pub lost: AtomicU64,
    closes: Mutex<BTreeMap<ErrorCode, u64>>,
    tls_sessions: OnceLock<Arc<SessionStore>>,
}

impl EdgeStats {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    /// Where TLS sessions are kept. Only the first call counts.
    pub(crate) fn count_sessions(&self, sessions: Arc<SessionStore>) {
        let _ = self.tls_sessions.set(sessions);
    }

    /// Times a client wanted to resume a TLS session that is not known here: early data that came with it was rejected.
    pub fn early_rejected(&self) -> u64 {
        self.tls_sessions.get().map_or(0, |sessions| sessions.unknown())
    }

    /// TLS sessions that are remembered.
    pub fn tls_sessions(&self) -> usize {
        self.tls_sessions.get().map_or(0, |sessions| sessions.len())
    }

    /// Counts a session that ended, by the code it ended with. A client chooses its code: those nobody knows count as one,
    /// so that there are never more of them than the registry has.
    pub(crate) fn closed(&self, code: ErrorCode) {
        let code = if code.name().is_some() { code } else { ErrorCode::Internal };
        *self.closes.lock().entry(code).or_default() += 1;
    }

    /// How many sessions ended with which code.
    pub fn closes(&self) -> BTreeMap<ErrorCode, u64> {
        self.closes.lock().clone()
    }
}

/// Counts one in a gauge for as long as it lives.
pub(crate) struct Counted {
    stats: Arc<EdgeStats>,
    gauge: Gauge,
}

/// Picks a gauge.
pub(crate) type Gauge = fn(&EdgeStats) -> &AtomicUsize;

impl Counted {
    pub(crate) fn new(stats: &Arc<EdgeStats>, gauge: Gauge) -> Self {
        gauge(stats).fetch_add(1, Ordering::Relaxed);
        Self { stats: stats.clone(), gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.stats).fetch_sub(1, Ordering::Relaxed);
    }
}
