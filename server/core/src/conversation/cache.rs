//! The rows a machine holds in memory: those of this round that are not written yet, and as many clean ones as pay.
//!
//! A busy conversation's rows are changed by every post and written once per round (D13), so they are kept here between
//! rounds and not read again. Two generations make a cheap approximation of "least recently used": what is touched moves
//! to the young one; when that is full at the end of a round, the old one is dropped and the young one becomes old.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rove_protocol::ids::{AccountId, ConversationId, PartitionId, WriterId};

use super::keys::{self, GateSubject};
use super::rows::{ConversationRow, GateRow, MemberRow, Row, WriterRow};
use super::{ReadError, read};
use crate::store::{StateRead, WriteBatch};

/// What a row is known by in the cache.
pub(super) trait CacheKey: Copy + Ord {
    /// The row.
    type Row: Row;
    /// Rows of one generation; there are two. Only their number is bounded: a row is at most a few kilobytes.
    const CAPACITY: usize;
    /// Its key in the store.
    fn on_disk(self, partition: PartitionId) -> Vec<u8>;
}

impl CacheKey for ConversationId {
    type Row = ConversationRow;
    /// At most about 0.5 KB each: 4 MB in a partition if all are large, and more conversations than are busy at once.
    const CAPACITY: usize = 4_096;
    fn on_disk(self, partition: PartitionId) -> Vec<u8> {
        keys::conversation(partition, self)
    }
}

impl CacheKey for (ConversationId, AccountId) {
    type Row = MemberRow;
    /// About 100 bytes each. A round of a large group's reading marks touches thousands.
    const CAPACITY: usize = 16_384;
    fn on_disk(self, partition: PartitionId) -> Vec<u8> {
        keys::member(partition, self.0, self.1)
    }
}

impl CacheKey for (ConversationId, WriterId) {
    type Row = WriterRow;
    /// At most about 2 KB each (64 outcomes): 16 MB in a partition if all are full.
    const CAPACITY: usize = 4_096;
    fn on_disk(self, partition: PartitionId) -> Vec<u8> {
        keys::writer(partition, self.0, self.1)
    }
}

impl CacheKey for GateSubject {
    type Row = GateRow;
    /// About 50 bytes each, nearly all of them "there is no gate": two for each device that is active.
    const CAPACITY: usize = 16_384;
    fn on_disk(self, partition: PartitionId) -> Vec<u8> {
        keys::gate(partition, self)
    }
}

/// A row, or that there is none.
#[derive(Debug)]
struct Slot<R> {
    row: Option<R>,
    dirty: bool,
}

/// The rows of one table.
#[derive(Debug)]
pub(super) struct Cache<K: CacheKey> {
    young: BTreeMap<K, Slot<K::Row>>,
    old: BTreeMap<K, Slot<K::Row>>,
    /// The dirty ones, all of them young, in the order in which they became so.
    dirty: Vec<K>,
}

impl<K: CacheKey> Default for Cache<K> {
    fn default() -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new(), dirty: Vec::new() }
    }
}

impl<K: CacheKey> Cache<K> {
    fn slot(&mut self, store: &impl StateRead, partition: PartitionId, key: K) -> Result<&mut Slot<K::Row>, ReadError> {
        match self.young.entry(key) {
            Entry::Occupied(slot) => Ok(slot.into_mut()),
            Entry::Vacant(vacant) => {
                let slot = match self.old.remove(&key) {
                    Some(slot) => slot,
                    None => Slot { row: read::row(store, &key.on_disk(partition))?, dirty: false },
                };
                Ok(vacant.insert(slot))
            }
        }
    }

    /// The row, if there is one.
    pub(super) fn get(
        &mut self,
        store: &impl StateRead,
        partition: PartitionId,
        key: K,
    ) -> Result<Option<&K::Row>, ReadError> {
        Ok(self.slot(store, partition, key)?.row.as_ref())
    }

    /// The row, if there is one, to be changed: it counts as changed.
    pub(super) fn get_mut(
        &mut self,
        store: &impl StateRead,
        partition: PartitionId,
        key: K,
    ) -> Result<Option<&mut K::Row>, ReadError> {
        let slot = self.slot(store, partition, key)?;
        if slot.row.is_none() {
            return Ok(None);
        }
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(key);
        }
        // Looked up again because the borrow of `slot` would forbid the push above.
        Ok(self.young.get_mut(&key).and_then(|slot| slot.row.as_mut()))
    }

    /// Sets the row.
    pub(super) fn put(&mut self, key: K, row: K::Row) {
        self.old.remove(&key);
        let was = self.young.insert(key, Slot { row: Some(row), dirty: true });
        if was.is_none_or(|slot| !slot.dirty) {
            self.dirty.push(key);
        }
    }

    /// How many rows are not written yet.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Puts what changed into the batch; it then counts as written. Makes room.
    pub(super) fn take(&mut self, partition: PartitionId, batch: &mut WriteBatch) {
        for key in self.dirty.drain(..) {
            if let Some(Slot { row: Some(row), dirty }) = self.young.get_mut(&key) {
                *dirty = false;
                batch.put(key.on_disk(partition), row.encode());
            }
        }
        if self.young.len() > K::CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, StateStore};

    const PARTITION: PartitionId = PartitionId(1);

    fn gate(number: u64) -> GateRow {
        GateRow { number, shut: true }
    }

    #[test]
    fn a_changed_row_is_read_back_before_and_after_it_is_written() {
        let store = MemoryStore::new();
        let mut cache: Cache<GateSubject> = Cache::default();
        assert_eq!(cache.get(&store, PARTITION, (1, 7)), Ok(None));
        cache.put((1, 7), gate(3));
        cache.get_mut(&store, PARTITION, (1, 7)).unwrap().unwrap().number = 4;
        assert_eq!(cache.get(&store, PARTITION, (1, 7)), Ok(Some(&gate(4))));
        let mut batch = WriteBatch::default();
        cache.take(PARTITION, &mut batch);
        assert_eq!(batch.ops.len(), 1, "one write however often it changed");
        store.write(&batch).unwrap();
        assert_eq!(cache.get(&store, PARTITION, (1, 7)), Ok(Some(&gate(4))));
        assert_eq!(Cache::default().get(&store, PARTITION, (1, 7)), Ok(Some(&gate(4))));
        let mut again = WriteBatch::default();
        cache.take(PARTITION, &mut again);
        assert!(again.is_empty(), "a clean row is not written again");
    }

    #[test]
    fn only_two_generations_of_clean_rows_are_kept_and_none_is_lost() {
        let store = MemoryStore::new();
        let mut cache: Cache<GateSubject> = Cache::default();
        let rows = 3 * <GateSubject as CacheKey>::CAPACITY as u64;
        for number in 0..rows {
            cache.put((1, number), gate(number));
            if number % 1_000 == 0 {
                let mut batch = WriteBatch::default();
                cache.take(PARTITION, &mut batch);
                store.write(&batch).unwrap();
            }
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * (<GateSubject as CacheKey>::CAPACITY + 1_000));
        for number in 0..rows {
            assert_eq!(cache.get(&store, PARTITION, (1, number)), Ok(Some(&gate(number))));
        }
    }
}
