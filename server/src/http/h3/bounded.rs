//! A bound on what h3 keeps of a stream.
//!
//! h3 0.0.8 buffers a HEADERS frame whole before it checks its size, whatever length the frame claims. Everything it reads
//! comes through here, and a stream that sends more than any request has is cut off.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};

use crate::http::{BODY, FIELDS};

/// A request: its fields, its body, and as much again for frames around them and fields that compress badly.
const REQUEST: usize = 2 * (FIELDS as usize + BODY);
/// Everything on one of the client's unidirectional streams (settings, QPACK, priorities) in the life of a connection.
const UNIDIRECTIONAL: usize = 256 * 1024;

/// A connection whose streams are bounded.
pub(super) struct Bounded(h3_quinn::Connection);

impl Bounded {
    pub(super) fn new(connection: h3_quinn::Connection) -> Self {
        Self(connection)
    }
}

/// A stream of a request.
pub(super) struct BidiStream {
    inner: h3_quinn::BidiStream<Bytes>,
    left: usize,
}

/// A stream of the client's, or the receiving half of a request's.
pub(super) struct RecvStream {
    inner: h3_quinn::RecvStream,
    left: usize,
}

fn bounded<R: quic::RecvStream<Buf = Bytes>>(
    inner: &mut R,
    left: &mut usize,
    context: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
    let polled = inner.poll_data(context);
    if let Poll::Ready(Ok(Some(data))) = &polled {
        let Some(rest) = left.checked_sub(data.remaining()) else {
            let error_code = Code::H3_EXCESSIVE_LOAD.value();
            inner.stop_sending(error_code);
            return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
        };
        *left = rest;
    }
    polled
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        bounded(&mut self.inner, &mut self.left, context)
    }
    fn stop_sending(&mut self, error_code: u64) {
        self.inner.stop_sending(error_code);
    }
    fn recv_id(&self) -> StreamId {
        self.inner.recv_id()
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        bounded(&mut self.inner, &mut self.left, context)
    }
    fn stop_sending(&mut self, error_code: u64) {
        quic::RecvStream::stop_sending(&mut self.inner, error_code);
    }
    fn recv_id(&self) -> StreamId {
        self.inner.recv_id()
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.inner.poll_ready(context)
    }
    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.inner.send_data(data)
    }
    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.inner.poll_finish(context)
    }
    fn reset(&mut self, reset_code: u64) {
        self.inner.reset(reset_code);
    }
    fn send_id(&self) -> StreamId {
        self.inner.send_id()
    }
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = h3_quinn::SendStream<Bytes>;
    type RecvStream = RecvStream;

    fn split(self) -> (Self::SendStream, Self::RecvStream) {
        let (send, inner) = self.inner.split();
        (send, RecvStream { inner, left: self.left })
    }
}

/// What the server opens itself is not bounded here: it does not read from it.
fn own(inner: h3_quinn::BidiStream<Bytes>) -> BidiStream {
    BidiStream { inner, left: REQUEST }
}

/// Opens the server's own streams.
pub(super) struct OpenStreams(h3_quinn::OpenStreams);

impl quic::OpenStreams<Bytes> for OpenStreams {
    type BidiStream = BidiStream;
    type SendStream = h3_quinn::SendStream<Bytes>;

    fn poll_open_bidi(&mut self, context: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        quic::OpenStreams::<Bytes>::poll_open_bidi(&mut self.0, context).map_ok(own)
    }
    fn poll_open_send(&mut self, context: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        quic::OpenStreams::<Bytes>::poll_open_send(&mut self.0, context)
    }
    fn close(&mut self, code: Code, reason: &[u8]) {
        quic::OpenStreams::<Bytes>::close(&mut self.0, code, reason);
    }
}

impl quic::OpenStreams<Bytes> for Bounded {
    type BidiStream = BidiStream;
    type SendStream = h3_quinn::SendStream<Bytes>;

    fn poll_open_bidi(&mut self, context: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        quic::OpenStreams::<Bytes>::poll_open_bidi(&mut self.0, context).map_ok(own)
    }
    fn poll_open_send(&mut self, context: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        quic::OpenStreams::<Bytes>::poll_open_send(&mut self.0, context)
    }
    fn close(&mut self, code: Code, reason: &[u8]) {
        quic::OpenStreams::<Bytes>::close(&mut self.0, code, reason);
    }
}

impl quic::Connection<Bytes> for Bounded {
    type RecvStream = RecvStream;
    type OpenStreams = OpenStreams;

    fn poll_accept_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        quic::Connection::<Bytes>::poll_accept_recv(&mut self.0, context)
            .map_ok(|inner| RecvStream { inner, left: UNIDIRECTIONAL })
    }
    fn poll_accept_bidi(&mut self, context: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        quic::Connection::<Bytes>::poll_accept_bidi(&mut self.0, context)
            .map_ok(|inner| BidiStream { inner, left: REQUEST })
    }
    fn opener(&self) -> OpenStreams {
        OpenStreams(quic::Connection::<Bytes>::opener(&self.0))
    }
}
