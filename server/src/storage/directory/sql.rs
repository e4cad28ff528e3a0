//! Rows in and out of the tables.

use std::ops::Deref;

use rove_core::command::Gate;
use rove_core::directory::{
    AccessTokenRow, AccountRow, AccountState, DeviceRow, Digest, DirectoryError, DirectoryRead, DirectoryTx, FamilyId,
    IdempotencyRow, Meta, OutboxRow, RefreshTokenRow,
};
use rove_core::membership::MemberMap;
use rove_core::versioned::VersionedError;
use rove_protocol::ids::{AccountId, DeviceId};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, Transaction, params};

/// The directory's tables through a connection: read-only, or a transaction.
#[derive(Debug)]
pub struct DirectoryRows<C>(C);

pub(super) fn store(error: rusqlite::Error) -> DirectoryError {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::IntegralValueOutOfRange(..) => {
            DirectoryError::Corrupt(error.to_string())
        }
        error => DirectoryError::Store(error.to_string()),
    }
}

/// SQLite's integers are signed: the bits are kept.
fn sql(value: u64) -> i64 {
    value.cast_signed()
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

fn maybe_number(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get(column).map(Digest)
}

fn unknown(column: usize, value: i64) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(FromSqlError::OutOfRange(value)))
}

impl<C> DirectoryRows<C> {
    pub(super) fn new(connection: C) -> Self {
        Self(connection)
    }
}

impl<C: Deref<Target = Connection>> DirectoryRows<C> {
    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.0
    }

    fn one<T>(
        &self,
        query: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, DirectoryError> {
        let mut statement = self.0.prepare_cached(query).map_err(store)?;
        statement.query_row(params, read).optional().map_err(store)
    }

    fn all<T>(
        &self,
        query: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, DirectoryError> {
        let mut statement = self.0.prepare_cached(query).map_err(store)?;
        statement.query_map(params, read).and_then(Iterator::collect).map_err(store)
    }

    fn execute(&self, query: &str, params: impl Params) -> Result<(), DirectoryError> {
        self.0.prepare_cached(query).and_then(|mut statement| statement.execute(params)).map_err(store)?;
        Ok(())
    }
}

impl DirectoryRows<Transaction<'_>> {
    /// Keeps what was done.
    ///
    /// # Errors
    /// The database's: then nothing is kept.
    pub fn commit(self) -> Result<(), DirectoryError> {
        self.0.commit().map_err(store)
    }
}

fn account(row: &Row<'_>) -> rusqlite::Result<AccountRow> {
    Ok(AccountRow {
        id: AccountId(number(row, 0)?),
        handle: row.get(1)?,
        handle_key: row.get(2)?,
        name: row.get(3)?,
        password_hash: row.get(4)?,
        state: match row.get(5)? {
            0 => AccountState::Active,
            1 => AccountState::Suspended,
            other => return Err(unknown(5, other)),
        },
        created_ms: number(row, 6)?,
    })
}

fn device(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    Ok(DeviceRow {
        id: DeviceId(number(row, 0)?),
        account: AccountId(number(row, 1)?),
        name: row.get(2)?,
        secret: digest(row, 3)?,
        created_ms: number(row, 4)?,
        revoked_ms: maybe_number(row, 5)?,
    })
}

fn outbox(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    let subject = number(row, 2)?;
    let gate = match row.get(1)? {
        1 => Gate::DeviceRevoked(DeviceId(subject)),
        2 => Gate::AccountSuspended(AccountId(subject)),
        3 => Gate::AccountRestored(AccountId(subject)),
        4 => Gate::ApplyVersion(row.get(2)?),
        other => return Err(unknown(1, other)),
    };
    Ok(OutboxRow { number: number(row, 0)?, gate })
}

impl<C: Deref<Target = Connection>> DirectoryRead for DirectoryRows<C> {
    fn meta(&self) -> Result<Meta, DirectoryError> {
        let meta = self.one(
            "SELECT applied, state_hash, time_ms, last_account, last_device, last_family, last_gate, apply_version FROM meta",
            [],
            |row| {
                Ok(Meta {
                    applied: number(row, 0)?,
                    state_hash: number(row, 1)?,
                    time_ms: number(row, 2)?,
                    last_account: number(row, 3)?,
                    last_device: number(row, 4)?,
                    last_family: number(row, 5)?,
                    last_gate: number(row, 6)?,
                    apply_version: row.get(7)?,
                })
            },
        )?;
        Ok(meta.unwrap_or_default())
    }

