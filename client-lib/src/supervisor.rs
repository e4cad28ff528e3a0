//! Keeps a client connected: one task from its start to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rove_client_core::reconnect::Backoff;
use rove_protocol::message::Welcome;
use rove_protocol::registry::ErrorCode;

use crate::Error;
use crate::inner::{Inner, random};
use crate::session::{self, End, Established, Fault};
use crate::types::ConnectionState;

/// Wait after another session of the same device took over: two programs with one device must not throw each other out in
/// a tight circle.
const REPLACED_MS: u64 = 5_000;

/// What is known of the current session.
#[derive(Default)]
struct Progress {
    welcomed_at_ms: Option<u64>,
    /// Other nodes to try when this one does not answer, best first.
    alternatives: VecDeque<String>,
}

/// Runs until the client is closed, by the app or for good by the server.
pub(crate) async fn run(inner: Arc<Inner>) {
    let code = supervise(&inner).await;
    // Whoever waits for a post is told that nobody will answer; the posts stay in the store.
    for conv in inner.state.lock().conversations.values_mut() {
        conv.nobody_answers();
    }
    // What is left is only convenience: the server tells it again.
    if let Err(error) = inner.flush().await {
        tracing::warn!(%error, "the store failed at the end");
    }
    inner.connection.send_replace(ConnectionState::Closed { code });
}

async fn supervise(inner: &Arc<Inner>) -> ErrorCode {
    let cap_ms = u64::try_from(inner.options.max_backoff.as_millis()).unwrap_or(u64::MAX);
    let mut backoff = Backoff::new(cap_ms);
    let mut ready: Option<Box<Established>> = None;
    let progress = Mutex::new(Progress::default());
    let mut at: Option<String> = None;
    let mut sessions = 0u64;
    loop {
        let handed_over = ready.is_some();
        let established = if let Some(established) = ready.take() {
            Ok(established)
        } else {
            inner.connection.send_replace(ConnectionState::Connecting);
            tokio::select! {
                established = session::establish(inner, at.as_deref()) => established.map(Box::new),
                () = inner.stop.cancelled() => return ErrorCode::None,
            }
        };
        let (code, floor_ms) = match established {
            Err(error) => {
                tracing::debug!(%error, "no connection");
                // The next node, and after the last the address the app gave.
                at = progress.lock().alternatives.pop_front();
                (error.code(), 0)
            }
            Ok(established) => {
                progress.lock().welcomed_at_ms = None;
                let end = session::run(inner, established, |welcome| {
                    sessions += 1;
                    welcomed(inner, &progress, welcome, sessions > 1);
                })
                .await;
                match end {
                    End::Stopped => return ErrorCode::None,
                    End::Handover(established) => {
                        ready = Some(established);
                        continue;
                    }
                    End::Lost(fault) => {
                        if let Some(code) = fatal(&fault) {
                            return code;
                        }
                        tracing::debug!(code = %fault.code(), ?fault, handed_over, "the session is over");
                        at = None;
                        let lived_ms = progress
                            .lock()
                            .welcomed_at_ms
                            .map_or(0, |welcomed_at_ms| inner.now_ms().saturating_sub(welcomed_at_ms));
                        backoff.session_ended(lived_ms);
                        (fault.code(), if fault.code() == ErrorCode::Replaced { REPLACED_MS } else { 0 })
                    }
                    End::Unreached { fault, others } => {
                        tracing::debug!(?fault, others, "the address that answered last does not");
                        if others {
                            inner.network.race_next();
                            continue;
                        }
                        at = progress.lock().alternatives.pop_front();
                        (fault.code(), 0)
                    }
                }
            }
        };
        backoff.at_least(floor_ms);
        let wait_ms = backoff.next_ms(random());
        inner.connection.send_replace(ConnectionState::Disconnected { code, retry_in_ms: wait_ms });
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            () = inner.hurry.notified() => backoff.reset(),
            () = inner.stop.cancelled() => return ErrorCode::None,
        }
    }
}

fn welcomed(inner: &Inner, progress: &Mutex<Progress>, welcome: &Welcome, again: bool) {
    {
        let mut progress = progress.lock();
        progress.welcomed_at_ms = Some(inner.now_ms());
        progress.alternatives = welcome.alternatives.iter().map(|alternative| alternative.address.clone()).collect();
    }
    let rtt = {
        let mut state = inner.state.lock();
        let rtt = state.session.as_ref().map_or(Duration::ZERO, session::SessionHandle::rtt);
        state.stats.rtt = rtt;
        state.stats.reconnects += u64::from(again);
        state.presence.new_session();
        rtt
    };
    inner.connection.send_replace(ConnectionState::Connected { node: welcome.node, rtt });
}

/// Whether the server will never take this device again.
fn fatal(fault: &Fault) -> Option<ErrorCode> {
    let code = fault.code();
    // Our own faults are never for good, whatever their code.
    let told = match fault {
        Fault::Read(_) | Fault::Closed(_) => true,
        Fault::Ours(_) | Fault::DeadPath => false,
    };
    (told && [ErrorCode::Unauthenticated, ErrorCode::Revoked].contains(&code)).then_some(code)
}

/// Whether an error of a call says that the device is not taken any more.
pub(crate) fn is_signed_out(error: &Error) -> bool {
    matches!(error, Error::Server { code: ErrorCode::Unauthenticated | ErrorCode::Revoked, .. })
}
