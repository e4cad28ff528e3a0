//! What is read back of a conversation's log.

use bytes::Bytes;
use rove_client_core::timeline::UnavailableRange;
use rove_protocol::ids::{ConversationId, Seq};
use rove_protocol::registry::UnavailableReason;
use rusqlite::params;

use super::SqliteStore;
use super::values::{blob, failed, int, small, uint};
use crate::Error;

impl SqliteStore {
    pub(in crate::store) fn events_after(
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

    pub(in crate::store) fn events_before(
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

    pub(in crate::store) fn referring(
        &self,
        id: ConversationId,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<(Seq, Bytes)>, Error> {
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

    pub(in crate::store) fn unavailable(
        &self,
        id: ConversationId,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<UnavailableRange>, Error> {
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
}
