//! Reads that must see everything acknowledged before them (Raft, section 6.4; the raft crate's `ReadIndex`).
//!
//! All that are asked for between two rounds share one question to the leader. A question may be lost without a word (a leader that
//! has not committed in its term yet, a change of leader, the network), so it is asked again under a new name.

use rove_protocol::ids::NodeId;

use crate::life::Life;

/// Reads that wait at most. They are asked for before something is denied, which is rare; beyond it the answer is "busy".
const MAX_WAITING: usize = 4_096;

/// Ticks after which a question is asked again: several times a round trip, a fraction of an election.
const ASK_AGAIN_TICKS: u32 = 2;

/// Ticks after which a read is given up: as long as a partition without a leader is waited for.
const GIVE_UP_TICKS: u32 = 30;

/// A question to the leader.
#[derive(Debug)]
struct Question {
    context: u64,
    index: Option<u64>,
    ticks: u32,
    reads: Vec<Read>,
}

#[derive(Debug)]
struct Read {
    /// Who asked; nobody for the first one, which is the lane's own.
    context: Option<u64>,
    ticks: u32,
}

/// The reads of one lane.
#[derive(Debug)]
pub(super) struct Reads {
    /// Names of questions: unique on all nodes and through all restarts.
    next_context: u64,
    unasked: Vec<Read>,
    asked: Vec<Question>,
    ready: Vec<(u64, bool)>,
    /// The lane's own read is answered.
    caught_up: bool,
}

impl Reads {
    pub(super) fn new(node: NodeId, life: Life) -> Self {
        // 12 bits of the node, 20 of its life, 32 to count: an answer that is still on its way from so many lives ago is no concern.
        let next_context = (node.0 & 0xfff) << 52 | life.low_bits(20) << 32;
        let own = Read { context: None, ticks: 0 };
        Self { next_context, unasked: vec![own], asked: Vec::new(), ready: Vec::new(), caught_up: false }
    }

    /// Whether everything is here that was acknowledged anywhere before this replica first could ask.
    ///
    /// Its own commit index would not do for that: a replica that lacks more of the log than its peers keep learns of nothing that is
    /// committed until it has been sent a snapshot.
    pub(super) fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// Takes a read. False if too many wait.
    pub(super) fn ask(&mut self, context: u64) -> bool {
        let waiting = self.unasked.len() + self.asked.iter().map(|question| question.reads.len()).sum::<usize>();
        if waiting >= MAX_WAITING {
            return false;
        }
        self.unasked.push(Read { context: Some(context), ticks: 0 });
        true
    }

