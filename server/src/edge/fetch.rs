//! Pages of history, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use rove_core::conversation::{MemberRow, ReadError as StateError, read};
use rove_protocol::error::Violation;
use rove_protocol::ids::Seq;
use rove_protocol::message::{Closed, Fetch, FetchUp, Message as _, Page};
use rove_protocol::registry::{Anchor, ErrorCode};
use rove_protocol::session::server::Fetch as Machine;
use rove_protocol::transport::ReadError;

use super::frames::{Duplex, Incoming, Outgoing};
use super::session::Session;
use super::stats::EdgeStats;
use super::view::{self, Next, View};

/// Serves a fetch stream to its end.
pub(super) async fn serve(session: Arc<Session>, duplex: Box<Duplex>) -> Result<(), ReadError> {
    let Duplex { mut incoming, mut outgoing, counted: _counted } = *duplex;
    let mut machine = Machine::new();
    let mut asked: VecDeque<Fetch> = VecDeque::new();
    let mut ended = false;
    loop {
        let Some(fetch) = asked.pop_front() else {
            if ended {
                outgoing.finish();
                return Ok(());
            }
            ended = !ask(&mut machine, &mut incoming, &mut asked).await?;
            continue;
        };
        let mut page = Box::pin(page(&session, &fetch, &mut outgoing));
        let result = loop {
            tokio::select! {
                result = &mut page => break result,
                // At most as many as the machine lets through.
                more = ask(&mut machine, &mut incoming, &mut asked), if !ended => ended = !more?,
            }
        };
        drop(page);
        match result {
            Ok(()) => _ = machine.answered(),
            Err(Failed::Gone) => return Ok(()),
            Err(Failed::Code(code)) => {
                outgoing.event(Closed { code, last_seq: Seq(0) }.to_frame());
                let _ = outgoing.flush().await;
                outgoing.finish();
                incoming.stop(code);
                return Ok(());
            }
        }
    }
}

/// Takes one more fetch in; false at the end of the stream. Cancelling it loses nothing.
async fn ask(machine: &mut Machine, incoming: &mut Incoming, asked: &mut VecDeque<Fetch>) -> Result<bool, ReadError> {
    let Some(frame) = incoming.next().await? else { return Ok(false) };
    if let Some(frame) = FetchUp::decode(frame).map_err(Violation::from)? {
        let FetchUp::Fetch(fetch) = machine.on_frame(frame)?;
        asked.push_back(fetch);
    }
    Ok(true)
}

/// Why there is no page.
enum Failed {
    Code(ErrorCode),
    /// The stream cannot be written any more.
    Gone,
}

impl From<ErrorCode> for Failed {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

/// Writes one page.
async fn page(session: &Arc<Session>, fetch: &Fetch, outgoing: &mut Outgoing) -> Result<(), Failed> {
    if !matches!(fetch.anchor, Anchor::Seq | Anchor::MessageId | Anchor::Time | Anchor::Head) {
        return Err(ErrorCode::InvalidArgument.into());
    }
    let live = session.edge.hub.open(fetch.conversation);
    let mut changed = live.subscribe();
    let (id, anchor, at) = (fetch.conversation, fetch.anchor, fetch.at);
    let resolve = move |state: &crate::storage::state::StateDb, partition, _: &View| -> Result<Seq, StateError> {
        read::seq_at(state, partition, id, anchor, at)
    };
    let (view, anchor) = view::view_at(session, fetch.conversation, fetch.seen, &mut changed, resolve).await?;
    drop(live);
    let head = view.end();
    let (first, last) = range(fetch, anchor, head);
    write(session, fetch, &view.member, (first, last), outgoing).await?;
    let end = if first > last {
        Page { conversation: id, first: Seq(0), last: Seq(0), head }
    } else {
        Page { conversation: id, first, last, head }
    };
    outgoing.event(end.to_frame());
    EdgeStats::add(&session.edge.stats().pages, 1);
    outgoing.flush().await.map_err(|_| Failed::Gone)
}

/// The first and the last seq of the page, given where the anchor is; none if the first is above the last.
fn range(fetch: &Fetch, anchor: Seq, head: Seq) -> (Seq, Seq) {
    let limit = u64::from(fetch.limit);
    if fetch.backward {
        let last = Seq(anchor.0.saturating_sub(1)).min(head);
        (Seq((last.0 + 1).saturating_sub(limit).max(1)), last)
    } else {
        let first = Seq(anchor.0.max(1));
        (first, Seq(first.0.saturating_add(limit - 1)).min(head))
    }
}

/// Writes the events of a range, as fast as they are read.
async fn write(
    session: &Arc<Session>,
    fetch: &Fetch,
    member: &MemberRow,
    (first, last): (Seq, Seq),
    outgoing: &mut Outgoing,
) -> Result<(), Failed> {
    let mut after = Seq(first.0.saturating_sub(1));
    loop {
        match view::next(member, after, last) {
            Next::Nothing => return Ok(()),
            Next::Hidden(to) => {
                outgoing.event(view::unavailable(after.next(), to));
                after = to;
            }
            Next::Visible(to) => {
                let room = outgoing.room();
                let page = view::page(session.clone(), fetch.conversation, after.next(), to, room).await?;
                after = page.last;
                outgoing.event(page.frames);
            }
        }
        if outgoing.room() == 0 {
            outgoing.flush().await.map_err(|_| Failed::Gone)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use rove_protocol::ids::ConversationId;

    use super::*;

    fn pages(backward: bool, anchor: u64, limit: u32, head: u64) -> Option<(u64, u64)> {
        let fetch = Fetch {
            conversation: ConversationId([1; 16]),
            anchor: Anchor::Seq,
            at: anchor,
            backward,
            limit,
            seen: Seq(0),
        };
        let (first, last) = range(&fetch, Seq(anchor), Seq(head));
        (first <= last).then_some((first.0, last.0))
    }

    #[test]
    fn a_page_begins_with_its_anchor_or_ends_just_before_it() {
        assert_eq!(pages(false, 3, 4, 10), Some((3, 6)));
        assert_eq!(pages(false, 9, 4, 10), Some((9, 10)));
        assert_eq!(pages(false, 11, 4, 10), None);
        assert_eq!(pages(true, 3, 4, 10), Some((1, 2)));
        assert_eq!(pages(true, 11, 4, 10), Some((7, 10)));
        assert_eq!(pages(true, 1, 4, 10), None);
        assert_eq!(pages(true, 8, 4, 5), Some((2, 5)), "what one may see ends before the anchor");
    }
}
