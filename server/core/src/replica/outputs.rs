//! What a replica says is to be done, and how it is.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState};

use super::config::GroupMember;
use super::memory_log::Truncated;
use super::message::PeerMessage;

/// What a replica is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election, or asks whether it should.
    Candidate,
    /// Leads.
    Leader,
}

/// Whether a replica is a member of its group, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It votes.
    Voter,
    /// It is sent everything and does not vote.
    Learner,
    /// It has no members yet: it waits for a snapshot from a leader that was told to add it.
    Joining,
    /// It was taken out. It never stands for election, and may be deleted.
    Removed,
}

/// Who is in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Those that vote.
    pub voters: Vec<GroupMember>,
    /// Those that are sent everything and do not vote.
    pub learners: Vec<GroupMember>,
    /// A change of the voters is half done; it ends by itself.
    pub joint: bool,
}

/// How a leader sees a replica of its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last index that it is known to have.
    pub matched: u64,
    /// It has answered lately.
    pub active: bool,
    /// It lacks so little that it may vote.
    pub caught_up: bool,
}

/// A state that came from a peer, and takes the place of this replica's. See [`Outputs::install`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Install {
    /// Last index applied in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The members of the group at that index.
    pub conf_state: ConfState,
}

/// One thing to write to the log. In the order of the tickets; several may be written and synced as one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Persist {
    /// To be given to [`Replica::persisted`](super::Replica::persisted) when this, and everything before it, is written (and synced, if
    /// it must be).
    pub ticket: u64,
    /// Before anything else of this: the whole log goes, and begins after here. A hard state and members come with it.
    pub reset: Option<Truncated>,
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// Replaces the members, and the index at which they became that. See [`Recovered::conf_index`](super::Recovered::conf_index).
    pub conf_state: Option<(ConfState, u64)>,
    /// Replaces the log from the first of them on.
    pub entries: Vec<Entry>,
    /// Whether it counts only when it is synced. Otherwise losing it loses nothing: it may wait for the next sync.
    pub must_sync: bool,
}

/// An entry to apply: it is committed, and persisted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its index: one more than that of the one before.
    pub index: u64,
    /// The term it was proposed in: what was proposed in an earlier term and did not come before it never comes.
    pub term: u64,
    /// Its bytes: a batch, or nothing (a new leader's first entry, a change of the members).
    pub data: Bytes,
}

/// What is to be done. Each part in order; the parts independently of each other, but for [`Outputs::install`].
#[derive(Debug, Default, PartialEq)]
pub struct Outputs {
    /// The state that was staged for [`Replica::step_snapshot`](super::Replica::step_snapshot) takes the place of this replica's: when
    /// everything handed out before is applied or given up, make it current and durable, *then* write [`Outputs::persist`]. Once that
    /// is [`persisted`](super::Replica::persisted), `index` counts as applied, and entries after it are handed out.
    pub install: Option<Install>,
    /// Write this to the log.
    pub persist: Option<Persist>,
    /// Send these.
    pub messages: Vec<PeerMessage>,
    /// Apply these.
    pub committed: Vec<Committed>,
    /// Answers to [`Replica::read_index`](super::Replica::read_index): its context, and the index that must be applied before the read.
    pub reads: Vec<(u64, u64)>,
    /// These peers need more than the log still has: a snapshot, see [`Replica::snapshot_message`](super::Replica::snapshot_message).
    /// Said again from time to time until there is one.
    pub snapshots_wanted: Vec<GroupMember>,
    /// The role or the leader is another than before.
    pub leadership_changed: bool,
}

/// How a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// What it is to its group.
    pub role: ReplicaRole,
    /// Whether it is in it at all.
    pub membership: Membership,
    /// Who leads, if known.
    pub leader: Option<GroupMember>,
    /// Its term.
    pub term: u64,
    /// Last index of its log.
    pub last: u64,
    /// Last index known to be committed.
    pub committed: u64,
    /// Last index said to be applied.
    pub applied: u64,
    /// Where its log begins.
    pub truncated: Truncated,
    /// Entries of its log in memory.
    pub log_entries: u64,
    /// Their bytes.
    pub log_bytes: u64,
}
