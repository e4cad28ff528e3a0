//! Whether a partition takes one more command.
//!
//! Counted where commands come in, before the channel to the replica thread, so that one full partition never holds up another and
//! the refusal is immediate. The channel has room for everything admission lets through.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rove_protocol::ids::NodeId;

use super::error::ProposeError;

/// One partition's door.
#[derive(Default)]
pub(super) struct Admission {
    leads: AtomicBool,
    /// 0 when nobody is known to lead.
    leader: AtomicU64,
    commands: AtomicUsize,
    bytes: AtomicUsize,
}

impl Admission {
    /// Counts a command of `size` bytes in, or says why not. Every success is matched by one [`Admission::leave`].
    pub(super) fn enter(&self, size: usize, max_commands: usize, max_bytes: usize) -> Result<(), ProposeError> {
        if !self.leads.load(Ordering::Acquire) {
            let leader = self.leader.load(Ordering::Relaxed);
            return Err(ProposeError::NotLeader { leader: (leader != 0).then_some(NodeId(leader)) });
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

    /// Counts commands out: they are in an entry, or were refused.
    pub(super) fn leave(&self, commands: usize, bytes: usize) {
        self.commands.fetch_sub(commands, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Opens or closes the door, as leadership comes and goes.
    pub(super) fn set_leader(&self, leads: bool, leader: Option<NodeId>) {
        self.leader.store(leader.map_or(0, |node| node.0), Ordering::Relaxed);
        self.leads.store(leads, Ordering::Release);
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
    fn a_partition_that_is_not_led_here_refuses_and_names_the_leader() {
        let door = Admission::default();
        assert_eq!(door.enter(1, 1, 1), Err(ProposeError::NotLeader { leader: None }));
        door.set_leader(false, Some(NodeId(2)));
        assert_eq!(door.enter(1, 1, 1), Err(ProposeError::NotLeader { leader: Some(NodeId(2)) }));
    }

    #[test]
    fn commands_and_bytes_are_both_bounded_and_leaving_makes_room() {
        let door = Admission::default();
        door.set_leader(true, Some(NodeId(1)));
        assert_eq!(door.enter(10, 2, 15), Ok(()));
        assert_eq!(door.enter(10, 2, 15), Err(ProposeError::Busy), "bytes");
        assert_eq!(door.enter(5, 2, 15), Ok(()));
        assert_eq!(door.enter(0, 2, 15), Err(ProposeError::Busy), "commands");
        door.leave(2, 15);
        assert_eq!((door.queued(), door.enter(15, 2, 15)), (0, Ok(())));
    }
}
