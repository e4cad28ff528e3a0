//! Keeps a client connected: one task from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use rove_client_core::places::Attempt;
use rove_protocol::message::Welcome;
use rove_protocol::registry::ErrorCode;

use crate::Error;
use crate::inner::{Inner, random};
use crate::session::{self, End, Established, Fault};
use crate::store::Change;
use crate::types::ConnectionState;

/// Wait after another session of the same device took over: two programs with one device must not throw each other out in
/// a tight circle.
const REPLACED_MS: u64 = 5_000;

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
    let mut ready: Option<Box<Established>> = None;
    let mut at = inner.places.lock().first();
    let mut sessions = 0u64;
    loop {
        let handed_over = ready.is_some();
        let established = if let Some(established) = ready.take() {
            at.clone_from(&established.at);
            Ok(established)
        } else {
            inner.connection.send_replace(ConnectionState::Connecting);
            tokio::select! {
                established = session::establish(inner, &at) => established.map(Box::new),
                () = inner.stop.cancelled() => return ErrorCode::None,
            }
        };
        let (code, next) = match established {
            Err(error) => {
                tracing::debug!(%error, at, "no connection");
                (error.code(), next_after_failure(inner, &at))
            }
            Ok(established) => {
                let mut welcomed_at_ms = None;
                let end = session::run(inner, established, |place, welcome| {
                    sessions += 1;
                    welcomed_at_ms = Some(inner.now_ms());
                    welcomed(inner, place, welcome, sessions > 1);
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
                        tracing::debug!(code = %fault.code(), ?fault, handed_over, at, "the session is over");
                        let lived_ms = welcomed_at_ms.map(|since: u64| inner.now_ms().saturating_sub(since));
                        (fault.code(), next_after_session(inner, &at, fault.code(), lived_ms))
                    }
                    End::Unreached { fault, others } => {
                        tracing::debug!(?fault, others, at, "the address that answered last does not");
                        if others {
                            inner.network.race_next();
                            continue;
                        }
                        (fault.code(), next_after_failure(inner, &at))
                    }
                }
            }
        };
        at = next.place;
        if next.wait_ms == 0 {
            tracing::debug!(at, %code, "going to another node");
            continue;
        }
        inner.connection.send_replace(ConnectionState::Disconnected { code, retry_in_ms: next.wait_ms });
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(next.wait_ms)) => {}
            () = inner.hurry.notified() => inner.places.lock().hurry(),
            () = inner.stop.cancelled() => return ErrorCode::None,
        }
    }
}

/// Where to go after an attempt at `at` in vain.
fn next_after_failure(inner: &Inner, at: &str) -> Attempt {
    let mut places = inner.places.lock();
    places.failed(at);
    places.next(random())
}

/// Where to go after a session that lived so long since `Welcome`, if there was one.
fn next_after_session(inner: &Inner, at: &str, code: ErrorCode, lived_ms: Option<u64>) -> Attempt {
    let mut places = inner.places.lock();
    if code == ErrorCode::Replaced {
        return places.stay(lived_ms.unwrap_or(0), REPLACED_MS, random());
    }
    match lived_ms {
        Some(lived_ms) => places.lost(lived_ms),
        None => places.failed(at),
    }
    places.next(random())
}

fn welcomed(inner: &Inner, at: &str, welcome: &Welcome, again: bool) {
    let others = welcome.alternatives.iter().map(|alternative| alternative.address.clone());
    if let Some(nodes) = inner.places.lock().welcomed(at, others) {
        // Written with what the session brings; if that is lost, the next session tells it again.
        inner.state.lock().change(Change::Nodes(nodes));
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
