//! Which generation of a partition's state is the current one, and how keys are laid out on disk.
//!
//! ```text
//! partition (2) | generation (4) | the rest of the core's key       a row of the state
//! 0xffff | 'l'                                                      the layout of all this
//! 0xffff | 'g' | partition (2)                                      the current generation, and the snapshot it came from
//! ```
//!
//! There is no partition 65,535. A partition without a row of its own is in generation 0. Whatever is on disk of another generation than
//! the current one is what a crash left of a snapshot that was being staged, or of a state that was replaced: it goes when the state is
//! opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rocksdb::{DB, WriteOptions};
use rove_core::replica::Install;
use rove_core::store::StoreError;
use rove_protocol::ids::PartitionId;

use super::error;
use crate::storage::installed;

/// The layout this program writes. 1 had no generations and was never released.
const LAYOUT: u8 = 2;

/// Where rows are that belong to no partition.
const META: [u8; 2] = [0xff, 0xff];
const LAYOUT_KEY: [u8; 3] = [META[0], META[1], b'l'];
const GENERATION_TABLE: u8 = b'g';

/// Bytes of a key on disk before what the core's key has after its partition.
pub(super) const PREFIX: usize = 6;

/// The current generation of each partition, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(Arc<Vec<u32>>);

impl Table {
    pub(super) fn of(&self, partition: u16) -> u32 {
        self.0.get(usize::from(partition)).copied().unwrap_or(0)
    }

    /// A key of the core as it is on disk.
    pub(super) fn physical(&self, key: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut physical = Vec::with_capacity(key.len() + PREFIX);
        self.put_physical(key, &mut physical)?;
        Ok(physical)
    }

    /// The same, into a buffer.
    pub(super) fn put_physical(&self, key: &[u8], into: &mut Vec<u8>) -> Result<(), StoreError> {
        let (partition, rest) = split(key)?;
        into.clear();
        into.extend(prefix(partition, self.of(partition)));
        into.extend_from_slice(rest);
        Ok(())
    }

    /// A range of the core's keys, within one partition, as it is on disk.
    pub(super) fn range(&self, from: &[u8], to: &[u8]) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let (partition, _) = split(from)?;
        let generation = self.of(partition);
        let end = match split(to) {
            Ok((same, _)) if same == partition => self.physical(to)?,
            Ok((next, [])) if partition.checked_add(1) == Some(next) => end_of(partition, generation),
            Ok(_) | Err(_) => return Err(StoreError::Failed("a range of more than one partition".to_owned())),
        };
        Ok((self.physical(from)?, end))
    }
}

/// The partition of one of the core's keys, and the rest of it.
fn split(key: &[u8]) -> Result<(u16, &[u8]), StoreError> {
    match key.split_first_chunk() {
        Some((partition, rest)) if *partition != META => Ok((u16::from_be_bytes(*partition), rest)),
        _ => Err(StoreError::Failed("a key of no partition".to_owned())),
    }
}

/// What all keys of a generation begin with.
pub(super) fn prefix(partition: u16, generation: u32) -> [u8; PREFIX] {
    let mut prefix = [0; PREFIX];
    let (first, second) = prefix.split_at_mut(2);
    first.copy_from_slice(&partition.to_be_bytes());
    second.copy_from_slice(&generation.to_be_bytes());
    prefix
}

/// Where the keys of a generation end.
pub(super) fn end_of(partition: u16, generation: u32) -> Vec<u8> {
    match generation.checked_add(1) {
        Some(next) => prefix(partition, next).to_vec(),
        None => partition.saturating_add(1).to_be_bytes().to_vec(),
    }
}

/// The core's key of one on disk, into a buffer.
pub(super) fn put_logical(physical: &[u8], into: &mut Vec<u8>) -> Result<(), StoreError> {
    let (Some(partition), Some(rest)) = (physical.get(..2), physical.get(PREFIX..)) else {
        return Err(StoreError::Corrupt("a key of no generation".to_owned()));
    };
    into.clear();
    into.extend_from_slice(partition);
    into.extend_from_slice(rest);
    Ok(())
}

/// The row of a partition that was installed from a snapshot.
pub(super) fn row_key(partition: PartitionId) -> [u8; 5] {
    let [a, b] = partition.0.to_be_bytes();
    [META[0], META[1], GENERATION_TABLE, a, b]
}

