//! Judges whether everybody received the same conversation, and the one that was posted.
//!
//! The judge knows the lines in file order with their acknowledgements, and is shown the log of every client, as that client
//! holds it. It trusts none of them: each is held against the acknowledgements, against the file, and against the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rove_protocol::ids::{AccountId, MessageId, Seq};
use sha2::{Digest, Sha256};

/// Findings told in full for one conversation. One lost event makes as many findings as there are clients; the first say
/// where to look, and the tallies say how many.
const FINDINGS_KEPT: usize = 20;

/// A line that was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedLine {
    /// Its number in the file, to name it by.
    pub number: usize,
    /// The account of its nick.
    pub author: AccountId,
    /// What was posted.
    pub body: Vec<u8>,
    /// What the server said to it; `None` if nothing.
    pub acknowledged: Option<Acknowledged>,
}

/// Where a post is, as its acknowledgement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its place.
    pub seq: Seq,
    /// Its name.
    pub message_id: MessageId,
}

/// An event as a client holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its place.
    pub seq: Seq,
    /// Its name.
    pub message_id: MessageId,
    /// Who.
    pub author: AccountId,
    /// Whether it is a message; what is not was never a line.
    pub message: bool,
    /// Its body.
    pub body: Vec<u8>,
}

/// How much is wrong, by sort. All zero is the only good one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Lines without an acknowledgement, and events that a client lacks.
    pub lost: u64,
    /// Events that a client holds twice, and messages that are a line once more than it was posted.
    pub doubled: u64,
    /// Events at another place than they should be: for one client, or against the order of the file.
    pub out_of_order: u64,
    /// Events whose name, author or body is not what was posted, or not what another client holds.
    pub altered: u64,
}

impl Tally {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.altered += other.altered;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lost {}, doubled {}, out of order {}, altered {}",
            self.lost, self.doubled, self.out_of_order, self.altered
        )
    }
}

/// What came of one conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much is wrong.
    pub tally: Tally,
    /// What exactly, the first of each conversation.
    pub findings: Vec<String>,
    /// SHA-256 over (seq, message id, author, body) of what everybody holds; `None` if they do not hold the same.
    pub digest: Option<[u8; 32]>,
    /// Events held by all clients together.
    pub deliveries: u64,
    /// Clients judged.
    pub clients: u64,
}

/// Collects the logs of one conversation.
#[derive(Debug)]
pub struct Judge {
    from: Seq,
    head: Seq,
    lines: Vec<PostedLine>,
    /// Index into `lines` by seq, from the acknowledgements.
    by_seq: BTreeMap<Seq, usize>,
    by_id: BTreeMap<MessageId, Seq>,
    /// Lines that may be met in a log without an acknowledgement, by author and body: how many.
    unanswered: BTreeMap<(AccountId, Vec<u8>), u64>,
    /// What the first client to hold a seq held there, where no acknowledgement tells.
    agreed: BTreeMap<Seq, Held>,
    digests: BTreeSet<[u8; 32]>,
    verdict: Verdict,
}

impl Judge {
    /// Judges a conversation of which everybody must hold `from` to `head`, given its lines in file order.
    pub fn new(from: Seq, head: Seq, lines: Vec<PostedLine>) -> Self {
        let mut judge = Self {
            from,
            head,
            lines: Vec::new(),
            by_seq: BTreeMap::new(),
            by_id: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            agreed: BTreeMap::new(),
            digests: BTreeSet::new(),
            verdict: Verdict::default(),
        };
        judge.judge_acknowledgements(&lines);
        judge.lines = lines;
        judge
    }

