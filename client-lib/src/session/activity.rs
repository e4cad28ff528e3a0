//! Whether something is awaited, and when something was last heard: so that the server's silence is noticed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Shared by the streams' tasks, which tell, and the heartbeat, which looks. At most one wake-up per look, however much
/// is sent.
#[derive(Debug, Default)]
pub(super) struct Activity {
    watching: AtomicBool,
    heard_ms: AtomicU64,
    /// When the node last answered as soon as a node should.
    prompt_ms: AtomicU64,
    /// How often the network has become another one.
    networks: AtomicUsize,
    requests: AtomicUsize,
    wake: Notify,
    doubt: Notify,
}

impl Activity {
    pub(super) fn awaits(&self, now_ms: u64) {
        if !self.watching.swap(true, Ordering::Relaxed) {
            // Silence is counted from here.
            self.heard(now_ms);
            self.wake.notify_one();
        }
    }

    pub(super) fn heard(&self, now_ms: u64) {
        self.heard_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    pub(super) fn answered_promptly(&self, now_ms: u64) {
        self.prompt_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// 0: never.
    pub(super) fn prompt_ms(&self) -> u64 {
        self.prompt_ms.load(Ordering::Relaxed)
    }

    pub(super) fn network_changed(&self) {
        self.networks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn networks(&self) -> usize {
        self.networks.load(Ordering::Relaxed)
    }

    pub(super) fn set_requests(&self, unanswered: usize) {
        self.requests.store(unanswered, Ordering::Relaxed);
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn heard_ms(&self) -> u64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    pub(super) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }

    /// Nothing is awaited any more: whoever sends something next wakes the heartbeat again.
    pub(super) fn rest(&self) {
        self.watching.store(false, Ordering::Relaxed);
    }

    /// Something is still awaited.
    pub(super) fn watch(&self) {
        self.watching.store(true, Ordering::Relaxed);
    }

    /// The node has been silent for long.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    pub(super) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}
