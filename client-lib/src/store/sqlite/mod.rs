//! The store on a disk: SQLite in WAL mode.

mod changes;
mod load;
mod outbox;
mod schema;
mod timeline;
mod values;

use std::path::Path;

use parking_lot::Mutex;
use rove_client_core::outbox::Change as OutboxChange;
use rove_protocol::ids::{ConversationId, WriterId};
use rusqlite::{Connection, OptionalExtension, params};

use super::sidecar::{Sidecar, StoreLock, open_private};
use super::{Change, Loaded};
use crate::Error;
use changes::{apply, change_conversation, conversation_key};
use values::{failed, int, sixteen, uint};

struct Inner {
    connection: Connection,
    sidecar: Sidecar,
    /// Commits that gave numbers, here and beside.
    commits: u64,
    writer: WriterId,
    synchronous: Option<bool>,
}

/// See the module.
pub(crate) struct SqliteStore {
    inner: Mutex<Inner>,
    _lock: StoreLock,
}

impl SqliteStore {
    pub(in crate::store) fn open(path: &Path, random: impl Fn() -> WriterId) -> Result<(Self, Loaded), Error> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| Error::Store(format!("{}: {error}", folder.display())))?;
        }
        let lock = StoreLock::take(path)?;
        // Before SQLite makes it: it holds the device's secret. The files beside it take over its permissions.
        drop(open_private(path)?);
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", false).map_err(failed)?;
        schema::migrate(&mut connection)?;
        let mut loaded = load::load(&connection).map_err(failed)?;
        let (mut sidecar, beside) = Sidecar::open(path)?;
        let stored: Option<(WriterId, u64)> = connection
            .query_row("SELECT writer, commits FROM writer", [], |row| Ok((WriterId(sixteen(row, 0)?), uint(row, 1)?)))
            .optional()
            .map_err(failed)?;
        let (writer, commits) = match (stored, beside) {
            (Some(stored), Some(beside)) if stored == beside => stored,
            (stored, _) => {
                loaded.was_copy = stored.is_some();
                let writer = (random(), stored.map_or(0, |(_, commits)| commits));
                sidecar.write(writer.0, writer.1)?;
                connection
                    .execute(
                        "INSERT INTO writer VALUES (1, ?1, ?2, 0) ON CONFLICT DO UPDATE SET writer = ?1, commits = ?2",
                        params![writer.0.0, int(writer.1)],
                    )
                    .map_err(failed)?;
                writer
            }
        };
        loaded.writer = writer;
        let inner = Inner { connection, sidecar, commits, writer, synchronous: None };
        Ok((Self { inner: Mutex::new(inner), _lock: lock }, loaded))
    }

    pub(in crate::store) fn write(&self, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.inner.lock().write(changes)
    }

    pub(in crate::store) fn wipe(&self) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        let transaction = inner.connection.transaction().map_err(failed)?;
        for table in schema::TABLES {
            transaction.execute(&format!("DELETE FROM {table}"), []).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        // The secret is not to be found in the file's free pages.
        inner.connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").map_err(failed)
    }
}

impl Inner {
    /// FULL syncs the commit to the disk; NORMAL leaves that to the next checkpoint and survives a crash of the program,
    /// not a power failure, which then looks like a slightly older store: the server tells the rest again.
    fn set_synchronous(&mut self, full: bool) -> Result<(), Error> {
        if self.synchronous != Some(full) {
            let mode = if full { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", mode).map_err(failed)?;
            self.synchronous = Some(full);
        }
        Ok(())
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.set_synchronous(changes.iter().any(Change::is_durable))?;
        let gives_numbers = changes.iter().any(
            |change| matches!(change, Change::Outbox { change: OutboxChange::Put(item), .. } if item.number.is_some()),
        );
        let mut writer = self.writer;
        for change in changes {
            if let Change::Writer(minted) = change {
                writer = *minted;
            }
        }
        let commits = self.commits + u64::from(gives_numbers);
        if (writer, commits) != (self.writer, self.commits) {
            self.sidecar.write(writer, commits)?;
        }
        let result = self.transact(changes, writer, commits).map_err(failed);
        match result {
            Ok(()) => (self.writer, self.commits) = (writer, commits),
            // Best effort: if it fails too, the next opening mints a writer without need.
            Err(_) => _ = self.sidecar.write(self.writer, self.commits),
        }
        result
    }

    fn transact(&mut self, changes: &[Change], writer: WriterId, commits: u64) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        if (writer, commits) != (self.writer, self.commits) {
            transaction
                .prepare_cached("UPDATE writer SET writer = ?1, commits = ?2")?
                .execute(params![writer.0, int(commits)])?;
        }
        let mut last: Option<(ConversationId, i64)> = None;
        for change in changes {
            let key = match change_conversation(change) {
                None => 0,
                Some(id) => match last {
                    Some((known, key)) if known == id => key,
                    _ => {
                        let key = conversation_key(&transaction, id)?;
                        last = Some((id, key));
                        key
                    }
                },
            };
            apply(&transaction, key, change)?;
        }
        transaction.commit()
    }
}
