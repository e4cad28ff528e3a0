//! A conversation stream: events down, posts up, both at the same time.

use std::time::Duration;

use futures::FutureExt as _;
use rove_client_core::outbox::Effects;
use rove_client_core::reconnect::Backoff;
use rove_protocol::error::Violation;
use rove_protocol::frame::RawFrame;
use rove_protocol::ids::{ConversationId, Seq};
use rove_protocol::limits;
use rove_protocol::message::{ConversationDown, Fetch, Message, Open};
use rove_protocol::registry::{Anchor, ErrorCode, StreamMode, StreamType};
use rove_protocol::session::client::Conversation as Machine;
use rove_protocol::transport::{Connection as _, FrameReader, ReadError, SendStream as _, TransportError};
use rove_protocol::wire::Wire;
use rove_quic::{RecvStream, SendStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{CONVERSATION_PRIORITY, Fault, FetchedPage, Session};
use crate::inner::{mint, random};
use crate::model::Next;

/// Frames taken at once: one transaction for all of them.
const BATCH: usize = 256;
/// Bytes of posts written at once: a post of the largest size and what else fits beside it.
const WRITE: usize = limits::FRAME;
/// Bound of the wait before a stream the server ended is opened again.
const CAP_MS: u64 = 15_000;

/// Wait before a conversation is opened again that the account is not a member of. An inbox line says when that changes;
/// this is for the one that was lost.
const SHUT_OUT: Duration = Duration::from_secs(60);

/// Why a stream ended while the session goes on.
enum StreamEnd {
    /// It is to be opened again at once: a gap, another writer, a log that starts again.
    Reopen,
    /// The server ended it.
    Closed(ErrorCode),
}

/// Keeps a conversation's stream open until it is cancelled or the session ends.
pub(super) async fn run(session: &Session, id: ConversationId, cancel: CancellationToken) -> Result<(), Fault> {
    let mut backoff = Backoff::new(CAP_MS);
    let result = loop {
        let opened_at_ms = session.inner.now_ms();
        let end = tokio::select! {
            end = once(session, id) => end,
            () = cancel.cancelled() => break Ok(()),
        };
        let pulled = lost(session, id);
        let mut shut_out = false;
        match end {
            Err(fault) => break Err(fault),
            // Reopening is progress; a server that brings us here again and again is met with waits all the same.
            Ok(StreamEnd::Reopen) => {}
            Ok(StreamEnd::Closed(code)) => {
                tracing::debug!(conversation = %id, %code, "the server ended the stream");
                if code == ErrorCode::EpochChanged {
                    session.inner.state.lock().forget(id);
                    session.inner.flush().await.map_err(Fault::Ours)?;
                }
                // What came before the end is not on a stream that is pulled. The next one sends it.
                let unseen = pulled && code == ErrorCode::Forbidden;
                shut_out = [ErrorCode::Forbidden, ErrorCode::NotFound].contains(&code) && !unseen;
                if shut_out {
                    session.inner.state.lock().shut_out(id, code, mint);
                    session.inner.flush().await.map_err(Fault::Ours)?;
                    session.inner.updated(id);
                }
                if code == ErrorCode::WriterTaken {
                    writer_taken(session, id).await?;
                }
            }
        }
        backoff.session_ended(session.inner.now_ms().saturating_sub(opened_at_ms));
        let wake = session.inner.state.lock().conv(id).wake.clone();
        let wait = if shut_out { SHUT_OUT } else { Duration::from_millis(backoff.next_ms(random()) / 4) };
        // What the stream itself was woken for is over.
        let _ = wake.notified().now_or_never();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // An inbox line, or a new post: the reason may be gone.
            () = wake.notified(), if wait > Duration::from_secs(1) => {}
            () = cancel.cancelled() => break Ok(()),
        }
    };
    lost(session, id);
    result
}

/// The stream is gone. Whether it was one that is pulled.
fn lost(session: &Session, id: ConversationId) -> bool {
    let mut state = session.inner.state.lock();
    let conv = state.conv(id);
    conv.outbox.stream_lost();
    conv.machine = None;
    conv.mode == StreamMode::Pull
}

/// The writer belongs to another device: the database of one was copied to another.
async fn writer_taken(session: &Session, id: ConversationId) -> Result<(), Fault> {
    {
        let mut state = session.inner.state.lock();
        let effects = Effects { needs_writer: true, ..Effects::default() };
        state.outbox_effects(id, effects, mint);
    }
    session.inner.flush().await.map_err(Fault::Ours)
}

