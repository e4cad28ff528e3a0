//! Presence and typing, of this node's sessions and of the other nodes'.
//!
//! Whom a session may watch is decided where it is (`edge/entitlement.rs`), and who is told of typing where it comes from: nodes trust
//! each other with both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rove_core::fanout::{Accounts, audience};
use rove_core::presence::{PresenceTable, Said, Told, TypingSaid};
use rove_protocol::ids::{AccountId, NodeId, SessionId};
use rove_protocol::message::{Message as _, PresenceItem, Typing};

use super::{Hub, Members, Subscriber};

/// The other nodes, as presence needs them.
pub trait PresencePeers: Send + Sync {
    /// Which there are.
    fn nodes(&self) -> Vec<NodeId>;
    /// Tells one of them something, of 64 KiB at most; it may be lost. Never waits.
    fn tell(&self, to: NodeId, said: Bytes);
}

impl Hub {
    /// There are other nodes. Called before there are sessions; only the first call counts.
    pub fn join_peers(&self, peers: Arc<dyn PresencePeers>) {
        if self.peers.set(peers).is_ok() {
            let heartbeat_ms = u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX);
            *self.presence.lock() = PresenceTable::new(self.started_ms, heartbeat_ms).among_peers();
        }
    }

    /// Another node says something.
    pub fn peer_says(&self, from: NodeId, said: &[u8]) {
        let said = match Said::decode(said) {
            Ok(said) => said,
            Err(error) => {
                tracing::debug!(peer = %from, %error, "presence is dropped");
                return;
            }
        };
        if let Said::Typing(typing) = said {
            self.typing_here(&typing);
            return;
        }
        let (told, answer) = self.presence.lock().hear(from, said, self.now_ms());
        self.wake(&told);
        if let (Some(peers), Some(answer)) = (self.peers.get(), answer) {
            peers.tell(from, answer.encode().into());
        }
    }

    /// Returns when there is something to tell the other nodes; never where there are none.
    pub(crate) async fn presence_news(&self) {
        if self.peers.get().is_none() {
            std::future::pending::<()>().await;
        }
        self.presence_news.notified().await;
    }

    /// Tells the other nodes what has changed, and, with the digest, that this one is there.
    pub(crate) fn tell_peers(&self, with_digest: bool) {
        let Some(peers) = self.peers.get() else { return };
        let (mut said, digest) = {
            let mut presence = self.presence.lock();
            (presence.news(), presence.digest())
        };
        said.extend(with_digest.then_some(digest));
        let said: Vec<Bytes> = said.iter().map(|said| said.encode().into()).collect();
        for node in peers.nodes() {
            for said in &said {
                peers.tell(node, said.clone());
            }
        }
    }

    /// Tells the other members, wherever they are, that somebody types.
    pub(crate) fn typing(&self, members: &Members, typing: &Typing) {
        self.datagram_to(&**members, typing.account, &typing.to_frame().into());
        let Some(peers) = self.peers.get() else { return };
        let mut others = Vec::new();
        members.each(&mut |account| others.extend((account != typing.account).then_some(account)));
        let elsewhere = self.presence.lock().whereabouts(&others);
        let Typing { conversation, account, typing } = *typing;
        for (node, members) in elsewhere {
            let said = Said::Typing(TypingSaid { conversation, account, typing, members });
            peers.tell(node, said.encode().into());
        }
    }

    /// Somebody types at another node.
    fn typing_here(&self, said: &TypingSaid) {
        let TypingSaid { conversation, account, typing, ref members } = *said;
        let members: BTreeSet<AccountId> = members.iter().copied().collect();
        self.datagram_to(&members, account, &Typing { conversation, account, typing }.to_frame().into());
    }

    /// Sends a datagram to every session of the members but one account's.
    fn datagram_to(&self, members: &dyn Accounts, except: AccountId, datagram: &Bytes) {
        let registry = self.registry.read();
        audience(members, &registry.accounts, &mut |account| {
            if account != except {
                for subscriber in registry.of(account) {
                    subscriber.link.datagram(datagram.clone());
                }
            }
        });
    }

    /// A session is there, in the foreground.
    pub(crate) fn beat(&self, account: AccountId, session: SessionId) {
        let told = self.presence.lock().beat(account, session, self.now_ms());
        self.tell(&told);
    }

    /// A session has left on purpose.
    pub(crate) fn goodbye(&self, account: AccountId, session: SessionId) {
        let told = self.presence.lock().goodbye(account, session, self.now_ms());
        self.tell(&told);
    }

    /// Ends the leases that have run out. When to come again.
    pub(crate) fn expire_leases(&self) -> Duration {
        let now = self.now_ms();
        let (told, next) = {
            let mut presence = self.presence.lock();
            (presence.expire(now), presence.next_expiry())
        };
        self.tell(&told);
        // Not more often than people notice, and often enough for leases that begin meanwhile.
        Duration::from_millis(next.map_or(1_000, |at| at.saturating_sub(now)).clamp(100, 1_000))
    }

    /// Replaces whom a session watches.
    pub(crate) fn watch(&self, subscriber: &Subscriber, accounts: &BTreeSet<AccountId>) {
        self.presence.lock().watch(subscriber.session, accounts);
        subscriber.presence_wake.notify_one();
    }

    /// What a session watches that changed after a version of it, and the newest version.
    pub(crate) fn presence_since(&self, session: SessionId, version: u64) -> (Vec<PresenceItem>, u64) {
        self.presence.lock().changed_since(session, version)
    }

    /// The newest version of what a session watches.
    pub(crate) fn presence_version(&self, session: SessionId) -> u64 {
        self.presence.lock().watch_version(session)
    }

    /// Something about a session here may have changed: its watchers are told, and the other nodes.
    fn tell(&self, told: &Told) {
        self.wake(told);
        if self.peers.get().is_some() && self.presence.lock().has_news() {
            self.presence_news.notify_one();
        }
    }

    fn wake(&self, told: &Told) {
        if told.is_empty() {
            return;
        }
        let registry = self.registry.read();
        for session in told {
            if let Some(subscriber) = registry.session(*session) {
                subscriber.presence_wake.notify_one();
            }
        }
    }
}
