//! Snapshots of the directory: the database as a file, in chunks.
//!
//! The copy for a peer is made by SQLite's backup within one read transaction, so that it is of one moment, and known to be before it
//! is made: the log after that moment is kept meanwhile.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rove_core::directory::{DirectoryError, DirectoryRead as _};
use rove_core::replica::Install;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::files::{DirectoryFiles, delete_database, failed};
use super::sql::{self, DirectoryRows};
use super::{DirectoryDb, connect, read_only, schema};

/// Pages copied before the caller is asked whether to go on: 4 MiB.
const PAGES: i32 = 1_024;

/// One moment of the directory, to be copied. Holds back checkpoints while it lives.
pub struct DirectoryCapture {
    files: DirectoryFiles,
    connection: Connection,
    applied: u64,
}

impl DirectoryCapture {
    /// The last entry that it has applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Copies everything into a file of its own; asks `go_on` again and again. Nothing if that said no.
    ///
    /// # Errors
    /// The disk's, or the database's.
    pub fn copy(self, go_on: impl Fn() -> bool) -> Result<Option<DirectoryCopy>, DirectoryError> {
        let (path, file) = self.files.create_copy()?;
        // What was made goes with this, whatever fails from here on.
        let copy = DirectoryCopy { path, file };
        let mut to = connect(&copy.path)?;
        // A copy that is not complete is deleted: nothing of it has to outlive a crash.
        to.pragma_update(None, "synchronous", "OFF").map_err(sql::store)?;
        let backup = Backup::new(&self.connection, &mut to).map_err(sql::store)?;
        while go_on() {
            match backup.step(PAGES).map_err(sql::store)? {
                StepResult::Done => return Ok(Some(copy)),
                StepResult::More => {}
                other => return Err(DirectoryError::Store(format!("the copy cannot be made: {other:?}"))),
            }
        }
        Ok(None)
    }
}

/// A copy of the directory in a file of its own, which goes with this.
pub struct DirectoryCopy {
    path: PathBuf,
    file: File,
}

impl DirectoryCopy {
    /// Chunk `number`, from 0, of `limit` bytes, but for the last; `None` after it.
    ///
    /// # Errors
    /// The disk's.
    pub fn chunk(&self, number: u64, limit: usize) -> std::io::Result<Option<Bytes>> {
        let mut chunk = vec![0; limit];
        let mut filled = 0;
        while filled < limit {
            let at = number.saturating_mul(limit as u64).saturating_add(filled as u64);
            match self.file.read_at(&mut chunk[filled..], at)? {
                0 => break,
                read => filled += read,
            }
        }
        chunk.truncate(filled);
        Ok((filled > 0).then(|| chunk.into()))
    }
}

impl Drop for DirectoryCopy {
    fn drop(&mut self) {
        delete_or_say(&self.path);
    }
}

/// A database that is coming in from a peer. Nobody reads it. What is not installed is to be given to [`StagedDirectory::discard`];
/// what a crash leaves of it goes at the next start.
#[derive(Debug)]
pub struct StagedDirectory {
    number: u32,
    path: PathBuf,
    file: File,
}

impl StagedDirectory {
    /// Appends a chunk. Not durable before [`StagedDirectory::applied`].
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), DirectoryError> {
        self.file.write_all(chunk).map_err(|error| failed(&self.path, &error))
    }

    /// Makes it durable, looks through all of it, and says what it has applied last. Takes as long as reading it.
    ///
    /// # Errors
    /// The disk's; it is damaged, no database of ours, or was written by a newer program.
    pub fn applied(&self) -> Result<u64, DirectoryError> {
        let sync = || self.file.sync_all();
        sync().map_err(|error| failed(&self.path, &error))?;
        let connection = connect(&self.path)?;
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql::store)?;
        if found != "ok" {
            return Err(DirectoryError::Corrupt(found));
        }
        schema::check(&connection)?;
        let applied = DirectoryRows::new(&connection).meta()?.applied;
        connection.close().map_err(|(_, error)| sql::store(error))?;
        sync().map_err(|error| failed(&self.path, &error))?;
        Ok(applied)
    }

    /// Forgets it.
    pub fn discard(self) {
        delete_or_say(&self.path);
    }
}

impl DirectoryFiles {
    /// The directory as it is now, to be copied for a peer.
    ///
    /// # Errors
    /// The database's.
    pub fn capture(&self) -> Result<DirectoryCapture, DirectoryError> {
        let connection = read_only(&self.database(self.current()))?;
        connection.execute_batch("BEGIN").map_err(sql::store)?;
        // The first read is the moment.
        let applied = DirectoryRows::new(&connection).meta()?.applied;
        Ok(DirectoryCapture { files: self.clone(), connection, applied })
    }

    /// A new database, beside the current one.
    ///
    /// # Errors
    /// The disk's.
    pub fn stage(&self) -> Result<StagedDirectory, DirectoryError> {
        let (number, path, file) = self.create_database()?;
        Ok(StagedDirectory { number, path, file })
    }
}

impl DirectoryDb {
    /// Makes a staged database the current one, durably, and deletes the one before. Readers follow by themselves. Whoever dies in here
    /// finds the one or the other, and [`DirectoryFiles::installed`] tells which.
    ///
    /// # Errors
    /// The disk's, or the database's: then nobody knows which, and the node stops.
    pub fn install(&mut self, staged: StagedDirectory, install: &Install) -> Result<(), DirectoryError> {
        let before = self.files.database(self.files.current());
        let StagedDirectory { number, path, file } = staged;
        drop(file);
        let connection = Self::open_database(&path)?;
        self.files.sync().map_err(|error| failed(&path, &error))?;
        self.files.make_current(number, install)?;
        // Closed before its files go.
        drop(std::mem::replace(&mut self.connection, connection));
        delete_or_say(&before);
        Ok(())
    }
}

fn delete_or_say(path: &Path) {
    if let Err(error) = delete_database(path) {
        // What stays goes at the next start.
        tracing::warn!(path = %path.display(), %error, "a copy of the directory could not be deleted");
    }
}
