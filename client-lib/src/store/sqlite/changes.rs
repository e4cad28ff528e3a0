//! How one change is written.

use rove_protocol::ids::ConversationId;
use rusqlite::{OptionalExtension, Transaction, params};

use super::outbox;
use super::values::int;
use crate::store::Change;

/// The conversation that a change is about.
pub(super) fn change_conversation(change: &Change) -> Option<ConversationId> {
    match change {
        Change::Conversation(row) => Some(row.id),
        Change::Event { conversation, .. }
        | Change::Unavailable { conversation, .. }
        | Change::Forget(conversation)
        | Change::Outbox { conversation, .. } => Some(*conversation),
        Change::Account(_) | Change::Writer(_) | Change::Inbox(..) | Change::Name(_) | Change::Nodes(_) => None,
    }
}

/// The small integer that names the conversation, given to it if it has none.
pub(super) fn conversation_key(transaction: &Transaction<'_>, id: ConversationId) -> rusqlite::Result<i64> {
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

/// Writes one change. `key` names its conversation, if it has one.
pub(super) fn apply(transaction: &Transaction<'_>, key: i64, change: &Change) -> rusqlite::Result<()> {
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
        Change::Outbox { change, .. } => outbox::apply(transaction, key, change)?,
        Change::Inbox(partition, message_id) => {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO inbox VALUES (?1, ?2)")?
                .execute(params![partition.0, int(message_id.0)])?;
        }
        Change::Nodes(nodes) => {
            transaction.execute("DELETE FROM nodes", [])?;
            let mut insert = transaction.prepare_cached("INSERT INTO nodes VALUES (?1, ?2)")?;
            for (rank, address) in (0_i64..).zip(nodes) {
                insert.execute(params![rank, address])?;
            }
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
