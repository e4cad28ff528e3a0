//! The members of conversations in which something happens: a bounded cache, kept current by what the log says.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use rove_protocol::ids::{AccountId, ConversationId};
use rove_protocol::registry::Role;

/// Memberships cached at most, some 50 bytes each: 25 MB.
pub(super) const CACHED_MEMBERSHIPS: usize = 500_000;

/// The members of one conversation.
pub(crate) type Members = Arc<BTreeMap<AccountId, Role>>;

struct Entry {
    members: Members,
    /// Used since the hand last passed: it is passed over once more.
    used: bool,
}

/// The cache: second chance, as most conversations are busy for a while and then not for long.
#[derive(Default)]
pub(super) struct MemberCache {
    entries: HashMap<ConversationId, Entry>,
    hand: VecDeque<ConversationId>,
    memberships: usize,
    limit: usize,
}

impl MemberCache {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn get(&mut self, conversation: ConversationId) -> Option<Members> {
        let entry = self.entries.get_mut(&conversation)?;
        entry.used = true;
        Some(entry.members.clone())
    }

    pub(super) fn insert(&mut self, conversation: ConversationId, members: BTreeMap<AccountId, Role>) -> Members {
        let members = Arc::new(members);
        self.memberships += members.len() + 1;
        let entry = Entry { members: members.clone(), used: false };
        match self.entries.insert(conversation, entry) {
            Some(old) => self.memberships -= old.members.len() + 1,
            None => self.hand.push_back(conversation),
        }
        self.evict();
        members
    }

    /// Follows the log. What is not cached is not followed.
    pub(super) fn change(&mut self, conversation: ConversationId, changes: &[(AccountId, Role)]) {
        let Some(entry) = self.entries.get_mut(&conversation) else { return };
        let members = Arc::make_mut(&mut entry.members);
        let before = members.len();
        for (account, role) in changes {
            if *role == Role::None {
                members.remove(account);
            } else {
                members.insert(*account, *role);
            }
        }
        self.memberships = self.memberships + members.len() - before;
        self.evict();
    }

    fn evict(&mut self) {
        while self.memberships > self.limit && self.entries.len() > 1 {
            let Some(oldest) = self.hand.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&oldest) else { continue };
            if std::mem::take(&mut entry.used) {
                self.hand.push_back(oldest);
            } else if let Some(entry) = self.entries.remove(&oldest) {
                self.memberships -= entry.members.len() + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(id: u8) -> ConversationId {
        ConversationId([id; 16])
    }

    fn members(count: u64) -> BTreeMap<AccountId, Role> {
        (1..=count).map(|id| (AccountId(id), Role::Member)).collect()
    }

    #[test]
    fn it_follows_the_log_of_what_it_holds() {
        let mut cache = MemberCache::new(100);
        cache.insert(conversation(1), members(2));
        let changes = [(AccountId(1), Role::None), (AccountId(9), Role::Admin)];
        cache.change(conversation(1), &changes);
        cache.change(conversation(2), &changes);
        let now = cache.get(conversation(1)).unwrap();
        assert_eq!(now.iter().collect::<Vec<_>>(), [(&AccountId(2), &Role::Member), (&AccountId(9), &Role::Admin)]);
        assert_eq!(cache.get(conversation(2)), None);
    }

    #[test]
    fn it_is_bounded_and_what_is_used_stays_longer() {
        let mut cache = MemberCache::new(30);
        cache.insert(conversation(1), members(9));
        cache.insert(conversation(2), members(9));
        cache.get(conversation(1));
        cache.insert(conversation(3), members(9));
        cache.insert(conversation(4), members(9));
        assert!(cache.memberships <= 30);
        assert!(cache.get(conversation(1)).is_some() && cache.get(conversation(2)).is_none());
        let held: usize = cache.entries.values().map(|entry| entry.members.len() + 1).sum();
        assert_eq!(held, cache.memberships);
    }

    #[test]
    fn a_conversation_larger_than_the_cache_is_held_alone() {
        let mut cache = MemberCache::new(10);
        cache.insert(conversation(1), members(3));
        cache.insert(conversation(2), members(50));
        cache.insert(conversation(3), members(60));
        assert_eq!(cache.entries.len(), 1);
        assert!(cache.get(conversation(3)).is_some());
    }
}
