//! One peer: dials it, decides which of two connections is kept, and lives through their ends.
//!
//! Both nodes of a pair dial, the one with the higher id a little later, so that usually there is one connection only. Where there
//! are two, that which the lower id dialled is kept: both ends decide alike, and the decision never changes back. While the lower
//! one's own dial is under way, it holds the other's connection unanswered until it knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rove_protocol::ids::NodeId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::hello::{self, Candidate, GreetError};
use super::io::LinkError;
use super::link::{Link, Running};
use super::queue::{Class, Counters};
use super::refusal::{Failure, Refusal, Whom};
use super::registry::{self, CloseCode};
use super::{NotAllowed, PeerStatus, Shared};

/// Connections of one peer that wait to be looked at: it has no reason to make more than two.
pub(super) const CANDIDATES: usize = 2;

/// What is known of a peer, with or without a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) candidates: mpsc::Sender<Candidate>,
    counters: [Arc<Counters>; Class::ALL.len()],
    link: Mutex<Option<Arc<Link>>>,
    last_error: Mutex<Option<String>>,
    resting_until: Mutex<Option<Instant>>,
    /// Ended when it is no peer any more.
    pub(super) gone: CancellationToken,
    /// Why its connection is to end, said by whoever does not want it any more.
    unwanted: watch::Sender<Option<NotAllowed>>,
    links: std::sync::atomic::AtomicU64,
}

impl Peer {
    pub(super) fn new(node: NodeId, address: String, gone: CancellationToken) -> (Self, mpsc::Receiver<Candidate>) {
        let (candidates, waiting) = mpsc::channel(CANDIDATES);
        let peer = Self {
            node,
            address,
            candidates,
            counters: Default::default(),
            link: Mutex::default(),
            last_error: Mutex::default(),
            resting_until: Mutex::default(),
            gone,
            unwanted: watch::Sender::new(None),
            links: std::sync::atomic::AtomicU64::new(0),
        };
        (peer, waiting)
    }

    pub(super) fn counters(&self, class: Class) -> &Arc<Counters> {
        &self.counters[class as usize]
    }

    /// The connection in use.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().clone()
    }

    pub(super) fn set_link(&self, link: Option<Arc<Link>>) {
        if link.is_some() {
            self.links.fetch_add(1, Ordering::Relaxed);
            *self.last_error.lock() = None;
        }
        *self.link.lock() = link;
    }

    /// Ends the connection there is, with the reason.
    pub(super) fn cut_off(&self, reason: NotAllowed) {
        self.unwanted.send_replace(Some(reason));
    }

    /// Whether it broke the rules a moment ago.
    pub(super) fn is_resting(&self) -> bool {
        !self.rest().is_zero()
    }

    fn rest(&self) -> Duration {
        let until = *self.resting_until.lock();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn failed(&self, shared: &Shared, failure: &Failure) {
        *self.last_error.lock() = Some(failure.text.clone());
        shared.grievances.say(Whom::Peer(self.node), failure);
    }

    /// Remembers why there is no connection, and says it.
    pub(super) fn refused(&self, shared: &Shared, error: &GreetError) {
        match error {
            GreetError::Link(error) => {
                if error.is_violation() {
                    *self.resting_until.lock() = Some(Instant::now() + registry::REST);
                }
                self.failed(shared, &error.into());
                if error.closed_with() == Some(CloseCode::REMOVED) {
                    shared.sink.removed(self.node);
                }
            }
            GreetError::Refused(_, refusal) => self.failed(shared, &refusal.into()),
        }
    }

    pub(super) fn status(&self) -> PeerStatus {
        let link = self.link();
        let link = link.as_ref();
        PeerStatus {
            node: self.node,
            address: self.address.clone(),
            connected: link.is_some(),
            remote: link.map(|link| link.connection.remote_address()),
            since: link.map(|link| link.since.1),
            rtt: link.map(|link| link.connection.rtt()),
            hello: link.map(|link| link.hello.clone()),
            formation: link.map(|link| link.formation.lock().clone()),
            links: self.links.load(Ordering::Relaxed),
            last_error: self.last_error.lock().clone(),
            classes: Class::ALL
                .map(|class| self.counters(class).status(class, link.map_or((0, 0), |link| link.queue(class).size()))),
        }
    }
}

/// How long to wait before the next dial: random up to a bound that doubles (full jitter), so that nodes that lost each other at one
/// moment do not come back at one moment.
#[derive(Debug)]
struct Backoff {
    bound: Duration,
    at_least: Duration,
}

impl Backoff {
    fn new(is_higher: bool) -> Self {
        let at_least = if is_higher { registry::HIGHER_WAITS } else { Duration::ZERO };
        Self { bound: Duration::ZERO, at_least }
    }