    /// The name of a question to ask now, for all that were not asked yet.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.unasked.is_empty() {
            return None;
        }
        self.next_context += 1;
        let context = self.next_context;
        self.asked.push(Question { context, index: None, ticks: 0, reads: std::mem::take(&mut self.unasked) });
        Some(context)
    }

    /// The leader answers: what was asked under `context` is seen by whoever has applied `index`. This replica has applied `applied`.
    pub(super) fn found(&mut self, context: u64, index: u64, applied: u64) {
        if let Some(question) = self.asked.iter_mut().find(|question| question.context == context) {
            question.index = Some(index);
        }
        self.applied(applied);
    }

    /// Everything up to `applied` can be read.
    pub(super) fn applied(&mut self, applied: u64) {
        let seen = |question: &mut Question| question.index.is_some_and(|index| index <= applied);
        for read in self.asked.extract_if(.., seen).flat_map(|question| question.reads) {
            match read.context {
                Some(context) => self.ready.push((context, true)),
                None => self.caught_up = true,
            }
        }
    }

    /// One unit of time has passed.
    pub(super) fn tick(&mut self) {
        let unanswered = |question: &mut Question| {
            question.ticks = question.ticks.saturating_add(1);
            question.index.is_none() && question.ticks >= ASK_AGAIN_TICKS
        };
        for question in self.asked.extract_if(.., unanswered) {
            self.unasked.extend(question.reads);
        }
        let waiting = self.asked.iter_mut().flat_map(|question| &mut question.reads).chain(&mut self.unasked);
        waiting.for_each(|read| read.ticks = read.ticks.saturating_add(1));
        // The lane's own waits for as long as it takes.
        let old = |read: &mut Read| read.context.is_some() && read.ticks >= GIVE_UP_TICKS;
        let queues = self.asked.iter_mut().map(|question| &mut question.reads).chain([&mut self.unasked]);
        for reads in queues {
            self.ready.extend(reads.extract_if(.., old).filter_map(|read| Some((read.context?, false))));
        }
        self.asked.retain(|question| !question.reads.is_empty());
    }

    /// Moves out what is decided.
    pub(super) fn take_ready(&mut self, into: &mut Vec<(u64, bool)>) {
        into.append(&mut self.ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(reads: &mut Reads) -> Vec<(u64, bool)> {
        let mut found = Vec::new();
        reads.take_ready(&mut found);
        found
    }

    #[test]
    fn reads_between_two_rounds_share_a_question_and_wait_until_its_index_is_applied() {
        let mut reads = Reads::new(NodeId(1), Life::new(0, 1));
        assert!(reads.ask(7) && reads.ask(8));
        let question = reads.next().unwrap();
        assert_eq!(reads.next(), None);
        reads.found(question, 5, 4);
        assert_eq!(ready(&mut reads), []);
        reads.applied(5);
        assert_eq!(ready(&mut reads), [(7, true), (8, true)]);
    }

    #[test]
    fn a_read_that_came_after_the_question_is_not_answered_with_it() {
        let mut reads = Reads::new(NodeId(1), Life::new(0, 1));
        reads.ask(7);
        let question = reads.next().unwrap();
        reads.ask(8);
        reads.found(question, 5, 5);
        assert_eq!(ready(&mut reads), [(7, true)]);
    }

    #[test]
    fn a_question_without_an_answer_is_asked_again_under_a_new_name_and_an_old_answer_is_worth_nothing() {
        let mut reads = Reads::new(NodeId(1), Life::new(0, 1));
        reads.ask(7);
        let first = reads.next().unwrap();
        (0..ASK_AGAIN_TICKS).for_each(|_| reads.tick());
        let second = reads.next().unwrap();
        assert_ne!(first, second);
        reads.found(first, 1, 9);
        assert_eq!(ready(&mut reads), []);
        reads.found(second, 9, 9);
        assert_eq!(ready(&mut reads), [(7, true)]);
    }

    #[test]
    fn a_read_nobody_answers_is_given_up() {
        let mut reads = Reads::new(NodeId(1), Life::new(0, 1));
        reads.ask(7);
        for _ in 0..GIVE_UP_TICKS {
            reads.next();
            reads.tick();
        }
        assert_eq!(ready(&mut reads), [(7, false)]);
    }

    #[test]
    fn a_replica_has_caught_up_when_it_has_applied_what_the_leader_names_however_long_that_takes() {
        let mut reads = Reads::new(NodeId(1), Life::new(0, 1));
        let first = reads.next().unwrap();
        for _ in 0..2 * GIVE_UP_TICKS {
            reads.next();
            reads.tick();
        }
        // What it has applied itself says nothing, and neither does an answer to a question that was given up.
        reads.applied(100);
        reads.found(first, 1, 100);
        assert!(!reads.caught_up());
        let asked = std::iter::repeat_with(|| {
            reads.tick();
            reads.next()
        });
        let question = asked.take(100).flatten().next().unwrap();
        reads.found(question, 9_000, 100);
        assert!(!reads.caught_up());
        reads.applied(9_000);
        assert!(reads.caught_up());
        assert_eq!(ready(&mut reads), []);
    }

    #[test]
    fn names_of_questions_differ_between_nodes_and_boots_and_reads_are_bounded() {
        let mut names = std::collections::BTreeSet::new();
        for (node, rebuild, boot) in [(1, 0, 1), (1, 0, 2), (2, 0, 1), (2, 0, 2), (2, 1, 1)] {
            let mut reads = Reads::new(NodeId(node), Life::new(rebuild, boot));
            reads.ask(1);
            assert!(names.insert(reads.next().unwrap()));
        }
        let mut reads = Reads::new(NodeId(1), Life::new(0, 1));
        // One place is taken by its own.
        assert!((1..MAX_WAITING as u64).all(|context| reads.ask(context)));
        assert!(!reads.ask(0));
    }
}
