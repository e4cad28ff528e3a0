//! Who is there: a table of leases, and who watches whom.
//!
//! A session holds a lease that each heartbeat renews. An account is online while any of its sessions has one. Losing a
//! few heartbeats in a tunnel changes nothing, as a lease lasts [`LEASE_HEARTBEATS`] of them; a goodbye ends it at once.
//!
//! Every change gets the next version of one counter of the table. So whatever an account that the table does not know is
//! said to be, it is said with a version above everything that was ever said of it, and rows of people who left need not
//! be kept for ever to keep versions rising.
//!
//! A watching session has a version of its own, raised by each change of something it watches: a heartbeat that names an
//! older one shows that a datagram was lost, and [`PresenceTable::changed_since`] says what it said.
//!
//! In a cluster an account is online while it has a session at any node. Each node tells the others of its own ([`Said`]): the changes as
//! they happen, and every second a digest of all, from which a peer sees that it missed something and asks for it. What a node has said
//! counts for as long as a session's lease after it was last heard: when it has died, its people's clients find that out by their own
//! heartbeats and go elsewhere, and nobody sees them gone meanwhile. There a goodbye ends a lease only after [`SETTLE_MS`]: somebody who goes from
//! one node to another says it to the one, and must not look away until all have heard of the other.

mod peers;
mod said;

use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::{AccountId, NodeId, SessionId};
use rove_protocol::message::PresenceItem;
use rove_protocol::registry::PresenceStatus;

pub use self::peers::PEER_ACCOUNTS;
use self::peers::{Change, Own, Peers};
pub use self::said::{Digest, NEWS_ACCOUNTS, PAGE_ACCOUNTS, Said, SaidError, Stamp, TypingSaid};

/// Heartbeats a lease lasts, of a session or of what a node has said: two may be lost or late in a row before anybody is told.
pub const LEASE_HEARTBEATS: u64 = 3;
/// How long the last session of an account counts after its goodbye where there are other nodes, in milliseconds: those hear of each other's
/// sessions within a tenth of it.
pub const SETTLE_MS: u64 = 1_000;
/// Accounts whose last time online is remembered, some 50 bytes each. Older ones show no time.
pub const LAST_SEEN_KEPT: usize = 100_000;

/// The sessions a change has to be told to.
pub type Told = Vec<SessionId>;

#[derive(Debug, Clone, Copy)]
struct Lease {
    expiry: u64,
    /// When the session was heard last.
    heard: u64,
}

#[derive(Debug, Default)]
struct Account {
    /// Those here.
    sessions: BTreeMap<SessionId, Lease>,
    /// The version of its last change; an account that has no session here and that nobody watches has no row at all.
    version: u64,
    watchers: BTreeSet<SessionId>,
}

#[derive(Debug, Default)]
struct WatchSet {
    version: u64,
    /// Each watched account with the version of this set at which it last changed.
    accounts: BTreeMap<AccountId, u64>,
}

/// The presence of accounts, as the sessions of this node are told of it.
#[derive(Debug)]
pub struct PresenceTable {
    incarnation: u64,
    lease_ms: u64,
    settle_ms: u64,
    version: u64,
    accounts: BTreeMap<AccountId, Account>,
    expiries: BTreeSet<(u64, AccountId, SessionId)>,
    watches: BTreeMap<SessionId, WatchSet>,
    last_seen: BTreeMap<AccountId, u64>,
    last_seen_order: BTreeSet<(u64, AccountId)>,
    own: Own,
    peers: Peers,
}

impl PresenceTable {
    /// An empty table of a node on its own. `incarnation` must rise each time the node starts; the heartbeat interval is in milliseconds.
    pub fn new(incarnation: u64, heartbeat_ms: u64) -> Self {
        let lease_ms = heartbeat_ms.saturating_mul(LEASE_HEARTBEATS);
        Self {
            incarnation,
            lease_ms,
            settle_ms: 0,
            version: 0,
            accounts: BTreeMap::new(),
            expiries: BTreeSet::new(),
            watches: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            last_seen_order: BTreeSet::new(),
            own: Own::new(incarnation),
            peers: Peers::new(lease_ms),
        }
    }

