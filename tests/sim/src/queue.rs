//! Virtual time: what happens when.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Something that will happen. Ordered by time, and among equal times by when it was scheduled.
struct Scheduled<E> {
    at_us: u64,
    order: u64,
    event: E,
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

/// The events to come, and the time of the last one taken.
pub struct Queue<E> {
    now_us: u64,
    scheduled: u64,
    events: BinaryHeap<Reverse<Scheduled<E>>>,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { now_us: 0, scheduled: 0, events: BinaryHeap::new() }
    }
}

impl<E> Queue<E> {
    /// Microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// `event` happens `delay_us` from now.
    pub fn after(&mut self, delay_us: u64, event: E) {
        self.scheduled += 1;
        self.events.push(Reverse(Scheduled { at_us: self.now_us + delay_us, order: self.scheduled, event }));
    }

    /// Goes on to the next event.
    pub fn advance(&mut self) -> Option<E> {
        let Reverse(next) = self.events.pop()?;
        self.now_us = next.at_us;
        Some(next.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_scheduled() {
        let mut queue = Queue::default();
        queue.after(5, 'c');
        queue.after(1, 'a');
        queue.after(5, 'd');
        queue.after(1, 'b');
        let order: String = std::iter::from_fn(|| queue.advance()).collect();
        assert_eq!((order.as_str(), queue.now_us()), ("abcd", 5));
    }
}
