//! A store in memory, for tests and the simulator.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use super::{Op, StateRead, StateStore, StoreError, WriteBatch};

/// A sorted map behind a lock.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every key and value, ascending: to compare replicas.
    pub fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.read().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Bytes, Bytes>> {
        // A panic of another holder leaves the map whole: each change of it is one insert or remove.
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemoryStore {
    /// A copy of what is there now; the two are then independent.
    fn clone(&self) -> Self {
        Self { rows: RwLock::new(self.read().clone()) }
    }
}

impl StateRead for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read().get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        // Copied out in steps would not be one moment; under the lock it is.
        let rows = self.read();
        let mut range = rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        loop {
            let next = if descending { range.next_back() } else { range.next() };
            match next {
                Some((key, value)) if visit(key, value) => {}
                _ => return Ok(()),
            }
        }
    }
}

impl StateStore for MemoryStore {
    fn write(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for op in &batch.ops {
            match op {
                Op::Put(key, value) => {
                    rows.insert(key.clone(), value.clone());
                }
                Op::Delete(key) => {
                    rows.remove(key);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_store_keeps_the_contract() {
        crate::store::contract::suite(MemoryStore::new);
    }

    #[test]
    fn a_copy_is_independent() {
        let store = MemoryStore::new();
        let mut batch = WriteBatch::default();
        batch.put(&b"k"[..], &b"v"[..]);
        store.write(&batch).unwrap();
        let copy = store.clone();
        batch = WriteBatch::default();
        batch.delete(&b"k"[..]);
        store.write(&batch).unwrap();
        assert_eq!((store.rows().len(), copy.rows().len()), (0, 1));
    }
}
