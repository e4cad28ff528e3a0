//! What waits to be written to one stream of a link: bounded in frames and bytes, filled without waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::registry::{self, StreamType};

/// A class of traffic with a stream and a queue of its own, so that bulk never delays heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Raft messages without entries.
    Urgent,
    /// Raft messages with entries.
    Append,
    /// Commands for leaders, and which are due.
    Forward,
    /// Presence.
    Presence,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::Append, Self::Forward, Self::Presence];

    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Append => "append",
            Self::Forward => "forward",
            Self::Presence => "presence",
        }
    }

    pub(super) fn stream(self) -> StreamType {
        match self {
            Self::Urgent => StreamType::URGENT,
            Self::Append => StreamType::APPEND,
            Self::Forward => StreamType::FORWARD,
            Self::Presence => StreamType::PRESENCE,
        }
    }

    pub(super) fn of_stream(stream: StreamType) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.stream() == stream)
    }

    /// Which stream QUIC serves first; equal ones take turns. Control and questions have 2, snapshots -1.
    pub(super) fn priority(self) -> i32 {
        match self {
            Self::Urgent => 3,
            // Little, and stale soon.
            Self::Presence => 1,
            Self::Append | Self::Forward => 0,
        }
    }

    /// The longest frame of its stream.
    pub(super) fn frame_limit(self) -> usize {
        match self {
            Self::Urgent => registry::URGENT_FRAME,
            Self::Append => registry::APPEND_FRAME,
            Self::Forward => registry::FORWARD_FRAME,
            Self::Presence => registry::PRESENCE_BYTES + registry::AROUND,
        }
    }

    fn queue_limit(self) -> (usize, usize) {
        match self {
            Self::Urgent => (registry::URGENT_QUEUE_FRAMES, registry::URGENT_QUEUE_BYTES),
            Self::Append => (registry::APPEND_QUEUE_FRAMES, registry::APPEND_QUEUE_BYTES),
            Self::Forward => (registry::FORWARD_QUEUE_FRAMES, registry::FORWARD_QUEUE_BYTES),
            Self::Presence => (registry::PRESENCE_QUEUE_FRAMES, registry::PRESENCE_QUEUE_BYTES),
        }
    }
}

/// What was sent to and received from one peer in one class since the node started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent_frames: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_frames: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) dropped_frames: AtomicU64,
    pub(super) dropped_bytes: AtomicU64,
    pub(super) unlinked_frames: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }

    fn dropped(&self, bytes: usize) {
        Self::add(&self.dropped_frames, 1);
        Self::add(&self.dropped_bytes, bytes);
    }

    pub(super) fn status(&self, class: Class, queued: (usize, usize)) -> ClassStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClassStatus {
            class,
            queued_frames: queued.0,
            queued_bytes: queued.1,
            sent_frames: read(&self.sent_frames),
            sent_bytes: read(&self.sent_bytes),
            received_frames: read(&self.received_frames),
            received_bytes: read(&self.received_bytes),
            dropped_frames: read(&self.dropped_frames),
            dropped_bytes: read(&self.dropped_bytes),
            unlinked_frames: read(&self.unlinked_frames),
        }
    }
}

/// One class of traffic with one peer, since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassStatus {
    /// Which class.
    pub class: Class,
    /// Frames that wait to be written now.
    pub queued_frames: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Frames handed to QUIC.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames received.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames dropped because the queue was full, or a link ended with them in it.
    pub dropped_frames: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Messages that were not queued, as there was no connection.
    pub unlinked_frames: u64,
}

/// The queue had no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

/// The queue of one class of one link.
#[derive(Debug)]
pub(super) struct Queue {
    class: Class,
    waiting: Mutex<Waiting>,
    filled: Notify,
    counters: Arc<Counters>,
}

impl Queue {
    pub(super) fn new(class: Class, counters: Arc<Counters>) -> Self {
        Self { class, waiting: Mutex::default(), filled: Notify::new(), counters }
    }