    /// Every line has one, no two the same place, and those of an author rise in file order.
    fn judge_acknowledgements(&mut self, lines: &[PostedLine]) {
        let mut last: BTreeMap<AccountId, Acknowledged> = BTreeMap::new();
        for (index, line) in lines.iter().enumerate() {
            let number = line.number;
            let Some(acknowledged) = line.acknowledged else {
                self.find(|tally| tally.lost += 1, || format!("line {number} was never acknowledged"));
                *self.unanswered.entry((line.author, line.body.clone())).or_default() += 1;
                continue;
            };
            let seq = acknowledged.seq;
            if let Some(earlier) = self.by_seq.insert(seq, index) {
                let other = lines[earlier].number;
                self.find(
                    |tally| tally.lost += 1,
                    || format!("lines {other} and {number} were both acknowledged at seq {seq}"),
                );
            }
            self.by_id.insert(acknowledged.message_id, seq);
            if let Some(before) = last.insert(line.author, acknowledged)
                && (before.seq >= seq || before.message_id >= acknowledged.message_id)
            {
                self.find(
                    |tally| tally.out_of_order += 1,
                    || {
                        format!(
                            "line {number} is at seq {seq}, not after the line before it of the same nick (seq {})",
                            before.seq
                        )
                    },
                );
            }
            if seq > self.head {
                let head = self.head;
                self.find(
                    |tally| tally.altered += 1,
                    || format!("line {number} was acknowledged at seq {seq}, above the head {head}"),
                );
            }
        }
    }

    /// Holds one client's log, in the order the client has it, against everything known.
    pub fn client(&mut self, name: &str, log: &[Held]) {
        self.verdict.clients += 1;
        self.verdict.deliveries += log.len() as u64;
        let mut seen: BTreeSet<Seq> = BTreeSet::new();
        let mut unanswered = self.unanswered.clone();
        let mut highest = Seq(0);
        let mut hash = Sha256::new();
        for held in log {
            let seq = held.seq;
            if !seen.insert(seq) {
                self.find(|tally| tally.doubled += 1, || format!("{name} holds seq {seq} twice"));
                continue;
            }
            if seq < highest {
                self.find(|tally| tally.out_of_order += 1, || format!("{name} holds seq {seq} after seq {highest}"));
            }
            highest = highest.max(seq);
            self.judge_event(name, held, &mut unanswered);
            if seq >= self.from && seq <= self.head {
                feed(&mut hash, held);
            }
        }
        let mut required = self.from;
        while required <= self.head {
            if !seen.contains(&required) {
                self.find(|tally| tally.lost += 1, || format!("{name} lacks seq {required}"));
            }
            required = required.next();
        }
        self.digests.insert(hash.finalize().into());
    }

    /// Is this what was posted at this place, or else what the others hold there?
    fn judge_event(&mut self, name: &str, held: &Held, unanswered: &mut BTreeMap<(AccountId, Vec<u8>), u64>) {
        let seq = held.seq;
        if let Some(line) = self.by_seq.get(&seq).map(|index| &self.lines[*index]) {
            let number = line.number;
            let named = line.acknowledged.is_some_and(|acknowledged| acknowledged.message_id == held.message_id);
            if named && line.author == held.author && line.body == held.body && held.message {
                return;
            }
            if !named && let Some(place) = self.by_id.get(&held.message_id).copied() {
                return self.find(
                    |tally| tally.out_of_order += 1,
                    || format!("{name} holds at seq {seq} what was acknowledged at seq {place}"),
                );
            }
            return self.find(
                |tally| tally.altered += 1,
                || format!("{name} holds at seq {seq} another event than line {number}, which was acknowledged there"),
            );
        }
        if held.message && !Self::is_unanswered(held, unanswered) {
            let posted = self.lines.iter().any(|line| line.author == held.author && line.body == held.body);
            if posted {
                self.find(
                    |tally| tally.doubled += 1,
                    || format!("{name} holds at seq {seq} a line once more than it was posted"),
                );
            } else {
                self.find(
                    |tally| tally.altered += 1,
                    || format!("{name} holds at seq {seq} a message that nobody posted"),
                );
            }
            return;
        }
        match self.agreed.get(&seq) {
            None => {
                self.agreed.insert(seq, held.clone());
            }
            Some(first) if first == held => {}
            Some(_) => self.find(
                |tally| tally.altered += 1,
                || format!("{name} holds at seq {seq} another event than other clients"),
            ),
        }
    }

