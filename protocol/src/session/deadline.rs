//! How long a peer may take. `now_ms` is any clock that never goes back; the shell brings it.

use crate::error::Violation;
use crate::limits::{FRAME_DEADLINE_MS, HELLO_DEADLINE_MS};

/// The time a new connection has to say [`Hello`](crate::message::Hello) (D4).
#[derive(Debug, Clone)]
pub struct HelloDeadline {
    due_ms: Option<u64>,
}

impl HelloDeadline {
    /// The connection is there.
    pub fn new(now_ms: u64) -> Self {
        Self { due_ms: Some(now_ms.saturating_add(HELLO_DEADLINE_MS)) }
    }

    /// Hello has arrived whole: there is no deadline any more.
    pub fn met(&mut self) {
        self.due_ms = None;
    }

    /// When to call [`HelloDeadline::check`], if Hello has not come by then.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Fails once the time is over.
    ///
    /// # Errors
    /// [`Violation::Timeout`].
    pub fn check(&self, now_ms: u64) -> Result<(), Violation> {
        match self.due_ms {
            Some(due_ms) if now_ms >= due_ms => Err(Violation::Timeout { what: "Hello" }),
            _ => Ok(()),
        }
    }
}

/// The time a frame that has begun has to arrive whole, however slowly its bytes trickle in.
///
/// An idle stream has no deadline. More bytes of the same frame do not move it; the frame's end does.
#[derive(Debug, Clone, Default)]
pub struct FrameDeadline {
    due_ms: Option<u64>,
}

impl FrameDeadline {
    /// Something was read. `ended` says whether at least one frame ended by it, `mid_frame` whether one has begun and
    /// not ended since, see [`FrameDecoder::is_mid_frame`](crate::frame::FrameDecoder::is_mid_frame).
    pub fn read(&mut self, ended: bool, mid_frame: bool, now_ms: u64) {
        if ended || !mid_frame {
            self.due_ms = None;
        }
        if mid_frame && self.due_ms.is_none() {
            self.due_ms = Some(now_ms.saturating_add(FRAME_DEADLINE_MS));
        }
    }

    /// When to call [`FrameDeadline::check`], if a frame has begun.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Fails once the time is over.
    ///
    /// # Errors
    /// [`Violation::Timeout`].
    pub fn check(&self, now_ms: u64) -> Result<(), Violation> {
        match self.due_ms {
            Some(due_ms) if now_ms >= due_ms => Err(Violation::Timeout { what: "a whole frame" }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_has_five_seconds_and_then_no_deadline() {
        let mut deadline = HelloDeadline::new(1_000);
        assert_eq!(deadline.due_ms(), Some(6_000));
        assert_eq!(deadline.check(5_999), Ok(()));
        assert_eq!(deadline.check(6_000), Err(Violation::Timeout { what: "Hello" }));
        deadline.met();
        assert_eq!((deadline.due_ms(), deadline.check(u64::MAX)), (None, Ok(())));
    }

    #[test]
    fn a_byte_a_second_does_not_move_a_frames_deadline() {
        let mut deadline = FrameDeadline::default();
        assert_eq!(deadline.due_ms(), None);
        for second in 0..20 {
            deadline.read(false, true, second * 1_000);
            assert_eq!(deadline.check(second * 1_000), Ok(()));
        }
        assert_eq!(deadline.check(20_000), Err(Violation::Timeout { what: "a whole frame" }));
    }

    #[test]
    fn a_frames_end_begins_the_next_ones_time() {
        let mut deadline = FrameDeadline::default();
        deadline.read(false, true, 0);
        deadline.read(true, true, 15_000);
        assert_eq!(deadline.due_ms(), Some(35_000));
        deadline.read(true, false, 16_000);
        assert_eq!(deadline.due_ms(), None);
    }
}
