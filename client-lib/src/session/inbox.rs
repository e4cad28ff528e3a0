//! The inbox stream: one line for each conversation that changed.

use rove_protocol::error::Violation;
use rove_protocol::ids::ConversationId;
use rove_protocol::message::{InboxDown, InboxOpen, Message, PartitionCursor};
use rove_protocol::registry::{ErrorCode, StreamType};
use rove_protocol::session::client::Inbox as Machine;
use rove_protocol::transport::{Connection as _, FrameReader, SendStream as _};
use rove_protocol::wire::Wire;

use super::{Fault, INBOX_PRIORITY, Session, TaskEnd};
use crate::inner::mint;
use crate::store::Change;

/// Frames taken at once: one transaction for all of them.
const BATCH: usize = 256;

pub(super) async fn run(session: Session) -> TaskEnd {
    match inbox(&session).await {
        Ok(()) => TaskEnd::Fault(Fault::Closed(ErrorCode::Unavailable)),
        Err(fault) => TaskEnd::Fault(fault),
    }
}

async fn inbox(session: &Session) -> Result<(), Fault> {
    let inner = &session.inner;
    let (mut send, recv) = session.connection.open().await?;
    send.set_priority(INBOX_PRIORITY);
    let open = {
        let mut state = inner.state.lock();
        state.inbox.opened();
        let cursor = |(partition, message_id)| PartitionCursor { partition, message_id };
        InboxOpen { cursors: state.inbox.cursors().map(cursor).collect() }
    };
    let mut out = Vec::new();
    StreamType::Inbox.put(&mut out);
    open.put_frame(&mut out);
    send.write(out.into()).await?;
    let mut reader = FrameReader::new(recv);
    let mut machine = Machine::new();
    while let Some(first) = reader.next().await? {
        let mut frames = vec![first];
        while frames.len() < BATCH
            && let Some(frame) = reader.buffered()?
        {
            frames.push(frame);
        }
        let mut lines = Vec::with_capacity(frames.len());
        for frame in frames {
            let Some(frame) = InboxDown::decode(frame).map_err(Violation::from)? else { continue };
            lines.push(machine.on_frame(frame)?);
        }
        let changed = take_in(session, lines)?;
        inner.flush().await.map_err(Fault::Ours)?;
        publish(session, &changed);
    }
    Ok(())
}

/// Takes a batch in; the conversations that changed.
fn take_in(session: &Session, frames: Vec<InboxDown>) -> Result<Vec<ConversationId>, Fault> {
    let mut state = session.inner.state.lock();
    let mut changed = Vec::new();
    for frame in frames {
        match frame {
            InboxDown::InboxLine(line) => {
                let id = line.conversation;
                state.line(line, mint);
                state.batch_ended(id, mint);
                changed.push(id);
            }
            InboxDown::InboxSynced(synced) => {
                // A version older than one seen is another node's count: it starts anew with each session.
                state.inbox_version = synced.version;
                state.inbox_synced = true;
                for (partition, id) in state.inbox.synced() {
                    state.change(Change::Inbox(partition, id));
                }
            }
            InboxDown::Closed(closed) => return Err(Fault::Closed(closed.code)),
        }
    }
    Ok(changed)
}

fn publish(session: &Session, changed: &[ConversationId]) {
    let inner = &session.inner;
    {
        let state = inner.state.lock();
        for id in changed {
            if let Some(conv) = state.conversations.get(id) {
                conv.updates.send_modify(|version| *version += 1);
                // Its stream may have something to mark, or a head to fetch up to.
                conv.wake.notify_one();
            }
        }
        if !state.nameless.is_empty() {
            inner.ask.notify_one();
        }
    }
    inner.list.send_modify(|version| *version += 1);
}