/// One stream, from `Open` to its end.
async fn once(session: &Session, id: ConversationId) -> Result<StreamEnd, Fault> {
    let (mut send, recv) = session.connection.open().await?;
    send.set_priority(CONVERSATION_PRIORITY);
    let (mut out, wake) = open(session, id);
    // Posts whose numbers are known go in the same flight.
    queue_posts(session, id, &mut out);
    session.awaits();
    match send.write(out.into()).await {
        Ok(()) => {}
        Err(TransportError::Stopped(code)) => return Ok(StreamEnd::Closed(code)),
        Err(error) => return Err(error.into()),
    }
    let end = {
        let mut reader = FrameReader::new(recv);
        tokio::select! {
            end = read(session, id, &mut reader) => end,
            end = write(session, id, &mut send, &wake) => end,
        }
    };
    if matches!(end, Ok(StreamEnd::Reopen)) {
        send.reset(ErrorCode::None);
    }
    end
}

/// Makes `Open` and readies the conversation for the stream.
fn open(session: &Session, id: ConversationId) -> (Vec<u8>, std::sync::Arc<Notify>) {
    let limits = session.limits();
    let mut state = session.inner.state.lock();
    state.place(id);
    let conv = state.conv(id);
    conv.outbox.stream_opening(usize::from(limits.unanswered_posts));
    conv.stream_opening();
    // Until `Opened` says otherwise.
    conv.mode = StreamMode::Live;
    let held = &conv.row.held;
    let open = Open {
        conversation: id,
        after: held.cursor,
        seen: held.head,
        epoch: held.epoch,
        writer: conv.outbox.open_writer(),
    };
    conv.machine = Some(Machine::with_limits(held.cursor, &limits));
    let mut out = Vec::new();
    StreamType::Conversation.put(&mut out);
    open.put_frame(&mut out);
    (out, conv.wake.clone())
}

/// Appends the posts that may be sent now, and a `Mark` that is due. Returns whether the stream is to be opened for
/// another writer, and when to look again.
fn queue_posts(session: &Session, id: ConversationId, out: &mut Vec<u8>) -> (bool, Option<u64>) {
    let now_ms = session.inner.now_ms();
    let mut state = session.inner.state.lock();
    let conv = state.conv(id);
    let Some(machine) = &mut conv.machine else { return (true, None) };
    while out.len() < WRITE {
        let Some(post) = conv.outbox.next_to_send(now_ms) else { break };
        if machine.posted(post.post_no).is_err() {
            // The outbox keeps to the same limit; if they ever disagree, starting again settles it.
            return (true, None);
        }
        post.put_frame(out);
    }
    let mut again_ms = conv.outbox.retry_at_ms(now_ms);
    match conv.mark(now_ms) {
        Ok(mark) => mark.put_frame(out),
        Err(Some(due_ms)) => again_ms = Some(again_ms.map_or(due_ms, |again_ms| again_ms.min(due_ms))),
        Err(None) => {}
    }
    (conv.outbox.wants_reopen(), again_ms)
}

/// Gives numbers to what may be sent, and makes them durable.
async fn number(session: &Session, id: ConversationId) -> Result<(), Fault> {
    let numbered = {
        let mut state = session.inner.state.lock();
        let mut effects = Effects::default();
        let conv = state.conv(id);
        conv.outbox.number(&mut effects);
        let numbered = conv.outbox.numbered();
        // A stream that ended between the two steps below leaves numbers that only the next one can vouch for.
        if effects.changes.is_empty() && !conv.outbox.awaits_storing() {
            return Ok(());
        }
        state.outbox_effects(id, effects, mint);
        numbered
    };
    session.inner.flush().await.map_err(Fault::Ours)?;
    session.inner.state.lock().conv(id).outbox.stored(numbered);
    Ok(())
}

