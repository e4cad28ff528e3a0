//! The sender's side: what was proposed on this node and is not applied yet.

use std::collections::VecDeque;

use rove_protocol::ids::{NodeId, PartitionId};

use super::message::{Forward, ForwardAck};
use crate::command::Envelope;
use crate::life::Life;
use crate::replica::batcher::{MAX_BATCH_BYTES, MAX_BATCH_COMMANDS};

/// Ticks without an answer after which the leader is asked what is due: longer than a round through a slow disk, and short beside what
/// people notice. Only a message that was lost on the way needs it.
const ASK_AFTER_TICKS: u32 = 3;

/// Who leads the partition, and since which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The leader.
    pub node: NodeId,
    /// Its term.
    pub term: u64,
}

/// The commands of one partition that were proposed on this node, in order, until they are applied here. Bounded by whoever fills it.
#[derive(Debug)]
pub struct Router {
    partition: PartitionId,
    /// The number of the first command in each term. A node that starts again in the same term, be it on an empty disk, must not give a
    /// number twice: the leader would take the new command for a repeat.
    one: u64,
    queue: VecDeque<Envelope>,
    bytes: usize,
    leader: Option<Leadership>,
    /// The term in which it sent last.
    sent_term: u64,
    /// The number that the first of the queue has in that term.
    first: u64,
    /// How many of the queue need not be sent (again) in that term.
    sent: usize,
    /// The number after the highest that was ever sent in that term: whatever is below may be applied, also if it is to be sent again.
    ever_sent: u64,
    /// The term of the last entry applied here.
    applied_term: u64,
    /// Since something was sent or answered.
    quiet_ticks: u32,
    /// The next time something is sent, ask what is due first.
    ask: bool,
}

impl Router {
    /// Nothing waits, nobody leads.
    pub fn new(partition: PartitionId, life: Life) -> Self {
        let one = life.first_number();
        Self {
            partition,
            one,
            queue: VecDeque::new(),
            bytes: 0,
            leader: None,
            sent_term: 0,
            first: one,
            sent: 0,
            ever_sent: one,
            applied_term: 0,
            quiet_ticks: 0,
            ask: false,
        }
    }

    /// Commands that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of the commands that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A command of this node, behind all others.
    pub fn push(&mut self, envelope: Envelope) {
        self.bytes += envelope.command.len();
        self.queue.push_back(envelope);
    }

    /// Who leads now; nobody is known during an election.
    pub fn led_by(&mut self, leader: Option<Leadership>) {
        self.leader = leader;
    }

    /// An entry of this term was applied here, and all before it.
    pub fn applied(&mut self, term: u64) {
        self.applied_term = self.applied_term.max(term);
    }

    /// The command with this ticket was applied and answered. Returns its bytes, or nothing if it does not wait here (any more).
    pub fn answered(&mut self, ticket: u64) -> Option<usize> {
        // They are applied in the order of the queue; what an earlier life of this node proposed is not in it.
        if self.queue.front()?.origin.ticket != ticket {
            return None;
        }
        let done = self.queue.pop_front()?;
        self.bytes -= done.command.len();
        if self.first < self.ever_sent {
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
        }
        self.quiet_ticks = 0;
        Some(done.command.len())
    }

    /// One unit of time has passed.
    pub fn tick(&mut self) {
        if self.in_doubt() > 0 {
            self.quiet_ticks += 1;
            if self.quiet_ticks >= ASK_AFTER_TICKS {
                self.quiet_ticks = 0;
                self.ask = true;
            }
        }
    }

    /// There is a new connection to `node`: what was sent over the last one may be lost.
    pub fn link_up(&mut self, node: NodeId) {
        self.ask |= self.in_doubt() > 0 && self.leader.is_some_and(|leader| leader.node == node);
    }

    /// The leader says what is due.
    pub fn acked(&mut self, from: NodeId, ack: ForwardAck) {
        let current = self.leader == Some(Leadership { node: from, term: ack.term }) && ack.term == self.sent_term;
        let sent_up_to = self.first + self.sent as u64;
        // Below the first there is nothing to send again: it was answered. Beyond the last it cannot be.
        if current && (self.first..sent_up_to).contains(&ack.next) {
            self.sent = usize::try_from(ack.next - self.first).unwrap_or(self.sent);
        }
    }

    /// What to send to the leader now. Ask until there is nothing.
    pub fn next_forward(&mut self) -> Option<(NodeId, Forward)> {
        let leader = self.leader?;
        if leader.term != self.sent_term {
            // Rule 3 of the module: until then, what was sent may still be applied.
            if self.in_doubt() > 0 && self.applied_term <= self.sent_term {
                return None;
            }
            (self.sent_term, self.first, self.sent, self.ever_sent, self.ask) =
                (leader.term, self.one, 0, self.one, false);
        }
        let partition = self.partition;
        let first = self.first + self.sent as u64;
        if std::mem::take(&mut self.ask) {
            let question = Forward { partition, term: leader.term, oldest: self.first, first, envelopes: Vec::new() };
            return Some((leader.node, question));
        }
        let mut bytes = 0;
        let mut envelopes = Vec::new();
        for envelope in self.queue.iter().skip(self.sent).take(MAX_BATCH_COMMANDS) {
            bytes += envelope.command.len();
            if !envelopes.is_empty() && bytes > MAX_BATCH_BYTES {
                break;
            }
            envelopes.push(envelope.clone());
        }
        if envelopes.is_empty() {
            return None;
        }
        self.sent += envelopes.len();
        self.ever_sent = self.ever_sent.max(self.first + self.sent as u64);
        self.quiet_ticks = 0;
        Some((leader.node, Forward { partition, term: leader.term, oldest: self.first, first, envelopes }))
    }

    /// Gives up what waits: nobody can say (in time) whether it will be applied. With `all`, also what was never sent; otherwise
    /// only what was sent, which a snapshot of the state may have skipped.
    pub fn give_up(&mut self, all: bool) -> Vec<Envelope> {
        let in_doubt = self.in_doubt();
        let given_up: Vec<_> = self.queue.drain(..if all { self.queue.len() } else { in_doubt }).collect();
        self.bytes -= given_up.iter().map(|envelope| envelope.command.len()).sum::<usize>();
        // The numbers that were sent stay used in their term.
        (self.first, self.sent) = (self.ever_sent, 0);
        given_up
    }

    /// How many of the queue may be in the log: they were sent, and are not answered.
    fn in_doubt(&self) -> usize {
        usize::try_from(self.ever_sent - self.first).unwrap_or(usize::MAX).min(self.queue.len())
    }
}
