//! What is read when a store is opened.

use rove_client_core::sync::Held;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, MessageId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::registry::{ConversationKind, Role};
use rusqlite::{Connection, OptionalExtension, Row};

use super::outbox;
use super::values::{blob, sixteen, small, uint};
use crate::store::{AccountRow, ConversationRow, Loaded, named};
use crate::types::AccountInfo;

/// All rows of a query.
fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map([], read)?.collect()
}

/// Everything that is kept in memory while the client runs, but for the writer.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
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
            outbox::load,
        )?,
        numbers: all(
            connection,
            "SELECT id, writer, last FROM numbers JOIN conversations USING (conversation)",
            |row| Ok((ConversationId(sixteen(row, 0)?), WriterId(sixteen(row, 1)?), PostNo(uint(row, 2)?))),
        )?,
        inbox: all(connection, "SELECT partition, message_id FROM inbox", |row| {
            Ok((PartitionId(row.get(0)?), MessageId(uint(row, 1)?)))
        })?,
        nodes: all(connection, "SELECT address FROM nodes ORDER BY rank", |row| row.get(0))?,
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
