//! Snapshots: a state instead of entries that the log no longer has.
//!
//! The state itself never passes through here. A leader says who needs one ([`Outputs::snapshots_wanted`](super::Outputs)), the shell
//! captures the state at some applied entry, and [`Replica::snapshot_message`] gives what raft has to say about it: which entry, and
//! who the members were. Both travel on a stream of their own. The receiver stages the bytes and then lets the message speak to its
//! replica ([`Replica::step_snapshot`]), which answers with what to install, if it needs it.

use raft::eraftpb::{Message, MessageType, Snapshot};
use raft::{Ready, SnapshotStatus, Storage as _};

use super::{Replica, members};
use crate::replica::config::GroupMember;
use crate::replica::error::{MessageError, ReplicaError, SnapshotError, StepError};
use crate::replica::memory_log::Truncated;
use crate::replica::message::PeerMessage;
use crate::replica::outputs::{Install, Membership};

impl Replica {
    /// What is said to `to` with a state that has applied everything up to `index`, an entry of `term`. Entries are not sent to it
    /// until [`Replica::snapshot_done`], which must follow whatever happens: the log is kept for it meanwhile.
    ///
    /// # Errors
    /// See [`SnapshotError`]: the state is of no use (any more); capture another, if it is still wanted.
    pub fn snapshot_message(&mut self, to: GroupMember, index: u64, term: u64) -> Result<PeerMessage, SnapshotError> {
        if !self.leads() {
            return Err(SnapshotError::NotLeader { leader: self.leader() });
        }
        if index == 0 {
            return Err(SnapshotError::Empty);
        }
        let begins = self.raw.store().truncated().index;
        if index < begins {
            return Err(SnapshotError::Old { index, begins });
        }
        if index > self.handed_out || self.raw.store().term(index) != Ok(term) {
            return Err(SnapshotError::NotCommitted { index, term });
        }
        if self.members.index > index {
            return Err(SnapshotError::MembersChanged { index, changed: self.members.index });
        }
        let Some(progress) = self.raw.raft.mut_prs().get_mut(to).filter(|_| to != self.config.id) else {
            return Err(SnapshotError::NotMember(to));
        };
        if progress.matched >= index {
            return Err(SnapshotError::NotNeeded { index, has: progress.matched });
        }
        progress.become_snapshot(index);
        // It has its wish; raft would remember it if the acknowledgement came before the report.
        progress.pending_request_snapshot = raft::INVALID_INDEX;
        let mut message = Message { from: self.config.id, to, term: self.raw.raft.term, ..Message::default() };
        message.set_msg_type(MessageType::MsgSnapshot);
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.set_conf_state(self.members.state.clone());
        metadata.index = index;
        metadata.term = term;
        Ok(PeerMessage(message))
    }

    /// The term of the entry at `index`, as far as the log still tells: that of a state that has applied it last.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.raw.store().term(index).ok()
    }

    /// The snapshot for `to` has arrived and was taken or refused (`ok`), or is lost. Without it `to` would be sent nothing any more.
    pub fn snapshot_done(&mut self, to: GroupMember, ok: bool) {
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(to, status);
    }

    /// A leader's snapshot, whose state is staged. True if it is to be installed: [`Outputs::install`](super::Outputs) follows. False
    /// if it says nothing new, or comes from a leader of the past: the staged state is of no use.
    ///
    /// # Errors
    /// [`StepError::Message`]: it is refused and changes nothing. [`StepError::Quarantine`]: it contradicts what is committed here.
    pub fn step_snapshot(&mut self, message: PeerMessage) -> Result<bool, StepError> {
        let message = message.0;
        check(&message, self.config.id)?;
        if self.installing.is_some() {
            return Err(MessageError::Installing.into());
        }
        let metadata = message.get_snapshot().get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        let log = &self.raw.raft.raft_log;
        if index == log.committed && !log.match_term(index, term) {
            return Err(ReplicaError::Contradicted { index }.into());
        }
        if message.term < self.raw.raft.term {
            return Ok(false);
        }
        self.raw.step(message).map_err(|error| ReplicaError::Raft(error.to_string()))?;
        Ok(self.raw.snap().is_some_and(|snapshot| snapshot.get_metadata().index == index))
    }

    /// What raft has taken from [`Replica::step_snapshot`]: the log begins after it from now on.
    pub(super) fn take_install(&mut self, ready: &Ready) -> Option<Install> {
        if ready.snapshot() == &Snapshot::default() {
            return None;
        }
        let metadata = ready.snapshot().get_metadata();
        let install =
            Install { index: metadata.index, term: metadata.term, conf_state: metadata.get_conf_state().clone() };
        self.raw.mut_store().restart(Truncated { index: install.index, term: install.term });
        self.members.set(install.conf_state.clone(), install.index);
        self.installing = Some(install.index);
        Some(install)
    }

    /// The log says so on disk, and the state is there: it counts.
    pub(super) fn installed(&mut self, index: u64) {
        if self.installing == Some(index) {
            self.installing = None;
            self.handed_out = index;
            self.raw.advance_apply_to(index);
        }
    }

    /// The lowest index that a snapshot on its way ends at: what follows it must not go.
    pub(super) fn oldest_on_its_way(&self) -> Option<u64> {
        let on_its_way = |progress: &raft::Progress| {
            (progress.state == raft::ProgressState::Snapshot).then_some(progress.pending_snapshot)
        };
        self.raw.raft.prs().iter().filter_map(|(_, progress)| on_its_way(progress)).min()
    }

    /// A replica that knows no members cannot use entries: it was not there when the group began. It asks for a snapshot instead.
    pub(super) fn asks_for_snapshot(&mut self, append: &Message) -> bool {
        if self.membership() != Membership::Joining || append.term < self.raw.raft.term {
            return false;
        }
        let mut answer = Message { from: self.config.id, to: append.from, term: append.term, ..Message::default() };
        answer.set_msg_type(MessageType::MsgAppendResponse);
        answer.index = append.index;
        answer.reject = true;
        // At least that: any.
        answer.request_snapshot = 1;
        self.sendable.push(PeerMessage(answer));
        true
    }
}

/// What can be told of a snapshot without knowing the log.
fn check(message: &Message, me: GroupMember) -> Result<(), MessageError> {
    if message.to != me {
        return Err(MessageError::NotForUs { to: message.to });
    }
    if message.get_msg_type() != MessageType::MsgSnapshot {
        return Err(MessageError::Kind);
    }
    let snapshot = message.get_snapshot();
    let metadata = snapshot.get_metadata();
    // Raft would drop the whole log for it.
    if metadata.index == 0 || metadata.term == 0 {
        return Err(MessageError::EmptySnapshot);
    }
    if metadata.term > message.term || !snapshot.data.is_empty() || !message.entries.is_empty() {
        return Err(MessageError::Snapshot("more, or newer, than a leader can say"));
    }
    members::check(metadata.get_conf_state()).map_err(MessageError::Snapshot)?;
    if !members::contains(metadata.get_conf_state(), me) {
        return Err(MessageError::Snapshot("this replica is not in its group"));
    }
    Ok(())
}
