//! What can be wrong with a replica, with a proposal, with a peer's message.

use super::config::GroupMember;

/// The replica cannot trust its own log or state. It is quarantined: it does not vote, acknowledge or apply, and is rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// The configuration can never work.
    #[error("configuration: {0}")]
    Config(String),
    /// The log has a hole, or an entry out of place.
    #[error("the log has entry {found} where {expected} was due")]
    Gap {
        /// The index that was due.
        expected: u64,
        /// The index that was there.
        found: u64,
    },
    /// The terms of the log go back.
    #[error("entry {index} is of term {term}, after one of term {previous}")]
    TermWentBack {
        /// The entry.
        index: u64,
        /// Its term.
        term: u64,
        /// The term of the one before.
        previous: u64,
    },
    /// The hard state is older than the log beside it.
    #[error("the hard state is of term {term}, the log of term {last_term}: a vote may have been lost")]
    StaleHardState {
        /// Of the hard state.
        term: u64,
        /// Of the last entry.
        last_term: u64,
    },
    /// Entries that were applied or committed are not in the log.
    #[error("the log ends at {last}, but {needed} is known to be committed: acknowledged entries are missing")]
    LogLost {
        /// Last index of the log.
        last: u64,
        /// An index that must be there.
        needed: u64,
    },
    /// The log was truncated above what the state has applied.
    #[error("the state ends at {applied}, but the log begins after {truncated}: the state was lost or is an old copy")]
    StateLost {
        /// Last applied index.
        applied: u64,
        /// The log begins after this index.
        truncated: u64,
    },
    /// This replica is not a member of its own group.
    #[error("replica {id} is not in its group {members:?}")]
    NotMember {
        /// This replica.
        id: GroupMember,
        /// Who is.
        members: Vec<GroupMember>,
    },
    /// Said to be applied, but never handed out.
    #[error("{applied} is said to be applied, but entries were handed out only up to {handed_out}")]
    AppliedTooFar {
        /// What was said.
        applied: u64,
        /// What was handed out.
        handed_out: u64,
    },
    /// Said to be applied before something that was applied later.
    #[error("{applied} is said to be applied after {before}")]
    AppliedWentBack {
        /// What was said.
        applied: u64,
        /// What was said before.
        before: u64,
    },
    /// A committed entry of a kind that this version does not know.
    #[error("entry {index} is of a kind that this version does not know")]
    UnknownEntry {
        /// Its index.
        index: u64,
    },
    /// The group's members, or a committed change of them, cannot be.
    #[error("the members of the group as of entry {index}: {reason}")]
    Members {
        /// Since which entry.
        index: u64,
        /// What is wrong with them.
        reason: String,
    },
    /// A leader's log differs from what is committed here.
    #[error("a leader contradicts what is committed here, at {index}: one of us has lost something")]
    Contradicted {
        /// Where.
        index: u64,
    },
    /// The raft crate refused.
    #[error("raft: {0}")]
    Raft(String),
}

impl ReplicaError {
    /// Whether the disk has not kept what it was given: the replica is no better after another start, whatever that finds.
    pub fn is_of_the_disk(&self) -> bool {
        match self {
            Self::Gap { .. }
            | Self::TermWentBack { .. }
            | Self::StaleHardState { .. }
            | Self::LogLost { .. }
            | Self::StateLost { .. } => true,
            // A setting, a version that is too old, a peer that has lost something, or a bug.
            Self::Config(_)
            | Self::NotMember { .. }
            | Self::AppliedTooFar { .. }
            | Self::AppliedWentBack { .. }
            | Self::UnknownEntry { .. }
            | Self::Members { .. }
            | Self::Contradicted { .. }
            | Self::Raft(_) => false,
        }
    }
}

/// A proposal was not appended. Nothing was consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead.
    #[error("this replica does not lead (leader: {leader:?})")]
    NotLeader {
        /// Who does, if known.
        leader: Option<GroupMember>,
    },
    /// Too much is on its way already, or leadership is being handed over.
    #[error("too much is on its way")]
    Busy,
}

