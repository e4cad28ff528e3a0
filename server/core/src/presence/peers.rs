//! The peers' part of presence: what this node tells of its own sessions, and what the other nodes have told of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use rove_protocol::ids::{AccountId, NodeId};

use super::said::{Digest, NEWS_ACCOUNTS, PAGE_ACCOUNTS, Said, Stamp};

/// Accounts that are believed to be online at one node, 16 bytes each: ten times the sessions that a node takes unless it is configured
/// otherwise.
pub const PEER_ACCOUNTS: usize = 1_000_000;
/// Changes that wait to be told. What is beyond shows in the next digest and is asked for.
const UNSAID: usize = 8 * NEWS_ACCOUNTS;
/// Starts of one node that are remembered: the one that runs, and the one before it until its lease ends, or until there is a third.
const STARTS: usize = 2;
const LAST_ACCOUNT: AccountId = AccountId(u64::MAX);

/// A set of accounts with its digest.
#[derive(Debug, Default)]
struct Online {
    accounts: BTreeSet<AccountId>,
    digest: Digest,
}

impl Online {
    fn add(&mut self, account: AccountId) -> bool {
        let news = self.accounts.insert(account);
        if news {
            self.digest.add(account);
        }
        news
    }

    fn remove(&mut self, account: AccountId) -> bool {
        let news = self.accounts.remove(&account);
        if news {
            self.digest.remove(account);
        }
        news
    }
}

/// The accounts that have a session here, as the other nodes are told of them.
#[derive(Debug)]
pub(super) struct Own {
    stamp: Stamp,
    online: Online,
    /// Who has changed since the last news, and when those who went were last online.
    unsaid: BTreeMap<AccountId, Option<u64>>,
}

impl Own {
    pub(super) fn new(incarnation: u64) -> Self {
        Self { stamp: Stamp { incarnation, version: 0 }, online: Online::default(), unsaid: BTreeMap::new() }
    }

    pub(super) fn came(&mut self, account: AccountId) {
        if self.online.add(account) {
            self.changed(account, None);
        }
    }

    pub(super) fn went(&mut self, account: AccountId, last_seen_ms: u64) {
        if self.online.remove(account) {
            self.changed(account, Some(last_seen_ms));
        }
    }

    fn changed(&mut self, account: AccountId, went: Option<u64>) {
        self.stamp.version += 1;
        if self.unsaid.len() < UNSAID || self.unsaid.contains_key(&account) {
            self.unsaid.insert(account, went);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.online.accounts.len()
    }

    pub(super) fn has_news(&self) -> bool {
        !self.unsaid.is_empty()
    }

    pub(super) fn news(&mut self) -> Vec<Said> {
        let unsaid: Vec<_> = std::mem::take(&mut self.unsaid).into_iter().collect();
        let news = |changes: &[(AccountId, Option<u64>)]| Said::News {
            stamp: self.stamp,
            came: changes.iter().filter(|(_, went)| went.is_none()).map(|(account, _)| *account).collect(),
            went: changes.iter().filter_map(|(account, went)| Some((*account, (*went)?))).collect(),
        };
        unsaid.chunks(NEWS_ACCOUNTS).map(news).collect()
    }

    pub(super) fn digest(&self) -> Said {
        Said::Digest { stamp: self.stamp, digest: self.online.digest }
    }

    fn page(&self, from: AccountId) -> Said {
        let online: Vec<_> = self.online.accounts.range(from..).take(PAGE_ACCOUNTS).copied().collect();
        let full = online.len() == PAGE_ACCOUNTS;
        let to = online.last().filter(|_| full).copied().unwrap_or(LAST_ACCOUNT);
        Said::Page { stamp: self.stamp, from, to, online }
    }
}

/// What one start of a node has said.
#[derive(Debug, Default)]
struct Claims {
    /// Of the newest statement.
    version: u64,
    online: Online,
    /// When it was heard last.
    heard: u64,
    /// Where to go on asking, while not everything is known.
    wanted: Option<AccountId>,
}

/// An account that a peer has claimed or let go of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) account: AccountId,
    /// When it was last online there, if it is not any more.
    pub(super) went: Option<u64>,
}

/// What the other nodes have said. An earlier start of a node is believed until its lease ends, like any that fell silent: its people come
/// back, to it or to another.
#[derive(Debug)]
pub(super) struct Peers {
    /// How long what a node has said counts when it is not heard any more, in milliseconds.
    lease_ms: u64,
    claims: BTreeMap<(NodeId, u64), Claims>,
}

impl Peers {
    pub(super) fn new(lease_ms: u64) -> Self {
        Self { lease_ms, claims: BTreeMap::new() }
    }

    /// How many nodes (or starts of nodes) have the account online.
    pub(super) fn claimants(&self, account: AccountId) -> usize {
        self.claims.values().filter(|claims| claims.online.accounts.contains(&account)).count()
    }

    /// The nodes at which accounts are online, with those accounts.
    pub(super) fn whereabouts(&self, accounts: &[AccountId]) -> BTreeMap<NodeId, Vec<AccountId>> {
        let mut found: BTreeMap<NodeId, Vec<AccountId>> = BTreeMap::new();
        for ((node, _), claims) in &self.claims {
            let there = accounts.iter().filter(|account| claims.online.accounts.contains(account));
            let there: Vec<_> = there.copied().collect();
            if !there.is_empty() {
                // The newest start of a node comes last, and is the one that runs.
                found.insert(*node, there);
            }
        }
        found
    }

