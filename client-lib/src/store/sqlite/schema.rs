//! The tables, and how those of earlier versions become them.

use rusqlite::Connection;

use super::values::failed;
use crate::Error;

/// The version of the tables, in `user_version`. A newer one is refused, an older one is migrated step by step.
const SCHEMA_VERSION: i64 = 3;

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
    mentions BLOB NOT NULL, body BLOB NOT NULL, void INTEGER, refused INTEGER, tag BLOB
) STRICT;
CREATE TABLE numbers (
    conversation INTEGER NOT NULL, writer BLOB NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (conversation, writer)
) STRICT, WITHOUT ROWID;
CREATE TABLE inbox (partition INTEGER PRIMARY KEY, message_id INTEGER NOT NULL) STRICT;
CREATE TABLE names (account INTEGER PRIMARY KEY, handle TEXT NOT NULL, name TEXT NOT NULL) STRICT;
CREATE TABLE nodes (rank INTEGER PRIMARY KEY, address TEXT NOT NULL) STRICT;
";

/// What makes version 2 of version 1: posts have tags. The bytes of a post with a number are settled, without one.
const TAGS: &str = "
ALTER TABLE outbox ADD COLUMN tag BLOB;
UPDATE outbox SET tag = randomblob(16) WHERE number IS NULL;
";

/// What makes version 3 of version 2: the nodes of the cluster are remembered.
const NODES: &str = "CREATE TABLE nodes (rank INTEGER PRIMARY KEY, address TEXT NOT NULL) STRICT;";

/// Every table, to empty them.
pub(super) const TABLES: &[&str] =
    &["account", "conversations", "events", "unavailable", "outbox", "numbers", "inbox", "names", "nodes"];

/// Makes the tables, or brings them to the present version.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let steps: &[&str] = match found {
        0 => &[SCHEMA],
        1 => &[TAGS, NODES],
        2 => &[NODES],
        SCHEMA_VERSION => return Ok(()),
        _ => return Err(Error::StoreVersion { found, known: SCHEMA_VERSION }),
    };
    let transaction = connection.transaction().map_err(failed)?;
    for step in steps {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Column names and types of a table.
    fn columns(connection: &Connection, table: &str) -> Vec<(String, String)> {
        let mut statement =
            connection.prepare(&format!("SELECT name, type FROM pragma_table_info('{table}')")).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_store_of_version_1_gets_tags_where_the_bytes_are_not_settled() {
        let mut new = Connection::open_in_memory().unwrap();
        migrate(&mut new).unwrap();
        let mut old = Connection::open_in_memory().unwrap();
        old.execute_batch(&SCHEMA.replace(", tag BLOB", "").replace(NODES, "")).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute_batch(
            "INSERT INTO outbox VALUES (1, 1, zeroblob(16), 7, 0, 1, 0, 1, 0, x'', x'68', NULL, NULL);
             INSERT INTO outbox VALUES (2, 1, zeroblob(16), NULL, 0, 1, 0, 1, 0, x'', x'68', NULL, NULL);",
        )
        .unwrap();
        migrate(&mut old).unwrap();
        migrate(&mut old).unwrap();
        for table in ["outbox", "nodes"] {
            assert_eq!(columns(&old, table), columns(&new, table));
        }
        let tag = |local: i64| -> Option<i64> {
            old.query_row("SELECT length(tag) FROM outbox WHERE local = ?1", [local], |row| row.get(0)).unwrap()
        };
        assert_eq!((tag(1), tag(2)), (None, Some(16)));
    }

    #[test]
    fn a_store_of_a_later_version_is_left_alone() {
        let mut later = Connection::open_in_memory().unwrap();
        later.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        assert!(matches!(migrate(&mut later), Err(Error::StoreVersion { found, .. }) if found == SCHEMA_VERSION + 1));
    }
}
