//! Who is in the group, and how that changes: always through the log, through a joint configuration where more than one member
//! changes, and exactly once.
//!
//! A change takes effect where its entry is handed out to be applied. From there the members travel with the index they changed at:
//! into the log's storage ([`Persist::conf_state`](super::Persist)), into snapshots, and back at a restart, where what they already
//! contain is not applied again and what they lack is taken from the log. The log is not truncated above members that are not
//! stored, so that it always has what they lack.
//!
//! A joint configuration is left by itself: the leader that has applied its beginning proposes its end; so does the next leader once
//! it has applied what it found in its log.

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry};
use raft::{Changer, ProgressState, StateRole};

use super::Replica;
use crate::replica::config::{GroupMember, node_of};
use crate::replica::error::{MembersError, ReplicaError};
use crate::replica::outputs::{Group, Membership, Persist, Progress};

/// Entries a learner may lack when it becomes a voter. Under load the last few are always on their way; more, and a group that has just
/// lost another voter could commit nothing until they have come.
const PROMOTE_LAG: u64 = 16;

/// A change of a group's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Sends everything to a new replica, which does not vote yet. It starts with no members and is sent a snapshot.
    AddLearner(GroupMember),
    /// Makes a voter of a learner that has caught up.
    Promote(GroupMember),
    /// Makes a learner of a voter: it is sent everything as before.
    Demote(GroupMember),
    /// Takes a member out. It may come back under its number only if it has kept all that it had.
    Remove(GroupMember),
    /// A learner that has caught up takes a voter's place, in one joint change: the group is never smaller or less safe.
    Replace {
        /// The voter that goes.
        old: GroupMember,
        /// The learner that comes.
        new: GroupMember,
    },
}

impl MemberChange {
    fn singles(self) -> Vec<ConfChangeSingle> {
        let single = |kind: ConfChangeType, node_id| {
            let mut single = ConfChangeSingle { node_id, ..ConfChangeSingle::default() };
            single.set_change_type(kind);
            single
        };
        match self {
            Self::AddLearner(id) | Self::Demote(id) => vec![single(ConfChangeType::AddLearnerNode, id)],
            Self::Promote(id) => vec![single(ConfChangeType::AddNode, id)],
            Self::Remove(id) => vec![single(ConfChangeType::RemoveNode, id)],
            Self::Replace { old, new } => {
                vec![single(ConfChangeType::AddNode, new), single(ConfChangeType::RemoveNode, old)]
            }
        }
    }
}

/// The members of the group, and what is known about their storage.
pub(super) struct Members {
    pub(super) state: ConfState,
    /// They are so since this entry.
    pub(super) index: u64,
    /// The index of those that are stored.
    pub(super) saved: u64,
    /// They are to be written with the next write.
    pub(super) unsaved: bool,
}

impl Members {
    pub(super) fn set(&mut self, mut state: ConfState, index: u64) {
        // Raft keeps sets: the same members are to be the same bytes on every replica.
        state.voters.sort_unstable();
        state.voters_outgoing.sort_unstable();
        state.learners.sort_unstable();
        state.learners_next.sort_unstable();
        self.state = state;
        self.index = index;
        self.unsaved = true;
    }

    /// Adds them to a write if they must be stored: for their own sake only if they have `changed` just now.
    pub(super) fn note(&mut self, persist: &mut Persist, changed: bool) {
        if self.unsaved && (changed || persist.hard_state.is_some() || !persist.entries.is_empty()) {
            persist.conf_state = Some((self.state.clone(), self.index));
            persist.must_sync = true;
            self.unsaved = false;
        }
    }
}

/// Why a peer's, or the disk's, members cannot be those of any group; raft would panic over them.
pub(in crate::replica) fn check(state: &ConfState) -> Result<(), &'static str> {
    let distinct = |ids: &[u64]| ids.iter().enumerate().all(|(at, id)| *id != 0 && !ids[..at].contains(id));
    let (voters, outgoing) = (state.get_voters(), state.get_voters_outgoing());
    let (learners, next) = (state.get_learners(), state.get_learners_next());
    if ![voters, outgoing, learners, next].into_iter().all(distinct) {
        return Err("a number is 0 or there twice");
    }
    if voters.is_empty() {
        return Err("nobody votes");
    }
    if learners.iter().any(|id| voters.contains(id) || outgoing.contains(id)) {
        return Err("a learner votes");
    }
    if next.iter().any(|id| voters.contains(id) || learners.contains(id) || !outgoing.contains(id)) {
        return Err("a voter that becomes a learner is not one that goes");
    }
    if outgoing.is_empty() && state.auto_leave {
        return Err("a joint configuration that is none");
    }
    Ok(())
}

/// Whether `id` is among them in any part.
pub(super) fn contains(state: &ConfState, id: GroupMember) -> bool {
    [state.get_voters(), state.get_voters_outgoing(), state.get_learners(), state.get_learners_next()]
        .into_iter()
        .any(|ids| ids.contains(&id))
}

impl Replica {
    /// The members of the group, as of the last entry handed out.
    pub fn conf_state(&self) -> &ConfState {
        &self.members.state
    }

    /// The same without raft's words: who is in the group.
    pub fn group(&self) -> Group {
        let state = &self.members.state;
        Group {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            joint: !state.voters_outgoing.is_empty() || !state.learners_next.is_empty(),
        }
    }

    /// As the leader: how `id` gets on. Nothing is known of one that is not in the group.
    pub fn member_progress(&self, id: GroupMember) -> Progress {
        let (matched, active) = self.progress_of(id);
        let active = active || id == self.config.id;
        Progress { matched, active, caught_up: self.check_caught_up(id).is_ok() }
    }

