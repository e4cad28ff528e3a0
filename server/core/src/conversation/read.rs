//! Reading a partition's state: what the edge and its read pool use. Each function reads one moment if the store it is
//! given is one (a snapshot).

use bytes::Bytes;
use rove_protocol::error::DecodeError;
use rove_protocol::ids::{AccountId, ConversationId, MessageId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::registry::{Anchor, EventKind};
use rove_protocol::wire::{Reader, Wire};

use super::rows::{self, Row, WriterRow};
use super::{ConversationRow, MemberRow, PartitionRow, ReadError, keys};
use crate::store::StateRead;

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place.
    pub seq: Seq,
    /// The body of its `Event` frame, verbatim.
    pub body: Bytes,
}

/// Where the partition is; `None` if nothing was ever applied to this store.
///
/// # Errors
/// [`ReadError`].
pub fn partition(store: &impl StateRead, partition: PartitionId) -> Result<Option<PartitionRow>, ReadError> {
    row(store, &keys::partition(partition))
}

/// Reads a row that was found under [`super::partition_key`].
///
/// # Errors
/// [`ReadError::Corrupt`].
pub fn partition_row(bytes: &[u8]) -> Result<PartitionRow, ReadError> {
    PartitionRow::decode(bytes)
}

/// A conversation.
///
/// # Errors
/// [`ReadError`].
pub fn conversation(
    store: &impl StateRead,
    partition: PartitionId,
    id: ConversationId,
) -> Result<Option<ConversationRow>, ReadError> {
    row(store, &keys::conversation(partition, id))
}

/// What an account is or was in a conversation.
///
/// # Errors
/// [`ReadError`].
pub fn member(
    store: &impl StateRead,
    partition: PartitionId,
    id: ConversationId,
    account: AccountId,
) -> Result<Option<MemberRow>, ReadError> {
    row(store, &keys::member(partition, id, account))
}