    /// An unanswered post may appear once or never.
    fn is_unanswered(held: &Held, unanswered: &mut BTreeMap<(AccountId, Vec<u8>), u64>) -> bool {
        match unanswered.get_mut(&(held.author, held.body.clone())) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    fn find(&mut self, count: impl FnOnce(&mut Tally), describe: impl FnOnce() -> String) {
        count(&mut self.verdict.tally);
        if self.verdict.findings.len() < FINDINGS_KEPT {
            self.verdict.findings.push(describe());
        }
    }

    /// The verdict over all clients shown.
    pub fn finish(mut self) -> Verdict {
        if self.digests.len() == 1 {
            self.verdict.digest = self.digests.first().copied();
        } else if self.digests.len() > 1 && self.verdict.tally.is_clean() {
            // Every difference between two logs is a finding above. Were one not, it must not pass.
            self.find(|tally| tally.altered += 1, || "clients hold different logs".to_owned());
        }
        self.verdict
    }
}

/// Adds one event to a digest. Lengths keep two events from looking like one.
fn feed(hash: &mut Sha256, held: &Held) {
    hash.update(held.seq.0.to_be_bytes());
    hash.update(held.message_id.0.to_be_bytes());
    hash.update(held.author.0.to_be_bytes());
    hash.update((held.body.len() as u64).to_be_bytes());
    hash.update(&held.body);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seq 1 makes the conversation; lines 1 to 6 follow, by two authors, some with the same words.
    fn scene() -> (Vec<PostedLine>, Vec<Held>) {
        let texts = [(7, "hello"), (8, "yes"), (7, "yes"), (7, "ok"), (8, "yes"), (7, "ok")];
        let mut lines = Vec::new();
        let mut log = vec![held(1, 7, "created", false)];
        for (number, (author, text)) in (1_u64..).zip(texts) {
            let event = held(number + 1, author, text, true);
            lines.push(PostedLine {
                number: usize::try_from(number).unwrap(),
                author: event.author,
                body: event.body.clone(),
                acknowledged: Some(Acknowledged { seq: event.seq, message_id: event.message_id }),
            });
            log.push(event);
        }
        (lines, log)
    }

    fn held(seq: u64, author: u64, text: &str, message: bool) -> Held {
        Held {
            seq: Seq(seq),
            message_id: MessageId(seq * 1_000),
            author: AccountId(author),
            message,
            body: text.as_bytes().to_vec(),
        }
    }

    fn judge(lines: Vec<PostedLine>, logs: &[Vec<Held>]) -> Verdict {
        let mut judge = Judge::new(Seq(1), Seq(7), lines);
        for (number, log) in logs.iter().enumerate() {
            judge.client(&format!("client {number}"), log);
        }
        judge.finish()
    }

    /// One good client, and one whose log `spoil` has spoilt.
    fn spoilt(spoil: impl FnOnce(&mut Vec<Held>)) -> Tally {
        let (lines, log) = scene();
        let mut bad = log.clone();
        spoil(&mut bad);
        let verdict = judge(lines, &[log, bad]);
        assert!(!verdict.findings.is_empty());
        verdict.tally
    }

    #[test]
    fn the_same_log_everywhere_is_clean_and_has_a_digest() {
        let (lines, log) = scene();
        let verdict = judge(lines, &[log.clone(), log.clone(), log]);
        assert!(verdict.tally.is_clean(), "{:?}", verdict.findings);
        assert!(verdict.digest.is_some());
        assert_eq!((verdict.deliveries, verdict.clients), (21, 3));
    }

    #[test]
    fn a_lost_event_is_caught() {
        for index in 0..7 {
            assert_eq!(spoilt(|log| drop(log.remove(index))), Tally { lost: 1, ..Tally::default() }, "{index}");
        }
    }

    #[test]
    fn a_doubled_event_is_caught() {
        let twice = |log: &mut Vec<Held>| log.insert(4, log[3].clone());
        assert_eq!(spoilt(twice), Tally { doubled: 1, ..Tally::default() });
    }

    #[test]
    fn two_swapped_events_are_caught() {
        assert_eq!(spoilt(|log| log.swap(3, 4)), Tally { out_of_order: 1, ..Tally::default() });
    }

    #[test]
    fn two_events_that_swapped_their_seqs_are_caught() {
        let renumbered = |log: &mut Vec<Held>| {
            log.swap(3, 4);
            (log[3].seq, log[4].seq) = (log[4].seq, log[3].seq);
        };
        assert_eq!(spoilt(renumbered), Tally { out_of_order: 2, ..Tally::default() });
    }

    #[test]
    fn a_differing_body_author_name_or_kind_is_caught() {
        let altered = Tally { altered: 1, ..Tally::default() };
        assert_eq!(spoilt(|log| log[4].body = b"no".to_vec()), altered);
        assert_eq!(spoilt(|log| log[4].author = AccountId(8)), altered);
        assert_eq!(spoilt(|log| log[4].message_id = MessageId(9)), altered);
        assert_eq!(spoilt(|log| log[4].message = false), altered);
        assert_eq!(spoilt(|log| log[0].body = b"another".to_vec()), altered);
    }

    #[test]
    fn a_line_that_is_in_the_log_of_everybody_twice_is_caught() {
        let (lines, mut log) = scene();
        log.push(Held { seq: Seq(8), message_id: MessageId(8_000), ..log[6].clone() });
        let mut judge = Judge::new(Seq(1), Seq(8), lines);
        judge.client("a", &log);
        assert_eq!(judge.finish().tally, Tally { doubled: 1, ..Tally::default() });
    }

    #[test]
    fn a_message_that_nobody_posted_is_caught() {
        let (lines, mut log) = scene();
        log.push(held(8, 7, "psst", true));
        let mut judge = Judge::new(Seq(1), Seq(8), lines);
        judge.client("a", &log);
        assert_eq!(judge.finish().tally, Tally { altered: 1, ..Tally::default() });
    }

    #[test]
    fn lines_of_a_nick_against_file_order_are_caught_though_all_agree() {
        let (mut lines, log) = scene();
        // Lines 3 and 4, of the same author, in the log the other way round.
        let (third, fourth) = (lines[2].body.clone(), lines[3].body.clone());
        let acknowledged = lines[2].acknowledged;
        lines[2] = PostedLine { body: third, acknowledged: lines[3].acknowledged, ..lines[2].clone() };
        lines[3] = PostedLine { body: fourth, acknowledged, ..lines[3].clone() };
        let mut swapped = log;
        (swapped[3].body, swapped[4].body) = (swapped[4].body.clone(), swapped[3].body.clone());
        let tally = judge(lines, &[swapped.clone(), swapped]).tally;
        assert_eq!(tally, Tally { out_of_order: 1, ..Tally::default() });
    }

    #[test]
    fn an_acknowledgement_for_another_place_is_caught() {
        let (mut lines, log) = scene();
        lines[5].acknowledged = Some(Acknowledged { seq: Seq(6), message_id: MessageId(6_000) });
        let tally = judge(lines, &[log]).tally;
        assert!(tally.lost == 1 && !tally.is_clean(), "{tally}");
    }

    #[test]
    fn an_acknowledged_line_that_nobody_holds_is_caught() {
        let (lines, mut log) = scene();
        log.pop();
        assert_eq!(judge(lines, &[log.clone(), log]).tally, Tally { lost: 2, ..Tally::default() });
    }

    #[test]
    fn an_unanswered_line_is_lost_once_whether_it_is_in_the_log_or_not() {
        let (mut lines, log) = scene();
        lines[5].acknowledged = None;
        let with = judge(lines.clone(), &[log.clone(), log.clone()]);
        assert_eq!(with.tally, Tally { lost: 1, ..Tally::default() }, "{:?}", with.findings);
        let mut judge = Judge::new(Seq(1), Seq(6), lines);
        judge.client("a", &log[..6]);
        assert_eq!(judge.finish().tally, Tally { lost: 1, ..Tally::default() });
    }

    #[test]
    fn who_joined_late_may_hold_less_but_not_of_what_came_after() {
        let (lines, log) = scene();
        let mut judge = Judge::new(Seq(2), Seq(7), lines);
        judge.client("early", &log);
        judge.client("late", &log[1..]);
        let verdict = judge.finish();
        assert!(verdict.tally.is_clean() && verdict.digest.is_some(), "{:?}", verdict.findings);
    }

    #[test]
    fn the_tally_counts_on_when_findings_are_no_longer_told() {
        let (lines, log) = scene();
        let verdict = judge(lines, &vec![log[..1].to_vec(); 9]);
        assert_eq!(verdict.tally.lost, 54);
        assert_eq!(verdict.findings.len(), FINDINGS_KEPT);
    }
}
