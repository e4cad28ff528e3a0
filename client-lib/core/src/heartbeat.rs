//! When to send a heartbeat, and when the path is dead.
//!
//! An answered heartbeat is followed by the next one after the server's interval. An unanswered one is repeated much
//! sooner: three in a row without an answer are a dead path, found within a few seconds instead of the 60 s of QUIC's
//! idle time-out. Any answer, however late, proves the path, and so does anything else that is heard. When something was
//! sent that must be answered and nothing is heard, a heartbeat asks without waiting for the interval: a server that
//! died without a word is noticed while the user still looks.
//!
//! Where there are other nodes, [`Heartbeats::doubts`] says much earlier that one of them may be asked: the session goes on meanwhile, and
//! whoever is heard first wins.

/// Unanswered heartbeats after which a path is dead: one may be lost, two may be bad luck.
pub const UNANSWERED: u32 = 3;
/// Wait for an answer before asking again: far above a mobile round trip, and three of them still feel like now.
pub const PROBE_MS: u64 = 2_000;

/// Silence after which another node is asked while this one is still waited for: twice an election, and several retransmissions on a good
/// mobile path. Asking in vain costs a handshake and loses nothing; how often it may be in vain is for [`doubt`](crate::doubt).
pub const DOUBT_MS: u64 = 1_000;
/// Unanswered heartbeats after which another node is asked although nothing else is awaited: one may be lost.
const DOUBTED: u32 = 2;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Send a heartbeat with this number.
    Send(u64),
    /// Nothing is answered any more: reconnect.
    Dead,
    /// Nothing yet.
    Wait,
}

/// The heartbeats of one session.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    interval_ms: u64,
    number: u64,
    unanswered: u32,
    sent_at_ms: u64,
    due_ms: u64,
    active: bool,
}

impl Heartbeats {
    /// The first one is due at once: it tells the server that datagrams arrive.
    pub fn new(interval_ms: u64, now_ms: u64) -> Self {
        // Never more often than the probes, whatever a server asks for.
        let interval_ms = interval_ms.max(PROBE_MS);
        Self { interval_ms, number: 0, unanswered: 0, sent_at_ms: now_ms, due_ms: now_ms, active: true }
    }

    /// When [`Heartbeats::poll`] has something to do, or `None` in the background.
    pub fn due_ms(&self) -> Option<u64> {
        (self.active || self.unanswered > 0).then_some(self.due_ms)
    }

    /// The time has come, perhaps.
    pub fn poll(&mut self, now_ms: u64) -> Beat {
        if self.due_ms().is_none_or(|due_ms| now_ms < due_ms) {
            return Beat::Wait;
        }
        if self.unanswered >= UNANSWERED {
            return Beat::Dead;
        }
        self.number += 1;
        self.unanswered += 1;
        self.sent_at_ms = now_ms;
        self.due_ms = now_ms.saturating_add(PROBE_MS);
        Beat::Send(self.number)
    }

    /// An answer came. Returns the round trip in milliseconds if it answers the newest heartbeat.
    pub fn answered(&mut self, number: u64, now_ms: u64) -> Option<u64> {
        if number == 0 || number > self.number {
            return None;
        }
        self.unanswered = 0;
        self.due_ms = self.sent_at_ms.saturating_add(self.interval_ms);
        (number == self.number).then(|| now_ms.saturating_sub(self.sent_at_ms))
    }

    /// Something else was heard from the server at this time.
    pub fn heard(&mut self, at_ms: u64) {
        if self.unanswered > 0 && at_ms > self.sent_at_ms {
            self.unanswered = 0;
            self.due_ms = self.sent_at_ms.saturating_add(self.interval_ms);
        }
    }

    /// Something unanswered was sent, and nothing has been heard since `since_ms`: asks when that has lasted long enough.
    /// Returns when to call again if it has not.
    pub fn silent(&mut self, since_ms: u64, now_ms: u64) -> Option<u64> {
        let due_ms = since_ms.saturating_add(PROBE_MS);
        if now_ms < due_ms {
            return Some(due_ms);
        }
        if self.unanswered == 0 {
            self.probe(now_ms);
        }
        None
    }