/// A change of the members was not proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// This replica does not lead.
    #[error("this replica does not lead (leader: {leader:?})")]
    NotLeader {
        /// Who does, if known.
        leader: Option<GroupMember>,
    },
    /// A change is under way, or may be: a new leader has not applied everything it found yet. Try again.
    #[error("another change of the members is under way")]
    UnderWay,
    /// Leadership is being handed over. Try again with whoever leads then.
    #[error("leadership is being handed over")]
    HandingOver,
    /// Too much is on its way already. Try again.
    #[error("too much is on its way")]
    Busy,
    /// It is this leader that would go: hand leadership over first.
    #[error("the leader cannot be taken out: hand leadership over first")]
    Leads,
    /// There is such a member.
    #[error("replica {0} is a member already")]
    AlreadyMember(GroupMember),
    /// There is no such member.
    #[error("replica {0} is not a member")]
    NotMember(GroupMember),
    /// It is not a voter.
    #[error("replica {0} is not a voter")]
    NotVoter(GroupMember),
    /// It is not a learner.
    #[error("replica {0} is not a learner")]
    NotLearner(GroupMember),
    /// The node has, or had, a replica of that number or a higher one.
    #[error("replica {id} would be older than its node's replica {highest}: numbers are never used again")]
    Reused {
        /// The number.
        id: GroupMember,
        /// The highest of its node.
        highest: GroupMember,
    },
    /// The learner lacks too much, or has not been heard of. Try again later.
    #[error("replica {id} has acknowledged {matched} of {needed}")]
    NotCaughtUp {
        /// The learner.
        id: GroupMember,
        /// What it has acknowledged.
        matched: u64,
        /// What is committed.
        needed: u64,
    },
    /// No group could have the members that would result.
    #[error("there can be no such group: {0}")]
    Refused(String),
}

/// A captured state cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// This replica does not lead.
    #[error("this replica does not lead (leader: {leader:?})")]
    NotLeader {
        /// Who does, if known.
        leader: Option<GroupMember>,
    },
    /// Nothing is applied in it.
    #[error("an empty state")]
    Empty,
    /// The log no longer goes on from it.
    #[error("a state of {index}, the log begins after {begins}")]
    Old {
        /// Last index applied in it.
        index: u64,
        /// The log begins after this index.
        begins: u64,
    },
    /// There is no such entry to have been applied.
    #[error("a state of {index} in term {term}, which was never handed out")]
    NotCommitted {
        /// Last index applied in it.
        index: u64,
        /// The term it is said to be of.
        term: u64,
    },
    /// The members have changed since: who they were at its index is not known any more.
    #[error("a state of {index}, the members have changed at {changed}")]
    MembersChanged {
        /// Last index applied in it.
        index: u64,
        /// When they changed.
        changed: u64,
    },
    /// Whom it is for is not a member (any more).
    #[error("replica {0} is not a member")]
    NotMember(GroupMember),
    /// Whom it is for has all that.
    #[error("a state of {index}, the replica has {has}")]
    NotNeeded {
        /// Last index applied in it.
        index: u64,
        /// What it has acknowledged.
        has: u64,
    },
}

/// A peer's message that is not acted upon. The peer's fault, or the network's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Larger than any message may be.
    #[error("a message of {0} bytes")]
    TooLarge(usize),
    /// Not a raft message.
    #[error("not a raft message: {0}")]
    Malformed(String),
    /// For another replica.
    #[error("a message for replica {to}")]
    NotForUs {
        /// For whom.
        to: GroupMember,
    },
    /// A kind that peers may not send.
    #[error("a message of a kind that peers may not send")]
    Kind,
    /// Its entries do not follow each other.
    #[error("entries that do not follow each other")]
    Entries,
    /// It acknowledges entries that were never sent.
    #[error("an acknowledgement of {index}, the log ends at {last}")]
    Acknowledges {
        /// What it acknowledges.
        index: u64,
        /// Where the log ends.
        last: u64,
    },
    /// Its context is too large, or is not that of a read where it must be.
    #[error("not the context of a read")]
    Context,
    /// It names no term.
    #[error("a message without a term")]
    NoTerm,
    /// A snapshot of nothing.
    #[error("an empty snapshot")]
    EmptySnapshot,
    /// A snapshot that no leader sends.
    #[error("a snapshot that cannot be: {0}")]
    Snapshot(&'static str),
    /// Another snapshot is being installed.
    #[error("another snapshot is being installed")]
    Installing,
    /// The sender is not in the group.
    #[error("the sender is not in the group")]
    UnknownPeer,
}

/// Why a peer's message had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The message is bad: it is dropped and the replica goes on.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The message shows that this replica is bad.
    #[error(transparent)]
    Quarantine(#[from] ReplicaError),
}
