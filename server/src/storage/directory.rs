//! The directory in SQLite.
//!
//! WAL mode with `synchronous = NORMAL`: a commit does not wait for the disk, because the raft log has what was applied
//! and replays it after a crash. The applied index is a row written in the same transaction as what it stands for, so
//! after any crash the two agree, however far back they are. [`DirectoryDb::checkpoint`] moves the log of SQLite into the database
//! file with the syncs that make it durable, and only what it reports may be cut from the raft log (D12).

mod files;
mod reader;
mod schema;
mod snapshot;
mod sql;

use std::path::Path;
use std::time::Duration;

use rove_core::directory::{DirectoryError, DirectoryRead, DirectoryStore, DirectoryTx};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use files::DirectoryFiles;
pub use reader::DirectoryReader;
pub use snapshot::{DirectoryCapture, DirectoryCopy, StagedDirectory};
pub use sql::DirectoryRows;

/// How long a connection waits for another one's lock: the writer never holds one longer than a transaction of one round.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements kept by a connection: more than there are.
const STATEMENTS: usize = 64;
/// The WAL file is cut back to this after a checkpoint, so that one burst does not keep its disk space.
const WAL_BYTES: u32 = 16 * 1024 * 1024;

/// The directory's database: its one writer.
#[derive(Debug)]
pub struct DirectoryDb {
    files: DirectoryFiles,
    connection: Connection,
}

impl DirectoryDb {
    /// Opens or makes the database in the folder `dir` (made too, for this user alone) and brings its schema up to date.
    ///
    /// # Errors
    /// The folder or the file cannot be used, is no database, or was written by a newer program.
    pub fn open(dir: &Path) -> Result<Self, DirectoryError> {
        let files = DirectoryFiles::open(dir)?;
        let path = files.database(files.current());
        let made = files::create(&path).and_then(|file| file.sync_all());
        // The name of a new file is durable only once its folder is.
        made.and_then(|()| files.sync()).map_err(|error| files::failed(&path, &error))?;
        let connection = Self::open_database(&path)?;
        Ok(Self { files, connection })
    }

    /// A connection that writes, to a database of the newest schema.
    fn open_database(path: &Path) -> Result<Connection, DirectoryError> {
        let mut connection = connect(path)?;
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql::store)?;
        if mode != "wal" {
            return Err(DirectoryError::Store(format!("{}: WAL mode is not possible here ({mode})", path.display())));
        }
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(sql::store)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES).map_err(sql::store)?;
        schema::migrate(&mut connection)?;
        Ok(connection)
    }

    /// The folder that it is in.
    pub fn files(&self) -> &DirectoryFiles {
        &self.files
    }

    /// Begins a transaction. Dropping it undoes it.
    ///
    /// # Errors
    /// The database's.
    pub fn begin(&mut self) -> Result<DirectoryRows<Transaction<'_>>, DirectoryError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql::store)?;
        Ok(DirectoryRows::new(transaction))
    }

    /// What is committed, seen by the writer's own connection.
    pub fn committed(&self) -> DirectoryRows<&Connection> {
        DirectoryRows::new(&self.connection)
    }

    /// A reader of its own.
    ///
    /// # Errors
    /// The database's.
    pub fn reader(&self) -> Result<DirectoryReader, DirectoryError> {
        DirectoryReader::open(self.files.clone())
    }

    /// Makes what is committed durable and returns the applied index that is durable now, or `None` if a reader was in
    /// the way: try again later. Does not wait for readers.
    ///
    /// # Errors
    /// The database's: then nobody knows what is on the disk.
    pub fn checkpoint(&mut self) -> Result<Option<u64>, DirectoryError> {
        let (busy, frames, moved): (i64, i64, i64) = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(sql::store)?;
        if busy != 0 || frames != moved {
            return Ok(None);
        }
        // Nobody else writes, so what is committed now is what the checkpoint moved.
        Ok(Some(self.committed().meta()?.applied))
    }
}

impl DirectoryStore for DirectoryDb {
    fn transaction(
        &mut self,
        work: &mut dyn FnMut(&mut dyn DirectoryTx) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        let mut rows = self.begin()?;
        work(&mut rows)?;
        rows.commit()
    }

    fn read(
        &self,
        work: &mut dyn FnMut(&dyn DirectoryRead) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        work(self.reader()?.rows()?)
    }
}

/// A connection that writes.
fn connect(path: &Path) -> Result<Connection, DirectoryError> {
    open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// A connection that reads what is committed.
fn read_only(path: &Path) -> Result<Connection, DirectoryError> {
    open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn open_with(path: &Path, mode: OpenFlags) -> Result<Connection, DirectoryError> {
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sql::store)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sql::store)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

#[cfg(test)]
mod tests;
