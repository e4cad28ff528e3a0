//! What arrives, and what it means for the queue.

use rove_protocol::ids::{PostNo, Seq};
use rove_protocol::message::{Posted, Refused};
use rove_protocol::registry::ErrorCode;

use super::{Change, Effects, InFlight, Kept, Outbox, Outcome, REFUSED_KEPT};

/// Wait after a refusal that is not for good when the server gives no advice: doubled each time up to the cap.
const RETRY_BASE_MS: u64 = 100;
/// The longest such wait: an overloaded server is asked a few times a minute, a user waits seconds, not minutes.
const RETRY_CAP_MS: u64 = 10_000;

/// Refusals that no repetition will change although the number was not consumed.
fn is_permanent(code: ErrorCode) -> bool {
    [
        ErrorCode::Malformed,
        ErrorCode::CriticalExtension,
        ErrorCode::Unsupported,
        ErrorCode::InvalidArgument,
        ErrorCode::NotFound,
        ErrorCode::Forbidden,
        ErrorCode::BodyTooLarge,
    ]
    .contains(&code)
}

impl Outbox {
    /// The stream is open: `last` is the writer's last number at the server, `head` the last seq of the log.
    pub fn stream_opened(&mut self, last: PostNo, head: Seq, effects: &mut Effects) {
        let Some(stream) = &mut self.stream else { return };
        stream.opened = Some((last, head));
        if stream.writer != self.writer {
            return;
        }
        if last > self.last_numbers.get(&self.writer).copied().unwrap_or_default() {
            self.verified = false;
            effects.needs_writer = true;
        } else {
            self.verified = true;
        }
    }

    /// `Posted` has come.
    pub fn posted(&mut self, posted: &Posted, effects: &mut Effects) {
        self.answered(posted.post_no);
        if let Some(index) = self.asked(posted.post_no) {
            self.took(index, posted, effects);
        }
        self.settle(effects);
    }

    fn took(&mut self, index: usize, posted: &Posted, effects: &mut Effects) {
        if let Some(stream) = &mut self.stream {
            stream.refusals = 0;
        }
        let outcome = Outcome::Posted { seq: posted.seq, message_id: posted.message_id, time_ms: posted.time_ms };
        self.resolve(index, outcome, effects);
    }

    /// `Refused` has come. `random` is any uniformly distributed number.
    pub fn refused(&mut self, refused: &Refused, now_ms: u64, random: u64, effects: &mut Effects) {
        self.took_not(refused, now_ms, random, effects);
        self.settle(effects);
    }

