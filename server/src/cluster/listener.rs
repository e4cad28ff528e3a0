//! Takes connections on the cluster's port, and hands those of peers to their tasks.

use std::sync::Arc;

use quinn::Incoming;
use rove_protocol::ids::NodeId;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::hello::{self, GreetError};
use super::io::LinkError;
use super::refusal::{Refusal, Whom};
use super::registry;

/// Accepts until `stop`.
pub(super) async fn listen(shared: Arc<Shared>, stop: CancellationToken) {
    let mut greetings = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            incoming = shared.endpoint.accept() => match incoming {
                Some(incoming) => admit(&shared, incoming, &mut greetings),
                None => break,
            },
            Some(greeted) = greetings.join_next() => if let Err(error) = greeted {
                tracing::error!(%error, "a greeting failed");
            },
        }
    }
    greetings.shutdown().await;
}

/// Takes a connection, or not: whoever is no peer has little to gain here and nothing to fill.
fn admit(shared: &Arc<Shared>, incoming: Incoming, greetings: &mut JoinSet<()>) {
    if greetings.len() >= registry::HANDSHAKES {
        incoming.refuse();
    } else if greetings.len() >= registry::RETRY_ABOVE && !incoming.remote_address_validated() && incoming.may_retry() {
        // It may retry: it cannot fail.
        let _ = incoming.retry();
    } else {
        greetings.spawn(greet(shared.clone(), incoming));
    }
}

async fn greet(shared: Arc<Shared>, incoming: Incoming) {
    let whom = Whom::Address(incoming.remote_address().ip().to_canonical());
    let connected = async {
        // The certificate of now, which may be another one than at the start.
        let connecting = incoming.accept_with(shared.trust.configs().server)?;
        timeout(registry::CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(quinn::ConnectionError::TimedOut))
    };
    let connection = match connected.await {
        Ok(connection) => connection,
        Err(error) => return shared.grievances.say(whom, &(&LinkError::from(error)).into()),
    };
    let candidate = match hello::answer(&shared, connection).await {
        Ok(candidate) => candidate,
        Err(GreetError::Link(error)) => return shared.grievances.say(whom, &(&error).into()),
        Err(error @ GreetError::Refused(claimed, _)) => return refused(&shared, claimed, whom, &error),
    };
    let Some(peer) = shared.peer(candidate.hello.node) else { return };
    if let Err(full) = peer.candidates.try_send(candidate) {
        full.into_inner().refuse(&Refusal::Duplicate);
    }
}

/// Says why a greeting came to nothing: of the peer, if its certificate said that it is that peer.
fn refused(shared: &Shared, claimed: NodeId, whom: Whom, error: &GreetError) {
    let GreetError::Refused(_, refusal) = error else { return };
    let is_it = matches!(refusal, Refusal::NotAllowed(_) | Refusal::Versions { .. } | Refusal::Resting);
    match shared.peer(claimed).filter(|_| is_it) {
        Some(peer) => peer.refused(shared, error),
        None => shared.grievances.say(whom, &refusal.into()),
    }
}