    /// The same for a node of a cluster.
    #[must_use]
    pub fn among_peers(mut self) -> Self {
        self.settle_ms = SETTLE_MS;
        self
    }

    /// A session is there: begins or renews its lease. Who has to be told, if its account was offline.
    pub fn beat(&mut self, account: AccountId, session: SessionId, now: u64) -> Told {
        let lease = Lease { expiry: now.saturating_add(self.lease_ms), heard: now };
        let was_online = self.is_online(account);
        self.renew(account, session, lease);
        self.own.came(account);
        if was_online { Told::new() } else { self.changed(account, 0) }
    }

    /// A session said goodbye, or was closed by us. If it was the last of its account, that goes offline: at once where there are no other
    /// nodes, else when it has settled. Who has to be told now.
    pub fn goodbye(&mut self, account: AccountId, session: SessionId, now: u64) -> Told {
        let Some(row) = self.accounts.get_mut(&account) else { return Told::new() };
        let Some(lease) = row.sessions.get(&session).copied() else { return Told::new() };
        if row.sessions.len() == 1 && self.settle_ms > 0 {
            let expiry = lease.expiry.min(now.saturating_add(self.settle_ms));
            self.renew(account, session, Lease { expiry, heard: now });
            return Told::new();
        }
        self.expiries.remove(&(lease.expiry, account, session));
        self.end(account, session, now)
    }

    /// Ends the leases that have run out at `now`, those of nodes too. Who has to be told.
    pub fn expire(&mut self, now: u64) -> Told {
        let mut told = Told::new();
        while let Some((expiry, account, session)) = self.expiries.first().copied() {
            if expiry > now {
                break;
            }
            self.expiries.pop_first();
            let lease = self.accounts.get(&account).and_then(|row| row.sessions.get(&session));
            let heard = lease.map_or(expiry, |lease| lease.heard);
            told.extend(self.end(account, session, heard));
        }
        let gone = self.peers.expire(now);
        told.extend(self.merge(gone));
        told
    }

    /// When the next lease runs out.
    pub fn next_expiry(&self) -> Option<u64> {
        let session = self.expiries.first().map(|(expiry, ..)| *expiry);
        session.into_iter().chain(self.peers.next_expiry()).min()
    }

    /// Whether the account has a session, here or at another node.
    pub fn is_online(&self, account: AccountId) -> bool {
        self.is_here(account) || self.peers.claimants(account) > 0
    }

    /// How many accounts have a session here.
    pub fn online(&self) -> usize {
        self.own.count()
    }

    /// Another node speaks. Who has to be told, and what that node is answered.
    pub fn hear(&mut self, from: NodeId, said: Said, now: u64) -> (Told, Option<Said>) {
        let (changes, answer) = self.peers.hear(from, said, &self.own, now);
        (self.merge(changes), answer)
    }

    /// Whether there is something to tell the other nodes at once.
    pub fn has_news(&self) -> bool {
        self.own.has_news()
    }

    /// What has changed here since the last call, for every other node.
    pub fn news(&mut self) -> Vec<Said> {
        self.own.news()
    }

    /// What every other node is to hear now and then, after the news: that this one is there, and by what to know that they have heard all.
    pub fn digest(&self) -> Said {
        self.own.digest()
    }

    /// At which other nodes accounts are online, as far as is known.
    pub fn whereabouts(&self, accounts: &[AccountId]) -> BTreeMap<NodeId, Vec<AccountId>> {
        self.peers.whereabouts(accounts)
    }

    /// What a watcher is told of an account.
    pub fn item(&self, account: AccountId) -> PresenceItem {
        let row = self.accounts.get(&account);
        let online = self.is_online(account);
        PresenceItem {
            account,
            status: if online { PresenceStatus::Online } else { PresenceStatus::Offline },
            incarnation: self.incarnation,
            version: row.filter(|row| row.version > 0).map_or(self.version, |row| row.version),
            last_seen_ms: if online { 0 } else { self.last_seen.get(&account).copied().unwrap_or(0) },
        }
    }

