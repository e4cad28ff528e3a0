//! How values are kept in columns.

use bytes::Bytes;
use rusqlite::Row;

use crate::Error;

#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(super) fn failed(error: rusqlite::Error) -> Error {
    Error::Store(error.to_string())
}

/// SQLite's integers are signed. The registry's numbers and ids fit (D10); anything else comes back as it went in.
pub(super) fn int(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) fn uint(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(super) fn small(row: &Row<'_>, column: usize) -> rusqlite::Result<u32> {
    row.get(column)
}

pub(super) fn sixteen(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 16]> {
    row.get(column)
}

pub(super) fn blob(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    row.get::<_, Vec<u8>>(column).map(Bytes::from)
}
