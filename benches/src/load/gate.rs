//! Keeps a writer in step with those who listen to it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

/// Lets a post through for each that has been delivered to all members, so that at most so many are on their way. Without it a writer
/// outruns its listeners, and what is measured is how they catch up.
#[derive(Debug)]
pub struct Gate {
    places: Semaphore,
    deliveries: AtomicU64,
    members: u64,
}

impl Gate {
    /// For so many members and posts on their way.
    pub fn new(members: u64, window: usize) -> Self {
        Self { places: Semaphore::new(window), deliveries: AtomicU64::new(0), members }
    }

    /// A post was delivered to one member. Not every post need be with all members when the next is let through: as many deliveries
    /// as they would be have been made.
    pub fn delivered(&self) {
        if (self.deliveries.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.members) {
            self.places.add_permits(1);
        }
    }

    /// Waits until one more may be posted. Cancelling it loses nothing.
    pub(super) async fn pass(&self) {
        match self.places.acquire().await {
            Ok(place) => place.forget(),
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Passes if nothing is to be waited for.
    pub(super) fn try_pass(&self) -> bool {
        self.places.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_post_passes_when_one_has_been_delivered_as_often_as_there_are_members() {
        let gate = Gate::new(3, 2);
        assert!(gate.try_pass() && gate.try_pass() && !gate.try_pass());
        gate.delivered();
        gate.delivered();
        assert!(!gate.try_pass());
        gate.delivered();
        assert!(gate.try_pass() && !gate.try_pass());
    }
}
