//! The store on a disk: SQLite in WAL mode.

use std::path::Path;

use bytes::Bytes;
use parking_lot::Mutex;
use rove_client_core::outbox::{self, Draft, Item};
use rove_client_core::sync::Held;
use rove_client_core::timeline::{LocalId, UnavailableRange};
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, MessageId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::registry::{ContentType, ConversationKind, ErrorCode, EventKind, Role, UnavailableReason};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::sidecar::{Sidecar, StoreLock, open_private};
use super::{AccountRow, Change, ConversationRow, Loaded, OutboxRow, named};
use crate::Error;
use crate::types::AccountInfo;

/// The version of the tables, in `user_version`. A newer one is refused, an older one is migrated step by step.
const SCHEMA_VERSION: i64 = 1;

/// Conversations are named by a small integer in the big tables: sixteen bytes less for each event and twice in its index.
const SCHEMA: &str = "
CREATE TABLE account (
    one INTEGER PRIMARY KEY CHECK (one = 1), server TEXT NOT NULL, account INTEGER NOT NULL, device INTEGER NOT NULL,
    handle TEXT NOT NULL, secret BLOB NOT NULL, access_token TEXT NOT NULL, refresh_token TEXT NOT NULL
) STRICT;
CREATE TABLE writer (
    one INTEGER PRIMARY KEY CHECK (one = 1), writer BLOB NOT NULL, commits INTEGER NOT NULL, last_local INTEGER NOT NULL
) STRICT;
CREATE TABLE conversations (
    conversation INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, partition INTEGER NOT NULL DEFAULT 0,
    kind INTEGER NOT NULL DEFAULT 2, role INTEGER NOT NULL DEFAULT 0, title TEXT NOT NULL DEFAULT '',
    peer INTEGER NOT NULL DEFAULT 0, last_message_id INTEGER NOT NULL DEFAULT 0, read INTEGER NOT NULL DEFAULT 0,
    member_count INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0, cursor INTEGER NOT NULL DEFAULT 0,
    head INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0, last_event BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE TABLE events (
    conversation INTEGER NOT NULL, seq INTEGER NOT NULL, refers_to INTEGER NOT NULL, event BLOB NOT NULL,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX referring ON events (conversation, refers_to) WHERE refers_to > 0;
CREATE TABLE unavailable (
    conversation INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, reason INTEGER NOT NULL,
    PRIMARY KEY (conversation, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    local INTEGER PRIMARY KEY, conversation INTEGER NOT NULL, writer BLOB NOT NULL, number INTEGER, created_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL, refers_to INTEGER NOT NULL, content_type INTEGER NOT NULL, crypto_epoch INTEGER NOT NULL,
    mentions BLOB NOT NULL, body BLOB NOT NULL, void INTEGER, refused INTEGER
) STRICT;
CREATE TABLE numbers (
    conversation INTEGER NOT NULL, writer BLOB NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (conversation, writer)
) STRICT, WITHOUT ROWID;
CREATE TABLE inbox (partition INTEGER PRIMARY KEY, message_id INTEGER NOT NULL) STRICT;
CREATE TABLE names (account INTEGER PRIMARY KEY, handle TEXT NOT NULL, name TEXT NOT NULL) STRICT;
";

/// Every table, to empty them.
const TABLES: &[&str] = &["account", "conversations", "events", "unavailable", "outbox", "numbers", "inbox", "names"];

#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn failed(error: rusqlite::Error) -> Error {
    Error::Store(error.to_string())
}

/// SQLite's integers are signed. The registry's numbers and ids fit (D10); anything else comes back as it went in.
fn int(value: u64) -> i64 {
    value.cast_signed()
}

fn uint(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn small(row: &Row<'_>, column: usize) -> rusqlite::Result<u32> {
    row.get(column)
}

fn sixteen(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 16]> {
    row.get(column)
}

fn blob(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    row.get::<_, Vec<u8>>(column).map(Bytes::from)
}

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
    pub(super) fn open(path: &Path, random: impl Fn() -> WriterId) -> Result<(Self, Loaded), Error> {
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
        migrate(&mut connection)?;
        let mut loaded = load(&connection).map_err(failed)?;
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

    pub(super) fn write(&self, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.inner.lock().write(changes)
    }

    pub(super) fn events_after(
        &self,
        id: ConversationId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, Bytes)>, Error> {
        self.events(
            "SELECT seq, event FROM events WHERE conversation = (SELECT conversation FROM conversations WHERE id = ?1)
             AND seq > ?2 ORDER BY seq LIMIT ?3",
            params![id.0, int(after.0), int(limit as u64)],
        )
    }

    pub(super) fn events_before(
        &self,
        id: ConversationId,
        before: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, Bytes)>, Error> {
        let mut events = self.events(
            "SELECT seq, event FROM events WHERE conversation = (SELECT conversation FROM conversations WHERE id = ?1)
             AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
            params![id.0, i64::try_from(before.0).unwrap_or(i64::MAX), int(limit as u64)],
        )?;
        events.reverse();
        Ok(events)
    }

    pub(super) fn referring(&self, id: ConversationId, from: Seq, to: Seq) -> Result<Vec<(Seq, Bytes)>, Error> {
        self.events(
            "SELECT seq, event FROM events WHERE conversation = (SELECT conversation FROM conversations WHERE id = ?1)
             AND refers_to > 0 AND refers_to BETWEEN ?2 AND ?3 ORDER BY seq",
            params![id.0, int(from.0), i64::try_from(to.0).unwrap_or(i64::MAX)],
        )
    }

    fn events(&self, sql: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Vec<(Seq, Bytes)>, Error> {
        let inner = self.inner.lock();
        let mut statement = inner.connection.prepare_cached(sql).map_err(failed)?;
        let rows = statement.query_map(params, |row| Ok((Seq(uint(row, 0)?), blob(row, 1)?))).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn unavailable(&self, id: ConversationId, from: Seq, to: Seq) -> Result<Vec<UnavailableRange>, Error> {
        let inner = self.inner.lock();
        let mut statement = inner
            .connection
            .prepare_cached(
                "SELECT first, last, reason FROM unavailable
                 WHERE conversation = (SELECT conversation FROM conversations WHERE id = ?1)
                 AND first BETWEEN ?2 AND ?3 ORDER BY first",
            )
            .map_err(failed)?;
        let rows = statement
            .query_map(params![id.0, int(from.0), i64::try_from(to.0).unwrap_or(i64::MAX)], |row| {
                let reason = UnavailableReason(small(row, 2)?);
                Ok(UnavailableRange { from: Seq(uint(row, 0)?), to: Seq(uint(row, 1)?), reason })
            })
            .map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn wipe(&self) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        let transaction = inner.connection.transaction().map_err(failed)?;
        for table in TABLES {
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
        let gives_numbers = changes.iter().any(|change| {
            matches!(change, Change::Outbox { change: outbox::Change::Put(item), .. } if item.number.is_some())
        });
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

fn change_conversation(change: &Change) -> Option<ConversationId> {
    match change {
        Change::Conversation(row) => Some(row.id),
        Change::Event { conversation, .. }
        | Change::Unavailable { conversation, .. }
        | Change::Forget(conversation)
        | Change::Outbox { conversation, .. } => Some(*conversation),
        Change::Account(_) | Change::Writer(_) | Change::Inbox(..) | Change::Name(_) => None,
    }
}

fn conversation_key(transaction: &Transaction<'_>, id: ConversationId) -> rusqlite::Result<i64> {
    let found = transaction
        .prepare_cached("SELECT conversation FROM conversations WHERE id = ?1")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    match found {
        Some(key) => Ok(key),
        None => transaction
            .prepare_cached("INSERT INTO conversations (id) VALUES (?1) RETURNING conversation")?
            .query_row([id.0], |row| row.get(0)),
    }
}

fn apply(transaction: &Transaction<'_>, key: i64, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Account(row) => {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO account VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![
                    row.server,
                    int(row.account.0),
                    int(row.device.0),
                    row.handle,
                    &row.secret[..],
                    row.access_token,
                    row.refresh_token
                ])?;
        }
        Change::Writer(_) => {}
        Change::Conversation(row) => {
            transaction
                .prepare_cached(
                    "UPDATE conversations SET partition = ?2, kind = ?3, role = ?4, title = ?5, peer = ?6,
                     last_message_id = ?7, read = ?8, member_count = ?9, floor = ?10, cursor = ?11, head = ?12,
                     epoch = ?13, last_event = ?14 WHERE conversation = ?1",
                )?
                .execute(params![
                    key,
                    row.partition.0,
                    row.kind.0,
                    row.role.0,
                    row.title,
                    int(row.peer.0),
                    int(row.last_message_id.0),
                    int(row.read.0),
                    row.member_count,
                    int(row.held.floor.0),
                    int(row.held.cursor.0),
                    int(row.held.head.0),
                    int(row.held.epoch),
                    &row.last_event[..]
                ])?;
        }
        Change::Event { seq, refers_to, encoded, .. } => {
            transaction.prepare_cached("INSERT OR REPLACE INTO events VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                key,
                int(seq.0),
                int(refers_to.0),
                &encoded[..]
            ])?;
        }
        Change::Unavailable { range, .. } => {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO unavailable VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![key, int(range.from.0), int(range.to.0), range.reason.0])?;
        }
        Change::Forget(_) => {
            transaction.prepare_cached("DELETE FROM events WHERE conversation = ?1")?.execute([key])?;
            transaction.prepare_cached("DELETE FROM unavailable WHERE conversation = ?1")?.execute([key])?;
        }
        Change::Outbox { change, .. } => apply_outbox(transaction, key, change)?,
        Change::Inbox(partition, message_id) => {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO inbox VALUES (?1, ?2)")?
                .execute(params![partition.0, int(message_id.0)])?;
        }
        Change::Name(info) => {
            transaction.prepare_cached("INSERT OR REPLACE INTO names VALUES (?1, ?2, ?3)")?.execute(params![
                int(info.account.0),
                info.handle,
                info.name
            ])?;
        }
    }
    Ok(())
}

fn apply_outbox(transaction: &Transaction<'_>, key: i64, change: &outbox::Change) -> rusqlite::Result<()> {
    match change {
        outbox::Change::Put(item) => {
            let draft = &item.draft;
            let mentions: Vec<u8> = draft.mentions.iter().flat_map(|account| account.0.to_be_bytes()).collect();
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO outbox VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, NULL)",
                )?
                .execute(params![
                    int(item.local.0),
                    key,
                    item.writer.0,
                    item.number.map(|number| int(number.0)),
                    int(item.created_ms),
                    draft.kind.0,
                    int(draft.refers_to.0),
                    draft.content_type.0,
                    int(draft.crypto_epoch),
                    mentions,
                    &draft.body[..],
                    item.void.map(|code| code.0)
                ])?;
            // Rows are deleted when they are answered, and a local id must not be given twice.
            transaction
                .prepare_cached("UPDATE writer SET last_local = max(last_local, ?1)")?
                .execute([int(item.local.0)])?;
            if let Some(number) = item.number {
                transaction
                    .prepare_cached(
                        "INSERT INTO numbers VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET last = max(last, ?3)",
                    )?
                    .execute(params![key, item.writer.0, int(number.0)])?;
            }
        }
        outbox::Change::Refused(local, code) => {
            transaction
                .prepare_cached("UPDATE outbox SET refused = ?2 WHERE local = ?1")?
                .execute(params![int(local.0), code.0])?;
        }
        outbox::Change::Remove(local) => {
            transaction.prepare_cached("DELETE FROM outbox WHERE local = ?1")?.execute([int(local.0)])?;
        }
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    match found {
        0 => {
            let transaction = connection.transaction().map_err(failed)?;
            transaction.execute_batch(SCHEMA).map_err(failed)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
            transaction.commit().map_err(failed)
        }
        SCHEMA_VERSION => Ok(()),
        _ => Err(Error::StoreVersion { found, known: SCHEMA_VERSION }),
    }
}

/// All rows of a query.
fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map([], read)?.collect()
}

fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let account = connection
        .query_row(
            "SELECT server, account, device, handle, secret, access_token, refresh_token FROM account",
            [],
            |row| {
                Ok(AccountRow {
                    server: row.get(0)?,
                    account: AccountId(uint(row, 1)?),
                    device: DeviceId(uint(row, 2)?),
                    handle: row.get(3)?,
                    secret: blob(row, 4)?,
                    access_token: row.get(5)?,
                    refresh_token: row.get(6)?,
                })
            },
        )
        .optional()?;
    let last_local = connection.query_row("SELECT last_local FROM writer", [], |row| uint(row, 0)).optional()?;
    Ok(Loaded {
        account,
        writer: WriterId::default(),
        was_copy: false,
        conversations: all(connection, "SELECT * FROM conversations", load_conversation)?,
        outbox: all(
            connection,
            "SELECT outbox.*, id FROM outbox JOIN conversations USING (conversation) ORDER BY local",
            load_post,
        )?,
        numbers: all(
            connection,
            "SELECT id, writer, last FROM numbers JOIN conversations USING (conversation)",
            |row| Ok((ConversationId(sixteen(row, 0)?), WriterId(sixteen(row, 1)?), PostNo(uint(row, 2)?))),
        )?,
        inbox: all(connection, "SELECT partition, message_id FROM inbox", |row| {
            Ok((PartitionId(row.get(0)?), MessageId(uint(row, 1)?)))
        })?,
        names: all(connection, "SELECT account, handle, name FROM names", load_name)?,
        last_local: last_local.unwrap_or(0),
    })
}

