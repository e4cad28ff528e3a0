//! What the log says about posts that were in the store when this run began, and what becomes of numbers that are of no
//! use. The rules are in the module above.

use rove_protocol::ids::{PostNo, Seq};
use rove_protocol::message::Event;

use super::{Change, Effects, Outbox, Outcome};

impl Outbox {
    /// An event of this account's devices has come and is held: it is in the log for certain, so it is an answer too,
    /// perhaps the first.
    pub fn own_event(&mut self, event: &Event, effects: &mut Effects) {
        // In one transaction with the cursor that passes it: a post that is in the store has its event ahead.
        self.passed(event.seq, effects);
        let given = event.post_no <= self.last_numbers.get(&event.writer).copied().unwrap_or_default();
        let foreign = event.writer == self.writer && !given;
        let found = self.entries.iter().position(|entry| entry.item.is(event));
        if let Some(entry) = found.and_then(|index| self.entries.remove(index)) {
            let local = entry.item.local;
            self.kept.remove(&local);
            effects.changes.push(Change::Remove(local));
            if !entry.reported {
                let outcome = Outcome::Posted { seq: event.seq, message_id: event.message_id, time_ms: event.time_ms };
                effects.resolved.push((local, outcome));
            }
            // Posted under another number than its own, which may never be used now: nothing could follow on that.
            let skipped =
                entry.item.number.is_some() && entry.item.writer == self.writer && !entry.item.has_number_of(event);
            if skipped || foreign {
                self.doubt(effects);
            }
        } else if foreign {
            // This store never gave the number: what it is a copy of went on without it.
            self.doubt(effects);
        }
    }

    /// The cursor is here now: settles what waited for the log to be seen.
    pub fn caught_up(&mut self, cursor: Seq, effects: &mut Effects) {
        self.passed(cursor, effects);
        let Some(stream) = &mut self.stream else { return };
        let Some((last, head)) = stream.opened else { return };
        if cursor < head {
            return;
        }
        if !stream.seen_all {
            stream.seen_all = true;
            self.check(last, effects);
        }
        self.settle(effects);
    }

    /// The log has been seen up to the head, and the stream's writer has used numbers up to `last`. What was queued before
    /// this run and is still here is not in the log, unless it has one of those numbers: then the answer will say.
    fn check(&mut self, last: PostNo, effects: &mut Effects) {
        let Some(writer) = self.stream.as_ref().map(|stream| stream.writer) else { return };
        let mut index = 0;
        while let Some(entry) = self.entries.get_mut(index) {
            if entry.item.number.is_none_or(|number| entry.item.writer == writer && number > last) {
                entry.unchecked = false;
            }
            match entry.item.void {
                // Cancelled while nobody knew whether it was posted. It was not.
                Some(code) if entry.item.number.is_none() => self.resolve(index, Outcome::Refused(code), effects),
                _ => index += 1,
            }
        }
    }

    /// Moves the posts of a writer that was given up to the current one, if one of their numbers is of no use and all that
    /// there is to know about the others is known.
    pub(super) fn settle(&mut self, effects: &mut Effects) {
        let Some(stream) = &self.stream else { return };
        let Some((last, _)) = stream.opened else { return };
        let old = stream.writer;
        if !stream.seen_all || !stream.in_flight.is_empty() || old == self.writer {
            return;
        }
        let mut disputed = false;
        for entry in self.entries.iter().filter(|entry| entry.item.writer == old) {
            if entry.disputed {
                disputed = true;
            } else if entry.item.number.is_some_and(|number| number <= last) {
                return;
            }
        }
        if !disputed {
            return;
        }
        let mut index = 0;
        while let Some(entry) = self.entries.get_mut(index) {
            match entry.item.void {
                _ if entry.item.writer != old => index += 1,
                Some(code) => self.resolve(index, Outcome::Refused(code), effects),
                None => {
                    entry.unbind(self.writer);
                    effects.changes.push(Change::Put(entry.item.clone()));
                    index += 1;
                }
            }
        }
    }

    /// Somebody else uses the writer of the stream.
    pub(super) fn doubt(&mut self, effects: &mut Effects) {
        if self.stream.as_ref().is_none_or(|stream| stream.writer == self.writer) {
            self.verified = false;
            effects.needs_writer = true;
        }
    }
}