    /// Whether this replica is one of them.
    pub(super) fn membership(&self) -> Membership {
        let state = &self.members.state;
        if self.raw.raft.promotable() {
            Membership::Voter
        } else if contains(state, self.config.id) {
            Membership::Learner
        } else if state.voters.is_empty() {
            Membership::Joining
        } else {
            Membership::Removed
        }
    }

    /// Proposes a change of the members, if this replica leads. It has happened when [`Replica::conf_state`] shows it; it may still be
    /// lost if leadership is.
    ///
    /// A number must never come back. Checked here is what the members can tell: a new one must be higher than every present one of
    /// the same node. That a number whose replica is gone is not given out again is for whoever numbers rebuilds (see
    /// [`member_of`](crate::replica::member_of)), with the count kept in the cluster's configuration.
    ///
    /// # Errors
    /// See [`MembersError`]. Nothing was proposed.
    pub fn propose_members(&mut self, change: MemberChange) -> Result<(), MembersError> {
        if !self.leads() {
            return Err(MembersError::NotLeader { leader: self.leader() });
        }
        // A new leader does not know yet whether its predecessor's change is through. Raft would make an empty entry of ours.
        let joint = !self.members.state.voters_outgoing.is_empty();
        if joint || self.raw.raft.has_pending_conf() || !self.leads_with_authority() {
            return Err(MembersError::UnderWay);
        }
        if self.is_transferring() {
            return Err(MembersError::HandingOver);
        }
        self.check_change(change)?;
        let singles = change.singles();
        // What is committed must be appliable, on every replica: better refused here.
        let mut changer = Changer::new(self.raw.raft.prs());
        let tried = if singles.len() > 1 { changer.enter_joint(true, &singles) } else { changer.simple(&singles) };
        tried.map_err(|error| MembersError::Refused(error.to_string()))?;
        let change = ConfChangeV2 { changes: singles.into(), ..ConfChangeV2::default() };
        self.raw.propose_conf_change(Vec::new(), change).map_err(|_| MembersError::Busy)
    }

    fn check_change(&self, change: MemberChange) -> Result<(), MembersError> {
        let state = &self.members.state;
        match change {
            MemberChange::AddLearner(id) => self.check_new(id),
            MemberChange::Promote(id) => self.check_caught_up(id),
            // It would go on to decide over a group it is not in; its successor would not know of the end of it.
            MemberChange::Demote(id) | MemberChange::Remove(id) | MemberChange::Replace { old: id, .. }
                if id == self.config.id =>
            {
                Err(MembersError::Leads)
            }
            MemberChange::Demote(id) if !state.voters.contains(&id) => Err(MembersError::NotVoter(id)),
            MemberChange::Remove(id) if !contains(state, id) => Err(MembersError::NotMember(id)),
            MemberChange::Demote(_) | MemberChange::Remove(_) => Ok(()),
            MemberChange::Replace { old, .. } if !state.voters.contains(&old) => Err(MembersError::NotVoter(old)),
            MemberChange::Replace { new, .. } => self.check_caught_up(new),
        }
    }

    fn check_new(&self, id: GroupMember) -> Result<(), MembersError> {
        let state = &self.members.state;
        if id == raft::INVALID_ID || contains(state, id) {
            return Err(MembersError::AlreadyMember(id));
        }
        let of_node = |member: &&GroupMember| node_of(**member) == node_of(id);
        match state.voters.iter().chain(&state.learners).filter(of_node).max() {
            Some(highest) if *highest > id => Err(MembersError::Reused { id, highest: *highest }),
            _ => Ok(()),
        }
    }

    fn check_caught_up(&self, id: GroupMember) -> Result<(), MembersError> {
        let progress = match self.raw.raft.prs().get(id) {
            Some(progress) if self.members.state.learners.contains(&id) => progress,
            _ => return Err(MembersError::NotLearner(id)),
        };
        let needed = self.raw.raft.raft_log.committed;
        let close = progress.matched.saturating_add(PROMOTE_LAG) >= needed && progress.matched > 0;
        // Whose acknowledgement overtook the report of its snapshot is probed until something is said: it may have all there is.
        let has_all = progress.state == ProgressState::Probe && progress.matched == self.raw.raft.raft_log.last_index();
        if close && (has_all || progress.state == ProgressState::Replicate) && self.answers(id) {
            Ok(())
        } else {
            Err(MembersError::NotCaughtUp { id, matched: progress.matched, needed })
        }
    }

    /// A committed change takes effect, unless the members have it already.
    pub(super) fn apply_members(&mut self, entry: &Entry) -> Result<(), ReplicaError> {
        if entry.index <= self.members.index {
            return Ok(());
        }
        let bad = |reason: String| ReplicaError::Members { index: entry.index, reason };
        let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(|error| bad(error.to_string()))?;
        let state = self.raw.apply_conf_change(&change).map_err(|error| bad(error.to_string()))?;
        self.members.set(state, entry.index);
        // Numbers are never used again: who is gone is not heard any more.
        self.heard.retain(|id, _| contains(&self.members.state, *id));
        self.step_down_if_removed();
        Ok(())
    }

    /// A leader that is taken out leads until the change is committed, and not longer: raft would let it go on, and panic.
    fn step_down_if_removed(&mut self) {
        let raft = &mut self.raw.raft;
        if raft.promotable() || raft.state == StateRole::Follower {
            return;
        }
        if raft.state == StateRole::Leader {
            // The one that has most takes over at once, instead of after an election time-out.
            let voters = &self.members.state.voters;
            let heir = voters.iter().max_by_key(|id| raft.prs().get(**id).map_or(0, |progress| progress.matched));
            if let Some(heir) = heir {
                raft.send_timeout_now(*heir);
            }
        }
        let term = raft.term;
        raft.become_follower(term, raft::INVALID_ID);
    }
}
