//! Frames in and out of one stream.
//!
//! [`Incoming`] reads frames against a deadline that exists only while a frame is half there, so an idle stream has no
//! timer and no buffer. [`Outgoing`] holds what is to be written, little of it, answers before events, and can be
//! written from inside a `select!`: an interrupted write has written what it has written.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rove_protocol::error::{DecodeError, Violation};
use rove_protocol::frame::{FrameDecoder, RawFrame};
use rove_protocol::limits;
use rove_protocol::session::FrameDeadline;
use rove_protocol::transport::{ReadError, RecvStream as _, TransportError};
use rove_quic::{RecvStream, SendStream};
use tokio::time::Instant;

use super::early::Passage;
use super::stats::Counted;

/// Chunks handed to QUIC at once: one lock of the connection for so many frames.
const BATCH_CHUNKS: usize = 16;
/// Bytes after which a batch is full: an answer that comes while it is written waits for at most this much.
const BATCH_BYTES: usize = 8 * 1024;

/// The frames of a stream as they come.
pub(super) struct Incoming {
    stream: RecvStream,
    decoder: FrameDecoder,
    deadline: FrameDeadline,
    began: Instant,
    passage: Passage,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream, limit: usize, passage: Passage) -> Self {
        let (decoder, deadline) = (FrameDecoder::new(limit), FrameDeadline::default());
        Self { stream, decoder, deadline, began: Instant::now(), passage }
    }

    /// Takes frames of up to `limit` bytes from here on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.decoder.set_limit(limit);
    }

    /// Lets frames pass as `passage` says from here on.
    pub(super) fn set_passage(&mut self, passage: Passage) {
        self.passage = passage;
    }

    /// The stream's type, or `None` if the stream ends before it.
    pub(super) async fn stream_type(&mut self) -> Result<Option<u64>, ReadError> {
        loop {
            if let Some(value) = self.decoder.next_varint()? {
                return Ok(Some(value));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// The next frame that may be acted on, or `None` at the end of the stream. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<RawFrame>, ReadError> {
        loop {
            if let Some(frame) = self.passage.held().await {
                return Ok(Some(frame));
            }
            if let Some(frame) = self.decoder.next_frame()? {
                self.deadline.read(true, self.decoder.is_mid_frame(), self.now());
                if let Some(frame) = self.passage.pass(frame) {
                    return Ok(Some(frame));
                }
                continue;
            }
            if !self.more().await? {
                return if self.decoder.is_mid_frame() { Err(DecodeError::Truncated.into()) } else { Ok(None) };
            }
        }
    }

    /// Tells the client not to send more.
    pub(super) fn stop(&mut self, code: rove_protocol::registry::ErrorCode) {
        self.stream.stop(code);
    }

    /// Reads on; false at the end of the stream.
    async fn more(&mut self) -> Result<bool, ReadError> {
        self.deadline.read(false, self.decoder.is_mid_frame(), self.now());
        let read = match self.deadline.due_ms() {
            None => self.stream.read().await,
            // Boxed: a frame is seldom half there, and a timer is large.
            Some(due) => Box::pin(tokio::time::timeout_at(self.began + Duration::from_millis(due), self.stream.read()))
                .await
                .map_err(|_| Violation::Timeout { what: "a whole frame" })?,
        };
        let Some(bytes) = read? else { return Ok(false) };
        self.decoder.feed(&bytes);
        Ok(true)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A stream that is served, both ways, and counted for as long. Handed over in a box: what an `async fn` is given it keeps twice, as
/// an argument and where it is used (rust-lang/rust#62958).
pub(super) struct Duplex {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) counted: Counted,
}

/// What is to be written to a stream.
pub(super) struct Outgoing {
    stream: SendStream,
    /// Being written, from `at` on.
    batch: Vec<Bytes>,
    at: usize,
    batch_bytes: usize,
    /// Goes first.
    answers: VecDeque<Bytes>,
    /// Goes after them.
    events: VecDeque<Bytes>,
    event_bytes: usize,
}

impl Outgoing {
    pub(super) fn new(stream: SendStream) -> Self {
        Self {
            stream,
            batch: Vec::new(),
            at: 0,
            batch_bytes: 0,
            answers: VecDeque::new(),
            events: VecDeque::new(),
            event_bytes: 0,
        }
    }

    /// Queues something that goes before every event that is not being written yet.
    pub(super) fn answer(&mut self, frame: impl Into<Bytes>) {
        self.answers.push_back(frame.into());
    }

    /// Queues an event or something else that goes in order.
    pub(super) fn event(&mut self, frame: impl Into<Bytes>) {
        let frame = frame.into();
        self.event_bytes += frame.len();
        self.events.push_back(frame);
    }

    /// How many bytes of events may still be queued (D6).
    pub(super) fn room(&self) -> usize {
        limits::REPLAY_QUEUE.saturating_sub(self.event_bytes + self.batch_bytes)
    }

    /// Answers that wait to be written.
    pub(super) fn answers_waiting(&self) -> usize {
        self.answers.len()
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.batch.len() && self.answers.is_empty() && self.events.is_empty()
    }

    /// Writes some of it. Cancelling it loses nothing.
    pub(super) async fn write_some(&mut self) -> Result<(), TransportError> {
        if self.at == self.batch.len() {
            self.refill();
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let written = self.stream.quinn().write_chunks(&mut self.batch[self.at..]).await.map_err(write_error)?;
        self.at += written.chunks;
        if self.at == self.batch.len() {
            // An idle stream keeps no buffers.
            self.batch = Vec::new();
            self.at = 0;
            self.batch_bytes = 0;
            if self.answers.is_empty() && self.answers.capacity() > 0 {
                self.answers = VecDeque::new();
            }
            if self.events.is_empty() && self.events.capacity() > 0 {
                self.events = VecDeque::new();
            }
        }
        Ok(())
    }

    /// Writes all of it.
    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        while !self.is_empty() {
            self.write_some().await?;
        }
        Ok(())
    }

    /// Ends the stream after what was written.
    pub(super) fn finish(&mut self) {
        use rove_protocol::transport::SendStream as _;
        self.stream.finish();
    }

    /// Ends the stream at once.
    pub(super) fn reset(&mut self, code: rove_protocol::registry::ErrorCode) {
        use rove_protocol::transport::SendStream as _;
        self.stream.reset(code);
    }

    /// Higher goes first when streams compete.
    pub(super) fn set_priority(&mut self, priority: i32) {
        use rove_protocol::transport::SendStream as _;
        self.stream.set_priority(priority);
    }

    fn refill(&mut self) {
        self.batch.clear();
        self.at = 0;
        let mut bytes = 0;
        while self.batch.len() < BATCH_CHUNKS && bytes < BATCH_BYTES {
            let frame = match self.answers.pop_front() {
                Some(answer) => answer,
                None => match self.events.pop_front() {
                    Some(event) => {
                        self.event_bytes -= event.len();
                        event
                    }
                    None => break,
                },
            };
            bytes += frame.len();
            self.batch.push(frame);
        }
        self.batch_bytes = bytes;
    }
}

fn write_error(error: quinn::WriteError) -> TransportError {
    match error {
        quinn::WriteError::Stopped(code) => TransportError::Stopped(rove_protocol::registry::ErrorCode(
            u32::try_from(code.into_inner()).unwrap_or(rove_protocol::registry::ErrorCode::Internal.0),
        )),
        quinn::WriteError::ConnectionLost(error) => TransportError::Lost(error.to_string()),
        quinn::WriteError::ClosedStream => TransportError::Lost("the stream was ended before".to_owned()),
        quinn::WriteError::ZeroRttRejected => TransportError::EarlyDataRejected,
    }
}
