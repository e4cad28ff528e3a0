//! What an account may see of a conversation, read in one go.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rove_core::conversation::{ConversationRow, MemberRow, ReadError, read};
use rove_core::store::StateRead;
use rove_protocol::frame::put_frame;
use rove_protocol::ids::{AccountId, ConversationId, PartitionId, Seq};
use rove_protocol::message::{Message as _, Unavailable};
use rove_protocol::registry::{ErrorCode, FrameType, UnavailableReason};
use tokio::time::Instant;

use super::control;
use super::session::Session;
use crate::node::CallError;

/// The epoch of every log that was never rebuilt.
pub(super) const EPOCH: u64 = 1;
/// How long a replica that is behind what the client has been told is waited for (D11): replication takes milliseconds; a
/// client that is told `Behind` goes elsewhere.
const BEHIND_WAIT: Duration = Duration::from_secs(2);

/// A conversation and what the account is in it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) row: ConversationRow,
    pub(super) member: MemberRow,
}

impl View {
    /// Reads it; `None` if there is no such conversation or the account was never in it.
    pub(super) fn read(
        store: &impl StateRead,
        partition: PartitionId,
        id: ConversationId,
        account: AccountId,
    ) -> Result<Option<Self>, ReadError> {
        let Some(row) = read::conversation(store, partition, id)? else { return Ok(None) };
        let member = read::member(store, partition, id, account)?;
        Ok(member.map(|member| Self { row, member }))
    }

    /// The last seq there is for this account.
    pub(super) fn end(&self) -> Seq {
        self.member.left.map_or(self.row.head, |left| left.min(self.row.head))
    }
}

/// What comes next on a stream whose cursor stands at `after`, in a log that ends at `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Everything is told.
    Nothing,
    /// These seqs are hidden, up to and including this one.
    Hidden(Seq),
    /// These may be seen, up to and including this one.
    Visible(Seq),
}

/// Decides what comes next (D3).
pub(super) fn next(member: &MemberRow, after: Seq, head: Seq) -> Next {
    if after >= head {
        return Next::Nothing;
    }
    let due = after.next();
    for (first, last) in read::visible(member, head) {
        if due < first {
            return Next::Hidden(Seq(first.0 - 1));
        }
        if due <= last {
            return Next::Visible(last);
        }
    }
    Next::Hidden(head)
}

/// The frame that accounts for hidden seqs.
pub(super) fn unavailable(from: Seq, to: Seq) -> Bytes {
    Unavailable { from, to, reason: UnavailableReason::NotMember }.to_frame().into()
}

/// Some events as frames, back to back, and the last one's seq.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) frames: Bytes,
    pub(super) last: Seq,
    pub(super) events: u64,
}

/// Reads events from the store, at most `max_bytes` of them, but one at least.
pub(super) async fn page(
    session: Arc<Session>,
    id: ConversationId,
    from: Seq,
    to: Seq,
    max_bytes: usize,
) -> Result<Page, ErrorCode> {
    let partition = session.edge.node.partition_of(id);
    let read = session.edge.node.read(move |state| -> Result<Page, ReadError> {
        let events = read::events(state, partition, id, from, to, max_bytes)?;
        let mut frames = Vec::with_capacity(events.iter().map(|event| event.body.len() + 8).sum());
        let mut last = Seq(0);
        for event in &events {
            put_frame(FrameType::Event, &event.body, &mut frames);
            last = event.seq;
        }
        Ok(Page { frames: frames.into(), last, events: events.len() as u64 })
    });
    let page = control::state(read.await)?;
    // Somebody asked for events that are there.
    if page.last == Seq(0) { Err(ErrorCode::Internal) } else { Ok(page) }
}

/// Reads the view once the replica has come to `seen`, waiting for a bounded time. A replica that is not there yet, or
/// knows nothing of the conversation while the client does, is `Behind`; what nobody knows of is `NotFound`, once the replica is
/// sure (D11).
pub(super) async fn view_at<T: Send + 'static>(
    session: &Session,
    id: ConversationId,
    seen: Seq,
    changed: &mut tokio::sync::watch::Receiver<u64>,
    read_more: impl Fn(&crate::storage::state::StateDb, PartitionId, &View) -> Result<T, ReadError> + Copy + Send + 'static,
) -> Result<(View, T), ErrorCode> {
    let node = &session.edge.node;
    let (account, partition) = (session.account(), node.partition_of(id));
    let deadline = Instant::now() + BEHIND_WAIT;
    let mut sure = false;
    loop {
        let read = node.read(move |state| -> Result<Option<(View, T)>, ReadError> {
            let Some(view) = View::read(state, partition, id, account)? else { return Ok(None) };
            let more = read_more(state, partition, &view)?;
            Ok(Some((view, more)))
        });
        match control::state(read.await)? {
            Some((view, more)) if view.row.head >= seen => return Ok((view, more)),
            None if seen == Seq(0) && sure => return Err(ErrorCode::NotFound),
            None if seen == Seq(0) => {
                node.catch_up(partition).await.map_err(CallError::code)?;
                sure = true;
                continue;
            }
            _ => {}
        }
        match tokio::time::timeout_at(deadline, changed.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(ErrorCode::Behind),
        }
    }
}

#[cfg(test)]
mod tests {
    use rove_protocol::registry::Role;

    use super::*;

    fn member(joined: u64, left: Option<u64>) -> MemberRow {
        MemberRow { role: Role::Member, joined: Seq(joined), left: left.map(Seq), read: Seq(0), earlier: Vec::new() }
    }

    /// Walks from the start to the end.
    fn walk(member: &MemberRow, head: u64) -> Vec<(u64, u64, bool)> {
        let mut after = Seq(0);
        let mut steps = Vec::new();
        loop {
            let (to, seen) = match next(member, after, Seq(head)) {
                Next::Nothing => return steps,
                Next::Hidden(to) => (to, false),
                Next::Visible(to) => (to, true),
            };
            assert!(to > after, "always on");
            steps.push((after.0 + 1, to.0, seen));
            after = to;
        }
    }

    #[test]
    fn every_seq_is_accounted_for_once() {
        assert_eq!(walk(&member(1, None), 9), [(1, 9, true)]);
        assert_eq!(walk(&member(4, None), 9), [(1, 3, false), (4, 9, true)]);
        assert_eq!(walk(&member(4, Some(6)), 9), [(1, 3, false), (4, 6, true), (7, 9, false)]);
        let again = MemberRow { earlier: vec![(Seq(2), Seq(3))], ..member(6, None) };
        assert_eq!(walk(&again, 9), [(1, 1, false), (2, 3, true), (4, 5, false), (6, 9, true)]);
        assert_eq!(walk(&member(1, None), 0), []);
    }
}
