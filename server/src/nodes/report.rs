//! What nodes ask each other, and the bytes of it.
//!
//! A question is one byte that says what is asked, one for its version, and a body; both bodies are postcard. An answer begins with the
//! version too. Fields are only ever added at the end, and a reader passes over what follows those it knows; what changes otherwise is
//! another version. A node that does not know a question answers with nothing: during a rolling upgrade that is as good as silence.

use bytes::Bytes;
use rove_protocol::ids::{NodeId, PartitionId};
use serde::{Deserialize, Serialize};

use crate::node::Role;

/// The version of both bodies.
const VERSION: u8 = 1;
/// Asks for a [`Report`].
const REPORT: u8 = b'R';
/// Asks to hand a partition's leadership over: [`HandOver`], answered by `Result<(), String>`.
const HAND_OVER: u8 = b'H';

/// A question of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// How are you?
    Report,
    /// Hand a partition's leadership over.
    HandOver(HandOver),
}

/// Which partition, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HandOver {
    pub(super) partition: PartitionId,
    pub(super) to: NodeId,
}

/// How a node is, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `host:port` at which clients reach it.
    pub address: String,
    /// Where it stands; may be empty.
    pub region: String,
    /// What clients may pin.
    pub pins: Vec<String>,
    /// Sessions it has.
    pub sessions: u64,
    /// The same in thousandths of those it takes.
    pub load_permille: u16,
    /// Whether it has caught up since its start, and reaches a leader of every partition.
    pub ready: bool,
    /// Whether it is about to leave.
    pub draining: bool,
    /// Of the program.
    pub version: String,
    /// How often it was started with its data directory.
    pub boot: u64,
    /// Its replicas.
    pub partitions: Vec<ReplicaReport>,
    /// What came to a report later.
    #[serde(skip)]
    pub more: More,
}

/// What follows a report. Nodes of an earlier day say none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct More {
    /// What time it is there, in milliseconds of the Unix epoch.
    pub clock_ms: Option<u64>,
    /// Whether it takes leaderships.
    pub may_lead: bool,
}

impl Default for More {
    fn default() -> Self {
        Self { clock_ms: None, may_lead: true }
    }
}

impl Report {
    /// Its bytes, as an answer.
    pub(super) fn encode(&self) -> Bytes {
        framed(answer(self).into(), &self.more)
    }

    /// The report, if this program knows its version.
    pub(super) fn decode(answer: &[u8]) -> Option<Self> {
        let [VERSION, body @ ..] = answer else { return None };
        let (report, rest) = postcard::take_from_bytes::<Self>(body).ok()?;
        let more = postcard::take_from_bytes(rest).map(|(more, _)| more).unwrap_or_default();
        Some(Self { more, ..report })
    }
}

/// One replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Of which partition.
    pub partition: PartitionId,
    /// What it is: 0 a follower, 1 a candidate, 2 the leader, 3 a learner, that does not vote.
    pub role: u8,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// Last index of its log.
    pub last: u64,
    /// Last index it knows to be committed.
    pub committed: u64,
    /// Last index it has applied.
    pub applied: u64,
    /// Last index that is durable in its state.
    pub durable: u64,
}

impl ReplicaReport {
    /// The role's number.
    pub(super) const fn number(role: Role) -> u8 {
        match role {
            Role::Follower => 0,
            Role::Candidate => 1,
            Role::Leader => 2,
            Role::Learner => 3,
        }
    }

    /// The role's name.
    pub const fn role_name(&self) -> &'static str {
        match self.role {
            0 => "follower",
            1 => "candidate",
            2 => "leader",
            3 => "learner",
            _ => "unknown",
        }
    }
}

impl Question {
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Self::Report => vec![REPORT, VERSION].into(),
            Self::HandOver(body) => framed(vec![HAND_OVER, VERSION], body),
        }
    }

    /// The question, if it is one that this program knows.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [REPORT, VERSION, ..] => Some(Self::Report),
            [HAND_OVER, VERSION, body @ ..] => {
                postcard::take_from_bytes(body).ok().map(|(body, _)| Self::HandOver(body))
            }
            _ => None,
        }
    }
}

/// An answer's bytes.
pub(super) fn answer(body: &impl Serialize) -> Bytes {
    framed(vec![VERSION], body)
}

/// What an answer says, if this program knows its version.
pub(super) fn understood<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Option<T> {
    match answer {
        [VERSION, body @ ..] => postcard::take_from_bytes(body).ok().map(|(body, _)| body),
        _ => None,
    }
}

fn framed(head: Vec<u8>, body: &impl Serialize) -> Bytes {
    // Only a value that serde cannot describe fails, and these are ids, numbers and texts.
    postcard::to_extend(body, head).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let replica = ReplicaReport {
            partition: PartitionId(3),
            role: ReplicaReport::number(Role::Leader),
            leader: Some(NodeId(2)),
            term: 7,
            last: 12,
            committed: 11,
            applied: 10,
            durable: 9,
        };
        Report {
            address: "node2.example:7683".to_owned(),
            region: "north".to_owned(),
            pins: vec!["pin".to_owned()],
            sessions: 5,
            load_permille: 1,
            ready: true,
            draining: false,
            version: "0.1.0".to_owned(),
            boot: 4,
            partitions: vec![replica],
            more: More { clock_ms: Some(1_700_000_000_000), may_lead: false },
        }
    }

    #[test]
    fn questions_and_answers_read_back() {
        let hand_over = HandOver { partition: PartitionId(3), to: NodeId(2) };
        for question in [Question::Report, Question::HandOver(hand_over)] {
            assert_eq!(Question::decode(&question.encode()), Some(question));
        }
        assert_eq!(Report::decode(&report().encode()), Some(report()));
        let done: Result<(), String> = Err("why".to_owned());
        assert_eq!(understood(&answer(&done)), Some(done));
    }

    #[test]
    fn a_node_of_an_earlier_day_may_lead_and_says_no_time() {
        let earlier = answer(&report());
        assert_eq!(Report::decode(&earlier), Some(Report { more: More::default(), ..report() }));
    }

    #[test]
    fn what_a_later_version_adds_at_the_end_is_passed_over() {
        let mut newer = report().encode().to_vec();
        newer.extend([1, 2, 3]);
        assert_eq!(Report::decode(&newer), Some(report()));
    }

    #[test]
    fn what_is_not_known_or_cut_short_is_no_answer() {
        let bytes = answer(&report());
        for length in 0..bytes.len() {
            assert_eq!(Report::decode(&bytes[..length]), None, "{length} bytes");
        }
        let mut other = bytes.to_vec();
        other[0] = VERSION + 1;
        assert_eq!(Report::decode(&other), None);
        for question in [&b""[..], b"R", b"R\x02", b"X\x01", b"H\x01"] {
            assert_eq!(Question::decode(question), None, "{question:?}");
        }
    }

    #[test]
    fn the_largest_report_fits_into_an_answer() {
        let mut report = report();
        report.partitions = vec![report.partitions[0]; usize::from(crate::node::MAX_PARTITIONS) + 1];
        for replica in &mut report.partitions {
            *replica = ReplicaReport {
                term: u64::MAX,
                last: u64::MAX,
                committed: u64::MAX,
                applied: u64::MAX,
                durable: u64::MAX,
                ..*replica
            };
        }
        assert!(report.encode().len() <= crate::cluster::registry::CALL_BYTES);
    }
}
