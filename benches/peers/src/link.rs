//! A connection to whatever is measured: messages go out numbered, and come back as acknowledged or delivered.
//!
//! The load runs on the cores of the servers that it measures, so it costs as little as it can: a protocol is a [`Codec`] between
//! numbers and bytes, and a [`Wire`] writes everything that queued up with one call. The work of `work.rs` sees [`Link`]s only, so
//! that it is the same for all.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use anyhow::{Result, bail};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a message: the size that everything here is measured with.
pub(crate) const MESSAGE: usize = 200;

/// Hexadecimal digits of a message's number, at its beginning.
const DIGITS: usize = 16;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its sender was told that it was taken.
    Acknowledged(u64),
    /// Its receiver has it.
    Delivered(u64),
    /// It was not taken.
    Refused(u64),
}

/// A way on which messages are sent, and are seen to arrive.
pub(crate) trait Link {
    /// Queues a message. It goes out with the next [`Link::next`].
    fn send(&mut self, number: u64) -> Result<()>;

    /// What happens next. Cancelling it loses nothing.
    async fn next(&mut self) -> Result<Event>;
}

/// A protocol: between numbers and bytes, no more of it than the measured work needs.
pub(crate) trait Codec {
    /// Appends the message of that number.
    fn encode(&mut self, number: u64, out: &mut Vec<u8>);

    /// Takes from `input` up to the next event; `None` if bytes of it are missing. What the protocol wants answered goes to `out`.
    fn decode(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>>;
}

/// A byte stream with its protocol.
#[derive(Debug)]
pub(crate) struct Wire<S, C> {
    stream: S,
    codec: C,
    input: BytesMut,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    /// Whether all that was written has left the TLS layer.
    flushed: bool,
}

/// Room for reading that is there at least: several messages at once.
const READ: usize = 16 * 1_024;

impl<S: AsyncRead + AsyncWrite + Unpin, C> Wire<S, C> {
    pub(crate) fn new(stream: S, codec: C) -> Self {
        Self { stream, codec, input: BytesMut::new(), output: Vec::new(), written: 0, flushed: true }
    }

    /// The same stream from now on with another protocol: a log-in is over.
    pub(crate) fn with<D>(self, codec: D) -> Wire<S, D> {
        let Self { stream, input, output, written, flushed, .. } = self;
        Wire { stream, codec, input, output, written, flushed }
    }

    /// Sends a request outside of the measured work, and waits for what `answer` finds in the bytes that come.
    pub(crate) async fn ask<T>(
        &mut self,
        request: &[u8],
        mut answer: impl FnMut(&mut BytesMut) -> Result<Option<T>>,
    ) -> Result<T> {
        self.output.extend_from_slice(request);
        loop {
            if let Some(found) = answer(&mut self.input)? {
                return Ok(found);
            }
            self.io().await?;
        }
    }

    /// Writes what is queued and reads what has come; returns once something came.
    async fn io(&mut self) -> Result<()> {
        poll_fn(|context| {
            self.poll_write(context)?;
            self.poll_read(context)
        })
        .await
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<()> {
        while self.written < self.output.len() {
            match Pin::new(&mut self.stream).poll_write(context, &self.output[self.written..])? {
                Poll::Ready(0) => bail!("the connection takes no more bytes"),
                Poll::Ready(count) => self.written += count,
                Poll::Pending => return Ok(()),
            }
            self.flushed = false;
        }
        self.output.clear();
        self.written = 0;
        if !self.flushed {
            self.flushed = Pin::new(&mut self.stream).poll_flush(context)?.is_ready();
        }
        Ok(())
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let filled = self.input.len();
        self.input.resize(filled + READ, 0);
        let mut room = ReadBuf::new(&mut self.input[filled..]);
        let outcome = Pin::new(&mut self.stream).poll_read(context, &mut room);
        let count = room.filled().len();
        self.input.truncate(filled + count);
        match outcome {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) if count == 0 => Poll::Ready(Err(anyhow::anyhow!("the server closed the connection"))),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Codec> Link for Wire<S, C> {
    fn send(&mut self, number: u64) -> Result<()> {
        self.codec.encode(number, &mut self.output);
        Ok(())
    }

    async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.codec.decode(&mut self.input, &mut self.output)? {
                return Ok(event);
            }
            self.io().await?;
        }
    }
}

/// Two ends: one sends, the other receives.
#[derive(Debug)]
pub(crate) struct Pair<A, B> {
    pub(crate) sender: A,
    pub(crate) receiver: B,
}

impl<A: Link, B: Link> Link for Pair<A, B> {
    fn send(&mut self, number: u64) -> Result<()> {
        self.sender.send(number)
    }

    async fn next(&mut self) -> Result<Event> {
        tokio::select! {
            event = self.sender.next() => event,
            event = self.receiver.next() => event,
        }
    }
}

/// The message of that number: text, which every protocol can carry as it is.
pub(crate) fn message(number: u64) -> [u8; MESSAGE] {
    let mut bytes = [b'.'; MESSAGE];
    for (place, byte) in bytes.iter_mut().take(DIGITS).enumerate() {
        let digit = (number >> (4 * (DIGITS - 1 - place))) & 0xf;
        *byte = b"0123456789abcdef"[usize::try_from(digit).unwrap_or(0)];
    }
    bytes
}

/// The number of a message.
pub(crate) fn number(message: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(message.get(..DIGITS)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

/// Takes a line, without its end, if there is one whole.
pub(crate) fn line(input: &mut BytesMut) -> Option<BytesMut> {
    let end = input.windows(2).position(|two| two == b"\r\n")?;
    let line = input.split_to(end);
    input.advance(2);
    Some(line)
}

/// When each message was sent, or was due, until it is answered. Numbers rise by one.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    first: u64,
    times: VecDeque<Option<Instant>>,
}

impl Pending {
    /// The next message.
    pub(crate) fn push(&mut self, at: Instant) {
        self.times.push_back(Some(at));
    }

    /// Takes the time of a message; `None` if it was answered before, or never sent.
    pub(crate) fn take(&mut self, number: u64) -> Option<Instant> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let at = self.times.get_mut(place)?.take();
        while let Some(None) = self.times.front() {
            self.times.pop_front();
            self.first += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_and_tells_its_number() {
        for of in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(message(of).len(), MESSAGE);
            assert_eq!(number(&message(of)), Some(of));
        }
        assert_eq!(number(b"short"), None);
        assert_eq!(number(b"not a number at all"), None);
    }

    #[test]
    fn a_line_is_taken_only_when_it_is_whole() {
        let mut input = BytesMut::from(&b"one\r\ntwo\r"[..]);
        assert_eq!(line(&mut input).as_deref(), Some(&b"one"[..]));
        assert_eq!(line(&mut input), None);
        input.extend_from_slice(b"\n");
        assert_eq!(line(&mut input).as_deref(), Some(&b"two"[..]));
        assert!(input.is_empty());
    }

    #[test]
    fn each_message_is_answered_once_in_any_order() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        for _ in 0..3 {
            pending.push(now);
        }
        assert_eq!(pending.take(1), Some(now));
        assert_eq!(pending.take(1), None);
        assert_eq!(pending.take(0), Some(now));
        assert_eq!((pending.take(0), pending.take(7)), (None, None));
        assert_eq!(pending.take(2), Some(now));
        assert!(pending.times.is_empty());
    }
}