    fn took_not(&mut self, refused: &Refused, now_ms: u64, random: u64, effects: &mut Effects) {
        // One of a flight of which another one was refused before.
        let follows = self.stream.as_ref().is_some_and(|stream| stream.rewinding);
        let answered = self.answered(refused.post_no);
        let index = self.asked(refused.post_no);
        let code = refused.code;
        if code == ErrorCode::PostNoReused || code == ErrorCode::WriterTaken {
            let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) else { return };
            if entry.item.void.is_some() && !entry.as_it_was && code == ErrorCode::PostNoReused {
                // Cancelled too late, most likely: what it was has the number. Asking with that is a repeat, and harmless.
                entry.as_it_was = true;
                self.go_back(now_ms);
                return;
            }
            entry.disputed = true;
            self.doubt(effects);
            return;
        }
        if refused.consumed {
            if let Some(index) = index {
                let code = self.entries[index].item.void.unwrap_or(code);
                self.resolve(index, Outcome::Refused(code), effects);
            }
            return;
        }
        if code == ErrorCode::Gap {
            if answered.is_some_and(|sent| refused.expected < sent.first) {
                // The server has forgotten numbers that it had answered when this one was sent: these can never follow on
                // them. (Numbers that were answered since may have come into the log behind it: by another way, from before
                // the last change of the node or of the leader.)
                self.dispute_all();
                self.doubt(effects);
            } else {
                self.go_back(now_ms);
            }
            return;
        }
        let mut wait_ms = u64::from(refused.retry_after_ms);
        match index {
            Some(index) if is_permanent(code) && self.entries[index].item.void.is_none() => {
                self.give_up(index, code, effects);
            }
            _ => {
                let refusals = self.stream.as_mut().map_or(0, |stream| {
                    stream.refusals = (stream.refusals + u32::from(!follows)).clamp(1, 16);
                    stream.refusals
                });
                let bound = (RETRY_BASE_MS << refusals.min(10)).min(RETRY_CAP_MS);
                wait_ms = wait_ms.saturating_add(bound / 2 + random % (bound / 2));
            }
        }
        self.go_back(now_ms.saturating_add(wait_ms));
    }

    /// The server takes no posts here any more, for this reason, and everything it took has been seen. Numbers that were
    /// given are still used up should it ever take posts again.
    pub fn refuse_all(&mut self, code: ErrorCode, effects: &mut Effects) {
        let mut index = 0;
        while index < self.entries.len() {
            let entry = &self.entries[index];
            if entry.item.number.is_none() {
                self.resolve(index, Outcome::Refused(code), effects);
                continue;
            }
            if !entry.reported {
                match entry.item.void {
                    Some(code) => {
                        self.entries[index].reported = true;
                        effects.resolved.push((self.entries[index].item.local, Outcome::Refused(code)));
                    }
                    None => self.give_up(index, code, effects),
                }
            }
            index += 1;
        }
    }

    fn dispute_all(&mut self) {
        let Some(writer) = self.stream.as_ref().map(|stream| stream.writer) else { return };
        for entry in &mut self.entries {
            if entry.item.writer == writer && entry.item.number.is_some() {
                entry.disputed = true;
            }
        }
    }

    /// One in flight is answered: how it was sent.
    fn answered(&mut self, number: PostNo) -> Option<InFlight> {
        let stream = self.stream.as_mut()?;
        let index = stream.in_flight.iter().position(|sent| sent.number == number)?;
        let sent = stream.in_flight.remove(index);
        if stream.rewinding && stream.in_flight.is_empty() {
            stream.rewinding = false;
            stream.next = PostNo(0);
        }
        sent
    }

    /// Where the post with this number of the stream's writer is, if it is still here.
    fn asked(&self, number: PostNo) -> Option<usize> {
        let writer = self.stream.as_ref()?.writer;
        self.entries.iter().position(|entry| entry.item.writer == writer && entry.item.number == Some(number))
    }

    /// Sends everything unanswered again once what is in flight is answered, but not before the time given.
    fn go_back(&mut self, not_before_ms: u64) {
        let Some(stream) = &mut self.stream else { return };
        stream.retry_at_ms = stream.retry_at_ms.max(not_before_ms);
        stream.rewinding = !stream.in_flight.is_empty();
        stream.next = PostNo(0);
    }

    /// Reports a post as refused; its number still has to be used up.
    fn give_up(&mut self, index: usize, code: ErrorCode, effects: &mut Effects) {
        let entry = &mut self.entries[index];
        entry.item.void = Some(code);
        entry.reported = true;
        let item = entry.item.clone();
        effects.changes.push(Change::Put(item.clone()));
        effects.resolved.push((item.local, Outcome::Refused(code)));
        self.keep(Kept { item, outcome: Outcome::Refused(code) }, effects);
    }

    pub(super) fn resolve(&mut self, index: usize, outcome: Outcome, effects: &mut Effects) {
        let Some(entry) = self.entries.remove(index) else { return };
        let local = entry.item.local;
        match outcome {
            Outcome::Refused(ErrorCode::Cancelled) => {
                effects.changes.push(Change::Remove(local));
            }
            Outcome::Refused(code) => {
                effects.changes.push(Change::Refused(local, code));
                self.keep(Kept { item: entry.item, outcome }, effects);
            }
            // The row stays until the event is held: a crash between the two finds the post and its number again.
            Outcome::Posted { .. } => self.keep(Kept { item: entry.item, outcome }, effects),
        }
        if !entry.reported {
            effects.resolved.push((local, outcome));
        }
    }

    fn keep(&mut self, kept: Kept, effects: &mut Effects) {
        self.kept.insert(kept.item.local, kept);
        let refused = |kept: &Kept| matches!(kept.outcome, Outcome::Refused(_));
        if self.kept.values().filter(|kept| refused(kept)).count() > REFUSED_KEPT {
            let oldest = self.kept.iter().find(|(_, kept)| refused(kept)).map(|(local, _)| *local);
            if let Some(local) = oldest {
                self.kept.remove(&local);
                effects.changes.push(Change::Remove(local));
            }
        }
    }
}
