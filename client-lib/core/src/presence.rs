//! Presence of the watched accounts: items may come late, twice or out of order; the highest (incarnation, version) wins.

use std::collections::BTreeMap;

use rove_protocol::ids::AccountId;
use rove_protocol::message::PresenceItem;
use rove_protocol::registry::PresenceStatus;

#[derive(Debug, Clone, Copy)]
struct Known {
    stamp: (u64, u64),
    status: PresenceStatus,
    last_seen_ms: u64,
}

/// What is known of the watched accounts.
#[derive(Debug, Clone, Default)]
pub struct PresenceTable {
    known: BTreeMap<AccountId, Known>,
    version: u64,
}

impl PresenceTable {
    /// Takes an item in; whether it changed what is known.
    pub fn merge(&mut self, item: &PresenceItem) -> bool {
        let stamp = (item.incarnation, item.version);
        if self.known.get(&item.account).is_some_and(|known| known.stamp >= stamp) {
            return false;
        }
        let status =
            if item.status == PresenceStatus::Online { PresenceStatus::Online } else { PresenceStatus::Offline };
        self.known.insert(item.account, Known { stamp, status, last_seen_ms: item.last_seen_ms });
        true
    }

    /// The watch set's state is complete up to this version, for heartbeats to name.
    pub fn told_version(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// The newest version seen in this session.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A new session: another node's versions have nothing to do with the last one's.
    pub fn new_session(&mut self) {
        self.version = 0;
        for known in self.known.values_mut() {
            known.stamp = (0, 0);
        }
    }

    /// Only these accounts are watched from now on.
    pub fn retain(&mut self, accounts: &[AccountId]) {
        self.known.retain(|account, _| accounts.contains(account));
    }

    /// Ascending by account: status, and when it was last online in milliseconds of the Unix epoch (0: unknown or now).
    pub fn iter(&self) -> impl Iterator<Item = (AccountId, PresenceStatus, u64)> + '_ {
        self.known.iter().map(|(account, known)| (*account, known.status, known.last_seen_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(incarnation: u64, version: u64) -> PresenceItem {
        let status = PresenceStatus(u32::from(version % 2 == 1));
        PresenceItem { account: AccountId(1), status, incarnation, version, last_seen_ms: incarnation * 100 + version }
    }

    proptest! {
        #[test]
        fn whatever_the_order_the_newest_item_wins(
            mut stamps in prop::collection::vec((1u64..4, 1u64..6), 1..30),
        ) {
            let mut table = PresenceTable::default();
            for (incarnation, version) in &stamps {
                table.merge(&item(*incarnation, *version));
            }
            stamps.sort_unstable();
            let (incarnation, version) = stamps[stamps.len() - 1];
            let newest = item(incarnation, version);
            prop_assert_eq!(table.iter().collect::<Vec<_>>(), [(AccountId(1), newest.status, newest.last_seen_ms)]);
        }
    }

    #[test]
    fn an_unknown_status_is_offline() {
        let mut table = PresenceTable::default();
        table.merge(&PresenceItem { status: PresenceStatus(77), ..item(1, 1) });
        assert_eq!(table.iter().next().unwrap().1, PresenceStatus::Offline);
    }
}