/// What it says: see [`installed`].
pub(super) fn encode_row(generation: u32, install: &Install) -> Result<Vec<u8>, StoreError> {
    installed::encode(generation, install).ok_or_else(|| StoreError::Failed("the row of a generation".to_owned()))
}

pub(super) fn decode_row(row: &[u8]) -> Result<(u32, Install), StoreError> {
    installed::decode(row).ok_or_else(|| StoreError::Corrupt("the row of a generation".to_owned()))
}

/// The generations of all partitions.
pub(super) struct Generations {
    current: RwLock<Table>,
    /// The highest generation that was used since the state was opened, where it is not the current one.
    used: Mutex<BTreeMap<u16, u32>>,
}

impl Generations {
    /// Reads which generations are current, and deletes what there is of others.
    pub(super) fn open(db: &DB, unlogged: &WriteOptions) -> Result<Self, StoreError> {
        let mut rows = db.raw_iterator();
        rows.seek_to_first();
        let empty = !rows.valid();
        rows.status().map_err(error)?;
        match db.get_pinned(LAYOUT_KEY).map_err(error)?.as_deref() {
            Some([LAYOUT]) => {}
            // Everything that is written later is on disk only if this is.
            None if empty => {
                let mut batch = rocksdb::WriteBatch::default();
                batch.put(LAYOUT_KEY, [LAYOUT]);
                db.write_opt(batch, unlogged).map_err(error)?;
            }
            found => {
                let found = found.and_then(|layout| layout.first()).copied().unwrap_or(1);
                return Err(StoreError::Failed(format!(
                    "it has layout {found}, this program knows {LAYOUT}: use the program that wrote it, or begin with an empty data \
                     directory"
                )));
            }
        }
        let mut current = Vec::new();
        rows.seek([META[0], META[1], GENERATION_TABLE]);
        while let Some((&[_, _, GENERATION_TABLE, a, b], row)) = rows.item() {
            let partition = usize::from(u16::from_be_bytes([a, b]));
            if current.len() <= partition {
                current.resize(partition + 1, 0);
            }
            current[partition] = decode_row(row)?.0;
            rows.next();
        }
        rows.status().map_err(error)?;
        let table = Table(Arc::new(current));
        delete_leftovers(db, unlogged, &table)?;
        Ok(Self { current: RwLock::new(table), used: Mutex::default() })
    }

    /// Does something with the current generations. None of them is deleted before it is done; keep it short, and call nobody.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Table) -> T) -> T {
        f(&self.current.read())
    }

    /// A generation that there is nothing of, to stage a snapshot in.
    pub(super) fn allocate(&self, partition: PartitionId) -> Result<u32, StoreError> {
        let mut used = self.used.lock();
        let newest = used.get(&partition.0).copied().unwrap_or(0).max(self.with(|table| table.of(partition.0)));
        let next = newest.checked_add(1).ok_or_else(|| StoreError::Failed("no generation is left".to_owned()))?;
        used.insert(partition.0, next);
        Ok(next)
    }

    /// From now on `generation` is read and written. Returns the one before.
    pub(super) fn flip(&self, partition: PartitionId, generation: u32) -> u32 {
        let mut current = self.current.write();
        let before = current.of(partition.0);
        let mut table = Vec::clone(&current.0);
        if table.len() <= usize::from(partition.0) {
            table.resize(usize::from(partition.0) + 1, 0);
        }
        table[usize::from(partition.0)] = generation;
        *current = Table(Arc::new(table));
        before
    }
}

/// Deletes every generation but the current ones. Looks at one key of each.
fn delete_leftovers(db: &DB, unlogged: &WriteOptions, table: &Table) -> Result<(), StoreError> {
    let mut batch = rocksdb::WriteBatch::default();
    let mut rows = db.raw_iterator();
    rows.seek_to_first();
    while let Some(key) = rows.key() {
        let Some((partition, rest)) = key.split_first_chunk() else { break };
        let Some((generation, _)) = rest.split_first_chunk() else { break };
        if *partition == META {
            break;
        }
        let (partition, generation) = (u16::from_be_bytes(*partition), u32::from_be_bytes(*generation));
        if generation != table.of(partition) {
            batch.delete_range(prefix(partition, generation).to_vec(), end_of(partition, generation));
        }
        rows.seek(end_of(partition, generation));
    }
    rows.status().map_err(error)?;
    if batch.is_empty() { Ok(()) } else { db.write_opt(batch, unlogged).map_err(error) }
}
