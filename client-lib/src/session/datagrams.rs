//! Datagrams: heartbeats, presence, typing.

use bytes::Bytes;
use rove_client_core::heartbeat::{Beat, DOUBT_MS, Heartbeats};
use rove_protocol::error::Violation;
use rove_protocol::frame::datagram_frames;
use rove_protocol::message::{DatagramDown, Heartbeat, Message};
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::Connection as _;

use super::{Fault, Session, TaskEnd};
use crate::model::TYPING_MS;

pub(super) async fn run(session: Session) -> TaskEnd {
    match datagrams(&session).await {
        Ok(()) => TaskEnd::Fault(Fault::Closed(ErrorCode::Unavailable)),
        Err(fault) => TaskEnd::Fault(fault),
    }
}

async fn datagrams(session: &Session) -> Result<(), Fault> {
    let inner = &session.inner;
    let Some(welcome) = session.welcomed().await else { return Ok(()) };
    let mut beats = Heartbeats::new(u64::from(welcome.heartbeat_ms), inner.now_ms());
    beats.set_active(inner.state.lock().foreground, inner.now_ms());
    loop {
        let now_ms = inner.now_ms();
        beats.heard(session.activity.heard_ms());
        match beats.poll(now_ms) {
            Beat::Send(number) => send_heartbeat(session, number),
            Beat::Dead => return Err(Fault::DeadPath),
            Beat::Wait => {}
        }
        let look_ms = look(session, &mut beats);
        let due_ms = [beats.due_ms(), look_ms].into_iter().flatten().min();
        let due = due_ms.map(|due_ms| inner.at(due_ms));
        tokio::select! {
            () = session.activity.woken() => {}
            datagram = session.connection.read_datagram() => take_in(session, &mut beats, datagram?)?,
            () = super::sleep_until(due) => {}
            () = inner.beat.notified() => {
                let foreground = inner.state.lock().foreground;
                beats.set_active(foreground, inner.now_ms());
                beats.probe(inner.now_ms());
                session.activity.network_changed();
            }
        }
    }
}

/// Looks whether the server has fallen silent although something is awaited. Returns when to look again.
fn look(session: &Session, beats: &mut Heartbeats) -> Option<u64> {
    let activity = &session.activity;
    let now_ms = session.inner.now_ms();
    if beats.doubts(None, now_ms) {
        activity.doubt();
    }
    if !activity.is_watching() {
        return None;
    }
    // First, so that what is sent while this looks is not overlooked.
    activity.rest();
    let posts = || session.inner.state.lock().conversations.values().any(|conv| conv.outbox.in_flight() > 0);
    if activity.requests() == 0 && !posts() {
        return None;
    }
    activity.watch();
    let since_ms = activity.heard_ms();
    let doubts = beats.doubts(Some(since_ms), now_ms);
    if doubts {
        activity.doubt();
    }
    let doubt_ms = (!doubts).then(|| since_ms.saturating_add(DOUBT_MS));
    [doubt_ms, beats.silent(since_ms, now_ms)].into_iter().flatten().min()
}

fn send_heartbeat(session: &Session, number: u64) {
    let heartbeat = {
        let state = session.inner.state.lock();
        Heartbeat { number, inbox_version: state.inbox_version, presence_version: state.presence.version() }
    };
    session.connection.send_datagram(Bytes::from(heartbeat.to_frame()));
}

fn take_in(session: &Session, beats: &mut Heartbeats, datagram: Bytes) -> Result<(), Fault> {
    let inner = &session.inner;
    // Whatever it says, the node is there.
    session.heard();
    let mut presence = false;
    for frame in datagram_frames(datagram).map_err(Violation::from)? {
        match DatagramDown::decode(frame).map_err(Violation::from)? {
            Some(DatagramDown::HeartbeatAck(ack)) => {
                let now_ms = inner.now_ms();
                if let Some(took_ms) = beats.answered(ack.number, now_ms) {
                    inner.state.lock().stats.rtt = session.handle.rtt();
                    if took_ms < DOUBT_MS {
                        session.activity.answered_promptly(now_ms);
                    }
                }
            }
            Some(DatagramDown::Presence(message)) => {
                let mut state = inner.state.lock();
                for item in message.items.iter() {
                    presence |= state.presence.merge(item);
                }
                state.presence.told_version(message.version);
            }
            Some(DatagramDown::Typing(typing)) => {
                let until_ms = inner.now_ms() + TYPING_MS;
                let known = {
                    let mut state = inner.state.lock();
                    let me = state.account.account;
                    match state.conversations.get_mut(&typing.conversation) {
                        Some(conv) if typing.account != me => {
                            if typing.typing {
                                conv.typing.insert(typing.account, until_ms);
                            } else {
                                conv.typing.remove(&typing.account);
                            }
                            true
                        }
                        _ => false,
                    }
                };
                if known {
                    inner.updated(typing.conversation);
                }
            }
            None => {}
        }
    }
    if presence {
        inner.publish_presence();
    }
    Ok(())
}