    /// Replaces what a session watches. All of it counts as changed, so [`PresenceTable::changed_since`] with the version
    /// before says it.
    pub fn watch(&mut self, session: SessionId, accounts: &BTreeSet<AccountId>) {
        let version = self.watches.get(&session).map_or(0, |set| set.version) + 1;
        self.forget_watches(session);
        for account in accounts {
            self.accounts.entry(*account).or_default().watchers.insert(session);
        }
        let accounts = accounts.iter().map(|account| (*account, version)).collect();
        self.watches.insert(session, WatchSet { version, accounts });
    }

    /// The session watches nobody any more.
    pub fn unwatch(&mut self, session: SessionId) {
        self.forget_watches(session);
    }

    /// The newest version of what a session watches; 0 if it never watched.
    pub fn watch_version(&self, session: SessionId) -> u64 {
        self.watches.get(&session).map_or(0, |set| set.version)
    }

    /// What changed of a session's watch set after `version` of it, and its newest version.
    pub fn changed_since(&self, session: SessionId, version: u64) -> (Vec<PresenceItem>, u64) {
        let Some(set) = self.watches.get(&session) else { return (Vec::new(), 0) };
        let changed = set.accounts.iter().filter(|(_, at)| **at > version);
        (changed.map(|(account, _)| self.item(*account)).collect(), set.version)
    }

    fn is_here(&self, account: AccountId) -> bool {
        self.accounts.get(&account).is_some_and(|row| !row.sessions.is_empty())
    }

    fn renew(&mut self, account: AccountId, session: SessionId, lease: Lease) {
        let old = self.accounts.entry(account).or_default().sessions.insert(session, lease);
        if let Some(old) = old {
            self.expiries.remove(&(old.expiry, account, session));
        }
        self.expiries.insert((lease.expiry, account, session));
    }

    /// A session's lease is over.
    fn end(&mut self, account: AccountId, session: SessionId, last_seen_ms: u64) -> Told {
        let Some(row) = self.accounts.get_mut(&account) else { return Told::new() };
        row.sessions.remove(&session);
        if !row.sessions.is_empty() {
            return Told::new();
        }
        self.own.went(account, last_seen_ms);
        if self.peers.claimants(account) == 0 {
            return self.changed(account, last_seen_ms);
        }
        if row.watchers.is_empty() {
            self.accounts.remove(&account);
        }
        Told::new()
    }

    /// What peers have said has changed.
    fn merge(&mut self, changes: Vec<Change>) -> Told {
        let mut told = Told::new();
        for Change { account, went } in changes {
            // The claim is counted already: the first one, or the last one gone.
            if !self.is_here(account) && self.peers.claimants(account) == usize::from(went.is_none()) {
                told.extend(self.changed(account, went.unwrap_or(0)));
            }
        }
        told
    }

    /// An account has come or gone.
    fn changed(&mut self, account: AccountId, last_seen_ms: u64) -> Told {
        self.version += 1;
        if !self.is_online(account) {
            self.remember(account, last_seen_ms);
        }
        let Some(row) = self.accounts.get_mut(&account) else { return Told::new() };
        row.version = self.version;
        let watchers: Told = row.watchers.iter().copied().collect();
        if row.sessions.is_empty() && watchers.is_empty() {
            self.accounts.remove(&account);
        }
        for watcher in &watchers {
            if let Some(set) = self.watches.get_mut(watcher) {
                set.version += 1;
                set.accounts.insert(account, set.version);
            }
        }
        watchers
    }

    fn remember(&mut self, account: AccountId, last_seen_ms: u64) {
        if let Some(old) = self.last_seen.insert(account, last_seen_ms) {
            self.last_seen_order.remove(&(old, account));
        }
        self.last_seen_order.insert((last_seen_ms, account));
        if self.last_seen.len() > LAST_SEEN_KEPT
            && let Some((_, oldest)) = self.last_seen_order.pop_first()
        {
            self.last_seen.remove(&oldest);
        }
    }

    fn forget_watches(&mut self, session: SessionId) {
        let Some(set) = self.watches.remove(&session) else { return };
        for account in set.accounts.into_keys() {
            let Some(row) = self.accounts.get_mut(&account) else { continue };
            row.watchers.remove(&session);
            if row.watchers.is_empty() && row.sessions.is_empty() {
                self.accounts.remove(&account);
            }
        }
    }
}

#[cfg(test)]
mod convergence;
#[cfg(test)]
mod tests;