fn load_name(row: &Row<'_>) -> rusqlite::Result<AccountInfo> {
    Ok(named(AccountId(uint(row, 0)?), row.get(1)?, row.get(2)?))
}

fn load_conversation(row: &Row<'_>) -> rusqlite::Result<ConversationRow> {
    Ok(ConversationRow {
        id: ConversationId(sixteen(row, 1)?),
        partition: PartitionId(row.get(2)?),
        kind: ConversationKind(small(row, 3)?),
        role: Role(small(row, 4)?),
        title: row.get(5)?,
        peer: AccountId(uint(row, 6)?),
        last_message_id: MessageId(uint(row, 7)?),
        read: Seq(uint(row, 8)?),
        member_count: row.get(9)?,
        held: Held {
            floor: Seq(uint(row, 10)?),
            cursor: Seq(uint(row, 11)?),
            head: Seq(uint(row, 12)?),
            epoch: uint(row, 13)?,
        },
        last_event: blob(row, 14)?,
    })
}

fn load_post(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    let mentions: Vec<u8> = row.get(9)?;
    let mentions = mentions
        .chunks_exact(8)
        .filter_map(|chunk| chunk.try_into().ok().map(|bytes| AccountId(u64::from_be_bytes(bytes))))
        .collect();
    Ok(OutboxRow {
        conversation: ConversationId(sixteen(row, 13)?),
        refused: row.get::<_, Option<u32>>(12)?.map(ErrorCode),
        item: Item {
            local: LocalId(uint(row, 0)?),
            writer: WriterId(sixteen(row, 2)?),
            number: row.get::<_, Option<i64>>(3)?.map(|number| PostNo(number.cast_unsigned())),
            created_ms: uint(row, 4)?,
            draft: Draft {
                kind: EventKind(small(row, 5)?),
                refers_to: Seq(uint(row, 6)?),
                content_type: ContentType(small(row, 7)?),
                crypto_epoch: uint(row, 8)?,
                mentions,
                body: blob(row, 10)?,
            },
            void: row.get::<_, Option<u32>>(11)?.map(ErrorCode),
        },
    })
}