/// The present members after the account `after`, ascending, at most `limit`. Those who left are passed over.
///
/// # Errors
/// [`ReadError`].
pub fn members(
    store: &impl StateRead,
    partition: PartitionId,
    id: ConversationId,
    after: AccountId,
    limit: usize,
) -> Result<Vec<(AccountId, MemberRow)>, ReadError> {
    let mut found = Vec::new();
    let mut failed = None;
    let (from, to) =
        (keys::member(partition, id, AccountId(after.0.saturating_add(1))), keys::members_end(partition, id));
    if limit == 0 {
        return Ok(found);
    }
    store.scan(&from, &to, false, &mut |key, value| {
        let decoded = keys::account_of_member(key)
            .ok_or(ReadError::Inconsistent("a member's key is too short"))
            .and_then(|account| MemberRow::decode(value).map(|row| (account, row)));
        match decoded {
            Ok((account, row)) => {
                if row.is_member() {
                    found.push((account, row));
                }
                found.len() < limit
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    })?;
    failed.map_or(Ok(found), Err)
}

/// Visits the conversations an account is or was in, in this partition, until `visit` returns false.
///
/// # Errors
/// [`ReadError`].
pub fn memberships(
    store: &impl StateRead,
    partition: PartitionId,
    account: AccountId,
    visit: &mut dyn FnMut(ConversationId) -> bool,
) -> Result<(), ReadError> {
    let (from, to) = keys::membership_range(partition, account);
    let mut failed = None;
    store.scan(&from, &to, false, &mut |key, _| {
        if let Some(id) = keys::conversation_of_membership(key) {
            return visit(id);
        }
        failed = Some(ReadError::Inconsistent("a membership's key is too short"));
        false
    })?;
    failed.map_or(Ok(()), Err)
}

/// The last number that a writer used in a conversation; 0 if it never wrote there.
///
/// # Errors
/// [`ReadError`].
pub fn last_post_no(
    store: &impl StateRead,
    partition: PartitionId,
    id: ConversationId,
    writer: WriterId,
) -> Result<PostNo, ReadError> {
    let row: Option<WriterRow> = row(store, &keys::writer(partition, id, writer))?;
    Ok(row.map_or(PostNo(0), |row| row.last))
}

/// One event.
///
/// # Errors
/// [`ReadError`].
pub fn event(
    store: &impl StateRead,
    partition: PartitionId,
    id: ConversationId,
    seq: Seq,
) -> Result<Option<StoredEvent>, ReadError> {
    let Some(value) = store.get(&keys::event(partition, id, seq))? else { return Ok(None) };
    Ok(Some(StoredEvent { seq, body: rows::event_body(&value)? }))
}

/// The events from `from` to `to`, both included, ascending, until their bodies pass `max_bytes`; the first one is
/// there however large it is, so that whoever reads on gets on.
///
/// # Errors
/// [`ReadError`]; [`ReadError::Inconsistent`] if a seq is missing between two others.
pub fn events(
    store: &impl StateRead,
    partition: PartitionId,
    id: ConversationId,
    from: Seq,
    to: Seq,
    max_bytes: usize,
) -> Result<Vec<StoredEvent>, ReadError> {
    let from = Seq(from.0.max(1));
    let mut found: Vec<StoredEvent> = Vec::new();
    let mut failed = None;
    let mut bytes = 0;
    let end = keys::event(partition, id, to.next());
    store.scan(&keys::event(partition, id, from), &end, false, &mut |key, value| {
        let seq = Seq(from.0 + found.len() as u64);
        if key.last_chunk::<8>() != Some(&seq.0.to_be_bytes()) {
            failed = Some(ReadError::Inconsistent("an event is missing"));
            return false;
        }
        bytes += value.len();
        if bytes > max_bytes && !found.is_empty() {
            return false;
        }
        match rows::event_body(&Bytes::copy_from_slice(value)) {
            Ok(body) => found.push(StoredEvent { seq, body }),
            Err(error) => {
                failed = Some(error);
                return false;
            }
        }
        bytes < max_bytes
    })?;
    failed.map_or(Ok(found), Err)
}

/// The first event at or after the anchor, or the seq after the head if there is none.
///
/// Within a conversation seqs, message ids and times rise together, so this is a binary search: some twenty reads in a
/// log of a million events.
///
/// # Errors
/// [`ReadError`].
pub fn seq_at(
    store: &impl StateRead,
    partition: PartitionId,
    id: ConversationId,
    anchor: Anchor,
    at: u64,
) -> Result<Seq, ReadError> {
    let head = conversation(store, partition, id)?.map_or(Seq(0), |row| row.head);
    let reached = |seq: u64| -> Result<bool, ReadError> {
        let stored = event(store, partition, id, Seq(seq))?.ok_or(ReadError::Inconsistent("an event is missing"))?;
        let prefix = EventPrefix::of(&stored.body)?;
        Ok(if anchor == Anchor::Time { prefix.time_ms >= at } else { prefix.message_id.0 >= at })
    };
    match anchor {
        Anchor::Seq => return Ok(Seq(at.clamp(1, head.0 + 1))),
        Anchor::Time | Anchor::MessageId => {}
        _ => return Ok(head.next()),
    }
    let (mut low, mut high) = (1, head.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if reached(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(Seq(low))
}

/// What one needs of an event to find it or to answer for it, without decoding the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPrefix {
    /// Its place.
    pub seq: Seq,
    /// Its name.
    pub message_id: MessageId,
    /// When it was accepted, in milliseconds of the Unix epoch.
    pub time_ms: u64,
    /// What it does.
    pub kind: EventKind,
    /// Who did it.
    pub author: AccountId,
}

impl EventPrefix {
    /// The first fields of the body of an `Event` frame.
    ///
    /// # Errors
    /// [`ReadError::Inconsistent`] if they do not decode.
    pub fn of(body: &Bytes) -> Result<Self, ReadError> {
        let mut reader = Reader::new(body.clone());
        let mut fields = || -> Result<Self, DecodeError> {
            Ok(Self {
                seq: Wire::take(&mut reader)?,
                message_id: Wire::take(&mut reader)?,
                time_ms: Wire::take(&mut reader)?,
                kind: Wire::take(&mut reader)?,
                author: Wire::take(&mut reader)?,
            })
        };
        fields().map_err(|_| ReadError::Inconsistent("an event does not decode"))
    }
}

/// The seqs a member may see of a log that ends at `head`: first and last of each range, ascending, without overlap.
/// Everything else up to `head` is unavailable to it. The event that let it in and the one that took it out are seen.
#[must_use]
pub fn visible(member: &MemberRow, head: Seq) -> Vec<(Seq, Seq)> {
    let present = (member.joined, member.left.unwrap_or(head));
    let mut ranges: Vec<(Seq, Seq)> = Vec::with_capacity(member.earlier.len() + 1);
    for (first, last) in member.earlier.iter().copied().chain([present]) {
        let last = last.min(head);
        if first > last {
            continue;
        }
        match ranges.last_mut() {
            // Taken out and let in again by neighbouring events: one range.
            Some(before) if first.0 <= before.1.0 + 1 => before.1 = before.1.max(last),
            _ => ranges.push((first, last)),
        }
    }
    ranges
}

/// A row of whatever table the key is in.
pub(crate) fn row<R: Row>(store: &impl StateRead, key: &[u8]) -> Result<Option<R>, ReadError> {
    store.get(key)?.map(|value| R::decode(&value)).transpose()
}
