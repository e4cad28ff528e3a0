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

use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::{AccountId, SessionId};
use rove_protocol::message::PresenceItem;
use rove_protocol::registry::PresenceStatus;

/// Heartbeats a lease lasts: two may be lost or late in a row before anybody is told.
pub const LEASE_HEARTBEATS: u64 = 3;
/// Accounts whose last time online is remembered, some 50 bytes each. Older ones show no time.
pub const LAST_SEEN_KEPT: usize = 100_000;

/// The sessions a change has to be told to.
pub type Told = Vec<SessionId>;

#[derive(Debug, Default)]
struct Account {
    /// When each session's lease runs out.
    sessions: BTreeMap<SessionId, u64>,
    /// The version of its last change; an account that is not online and that nobody watches has no row at all.
    version: u64,
    watchers: BTreeSet<SessionId>,
}

#[derive(Debug, Default)]
struct WatchSet {
    version: u64,
    /// Each watched account with the version of this set at which it last changed.
    accounts: BTreeMap<AccountId, u64>,
}

/// The presence of the accounts whose sessions this node has.
#[derive(Debug)]
pub struct PresenceTable {
    incarnation: u64,
    lease_ms: u64,
    version: u64,
    accounts: BTreeMap<AccountId, Account>,
    expiries: BTreeSet<(u64, AccountId, SessionId)>,
    watches: BTreeMap<SessionId, WatchSet>,
    last_seen: BTreeMap<AccountId, u64>,
    last_seen_order: BTreeSet<(u64, AccountId)>,
}

impl PresenceTable {
    /// An empty table. `incarnation` must rise each time the node starts; the heartbeat interval is in milliseconds.
    pub fn new(incarnation: u64, heartbeat_ms: u64) -> Self {
        Self {
            incarnation,
            lease_ms: heartbeat_ms.saturating_mul(LEASE_HEARTBEATS),
            version: 0,
            accounts: BTreeMap::new(),
            expiries: BTreeSet::new(),
            watches: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            last_seen_order: BTreeSet::new(),
        }
    }

    /// A session is there: begins or renews its lease. Who has to be told, if its account was offline.
    pub fn beat(&mut self, account: AccountId, session: SessionId, now: u64) -> Told {
        let expiry = now.saturating_add(self.lease_ms);
        let row = self.accounts.entry(account).or_default();
        let came = row.sessions.is_empty();
        if let Some(old) = row.sessions.insert(session, expiry) {
            self.expiries.remove(&(old, account, session));
        }
        self.expiries.insert((expiry, account, session));
        if came { self.changed(account, 0) } else { Told::new() }
    }

    /// A session said goodbye, or was closed by us: its lease ends at once. Who has to be told, if it was the last one.
    pub fn goodbye(&mut self, account: AccountId, session: SessionId, now: u64) -> Told {
        let Some(row) = self.accounts.get_mut(&account) else { return Told::new() };
        let Some(expiry) = row.sessions.remove(&session) else { return Told::new() };
        self.expiries.remove(&(expiry, account, session));
        if row.sessions.is_empty() { self.changed(account, now) } else { Told::new() }
    }

    /// Ends the leases that have run out at `now`. Each account that went offline, and who has to be told.
    pub fn expire(&mut self, now: u64) -> Vec<(AccountId, Told)> {
        let mut gone = Vec::new();
        while let Some((expiry, account, session)) = self.expiries.first().copied() {
            if expiry > now {
                break;
            }
            self.expiries.pop_first();
            let Some(row) = self.accounts.get_mut(&account) else { continue };
            row.sessions.remove(&session);
            if row.sessions.is_empty() {
                // It was last heard when its lease began.
                let last_heard = expiry.saturating_sub(self.lease_ms);
                gone.push((account, self.changed(account, last_heard)));
            }
        }
        gone
    }