    fn account(&self, id: AccountId) -> Result<Option<AccountRow>, DirectoryError> {
        self.one(
            "SELECT id, handle, handle_key, name, password_hash, state, created_ms FROM account WHERE id = ?1",
            [sql(id.0)],
            account,
        )
    }

    fn account_by_handle(&self, key: &str) -> Result<Option<AccountRow>, DirectoryError> {
        self.one(
            "SELECT id, handle, handle_key, name, password_hash, state, created_ms FROM account WHERE handle_key = ?1",
            [key],
            account,
        )
    }

    fn device(&self, id: DeviceId) -> Result<Option<DeviceRow>, DirectoryError> {
        self.one(
            "SELECT id, account, name, secret, created_ms, revoked_ms FROM device WHERE id = ?1",
            [sql(id.0)],
            device,
        )
    }

    fn devices_of(&self, account: AccountId) -> Result<Vec<DeviceRow>, DirectoryError> {
        self.all(
            "SELECT id, account, name, secret, created_ms, revoked_ms FROM device \
             WHERE account = ?1 AND revoked_ms IS NULL ORDER BY id",
            [sql(account.0)],
            device,
        )
    }

    fn access_token(&self, token: &Digest) -> Result<Option<AccessTokenRow>, DirectoryError> {
        self.one(
            "SELECT token, account, device, family, expires_ms FROM access_token WHERE token = ?1",
            [token.0],
            |row| {
                Ok(AccessTokenRow {
                    token: digest(row, 0)?,
                    account: AccountId(number(row, 1)?),
                    device: DeviceId(number(row, 2)?),
                    family: FamilyId(number(row, 3)?),
                    expires_ms: number(row, 4)?,
                })
            },
        )
    }

    fn refresh_token(&self, token: &Digest) -> Result<Option<RefreshTokenRow>, DirectoryError> {
        self.one(
            "SELECT token, account, device, family, expires_ms, used_ms, successor FROM refresh_token WHERE token = ?1",
            [token.0],
            |row| {
                Ok(RefreshTokenRow {
                    token: digest(row, 0)?,
                    account: AccountId(number(row, 1)?),
                    device: DeviceId(number(row, 2)?),
                    family: FamilyId(number(row, 3)?),
                    expires_ms: number(row, 4)?,
                    used_ms: maybe_number(row, 5)?,
                    successor: row.get::<_, Option<[u8; 32]>>(6)?.map(Digest),
                })
            },
        )
    }

    fn idempotency(&self, key: &Digest) -> Result<Option<IdempotencyRow>, DirectoryError> {
        self.one("SELECT key, account, device, expires_ms FROM idempotency WHERE key = ?1", [key.0], |row| {
            Ok(IdempotencyRow {
                key: digest(row, 0)?,
                account: AccountId(number(row, 1)?),
                device: DeviceId(number(row, 2)?),
                expires_ms: number(row, 3)?,
            })
        })
    }

    fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, DirectoryError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.all("SELECT number, kind, subject FROM outbox ORDER BY number LIMIT ?1", [limit], outbox)
    }

    fn members(&self) -> Result<Option<MemberMap>, DirectoryError> {
        let bytes = self.one("SELECT map FROM members", [], |row| row.get::<_, Vec<u8>>(0))?;
        let corrupt = |error: VersionedError| DirectoryError::Corrupt(format!("members: {error}"));
        bytes.map(|bytes| MemberMap::decode(&bytes).map_err(corrupt)).transpose()
    }
}