async fn write(
    session: &Session,
    id: ConversationId,
    send: &mut SendStream,
    wake: &Notify,
) -> Result<StreamEnd, Fault> {
    loop {
        number(session, id).await?;
        let mut out = Vec::new();
        let (reopen, again_ms) = queue_posts(session, id, &mut out);
        if reopen {
            return Ok(StreamEnd::Reopen);
        }
        if !out.is_empty() {
            session.awaits();
            match send.write(out.into()).await {
                Ok(()) => {}
                Err(TransportError::Stopped(code)) => return Ok(StreamEnd::Closed(code)),
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        if let Some(from) = pull_from(session, id) {
            if let Some(code) = pull(session, id, from).await? {
                return Ok(StreamEnd::Closed(code));
            }
            continue;
        }
        tokio::select! {
            () = wake.notified() => {}
            () = super::sleep_until(again_ms.map(|ms| session.inner.at(ms))) => {}
        }
    }
}

/// Where to fetch from, if events do not come by themselves (D14).
fn pull_from(session: &Session, id: ConversationId) -> Option<Seq> {
    let mut state = session.inner.state.lock();
    let conv = state.conv(id);
    let opened = conv.machine.as_ref().is_some_and(Machine::is_open);
    (opened && conv.mode == StreamMode::Pull && !conv.row.held.is_in_step()).then(|| conv.row.held.cursor.next())
}

/// Fetches the next page of a large group; a code if that is refused.
async fn pull(session: &Session, id: ConversationId, from: Seq) -> Result<Option<ErrorCode>, Fault> {
    let seen = session.inner.state.lock().conv(id).row.held.head;
    let fetch =
        Fetch { conversation: id, anchor: Anchor::Seq, at: from.0, backward: false, limit: limits::PAGE_EVENTS, seen };
    match session.handle.fetch(fetch).await {
        Some(Ok(page)) => {
            if page.events.is_empty() && page.unavailable.is_empty() {
                // A head without events is a replica that is behind: wait like for a closed stream.
                return Ok(Some(ErrorCode::Behind));
            }
            if !take_page(session, id, page) {
                return Ok(Some(ErrorCode::Internal));
            }
            session.inner.flush().await.map_err(Fault::Ours)?;
            session.inner.updated(id);
            Ok(None)
        }
        Some(Err(code)) => Ok(Some(code)),
        None => Ok(Some(ErrorCode::Unavailable)),
    }
}

/// Appends a page that follows on the cursor. False if it does not.
fn take_page(session: &Session, id: ConversationId, page: FetchedPage) -> bool {
    let mut state = session.inner.state.lock();
    let mut ranges = page.unavailable.into_iter().peekable();
    for event in page.events {
        while let Some(range) = ranges.next_if(|range| range.from < event.seq) {
            if state.unavailable(id, &range) == Next::Reopen {
                return false;
            }
        }
        if state.event(id, event, mint) == Next::Reopen {
            return false;
        }
    }
    for range in ranges {
        if state.unavailable(id, &range) == Next::Reopen {
            return false;
        }
    }
    if let Some(page) = page.page {
        state.conv(id).row.held.told_head(page.head);
    }
    state.batch_ended(id, mint);
    true
}

async fn read(session: &Session, id: ConversationId, reader: &mut FrameReader<RecvStream>) -> Result<StreamEnd, Fault> {
    loop {
        let first = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(StreamEnd::Closed(ErrorCode::Unavailable)),
            Err(ReadError::Transport(TransportError::Reset(code))) => return Ok(StreamEnd::Closed(code)),
            Err(error) => return Err(error.into()),
        };
        let mut frames = Vec::with_capacity(8);
        frames.push(decode(first)?);
        while frames.len() < BATCH
            && let Some(frame) = reader.buffered()?
        {
            frames.push(decode(frame)?);
        }
        session.heard();
        let end = take_in(session, id, frames.into_iter().flatten())?;
        session.inner.flush().await.map_err(Fault::Ours)?;
        session.inner.updated(id);
        session.inner.wake(id);
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

fn decode(frame: RawFrame) -> Result<Option<ConversationDown>, Fault> {
    Ok(ConversationDown::decode(frame).map_err(Violation::from)?)
}

/// Takes a batch in, as one step.
fn take_in(
    session: &Session,
    id: ConversationId,
    frames: impl Iterator<Item = ConversationDown>,
) -> Result<Option<StreamEnd>, Fault> {
    let now_ms = session.inner.now_ms();
    let mut state = session.inner.state.lock();
    let mut end = None;
    let mut moved = false;
    for frame in frames {
        let Some(machine) = state.conv(id).machine.as_mut() else { return Ok(Some(StreamEnd::Reopen)) };
        let mut effects = Effects::default();
        let next = match machine.on_frame(frame)? {
            ConversationDown::Opened(opened) => state.opened(id, &opened, mint),
            ConversationDown::Event(event) => {
                moved = true;
                state.event(id, event, mint)
            }
            ConversationDown::Unavailable(range) => {
                moved = true;
                state.unavailable(id, &range)
            }
            ConversationDown::Posted(posted) => {
                state.conv(id).outbox.posted(&posted, &mut effects);
                Next::Continue
            }
            ConversationDown::Refused(refused) => {
                state.conv(id).outbox.refused(&refused, now_ms, random(), &mut effects);
                moved = true;
                Next::Continue
            }
            ConversationDown::Receipt(receipt) => {
                state.receipt(id, &receipt);
                Next::Continue
            }
            ConversationDown::Closed(closed) => {
                end = Some(StreamEnd::Closed(closed.code));
                break;
            }
        };
        if effects != Effects::default() {
            state.outbox_effects(id, effects, mint);
        }
        if next == Next::Reopen {
            end = Some(StreamEnd::Reopen);
            break;
        }
    }
    if moved {
        state.batch_ended(id, mint);
    }
    Ok(end)
}
