//! Whether a partition takes one more command.
//!
//! Counted where commands come in, before the channel to the replica thread, so that one full partition never holds up another and
//! the refusal is immediate. The channel has room for everything admission lets through.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::error::ProposeError;

/// One partition's door. Open at first: until a leader is elected, commands wait.
#[derive(Default)]
pub(super) struct Admission {
    closed: AtomicBool,
    leads: AtomicBool,
    commands: AtomicUsize,
    bytes: AtomicUsize,
}

impl Admission {
    /// Counts a command of `size` bytes in, or says why not. Every success is matched by one [`Admission::leave`].
    pub(super) fn enter(&self, size: usize, max_commands: usize, max_bytes: usize) -> Result<(), ProposeError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ProposeError::NoLeader);
        }
        if self.commands.fetch_add(1, Ordering::Relaxed) >= max_commands {
            self.commands.fetch_sub(1, Ordering::Relaxed);
            return Err(ProposeError::Busy);
        }
        // A command on its own always fits, however large: its size has been checked against the limit of one command.
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        if before != 0 && before + size > max_bytes {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            self.commands.fetch_sub(1, Ordering::Relaxed);
            return Err(ProposeError::Busy);
        }
        Ok(())
    }

    /// Counts commands out: they are applied, or were given up.
    pub(super) fn leave(&self, commands: usize, bytes: usize) {
        self.commands.fetch_sub(commands, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Opens or closes the door, and says whether that changed anything (and to what).
    pub(super) fn set(&self, open: bool, leads: bool) -> Option<bool> {
        self.leads.store(leads, Ordering::Release);
        (self.closed.swap(!open, Ordering::AcqRel) == open).then_some(open)
    }

    /// Whether commands are taken.
    pub(super) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Whether this replica leads.
    pub(super) fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Commands counted in.
    pub(super) fn queued(&self) -> usize {
        self.commands.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_door_refuses_and_says_when_it_changes() {
        let door = Admission::default();
        assert_eq!(door.set(true, false), None);
        assert_eq!(door.set(false, false), Some(false));
        assert_eq!(door.enter(1, 1, 1), Err(ProposeError::NoLeader));
        assert_eq!(door.set(true, true), Some(true));
        assert_eq!((door.enter(1, 1, 1), door.leads()), (Ok(()), true));
    }

    #[test]
    fn commands_and_bytes_are_both_bounded_and_leaving_makes_room() {
        let door = Admission::default();
        assert_eq!(door.enter(10, 2, 15), Ok(()));
        assert_eq!(door.enter(10, 2, 15), Err(ProposeError::Busy), "bytes");
        assert_eq!(door.enter(5, 2, 15), Ok(()));
        assert_eq!(door.enter(0, 2, 15), Err(ProposeError::Busy), "commands");
        door.leave(2, 15);
        assert_eq!((door.queued(), door.enter(15, 2, 15)), (0, Ok(())));
    }
}
