//! The directory in SQLite.
//!
//! WAL mode with `synchronous = NORMAL`: a commit does not wait for the disk, because the raft log has what was applied
//! and replays it after a crash. The applied index is a row written in the same transaction as what it stands for, so
//! after any crash the two agree, however far back they are. [`DirectoryDb::checkpoint`] moves the log of SQLite into the database
//! file with the syncs that make it durable, and only what it reports may be cut from the raft log (D12).

mod schema;
mod sql;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rove_core::directory::{DirectoryError, DirectoryRead, DirectoryStore, DirectoryTx};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use sql::DirectoryRows;

/// The file in the directory's folder.
const FILE: &str = "directory.db";
/// How long a connection waits for another one's lock: the writer never holds one longer than a transaction of one round.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements kept by a connection: more than there are.
const STATEMENTS: usize = 64;
/// The WAL file is cut back to this after a checkpoint, so that one burst does not keep its disk space.
const WAL_BYTES: u32 = 16 * 1024 * 1024;

/// The directory's database: its one writer.
#[derive(Debug)]
pub struct DirectoryDb {
    path: PathBuf,
    connection: Connection,
}

impl DirectoryDb {
    /// Opens or makes the database in the folder `dir` (made too, for this user alone: it holds password hashes) and
    /// brings its schema up to date.
    ///
    /// # Errors
    /// The folder or the file cannot be used, is no database, or was written by a newer program.
    pub fn open(dir: &Path) -> Result<Self, DirectoryError> {
        let path = dir.join(FILE);
        make_private(dir, &path).map_err(|error| DirectoryError::Store(format!("{}: {error}", path.display())))?;
        let mut connection = Connection::open_with_flags(
            &path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(sql::store)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sql::store)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql::store)?;
        if mode != "wal" {
            return Err(DirectoryError::Store(format!("{}: WAL mode is not possible here ({mode})", path.display())));
        }
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(sql::store)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES).map_err(sql::store)?;
        schema::migrate(&mut connection)?;
        Ok(Self { path, connection })
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

    /// A connection of its own that reads what is committed and cannot write: one for each thread of the read pool.
    ///
    /// # Errors
    /// The database's.
    pub fn reader(&self) -> Result<DirectoryRows<Box<Connection>>, DirectoryError> {
        let connection =
            Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                .map_err(sql::store)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sql::store)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(DirectoryRows::new(Box::new(connection)))
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
        work(&self.reader()?)
    }
}

/// Makes the folder and the file so that only this user may look inside; SQLite gives its other files the same mode.
fn make_private(dir: &Path, file: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(file)?.sync_all()?;
    // The name of a new file is durable only once its folder is.
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rove_core::directory::{DirectoryMachine, contract};

    use super::*;

    #[test]
    fn sqlite_keeps_what_every_directory_store_keeps() {
        contract::suite(|| {
            let dir = tempfile::tempdir().unwrap();
            let db = DirectoryDb::open(dir.path()).unwrap();
            Kept { db, _dir: dir }
        });
    }

    /// A database that takes its folder with it.
    struct Kept {
        db: DirectoryDb,
        _dir: tempfile::TempDir,
    }

    impl DirectoryStore for Kept {
        fn transaction(
            &mut self,
            work: &mut dyn FnMut(&mut dyn DirectoryTx) -> Result<(), DirectoryError>,
        ) -> Result<(), DirectoryError> {
            self.db.transaction(work)
        }
        fn read(
            &self,
            work: &mut dyn FnMut(&dyn DirectoryRead) -> Result<(), DirectoryError>,
        ) -> Result<(), DirectoryError> {
            self.db.read(work)
        }
    }

    #[test]
    fn a_database_opened_again_continues_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = DirectoryDb::open(dir.path()).unwrap();
        let mut machine = DirectoryMachine::load(&db.committed()).unwrap();
        let mut rows = db.begin().unwrap();
        machine.apply(&mut rows, 1, &contract::sign_up(1, 5_000, "alice"), &mut Vec::new()).unwrap();
        rows.commit().unwrap();
        assert_eq!(db.checkpoint().unwrap(), Some(1));
        drop(db);

        let db = DirectoryDb::open(dir.path()).unwrap();
        let again = DirectoryMachine::load(&db.committed()).unwrap();
        assert_eq!((again.applied(), again.state_hash()), (1, machine.state_hash()));
        assert!(db.reader().unwrap().account_by_handle("alice").unwrap().is_some());
    }

    #[test]
    fn what_a_reader_still_needs_is_not_called_durable() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = DirectoryDb::open(dir.path()).unwrap();
        let mut machine = DirectoryMachine::load(&db.committed()).unwrap();
        let reader = Connection::open(dir.path().join(FILE)).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let _: i64 = reader.query_row("SELECT count(*) FROM account", [], |row| row.get(0)).unwrap();
        let mut rows = db.begin().unwrap();
        machine.apply(&mut rows, 1, &contract::sign_up(1, 5_000, "alice"), &mut Vec::new()).unwrap();
        rows.commit().unwrap();
        assert_eq!(db.checkpoint().unwrap(), None);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(db.checkpoint().unwrap(), Some(1));
    }

    #[test]
    fn a_schema_of_the_future_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DirectoryDb::open(dir.path()).unwrap());
        Connection::open(dir.path().join(FILE)).unwrap().pragma_update(None, "user_version", 999).unwrap();
        assert!(matches!(DirectoryDb::open(dir.path()), Err(DirectoryError::SchemaTooNew { found: 999, .. })));
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), [7; 8_192]).unwrap();
        assert!(matches!(DirectoryDb::open(dir.path()), Err(DirectoryError::Store(_))));
    }

    #[test]
    fn only_the_owner_may_look_inside() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("directory");
        let mut db = DirectoryDb::open(&folder).unwrap();
        let mut machine = DirectoryMachine::load(&db.committed()).unwrap();
        let mut rows = db.begin().unwrap();
        machine.apply(&mut rows, 1, &contract::sign_up(1, 5_000, "alice"), &mut Vec::new()).unwrap();
        rows.commit().unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }

    #[test]
    fn a_reader_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let db = DirectoryDb::open(dir.path()).unwrap();
        let reader = db.reader().unwrap();
        assert!(reader.connection().execute("DELETE FROM account", []).is_err());
    }
}
