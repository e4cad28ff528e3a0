//! What the state machines need of a store: ordered keys, atomic batches.
//!
//! Keys begin with the partition (two bytes, big endian) and a table byte, so that the state of a partition is one range
//! of keys: a snapshot is a scan. A batch is atomic but not durable: what is not flushed when the power goes comes again
//! from the log (D12). [`memory`] is the store of tests and of the simulator, [`contract`] what every store must pass.

pub mod contract;
pub mod memory;

use std::sync::Arc;

use bytes::Bytes;

pub use memory::MemoryStore;

/// A store that failed. The node stops applying: a state that cannot be read or written is not guessed at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What was written is not what was read.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The disk or the library failed.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Reads.
pub trait StateRead {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the keys in `[from, to)`, ascending or descending, until `visit` returns false. What is visited is one
    /// moment of the store, whatever is written meanwhile. An empty or inverted range visits nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        descending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}

/// Writes.
pub trait StateStore: StateRead {
    /// Does all of the batch, in order, or nothing. Visible at once, durable once flushed.
    ///
    /// # Errors
    /// [`StoreError`]; the batch then counts as not written.
    fn write(&self, batch: &WriteBatch) -> Result<(), StoreError>;
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key, if it is there.
    Delete(Bytes),
}

/// Changes that happen together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// In the order they are done: the last one about a key counts.
    pub ops: Vec<Op>,
}

impl WriteBatch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put(key.into(), value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete(key.into()));
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        let size = |op: &Op| match op {
            Op::Put(key, value) => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        };
        self.ops.iter().map(size).sum()
    }
}

macro_rules! read_through {
    ($($type:ty),*) => {$(
        impl<T: StateRead + ?Sized> StateRead for $type {
            fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
                (**self).get(key)
            }
            fn scan(
                &self,
                from: &[u8],
                to: &[u8],
                descending: bool,
                visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
            ) -> Result<(), StoreError> {
                (**self).scan(from, to, descending, visit)
            }
        }
    )*};
}
read_through!(&T, Arc<T>);

macro_rules! write_through {
    ($($type:ty),*) => {$(
        impl<T: StateStore + ?Sized> StateStore for $type {
            fn write(&self, batch: &WriteBatch) -> Result<(), StoreError> {
                (**self).write(batch)
            }
        }
    )*};
}
write_through!(&T, Arc<T>);
