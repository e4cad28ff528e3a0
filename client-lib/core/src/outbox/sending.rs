//! What goes up the stream, in which order, under which number.

use std::collections::VecDeque;

use rove_protocol::ids::{PostNo, WriterId};
use rove_protocol::limits;
use rove_protocol::message::Post;

use super::{Change, Effects, InFlight, Outbox, Stream};

impl Outbox {
    /// The writer to open the stream with: that of the oldest unanswered post.
    pub fn open_writer(&self) -> WriterId {
        self.entries.front().map_or(self.writer, |entry| entry.item.writer)
    }

    /// `Open` is being sent, for [`Outbox::open_writer`]. `window` is the server's limit of unanswered posts.
    pub fn stream_opening(&mut self, window: usize) {
        self.window = window.clamp(1, limits::UNANSWERED_POSTS);
        self.stream = Some(Stream {
            writer: self.open_writer(),
            opened: None,
            seen_all: false,
            next: PostNo(0),
            in_flight: VecDeque::new(),
            rewinding: false,
            retry_at_ms: 0,
            refusals: 0,
        });
    }

    /// The stream is gone: what was sent and not answered is sent again on the next one.
    pub fn stream_lost(&mut self) {
        self.stream = None;
    }

    /// Whether the stream is to be closed and opened again for another writer.
    pub fn wants_reopen(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.in_flight.is_empty() && stream.writer != self.open_writer())
    }

    /// Numbers as many posts as may be in flight. They may be sent when the changes are durable and
    /// [`Outbox::stored`] has been called.
    pub fn number(&mut self, effects: &mut Effects) {
        let Some(stream) = &self.stream else { return };
        if !self.verified || stream.writer != self.writer {
            return;
        }
        let mut last = self.last_numbers.get(&self.writer).copied().unwrap_or_default();
        for entry in self.entries.iter_mut().take(self.window) {
            if entry.item.writer != self.writer || entry.disputed {
                break;
            }
            if entry.item.number.is_none() {
                if entry.unchecked {
                    break;
                }
                last = last.next();
                entry.item.number = Some(last);
                entry.stored = false;
                effects.changes.push(Change::Put(entry.item.clone()));
            }
        }
        self.last_numbers.insert(self.writer, last);
    }

    /// The last number given, to be remembered before the changes are stored and handed to [`Outbox::stored`] after.
    pub fn numbered(&self) -> (WriterId, PostNo) {
        (self.writer, self.last_numbers.get(&self.writer).copied().unwrap_or_default())
    }

    /// Whether a number was given that nobody has said is durable: whoever gave it was cut off before it could.
    pub fn awaits_storing(&self) -> bool {
        let writer = self.writer;
        self.entries
            .iter()
            .take(self.window)
            .any(|entry| entry.item.writer == writer && entry.item.number.is_some() && !entry.stored)
    }

    /// Numbers up to this one are durable.
    pub fn stored(&mut self, (writer, last): (WriterId, PostNo)) {
        for entry in self.entries.iter_mut().take(self.window) {
            if entry.item.writer == writer && entry.item.number.is_some_and(|number| number <= last) {
                entry.stored = true;
            }
        }
    }

    /// The next post to send, if one may be sent now. It counts as sent.
    pub fn next_to_send(&mut self, now_ms: u64) -> Option<Post> {
        let stream = self.stream.as_mut()?;
        if stream.rewinding || now_ms < stream.retry_at_ms || stream.in_flight.len() >= self.window {
            return None;
        }
        if stream.writer != self.writer && !stream.seen_all {
            return None;
        }
        let last = stream.opened.map_or(PostNo(0), |(last, _)| last);
        // Whether a post before has still to hear that its number is its own.
        let mut undecided = false;
        let mut first = None;
        for entry in self.entries.iter().take_while(|entry| entry.item.writer == stream.writer) {
            if entry.unchecked && !stream.seen_all {
                return None;
            }
            first = first.or(entry.item.number);
            if entry.disputed {
                undecided = true;
                continue;
            }
            let number = entry.item.number.filter(|_| entry.stored)?;
            if undecided && number > last {
                return None;
            }
            // Still unchecked with the log seen: one that `last` covers.
            undecided |= entry.unchecked;
            if number >= stream.next {
                stream.next = number.next();
                stream.in_flight.push_back(InFlight { number, first: first.unwrap_or(number) });
                let is_void = entry.item.void.is_some() && !entry.as_it_was;
                return Some(if is_void { entry.item.void(number) } else { entry.item.post(number) });
            }
        }
        None
    }

    /// When [`Outbox::next_to_send`] is to be asked again although nothing has happened, in milliseconds.
    pub fn retry_at_ms(&self, now_ms: u64) -> Option<u64> {
        let stream = self.stream.as_ref()?;
        (!stream.rewinding && stream.retry_at_ms > now_ms && !self.entries.is_empty()).then_some(stream.retry_at_ms)
    }
}