    /// Whether so much is unanswered that another node, if there is one, may be asked. `silent_since_ms` is when something was last heard, if
    /// something that was sent must be answered.
    pub fn doubts(&self, silent_since_ms: Option<u64>, now_ms: u64) -> bool {
        let silent = silent_since_ms.is_some_and(|since_ms| now_ms >= since_ms.saturating_add(DOUBT_MS));
        silent || self.unanswered >= DOUBTED
    }

    /// The network changed: ask at once whether the path lives.
    pub fn probe(&mut self, now_ms: u64) {
        self.unanswered = 0;
        self.due_ms = now_ms;
        // Also in the background: somebody wants to know. One answer ends it.
        if !self.active {
            self.number += 1;
            self.unanswered = 1;
        }
    }

    /// The app came to the foreground or left it. In the background there are no heartbeats.
    pub fn set_active(&mut self, active: bool, now_ms: u64) {
        if active && !self.active {
            self.due_ms = now_ms;
        }
        if !active {
            self.unanswered = 0;
        }
        self.active = active;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answered_heartbeat_is_followed_by_the_next_after_the_interval() {
        let mut beats = Heartbeats::new(20_000, 0);
        assert_eq!(beats.poll(0), Beat::Send(1));
        assert_eq!(beats.answered(1, 40), Some(40));
        assert_eq!(beats.poll(19_999), Beat::Wait);
        assert_eq!(beats.poll(20_000), Beat::Send(2));
    }

    #[test]
    fn three_unanswered_in_a_row_are_a_dead_path_within_six_seconds() {
        let mut beats = Heartbeats::new(20_000, 0);
        assert_eq!(beats.poll(0), Beat::Send(1));
        assert_eq!(beats.poll(2_000), Beat::Send(2));
        assert_eq!(beats.poll(4_000), Beat::Send(3));
        assert_eq!(beats.poll(5_999), Beat::Wait);
        assert_eq!(beats.poll(6_000), Beat::Dead);
    }

    #[test]
    fn silence_after_something_was_sent_is_asked_about_before_the_interval_is_over() {
        let mut beats = Heartbeats::new(20_000, 0);
        beats.poll(0);
        beats.answered(1, 10);
        assert_eq!(beats.silent(5_000, 5_500), Some(7_000));
        assert_eq!(beats.poll(5_500), Beat::Wait);
        assert_eq!(beats.silent(5_000, 7_000), None);
        assert_eq!(beats.poll(7_000), Beat::Send(2));
        assert_eq!(beats.poll(9_000), Beat::Send(3));
        beats.heard(9_500);
        assert_eq!(beats.poll(13_000), Beat::Wait, "whatever is heard proves the path");
    }

    #[test]
    fn a_late_answer_proves_the_path() {
        let mut beats = Heartbeats::new(20_000, 0);
        beats.poll(0);
        beats.poll(2_000);
        assert_eq!(beats.answered(1, 2_500), None);
        assert_eq!(beats.poll(4_000), Beat::Wait);
        assert_eq!(beats.answered(99, 2_500), None, "an answer to nothing is ignored");
    }

    #[test]
    fn a_node_is_doubted_after_a_second_of_awaited_silence_or_two_lost_heartbeats_and_not_before() {
        let mut beats = Heartbeats::new(20_000, 0);
        assert_eq!(beats.poll(0), Beat::Send(1));
        assert!(!beats.doubts(None, 1_999), "one may be lost");
        assert!(!beats.doubts(Some(1_000), 1_999));
        assert!(beats.doubts(Some(1_000), 2_000));
        assert_eq!(beats.poll(2_000), Beat::Send(2));
        assert!(beats.doubts(None, 2_000));
        beats.heard(2_001);
        assert!(!beats.doubts(None, 2_001));
    }

    #[test]
    fn the_background_is_silent_except_for_a_probe() {
        let mut beats = Heartbeats::new(20_000, 0);
        beats.poll(0);
        beats.answered(1, 1);
        beats.set_active(false, 10);
        assert_eq!((beats.due_ms(), beats.poll(60_000)), (None, Beat::Wait));
        beats.probe(70_000);
        assert!(matches!(beats.poll(70_000), Beat::Send(_)));
        beats.answered(beats.number, 70_010);
        assert_eq!(beats.due_ms(), None);
        beats.set_active(true, 80_000);
        assert!(matches!(beats.poll(80_000), Beat::Send(_)));
    }
}
