//! The tables, by version. A published step is never changed: the next one is added.

use rove_core::directory::DirectoryError;
use rusqlite::{Connection, TransactionBehavior};

use super::sql::store;

/// What turns version `n` into version `n + 1`.
const STEPS: &[&str] = &[
    // 1: the first.
    "CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        applied INTEGER NOT NULL,
        state_hash INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        last_account INTEGER NOT NULL,
        last_device INTEGER NOT NULL,
        last_family INTEGER NOT NULL,
        last_gate INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE account (
        id INTEGER PRIMARY KEY,
        handle TEXT NOT NULL,
        handle_key TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        password_hash TEXT NOT NULL,
        state INTEGER NOT NULL,
        created_ms INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE device (
        id INTEGER PRIMARY KEY,
        account INTEGER NOT NULL,
        name TEXT NOT NULL,
        secret BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        revoked_ms INTEGER
     ) STRICT;
     CREATE INDEX device_of_account ON device (account, id) WHERE revoked_ms IS NULL;
     CREATE TABLE access_token (
        token BLOB PRIMARY KEY,
        account INTEGER NOT NULL,
        device INTEGER NOT NULL,
        family INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX access_token_of_device ON access_token (device);
     CREATE INDEX access_token_of_family ON access_token (family);
     CREATE INDEX access_token_by_expiry ON access_token (expires_ms, token);
     CREATE TABLE refresh_token (
        token BLOB PRIMARY KEY,
        account INTEGER NOT NULL,
        device INTEGER NOT NULL,
        family INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        used_ms INTEGER,
        successor BLOB
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX refresh_token_of_device ON refresh_token (device);
     CREATE INDEX refresh_token_of_family ON refresh_token (family);
     CREATE INDEX refresh_token_by_expiry ON refresh_token (expires_ms, token);
     CREATE TABLE idempotency (
        key BLOB PRIMARY KEY,
        account INTEGER NOT NULL,
        device INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX idempotency_by_expiry ON idempotency (expires_ms, key);
     CREATE TABLE outbox (
        number INTEGER PRIMARY KEY,
        kind INTEGER NOT NULL,
        subject INTEGER NOT NULL
     ) STRICT;",
    // 2: who the nodes of the cluster are.
    "CREATE TABLE members (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        map BLOB NOT NULL
     ) STRICT;",
    // 3: the version of apply that is in force.
    "ALTER TABLE meta ADD COLUMN apply_version INTEGER NOT NULL DEFAULT 1;",
];

/// Refuses a file of a newer program. Returns its version and the newest.
pub(super) fn check(connection: &Connection) -> Result<(u32, u32), DirectoryError> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(store)?;
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(DirectoryError::SchemaTooNew { found: found.into(), known: known.into() });
    }
    Ok((found, known))
}

/// Takes the steps the file has not seen, all or none.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), DirectoryError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store)?;
    let (found, known) = check(&transaction)?;
    for step in &STEPS[found as usize..] {
        transaction.execute_batch(step).map_err(store)?;
    }
    if found != known {
        transaction.pragma_update(None, "user_version", known).map_err(store)?;
    }
    transaction.commit().map_err(store)
}
