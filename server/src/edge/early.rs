//! The end of the handshake, and what waits for it (D5).
//!
//! A client that comes back may send its first flight before the handshake is complete. Somebody may have copied that
//! flight and send it again, so until the end of the handshake only what does no harm twice takes effect. Which frames
//! those are is [`EarlyGate`]'s to say; here is how the others wait: each stream stops at the first of them. What is no
//! frame waits in `session`: the registry, and with it presence, the inbox and the end of the device's older session, and
//! datagrams, which may be lost anyhow.

use std::time::Duration;

use futures::FutureExt as _;
use quinn::ZeroRttAccepted;
use rove_protocol::frame::RawFrame;
use rove_protocol::session::EarlyGate;
use rove_protocol::transport::Connection as _;
use rove_quic::{Connection, RecvStream, SendStream};
use tokio::sync::watch;

use super::stats::Counted;

/// A handshake that is not complete.
pub(super) struct Handshake {
    complete: ZeroRttAccepted,
    connection: Connection,
    /// It counts as under way for that long (S2).
    _counted: Counted,
}

impl Handshake {
    /// Waits for its end. False if the connection has ended instead.
    pub(super) async fn complete(&mut self) -> bool {
        // What it resolves to says nothing at this end.
        let _ = (&mut self.complete).await;
        self.connection.quinn().close_reason().is_none()
    }

    /// Waits for its end; for ever if the connection has ended instead, which others notice.
    pub(super) async fn completed(mut self) {
        if !self.complete().await {
            std::future::pending::<()>().await;
        }
    }
}

/// A connection on which there is something to do.
pub(super) struct Begun {
    pub(super) connection: Connection,
    /// Its first stream, if that came before the end of the handshake.
    pub(super) first: Option<(SendStream, RecvStream)>,
    /// The handshake, if it is not complete.
    pub(super) handshake: Option<Handshake>,
}

/// Waits until the handshake is complete or a stream comes before that, for a bounded time.
pub(super) async fn begin(connecting: quinn::Connecting, counted: Counted, within: Duration) -> Option<Begun> {
    // At this end it cannot fail.
    let (connection, complete) = connecting.into_0rtt().ok()?;
    let connection = Connection::from(connection);
    let mut handshake = Handshake { complete, connection: connection.clone(), _counted: counted };
    let begun = async {
        tokio::select! {
            biased;
            complete = handshake.complete() => complete.then_some(None),
            // Data under the keys of the handshake's end comes after that end: this stream came early.
            first = connection.accept() => first.ok().map(Some),
        }
    };
    let first = tokio::time::timeout(within, begun).await.ok()??;
    // Both may have come between the two looks.
    let early = first.is_some() && handshake.complete().now_or_never().is_none();
    let handshake = early.then_some(handshake);
    Some(Begun { connection, first, handshake })
}

/// Says that the streams of a session may act on everything. Nothing of a session that has not come early.
pub(super) struct Confirm(Option<watch::Sender<bool>>);

impl Confirm {
    pub(super) fn confirm(&self) {
        self.0.as_ref().map(|sender| sender.send_replace(true));
    }
}

/// Whether the streams of a session may act on everything.
#[derive(Clone)]
pub(super) struct Confirmed(Option<watch::Receiver<bool>>);

/// Not yet, if `early`.
pub(super) fn confirmation(early: bool) -> (Confirm, Confirmed) {
    let (sender, receiver) = early.then(|| watch::channel(false)).unzip();
    (Confirm(sender), Confirmed(receiver))
}

impl Confirmed {
    /// For one stream.
    pub(super) fn passage(&self) -> Passage {
        match &self.0 {
            Some(confirmed) if !*confirmed.borrow() => {
                Passage { gate: EarlyGate::early(), confirmed: Some(confirmed.clone()) }
            }
            _ => Passage::open(),
        }
    }
}

/// Where the frames of one stream pass, or one waits.
pub(super) struct Passage {
    gate: EarlyGate,
    /// Nothing any more once everything passes.
    confirmed: Option<watch::Receiver<bool>>,
}

impl Passage {
    /// Everything passes.
    pub(super) fn open() -> Self {
        Self { gate: EarlyGate::open(), confirmed: None }
    }

    /// A frame that may be acted on. If it may not, [`Passage::held`] has it, and is to be asked before the stream is read
    /// on.
    pub(super) fn pass(&mut self, frame: RawFrame) -> Option<RawFrame> {
        self.open_if_confirmed();
        self.gate.pass(frame)
    }

    /// The frame that waits, once it may be acted on; nothing at once if none does. Cancelling it loses nothing.
    pub(super) async fn held(&mut self) -> Option<RawFrame> {
        if !self.gate.is_holding() {
            return None;
        }
        if let Some(confirmed) = &mut self.confirmed
            // Boxed: it seldom waits, and every stream would pay for it.
            && Box::pin(confirmed.wait_for(|confirmed| *confirmed)).await.is_err()
        {
            // The session is over, and its streams with it.
            std::future::pending::<()>().await;
        }
        self.confirmed = None;
        self.gate.complete()
    }

    fn open_if_confirmed(&mut self) {
        if self.confirmed.as_ref().is_some_and(|confirmed| *confirmed.borrow()) {
            self.confirmed = None;
            // Nothing is held: the stream would not be read.
            let _ = self.gate.complete();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rove_protocol::registry::FrameType;

    use super::*;

    fn frame(frame_type: FrameType) -> RawFrame {
        RawFrame { frame_type, body: Bytes::new() }
    }

    #[test]
    fn a_mark_waits_for_the_handshake_and_what_follows_it_too() {
        let (confirm, confirmed) = confirmation(true);
        let mut passage = confirmed.passage();
        assert_eq!(passage.pass(frame(FrameType::Post)), Some(frame(FrameType::Post)));
        assert_eq!(passage.held().now_or_never(), Some(None), "nothing waits");
        assert_eq!(passage.pass(frame(FrameType::Mark)), None);
        assert_eq!(passage.held().now_or_never(), None, "it waits");
        confirm.confirm();
        assert_eq!(passage.held().now_or_never(), Some(Some(frame(FrameType::Mark))));
        assert_eq!(passage.pass(frame(FrameType::Mark)), Some(frame(FrameType::Mark)));
        assert!(passage.confirmed.is_none(), "nothing is kept for what is over");
    }

    #[test]
    fn a_stream_that_was_waiting_for_bytes_when_the_handshake_ended_holds_nothing_back() {
        let (confirm, confirmed) = confirmation(true);
        let mut passage = confirmed.passage();
        confirm.confirm();
        assert_eq!(passage.pass(frame(FrameType::Request)), Some(frame(FrameType::Request)));
        assert!(confirmed.passage().confirmed.is_none());
    }

    #[test]
    fn a_session_that_ends_before_its_handshake_lets_nothing_through() {
        let (confirm, confirmed) = confirmation(true);
        let mut passage = confirmed.passage();
        assert_eq!(passage.pass(frame(FrameType::Request)), None);
        drop(confirm);
        assert_eq!(passage.held().now_or_never(), None);
    }
}