    /// Queues a frame. Presence makes room by dropping the oldest; everything else is refused when there is none.
    pub(super) fn push(&self, frame: Bytes) -> Result<(), Full> {
        let (most_frames, most_bytes) = self.class.queue_limit();
        let mut waiting = self.waiting.lock();
        let full = |waiting: &Waiting| waiting.frames.len() >= most_frames || waiting.bytes + frame.len() > most_bytes;
        while full(&waiting) {
            let oldest = if self.class == Class::Presence { waiting.frames.pop_front() } else { None };
            let Some(oldest) = oldest else {
                self.counters.dropped(frame.len());
                return Err(Full);
            };
            waiting.bytes -= oldest.len();
            self.counters.dropped(oldest.len());
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back(frame);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// The next frames, in order: at least one, at most [`registry::WRITE_BATCH`] bytes of them or one that is larger.
    pub(super) async fn next(&self) -> Vec<Bytes> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Vec<Bytes> {
        let mut waiting = self.waiting.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = waiting.frames.front() {
            if !batch.is_empty() && bytes + next.len() > registry::WRITE_BATCH {
                break;
            }
            bytes += next.len();
            batch.extend(waiting.frames.pop_front());
        }
        waiting.bytes -= bytes;
        batch
    }

    /// Frames and bytes that wait.
    pub(super) fn size(&self) -> (usize, usize) {
        let waiting = self.waiting.lock();
        (waiting.frames.len(), waiting.bytes)
    }
}

impl Drop for Queue {
    /// What a link leaves behind is lost.
    fn drop(&mut self) {
        for frame in &self.waiting.get_mut().frames {
            self.counters.dropped(frame.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(class: Class) -> Queue {
        Queue::new(class, Arc::default())
    }

    fn dropped(queue: &Queue) -> u64 {
        queue.counters.dropped_frames.load(Ordering::Relaxed)
    }

    #[test]
    fn a_full_queue_refuses_and_counts() {
        let queue = queue(Class::Urgent);
        let frame = Bytes::from(vec![0; registry::URGENT_FRAME]);
        let fit = registry::URGENT_QUEUE_BYTES / registry::URGENT_FRAME;
        assert!((0..fit).all(|_| queue.push(frame.clone()).is_ok()));
        assert_eq!(queue.push(frame.clone()), Err(Full));
        assert_eq!((queue.size().0, dropped(&queue)), (fit, 1));
        queue.take();
        assert_eq!(queue.push(frame), Ok(()));
    }

    #[test]
    fn many_small_frames_are_bounded_too() {
        let queue = queue(Class::Append);
        let refused = (0..2 * registry::APPEND_QUEUE_FRAMES).filter(|_| queue.push(Bytes::new()).is_err()).count();
        assert_eq!(refused, registry::APPEND_QUEUE_FRAMES);
    }

    #[test]
    fn of_presence_the_latest_is_kept() {
        let queue = queue(Class::Presence);
        for number in 0..registry::PRESENCE_QUEUE_FRAMES + 2 {
            assert_eq!(queue.push(Bytes::from(number.to_le_bytes().to_vec())), Ok(()));
        }
        assert_eq!(queue.take().first().unwrap()[..], 2usize.to_le_bytes());
        assert_eq!(dropped(&queue), 2);
    }

    #[test]
    fn frames_come_out_in_order_in_batches_of_bounded_size() {
        let queue = queue(Class::Append);
        let large = Bytes::from(vec![1; 3 * registry::WRITE_BATCH]);
        queue.push(Bytes::from_static(b"first")).unwrap();
        queue.push(large.clone()).unwrap();
        queue.push(Bytes::from_static(b"last")).unwrap();
        assert_eq!(queue.take(), [Bytes::from_static(b"first")]);
        assert_eq!(queue.take(), [large]);
        assert_eq!(queue.take(), [Bytes::from_static(b"last")]);
        assert_eq!(queue.size(), (0, 0));
    }

    #[test]
    fn what_a_link_leaves_behind_is_counted() {
        let counters = Arc::new(Counters::default());
        let queue = Queue::new(Class::Forward, counters.clone());
        queue.push(Bytes::from_static(b"lost")).unwrap();
        drop(queue);
        assert_eq!(counters.dropped_frames.load(Ordering::Relaxed), 1);
    }
}
