//! What lies beside the database: a lock, so that two processes never share a store, and the writer (D1).
//!
//! The file `….writer` names the store's writer and counts the commits that gave numbers to posts. The database counts
//! the same in the same transactions. A database put back from an old copy has a smaller count (or another writer) than
//! the file that stayed where it was; a database that was moved elsewhere has no such file. Either way it may be a copy
//! whose numbers are used up, and the store takes a new writer. The file is not to be backed up with the database.
//!
//! The file is written before the commit and not synced: after a crash or a power failure between the two the counts
//! differ and a writer is minted without need, which costs nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rove_protocol::ids::WriterId;

use crate::Error;

/// The format: a tag, the writer, the count.
const MAGIC: &[u8; 8] = b"rovewri1";
const LENGTH: usize = 8 + 16 + 8;

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::Store(format!("{what}: {error}"))
}

/// `path` with `extension` after its whole name.
pub(super) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Opens a file that only its owner may read.
pub(super) fn open_private(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| failed(&path.display().to_string(), &error))
}

/// The lock, held as long as the file is open.
#[derive(Debug)]
pub(super) struct StoreLock(#[allow(dead_code, reason = "held, not used")] File);

impl StoreLock {
    /// Takes it, or fails at once if another process (or client) has it.
    pub(super) fn take(path: &Path) -> Result<Self, Error> {
        let file = open_private(&beside(path, "lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::StoreLocked),
            Err(TryLockError::Error(error)) => Err(failed("the lock", &error)),
        }
    }
}

/// The file `….writer`.
#[derive(Debug)]
pub(super) struct Sidecar {
    file: File,
}

impl Sidecar {
    /// Opens it and reads what it says, if it says anything.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<(WriterId, u64)>), Error> {
        let mut file = open_private(&beside(path, "writer"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| failed("the writer's file", &error))?;
        Ok((Self { file }, parse(&bytes)))
    }

    /// Replaces what it says.
    pub(super) fn write(&mut self, writer: WriterId, count: u64) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&writer.0);
        bytes.extend_from_slice(&count.to_be_bytes());
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&bytes))
            .map_err(|error| failed("the writer's file", &error))
    }
}

fn parse(bytes: &[u8]) -> Option<(WriterId, u64)> {
    if bytes.len() != LENGTH || !bytes.starts_with(MAGIC) {
        return None;
    }
    let writer = bytes[8..24].try_into().ok()?;
    let count = bytes[24..].try_into().ok()?;
    Some((WriterId(writer), u64::from_be_bytes(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_reads_back_and_anything_else_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let (mut sidecar, found) = Sidecar::open(&path).unwrap();
        assert_eq!(found, None);
        sidecar.write(WriterId([7; 16]), 1).unwrap();
        sidecar.write(WriterId([7; 16]), 2).unwrap();
        assert_eq!(Sidecar::open(&path).unwrap().1, Some((WriterId([7; 16]), 2)));
        std::fs::write(beside(&path, "writer"), b"half").unwrap();
        assert_eq!(Sidecar::open(&path).unwrap().1, None);
    }

    #[test]
    fn a_second_lock_on_the_same_store_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let first = StoreLock::take(&path).unwrap();
        assert!(matches!(StoreLock::take(&path), Err(Error::StoreLocked)));
        drop(first);
        assert!(StoreLock::take(&path).is_ok());
    }
}
