//! When commands become an entry.
//!
//! Nothing waits on a timer. A batch is made of whatever has queued up when the partition's log has room: at most
//! [`MAX_UNCOMMITTED_BATCHES`] batches are on their way at once, so under load the next one gathers while they are, and without load
//! a command goes at once and alone.

use std::collections::VecDeque;

use crate::command::{Batch, Envelope};

/// Bytes of commands in one batch. A full one is sent to a follower in one message, and occupies the disk for about as long as its
/// sync takes anyway; larger ones would only make the first command in them wait for the last.
pub const MAX_BATCH_BYTES: usize = 512 * 1024;

/// Commands in one batch: what applying it may take is bounded even if all are tiny (a few milliseconds).
pub const MAX_BATCH_COMMANDS: usize = 4_096;

/// Batches proposed and not committed: one that the disk (or the network) is busy with, and one that is there when it is done.
pub const MAX_UNCOMMITTED_BATCHES: u64 = 2;

/// The queue of one partition, before its log. Bounded by whoever fills it.
#[derive(Default)]
pub struct Batcher {
    queue: VecDeque<Envelope>,
    last_time_ms: u64,
}

/// A batch and what it holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// The batch.
    pub batch: Batch,
    /// Bytes of its commands.
    pub bytes: usize,
}

impl Batcher {
    /// Queues a command.
    pub fn push(&mut self, envelope: Envelope) {
        self.queue.push_back(envelope);
    }

    /// Commands queued.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next batch, if something is queued and `uncommitted` (entries of the log that are not committed) leaves room.
    ///
    /// `now_ms` is the leader's clock; the stamp of a batch is never before that of the one before.
    pub fn take(&mut self, now_ms: u64, uncommitted: u64) -> Option<Taken> {
        if self.queue.is_empty() || uncommitted >= MAX_UNCOMMITTED_BATCHES {
            return None;
        }
        let mut bytes = 0;
        let mut count = 0;
        for envelope in self.queue.iter().take(MAX_BATCH_COMMANDS) {
            let with_this = bytes + envelope.command.len();
            // One always goes, however large.
            if count > 0 && with_this > MAX_BATCH_BYTES {
                break;
            }
            bytes = with_this;
            count += 1;
        }
        self.last_time_ms = self.last_time_ms.max(now_ms);
        let commands = self.queue.drain(..count).collect();
        Some(Taken { batch: Batch { time_ms: self.last_time_ms, commands }, bytes })
    }

    /// Empties the queue: the replica no longer leads.
    pub fn drain(&mut self) -> impl Iterator<Item = Envelope> + '_ {
        self.queue.drain(..)
    }

    /// Puts back a batch that the log refused, before everything else.
    pub fn put_back(&mut self, taken: Taken) {
        for envelope in taken.batch.commands.into_iter().rev() {
            self.queue.push_front(envelope);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::Origin;

    fn envelope(size: usize) -> Envelope {
        Envelope { origin: Origin::NOBODY, command: Bytes::from(vec![0; size]) }
    }

    fn filled(sizes: &[usize]) -> Batcher {
        let mut batcher = Batcher::default();
        for size in sizes {
            batcher.push(envelope(*size));
        }
        batcher
    }

    #[test]
    fn everything_that_queued_up_becomes_one_batch() {
        let mut batcher = filled(&[10, 20, 30]);
        let taken = batcher.take(7, 0).unwrap();
        assert_eq!((taken.batch.commands.len(), taken.bytes, taken.batch.time_ms), (3, 60, 7));
        assert_eq!(batcher.take(8, 0), None);
    }

    #[test]
    fn nothing_is_taken_while_two_batches_are_on_their_way() {
        let mut batcher = filled(&[1]);
        assert_eq!(batcher.take(1, 2), None);
        assert!(batcher.take(1, 1).is_some());
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_in_commands_but_never_empty() {
        let mut batcher = filled(&[MAX_BATCH_BYTES + 1, MAX_BATCH_BYTES, 1]);
        let sizes: Vec<usize> = std::iter::from_fn(|| batcher.take(1, 0)).map(|taken| taken.bytes).collect();
        assert_eq!(sizes, [MAX_BATCH_BYTES + 1, MAX_BATCH_BYTES, 1]);
        let mut many = filled(&vec![0; MAX_BATCH_COMMANDS + 1]);
        assert_eq!(many.take(1, 0).unwrap().batch.commands.len(), MAX_BATCH_COMMANDS);
        assert_eq!(many.len(), 1);
    }

    #[test]
    fn the_stamp_never_goes_back() {
        let mut batcher = filled(&[1]);
        batcher.take(100, 0);
        batcher.push(envelope(1));
        assert_eq!(batcher.take(50, 0).unwrap().batch.time_ms, 100);
    }

    #[test]
    fn what_the_log_refused_goes_first_the_next_time() {
        let mut batcher = filled(&[1, 2]);
        let taken = batcher.take(1, 0).unwrap();
        batcher.push(envelope(3));
        batcher.put_back(taken);
        let sizes: Vec<usize> = batcher.drain().map(|envelope| envelope.command.len()).collect();
        assert_eq!(sizes, [1, 2, 3]);
    }
}