    fn reset(&mut self) {
        self.bound = Duration::ZERO;
    }

    fn next(&mut self) -> Duration {
        let wait = rand::random_range(Duration::ZERO..=self.bound);
        self.bound = (self.bound * 2).clamp(registry::BACKOFF_FIRST, registry::BACKOFF_MOST);
        self.at_least + wait
    }
}

/// A dial that waits or is under way.
struct Dial {
    done: BoxFuture<'static, Result<Candidate, GreetError>>,
    under_way: Arc<AtomicBool>,
}

impl Dial {
    fn new(shared: &Arc<Shared>, peer: &Arc<Peer>, wait: Duration) -> Self {
        let under_way = Arc::new(AtomicBool::new(false));
        let (shared, peer, begun) = (shared.clone(), peer.clone(), under_way.clone());
        let done = Box::pin(async move {
            tokio::time::sleep(wait).await;
            begun.store(true, Ordering::Relaxed);
            let connecting = connect(&shared, &peer);
            let connected = tokio::time::timeout(registry::CONNECT_TIMEOUT, connecting).await;
            let connection = connected.unwrap_or(Err(LinkError::Timeout("an answer to the first packet")))?;
            hello::dial(&shared, connection, peer.node).await
        });
        Self { done, under_way }
    }
}

async fn connect(shared: &Shared, peer: &Peer) -> Result<quinn::Connection, LinkError> {
    let failed = |what: String| LinkError::Unreachable(what);
    let found = tokio::net::lookup_host(&peer.address).await;
    let found = found.map_err(|error| failed(format!("{}: {error}; check cluster.peers", peer.address)))?;
    let address = found.into_iter().find(|address| shared.dual_stack || address.is_ipv4() == shared.local.is_ipv4());
    let address = address.ok_or_else(|| {
        failed(format!("{} has no address of the kind that cluster.listen has; check cluster.peers", peer.address))
    })?;
    let name = super::pki::node_name(&shared.config.name, peer.node);
    let client = shared.trust.configs().client;
    let connecting = shared.endpoint.connect_with(client, address, &name);
    Ok(connecting.map_err(|error| failed(error.to_string()))?.await?)
}

/// What happens to a peer.
enum Event {
    Stop,
    Unwanted(NotAllowed),
    Inbound(Candidate),
    Dialled(Result<Candidate, GreetError>),
    Failed(LinkError),
}

/// The task of a peer.
pub(super) struct PeerTask {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Arc<Peer>,
    pub(super) candidates: mpsc::Receiver<Candidate>,
    unwanted: watch::Receiver<Option<NotAllowed>>,
    running: Option<Running>,
    dial: Option<Dial>,
    /// Inbound, unanswered until the dial under way is done.
    held: Option<Candidate>,
    backoff: Backoff,
}

impl PeerTask {
    pub(super) fn new(shared: Arc<Shared>, peer: Arc<Peer>, candidates: mpsc::Receiver<Candidate>) -> Self {
        let unwanted = peer.unwanted.subscribe();
        let backoff = Backoff::new(shared.config.node > peer.node);
        Self { shared, peer, candidates, unwanted, running: None, dial: None, held: None, backoff }
    }

    pub(super) async fn run(mut self) {
        loop {
            if self.running.is_none() && self.dial.is_none() {
                let wait = self.backoff.next().max(self.peer.rest());
                self.dial = Some(Dial::new(&self.shared, &self.peer, wait));
            }
            match self.event().await {
                Event::Stop => break,
                Event::Unwanted(reason) => self.cut_off(reason).await,
                Event::Inbound(candidate) => self.inbound(candidate).await,
                Event::Dialled(dialled) => self.dialled(dialled).await,
                Event::Failed(error) => self.failed(error).await,
            }
        }
        self.dial = None;
        if let Some(running) = self.running.take() {
            self.peer.set_link(None);
            let unwanted = self.unwanted.borrow().clone();
            match unwanted {
                Some(reason) => end_unwanted(running, reason).await,
                None => running.end(CloseCode::LEAVING, "").await,
            }
            self.shared.sink.link_down(self.peer.node);
        }
    }