    /// When the next lease runs out.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiries.first().map(|(expiry, ..)| *expiry)
    }

    /// Whether any session of the account has a lease.
    pub fn is_online(&self, account: AccountId) -> bool {
        self.accounts.get(&account).is_some_and(|row| !row.sessions.is_empty())
    }

    /// How many accounts are online.
    pub fn online(&self) -> usize {
        self.accounts.values().filter(|row| !row.sessions.is_empty()).count()
    }

    /// What a watcher is told of an account.
    pub fn item(&self, account: AccountId) -> PresenceItem {
        let row = self.accounts.get(&account);
        let online = row.is_some_and(|row| !row.sessions.is_empty());
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

    fn changed(&mut self, account: AccountId, last_seen_ms: u64) -> Told {
        self.version += 1;
        let Some(row) = self.accounts.get_mut(&account) else { return Told::new() };
        row.version = self.version;
        let watchers: Told = row.watchers.iter().copied().collect();
        let offline = row.sessions.is_empty();
        if offline && watchers.is_empty() {
            self.accounts.remove(&account);
        }
        if offline {
            self.remember(account, last_seen_ms);
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
mod tests {
    use super::*;

    const ALICE: AccountId = AccountId(1);
    const BOB: AccountId = AccountId(2);
    const PHONE: SessionId = SessionId(11);
    const LAPTOP: SessionId = SessionId(12);
    const WATCHER: SessionId = SessionId(21);
    const BEAT: u64 = 20_000;

    fn table() -> PresenceTable {
        PresenceTable::new(7, BEAT)
    }

    fn watching(accounts: &[AccountId]) -> PresenceTable {
        let mut table = table();
        table.watch(WATCHER, &accounts.iter().copied().collect());
        table
    }

    #[test]
    fn an_account_is_online_while_any_device_is() {
        let mut table = watching(&[ALICE]);
        assert_eq!(table.beat(ALICE, PHONE, 0), vec![WATCHER]);
        assert_eq!(table.beat(ALICE, LAPTOP, 0), Told::new());
        assert_eq!(table.goodbye(ALICE, PHONE, 5), Told::new());
        assert!(table.is_online(ALICE));
        assert_eq!(table.goodbye(ALICE, LAPTOP, 9), vec![WATCHER]);
        assert!(!table.is_online(ALICE));
        assert_eq!(table.item(ALICE).last_seen_ms, 9);
    }

    #[test]
    fn a_lease_lasts_three_heartbeats_and_each_renews_it() {
        let mut table = watching(&[ALICE]);
        table.beat(ALICE, PHONE, 0);
        assert!(table.expire(3 * BEAT - 1).is_empty());
        assert_eq!(table.beat(ALICE, PHONE, 3 * BEAT - 1), Told::new());
        assert!(table.expire(4 * BEAT).is_empty());
        assert_eq!(table.next_expiry(), Some(6 * BEAT - 1));
        assert_eq!(table.expire(6 * BEAT - 1), vec![(ALICE, vec![WATCHER])]);
        assert_eq!(table.item(ALICE).last_seen_ms, 3 * BEAT - 1);
    }

    #[test]
    fn the_older_session_of_a_device_that_was_taken_over_does_not_take_it_offline() {
        let mut table = table();
        table.beat(ALICE, PHONE, 0);
        table.beat(ALICE, LAPTOP, 1);
        table.goodbye(ALICE, PHONE, 2);
        assert!(table.is_online(ALICE));
        assert_eq!(table.goodbye(ALICE, PHONE, 3), Told::new());
    }

    #[test]
    fn versions_of_an_account_rise_even_when_its_row_was_dropped() {
        let mut table = table();
        let mut last = 0;
        for round in 0..5 {
            table.beat(ALICE, PHONE, round);
            table.beat(BOB, LAPTOP, round);
            let online = table.item(ALICE);
            table.goodbye(ALICE, PHONE, round);
            table.goodbye(BOB, LAPTOP, round);
            let offline = table.item(ALICE);
            assert!(last < online.version && online.version < offline.version);
            assert_eq!((online.incarnation, offline.incarnation), (7, 7));
            last = offline.version;
        }
        assert!(table.accounts.is_empty(), "nobody is there and nobody watches");
    }

    #[test]
    fn a_watcher_that_lost_a_datagram_is_told_all_it_missed_once() {
        let mut table = watching(&[ALICE, BOB]);
        let seen = table.watch_version(WATCHER);
        table.beat(ALICE, PHONE, 0);
        table.goodbye(ALICE, PHONE, 1);
        table.beat(ALICE, PHONE, 2);
        let (items, newest) = table.changed_since(WATCHER, seen);
        assert_eq!(items.len(), 1, "only what changed, and once");
        assert_eq!((items[0].account, items[0].status), (ALICE, PresenceStatus::Online));
        assert_eq!(table.changed_since(WATCHER, newest).0, Vec::new());
    }

    #[test]
    fn a_new_watch_set_says_the_state_of_all_of_it() {
        let mut table = table();
        table.beat(ALICE, PHONE, 0);
        let before = table.watch_version(WATCHER);
        table.watch(WATCHER, &[ALICE, BOB].into());
        let (items, newest) = table.changed_since(WATCHER, before);
        let said: Vec<_> = items.iter().map(|item| (item.account, item.status)).collect();
        assert_eq!(said, vec![(ALICE, PresenceStatus::Online), (BOB, PresenceStatus::Offline)]);
        table.watch(WATCHER, &[BOB].into());
        assert!(table.watch_version(WATCHER) > newest);
        assert_eq!(table.beat(ALICE, LAPTOP, 1), Told::new());
        table.goodbye(ALICE, PHONE, 2);
        assert_eq!(table.goodbye(ALICE, LAPTOP, 2), Told::new(), "no longer watched");
    }

    #[test]
    fn a_watcher_that_leaves_leaves_nothing_behind() {
        let mut table = watching(&[ALICE, BOB]);
        table.unwatch(WATCHER);
        assert!(table.accounts.is_empty() && table.watches.is_empty());
        assert_eq!(table.beat(ALICE, PHONE, 0), Told::new());
    }
}
