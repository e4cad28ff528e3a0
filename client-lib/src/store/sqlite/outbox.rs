//! Queued posts.

use rove_client_core::outbox::{self, Draft, Item};
use rove_client_core::timeline::LocalId;
use rove_protocol::ids::{AccountId, ConversationId, PostNo, PostTag, Seq, WriterId};
use rove_protocol::registry::{ContentType, ErrorCode, EventKind};
use rusqlite::{Row, Transaction, params};

use super::values::{blob, int, sixteen, small, uint};
use crate::store::OutboxRow;

/// Stores what an outbox asked for. `key` names the conversation.
pub(super) fn apply(transaction: &Transaction<'_>, key: i64, change: &outbox::Change) -> rusqlite::Result<()> {
    match change {
        outbox::Change::Put(item) => {
            let draft = &item.draft;
            let mentions: Vec<u8> = draft.mentions.iter().flat_map(|account| account.0.to_be_bytes()).collect();
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO outbox
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, NULL, ?13)",
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
                    item.void.map(|code| code.0),
                    item.tag.map(|tag| tag.0)
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

/// A row of `outbox.*` and the conversation's id.
pub(super) fn load(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    let mentions: Vec<u8> = row.get(9)?;
    let mentions = mentions
        .chunks_exact(8)
        .filter_map(|chunk| chunk.try_into().ok().map(|bytes| AccountId(u64::from_be_bytes(bytes))))
        .collect();
    Ok(OutboxRow {
        conversation: ConversationId(sixteen(row, 14)?),
        refused: row.get::<_, Option<u32>>(12)?.map(ErrorCode),
        item: Item {
            local: LocalId(uint(row, 0)?),
            tag: row.get::<_, Option<[u8; 16]>>(13)?.map(PostTag),
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
