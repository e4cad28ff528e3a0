//! Snapshots of a partition's state: captured at one moment, sent in chunks, staged beside the state there is, and made current by one
//! flushed batch.
//!
//! A chunk is a whole number of rows, each `length of the key (4) | length of the value (4) | key | value`; the key without its
//! partition and generation.

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions};
use rove_core::conversation::{partition_key, read};
use rove_core::replica::Install;
use rove_core::store::StoreError;
use rove_protocol::ids::PartitionId;

use super::generation::{PREFIX, decode_row, encode_row, end_of, prefix, row_key};
use super::{StateDb, error, rows};

/// The state of a partition at one moment. Holds back compaction while it lives.
pub struct Capture<'a> {
    rows: DBRawIterator<'a>,
    applied: u64,
    /// Which chunk `rows` is at the beginning of.
    next: u64,
}

impl Capture<'_> {
    /// The last entry that it has applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Chunk `number`, from 0, of at most `limit` bytes; `None` after the last. The same bytes each time.
    ///
    /// # Errors
    /// [`StoreError`]; also if a single row is larger than a chunk.
    pub fn chunk(&mut self, number: u64, limit: usize) -> Result<Option<Bytes>, StoreError> {
        if number < self.next {
            self.rows.seek_to_first();
            self.next = 0;
        }
        loop {
            let chunk = self.next_chunk(limit)?;
            self.next += 1;
            if self.next > number {
                return Ok((!chunk.is_empty()).then(|| chunk.into()));
            }
        }
    }

    fn next_chunk(&mut self, limit: usize) -> Result<Vec<u8>, StoreError> {
        let mut chunk = Vec::new();
        while let Some((key, value)) = self.rows.item() {
            let key = key.get(PREFIX..).unwrap_or_default();
            let size = 8 + key.len() + value.len();
            if size > limit {
                return Err(StoreError::Failed(format!("a row of {size} bytes is larger than a chunk")));
            }
            if chunk.len() + size > limit {
                break;
            }
            for part in [key, value] {
                // Smaller than a chunk.
                chunk.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            }
            chunk.extend_from_slice(key);
            chunk.extend_from_slice(value);
            self.rows.next();
        }
        self.rows.status().map_err(error)?;
        Ok(chunk)
    }
}

/// A generation that a snapshot is being written to. Nobody reads it. What is not installed is to be given to
/// [`StateDb::discard`]; what a crash leaves of it goes at the next start.
#[derive(Debug, PartialEq, Eq)]
pub struct Staging {
    partition: PartitionId,
    generation: u32,
}

impl Staging {
    /// Of which partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }
}

impl StateDb {
    /// The state of a partition as it is now, to be sent to a peer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn capture(&self, partition: PartitionId) -> Result<Capture<'_>, StoreError> {
        let mut options = ReadOptions::default();
        // It passes once over what is mostly not asked for otherwise.
        options.fill_cache(false);
        let mut rows = self.generations.with(|table| {
            let generation = table.of(partition.0);
            rows(&self.db, options, (prefix(partition.0, generation).to_vec(), end_of(partition.0, generation)))
        })?;
        let key = partition_key(partition);
        rows.seek_to_first();
        // It is the first of the partition's keys.
        let row = rows.item().filter(|(physical, _)| physical.get(PREFIX..) == key.get(2..)).map(|(_, row)| row);
        let applied =
            row.map(read::partition_row).transpose().map_err(|error| StoreError::Corrupt(error.to_string()))?;
        rows.status().map_err(error)?;
        Ok(Capture { rows, applied: applied.map_or(0, |row| row.applied), next: 0 })
    }

    /// A new generation of a partition, beside its state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stage(&self, partition: PartitionId) -> Result<Staging, StoreError> {
        Ok(Staging { partition, generation: self.generations.allocate(partition)? })
    }

    /// Writes the rows of a chunk. Not durable before [`StateDb::install`].
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]: it is not what [`Capture::chunk`] makes; nothing of it is written.
    pub fn stage_chunk(&self, staging: &Staging, mut chunk: &[u8]) -> Result<(), StoreError> {
        let mut batch = rocksdb::WriteBatch::default();
        let mut physical = prefix(staging.partition.0, staging.generation).to_vec();
        while !chunk.is_empty() {
            let (key, value, rest) =
                split_row(chunk).ok_or_else(|| StoreError::Corrupt("a chunk of a snapshot".to_owned()))?;
            physical.truncate(PREFIX);
            physical.extend_from_slice(key);
            batch.put(&physical, value);
            chunk = rest;
        }
        self.db.write_opt(batch, &self.staged).map_err(error)
    }

    /// Forgets what was staged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn discard(&self, staging: &Staging) -> Result<(), StoreError> {
        self.delete(staging.partition, staging.generation)
    }

    /// The last entry that a staged state has applied; 0 if it is none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn staged_applied(&self, staging: &Staging) -> Result<u64, StoreError> {
        let mut key = prefix(staging.partition.0, staging.generation).to_vec();
        key.extend_from_slice(partition_key(staging.partition).get(2..).unwrap_or_default());
        let row = self.db.get_pinned(key).map_err(error)?;
        let row = row.map(|row| read::partition_row(&row)).transpose();
        Ok(row.map_err(|error| StoreError::Corrupt(error.to_string()))?.map_or(0, |row| row.applied))
    }

    /// Makes a staged state the partition's, durably, and deletes the one before. The caller is the partition's only writer. Whoever
    /// dies in here finds the one or the other, whole, and [`StateDb::installed`] tells which.
    ///
    /// # Errors
    /// [`StoreError`]: then nobody knows which, and the node stops.
    pub fn install(&self, staging: &Staging, install: &Install) -> Result<(), StoreError> {
        self.write_installed(staging, install)?;
        let before = self.generations.flip(staging.partition, staging.generation);
        self.delete(staging.partition, before)
    }

    /// The batch that makes it current, flushed with everything before it: readers see it only after that.
    pub(super) fn write_installed(&self, staging: &Staging, install: &Install) -> Result<(), StoreError> {
        let mut batch = rocksdb::WriteBatch::default();
        batch.put(row_key(staging.partition), encode_row(staging.generation, install)?);
        self.db.write_opt(batch, &self.unlogged).map_err(error)?;
        self.flush()
    }

    /// The snapshot that the state of `partition` came from last; nothing if it never did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn installed(&self, partition: PartitionId) -> Result<Option<Install>, StoreError> {
        let row = self.db.get_pinned(row_key(partition)).map_err(error)?;
        row.map(|row| decode_row(&row).map(|(_, install)| install)).transpose()
    }

    /// Gives the disk back what was deleted of the generations before the current one. Takes long, and is in nobody's way.
    pub fn reclaim(&self, partition: PartitionId) {
        let current = self.generations.with(|table| table.of(partition.0));
        self.db.compact_range(Some(prefix(partition.0, 0)), Some(prefix(partition.0, current)));
    }

    fn delete(&self, partition: PartitionId, generation: u32) -> Result<(), StoreError> {
        let mut batch = rocksdb::WriteBatch::default();
        batch.delete_range(prefix(partition.0, generation).to_vec(), end_of(partition.0, generation));
        self.db.write_opt(batch, &self.unlogged).map_err(error)
    }
}

/// The key and the value of a chunk's first row, and what follows it. Every row has a key.
fn split_row(chunk: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, rest) = chunk.split_first_chunk()?;
    let (value, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*key)).ok()?)?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*value)).ok()?)?;
    (!key.is_empty()).then_some((key, value, rest))
}