impl DirectoryTx for DirectoryRows<Transaction<'_>> {
    fn put_meta(&mut self, meta: &Meta) -> Result<(), DirectoryError> {
        self.execute(
            "INSERT OR REPLACE INTO meta VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                sql(meta.applied),
                sql(meta.state_hash),
                sql(meta.time_ms),
                sql(meta.last_account),
                sql(meta.last_device),
                sql(meta.last_family),
                sql(meta.last_gate),
                meta.apply_version,
            ],
        )
    }

    fn put_account(&mut self, row: &AccountRow) -> Result<(), DirectoryError> {
        let state = match row.state {
            AccountState::Active => 0,
            AccountState::Suspended => 1,
        };
        // Not OR REPLACE: that would quietly remove another account with the same handle.
        self.execute(
            "INSERT INTO account VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET \
             handle = ?2, handle_key = ?3, name = ?4, password_hash = ?5, state = ?6, created_ms = ?7",
            params![sql(row.id.0), row.handle, row.handle_key, row.name, row.password_hash, state, sql(row.created_ms)],
        )
    }

    fn put_device(&mut self, row: &DeviceRow) -> Result<(), DirectoryError> {
        self.execute(
            "INSERT OR REPLACE INTO device VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                sql(row.id.0),
                sql(row.account.0),
                row.name,
                row.secret.0,
                sql(row.created_ms),
                row.revoked_ms.map(sql)
            ],
        )
    }

    fn put_access_token(&mut self, row: &AccessTokenRow) -> Result<(), DirectoryError> {
        self.execute(
            "INSERT OR REPLACE INTO access_token VALUES (?1, ?2, ?3, ?4, ?5)",
            params![row.token.0, sql(row.account.0), sql(row.device.0), sql(row.family.0), sql(row.expires_ms)],
        )
    }

    fn put_refresh_token(&mut self, row: &RefreshTokenRow) -> Result<(), DirectoryError> {
        self.execute(
            "INSERT OR REPLACE INTO refresh_token VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                row.token.0,
                sql(row.account.0),
                sql(row.device.0),
                sql(row.family.0),
                sql(row.expires_ms),
                row.used_ms.map(sql),
                row.successor.map(|token| token.0)
            ],
        )
    }

    fn put_idempotency(&mut self, row: &IdempotencyRow) -> Result<(), DirectoryError> {
        self.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?1, ?2, ?3, ?4)",
            params![row.key.0, sql(row.account.0), sql(row.device.0), sql(row.expires_ms)],
        )
    }

    fn put_outbox(&mut self, row: &OutboxRow) -> Result<(), DirectoryError> {
        let (kind, subject) = match row.gate {
            Gate::DeviceRevoked(device) => (1, device.0),
            Gate::AccountSuspended(account) => (2, account.0),
            Gate::AccountRestored(account) => (3, account.0),
            Gate::ApplyVersion(version) => (4, u64::from(version)),
        };
        self.execute("INSERT OR REPLACE INTO outbox VALUES (?1, ?2, ?3)", params![sql(row.number), kind, sql(subject)])
    }

    fn put_members(&mut self, map: &MemberMap) -> Result<(), DirectoryError> {
        self.execute("INSERT OR REPLACE INTO members VALUES (1, ?1)", [map.encode()])
    }

    fn remove_outbox(&mut self, number: u64) -> Result<(), DirectoryError> {
        self.execute("DELETE FROM outbox WHERE number <= ?1", [sql(number)])
    }

    fn remove_family(&mut self, family: FamilyId) -> Result<(), DirectoryError> {
        self.execute("DELETE FROM access_token WHERE family = ?1", [sql(family.0)])?;
        self.execute("DELETE FROM refresh_token WHERE family = ?1", [sql(family.0)])
    }

    fn remove_tokens_of(&mut self, device: DeviceId) -> Result<(), DirectoryError> {
        self.execute("DELETE FROM access_token WHERE device = ?1", [sql(device.0)])?;
        self.execute("DELETE FROM refresh_token WHERE device = ?1", [sql(device.0)])
    }

    fn purge(&mut self, now_ms: u64, limit: usize) -> Result<(), DirectoryError> {
        let (now, limit) = (sql(now_ms), i64::try_from(limit).unwrap_or(i64::MAX));
        self.execute(
            "DELETE FROM access_token WHERE token IN (SELECT token FROM access_token \
             WHERE expires_ms <= ?1 ORDER BY expires_ms, token LIMIT ?2)",
            [now, limit],
        )?;
        self.execute(
            "DELETE FROM refresh_token WHERE token IN (SELECT token FROM refresh_token \
             WHERE expires_ms <= ?1 ORDER BY expires_ms, token LIMIT ?2)",
            [now, limit],
        )?;
        self.execute(
            "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency \
             WHERE expires_ms <= ?1 ORDER BY expires_ms, key LIMIT ?2)",
            [now, limit],
        )
    }
}