    async fn event(&mut self) -> Event {
        let dial = async {
            match &mut self.dial {
                Some(dial) => dial.done.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let failed = async {
            match &mut self.running {
                Some(running) => running.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.peer.gone.cancelled() => Event::Stop,
            reason = unwanted(&mut self.unwanted) => Event::Unwanted(reason),
            error = failed => Event::Failed(error),
            Some(candidate) = self.candidates.recv() => Event::Inbound(candidate),
            dialled = dial => Event::Dialled(dialled),
        }
    }

    /// Whoever let it in does so no longer.
    async fn cut_off(&mut self, reason: NotAllowed) {
        let Some(running) = self.running.take() else { return };
        self.peer.set_link(None);
        end_unwanted(running, reason.clone()).await;
        self.peer.refused(&self.shared, &GreetError::Refused(self.peer.node, Refusal::NotAllowed(reason)));
        self.shared.sink.link_down(self.peer.node);
    }

    async fn inbound(&mut self, candidate: Candidate) {
        let lower = self.shared.config.node < self.peer.node;
        let dialling = self.dial.as_ref().is_some_and(|dial| dial.under_way.load(Ordering::Relaxed));
        if self.running.is_none() && lower && dialling {
            if let Some(older) = self.held.replace(candidate) {
                older.refuse(&Refusal::Duplicate);
            }
            return;
        }
        self.consider(candidate).await;
    }

    async fn dialled(&mut self, dialled: Result<Candidate, GreetError>) {
        self.dial = None;
        let held = self.held.take();
        match dialled {
            Ok(candidate) => {
                if let Some(held) = held {
                    held.refuse(&Refusal::Duplicate);
                }
                self.consider(candidate).await;
            }
            Err(error) => match held.filter(|held| held.connection.close_reason().is_none()) {
                Some(held) => self.consider(held).await,
                None => self.peer.refused(&self.shared, &error),
            },
        }
    }

    /// Takes a connection into use, unless the one there is, is kept.
    async fn consider(&mut self, mut candidate: Candidate) {
        if let Some(running) = &self.running
            && !replaces(&candidate, &running.link, self.shared.config.node < self.peer.node)
        {
            candidate.refuse(&Refusal::Duplicate);
            return;
        }
        if let Err(error) = candidate.answer(&self.shared).await {
            self.peer.refused(&self.shared, &GreetError::Link(error));
            return;
        }
        if let Some(old) = self.running.take() {
            self.peer.set_link(None);
            old.end(CloseCode::DUPLICATE, "another connection is kept").await;
        }
        // The other end takes this connection; what this node dials meanwhile would only be refused.
        self.dial = None;
        let hello = &candidate.hello;
        let (node, version, program) = (self.peer.node, hello.version, hello.program.clone());
        tracing::info!(%node, version, program, remote = %candidate.connection.remote_address(), "connected with node {node}");
        // Whatever was held against it before: it is let in now.
        self.peer.unwanted.send_replace(None);
        self.running = Some(Running::start(&self.shared, &self.peer, candidate));
        self.shared.grievances.settled(Whom::Peer(node));
    }

    async fn failed(&mut self, error: LinkError) {
        let Some(running) = self.running.take() else { return };
        let lived = running.link.since.0.elapsed();
        self.peer.set_link(None);
        running.end(error.close_code(), &error.to_string()).await;
        if lived >= registry::PROVEN {
            self.backoff.reset();
        }
        self.peer.refused(&self.shared, &GreetError::Link(error));
        self.shared.sink.link_down(self.peer.node);
    }
}

async fn end_unwanted(running: Running, reason: NotAllowed) {
    let refusal = Refusal::from(reason);
    running.end(refusal.code(), &refusal.to_string()).await;
}

/// Waits until somebody says that the connection is to end.
async fn unwanted(unwanted: &mut watch::Receiver<Option<NotAllowed>>) -> NotAllowed {
    // The sender lives in the peer, which the task holds.
    while unwanted.changed().await.is_ok() {
        if let Some(reason) = unwanted.borrow_and_update().clone() {
            return reason;
        }
    }
    std::future::pending().await
}

/// Whether a new connection takes the place of the one in use.
fn replaces(new: &Candidate, old: &Link, is_lower: bool) -> bool {
    let (now, before) = (&new.hello, &old.hello);
    if now.store != before.store || now.incarnation != before.incarnation {
        // The peer was started again, and the old connection is with nobody; a lower number is a packet from the past.
        return now.store != before.store || now.incarnation > before.incarnation;
    }
    let by_lower = new.dialled == is_lower;
    // Of two by the same node, the newer: it would not have dialled if the other were any good.
    by_lower || !old.by_lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_are_random_below_it() {
        let mut backoff = Backoff::new(false);
        assert_eq!(backoff.next(), Duration::ZERO, "the first dial is at once");
        let mut bound = registry::BACKOFF_FIRST;
        for _ in 0..20 {
            assert!(backoff.next() <= bound);
            bound = (bound * 2).min(registry::BACKOFF_MOST);
        }
        assert_eq!(backoff.bound, registry::BACKOFF_MOST);
        let waits: std::collections::HashSet<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits.len() > 10, "{waits:?}");
        backoff.reset();
        assert_eq!(backoff.next(), Duration::ZERO);
    }

    #[test]
    fn the_higher_id_dials_later() {
        assert!(Backoff::new(true).next() >= registry::HIGHER_WAITS);
    }
}