    /// A node speaks: what has changed, and the answer.
    pub(super) fn hear(&mut self, from: NodeId, said: Said, own: &Own, now: u64) -> (Vec<Change>, Option<Said>) {
        let mut changes = said.stamp().map_or_else(Vec::new, |stamp| self.make_room(from, stamp));
        let (news, answer) = self.take(from, said, own, now);
        changes.extend(news);
        (changes, answer)
    }

    /// A start of a node that is newer than any known ends the oldest, if that is one too many.
    fn make_room(&mut self, from: NodeId, stamp: Stamp) -> Vec<Change> {
        let starts = self.claims.range((from, 0)..=(from, u64::MAX)).map(|(key, _)| *key);
        let starts: Vec<_> = starts.collect();
        let news = starts.last().is_some_and(|(_, newest)| *newest < stamp.incarnation);
        let oldest = starts.first().filter(|_| news && starts.len() >= STARTS);
        let ended = oldest.and_then(|key| self.claims.remove(key));
        ended.into_iter().flat_map(Claims::end).collect()
    }

    fn take(&mut self, from: NodeId, said: Said, own: &Own, now: u64) -> (Vec<Change>, Option<Said>) {
        match said {
            Said::Want { from } => (Vec::new(), Some(own.page(from))),
            Said::News { stamp, came, went } => {
                let Some(claims) = self.newest(from, stamp, now) else { return Default::default() };
                let came = came.into_iter().filter_map(|account| claims.claim(account));
                let mut changes: Vec<_> = came.collect();
                let went = went.into_iter().filter_map(|(account, at)| claims.let_go(account, at.min(now)));
                changes.extend(went);
                (changes, None)
            }
            Said::Digest { stamp, digest } => {
                let Some(claims) = self.newest(from, stamp, now) else { return Default::default() };
                let known = claims.online.digest == digest;
                claims.wanted = if known { None } else { claims.wanted.or(Some(AccountId(0))) };
                (Vec::new(), claims.wanted.map(|from| Said::Want { from }))
            }
            Said::Page { stamp, from: first, to, online } => {
                let Some(claims) = self.newest(from, stamp, now) else { return Default::default() };
                let changes = claims.replace(first..=to, online, now);
                if claims.wanted != Some(first) {
                    return (changes, None);
                }
                claims.wanted = (to < LAST_ACCOUNT).then(|| AccountId(to.0.saturating_add(1)));
                (changes, claims.wanted.map(|from| Said::Want { from }))
            }
            Said::Typing(_) => Default::default(),
        }
    }

    /// The claims of the node that a statement of `stamp` is about; `None` if a newer one was heard.
    fn newest(&mut self, from: NodeId, stamp: Stamp, now: u64) -> Option<&mut Claims> {
        let newest = self.claims.range((from, 0)..=(from, u64::MAX)).next_back();
        if newest.is_some_and(|((_, incarnation), _)| *incarnation > stamp.incarnation) {
            return None;
        }
        let claims = self.claims.entry((from, stamp.incarnation)).or_default();
        if claims.version > stamp.version {
            return None;
        }
        claims.version = stamp.version;
        claims.heard = now;
        Some(claims)
    }

    /// Forgets the nodes that were not heard for their lease.
    pub(super) fn expire(&mut self, now: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        self.claims.retain(|_, claims| {
            let stands = claims.expiry(self.lease_ms) > now;
            if !stands {
                changes.extend(std::mem::take(claims).end());
            }
            stands
        });
        changes
    }

    #[cfg(test)]
    pub(super) fn starts(&self, node: NodeId) -> usize {
        self.claims.keys().filter(|(of, _)| *of == node).count()
    }

    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.claims.values().map(|claims| claims.expiry(self.lease_ms)).min()
    }
}

impl Claims {
    fn expiry(&self, lease_ms: u64) -> u64 {
        self.heard.saturating_add(lease_ms)
    }

    /// Nothing of it counts any more.
    fn end(self) -> impl Iterator<Item = Change> {
        let went = Some(self.heard);
        self.online.accounts.into_iter().map(move |account| Change { account, went })
    }

    fn claim(&mut self, account: AccountId) -> Option<Change> {
        let room = self.online.accounts.len() < PEER_ACCOUNTS;
        (room && self.online.add(account)).then_some(Change { account, went: None })
    }

    fn let_go(&mut self, account: AccountId, at: u64) -> Option<Change> {
        self.online.remove(account).then_some(Change { account, went: Some(at) })
    }

    fn replace(&mut self, range: RangeInclusive<AccountId>, online: Vec<AccountId>, now: u64) -> Vec<Change> {
        if range.is_empty() {
            return Vec::new();
        }
        // It is ascending: `Said::decode` has checked that.
        let gone = self.online.accounts.range(range).filter(|account| online.binary_search(account).is_err());
        let gone: Vec<_> = gone.copied().collect();
        let mut changes: Vec<_> = gone.into_iter().filter_map(|account| self.let_go(account, now)).collect();
        changes.extend(online.into_iter().filter_map(|account| self.claim(account)));
        changes
    }
}
