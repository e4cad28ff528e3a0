//! The replica: raft's `RawNode`, driven on its asynchronous path.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType};
use raft::{RawNode, StateRole};
use slog::Logger;

use super::config::{GroupMember, ReplicaConfig};
use super::error::{MessageError, ProposeError, ReplicaError, StepError};
use super::memory_log::{MemoryLog, Recovered, Truncated};
use super::message::PeerMessage;

pub(super) mod reads;

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

/// One thing to write to the log. In the order of the tickets; several may be written and synced as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Persist {
    /// To be given to [`Replica::persisted`] when this, and everything before it, is written (and synced, if it must be).
    pub ticket: u64,
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
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

/// What is to be done. Each part in order; the parts independently of each other.
#[derive(Debug, Default, PartialEq)]
pub struct Outputs {
    /// Write this to the log.
    pub persist: Option<Persist>,
    /// Send these.
    pub messages: Vec<PeerMessage>,
    /// Apply these.
    pub committed: Vec<Committed>,
    /// Answers to [`Replica::read_index`]: its context, and the index that must be applied before the read.
    pub reads: Vec<(u64, u64)>,
    /// The role or the leader is another than before.
    pub leadership_changed: bool,
}

/// How a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// What it is to its group.
    pub role: ReplicaRole,
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

/// Something handed out, until everything before it and itself is persisted.
struct Outstanding {
    ticket: u64,
    waits: bool,
    /// What may be sent only then.
    messages: Vec<Message>,
}

/// One replica of one partition. See the [module](super).
pub struct Replica {
    config: ReplicaConfig,
    pub(super) raw: RawNode<MemoryLog>,
    outstanding: VecDeque<Outstanding>,
    sendable: Vec<PeerMessage>,
    /// Last index in [`Outputs::committed`] so far.
    handed_out: u64,
    leadership: (ReplicaRole, Option<GroupMember>),
}

impl Replica {
    /// A replica with what was found on disk; a new one with [`Recovered::default`].
    ///
    /// # Errors
    /// A reason to quarantine it.
    pub fn recover(config: ReplicaConfig, mut recovered: Recovered, logger: &Logger) -> Result<Self, ReplicaError> {
        recovered.check()?;
        if recovered.conf_state == ConfState::default() {
            recovered.conf_state.voters.clone_from(&config.voters);
        }
        let members = &recovered.conf_state;
        if !members.voters.contains(&config.id) && !members.learners.contains(&config.id) {
            return Err(ReplicaError::NotMember { id: config.id, members: members.voters.clone() });
        }
        let applied = recovered.applied;
        let raft = config.raft(applied);
        raft.validate().map_err(|error| ReplicaError::Config(error.to_string()))?;
        let raw = RawNode::new(&raft, MemoryLog::new(recovered), logger)
            .map_err(|error| ReplicaError::Raft(error.to_string()))?;
        Ok(Self {
            config,
            raw,
            outstanding: VecDeque::new(),
            sendable: Vec::new(),
            handed_out: applied,
            leadership: (ReplicaRole::Follower, None),
        })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &ReplicaConfig {
        &self.config
    }

    /// The members of the group, to be stored with the log.
    pub fn conf_state(&self) -> ConfState {
        self.raw.raft.prs().conf().to_conf_state()
    }

    /// One unit of time has passed.
    pub fn tick(&mut self) {
        self.raw.tick();
    }

    /// Stands for election now.
    pub fn campaign(&mut self) {
        // Refused only by a replica that leads, or that may not.
        let _ = self.raw.campaign();
    }

    /// Stands for election now if nobody else could: a group of one need not wait for anyone.
    pub fn campaign_if_alone(&mut self) {
        let voters = self.raw.raft.prs().conf().voters();
        if voters.ids().len() == 1 && voters.contains(self.config.id) {
            self.campaign();
        }
    }

    /// Asks `to`, a voter, to take over as leader. Proposals are refused meanwhile.
    pub fn transfer_leadership(&mut self, to: GroupMember) {
        self.raw.transfer_leader(to);
    }

    /// Appends `data` to the log, if this replica leads.
    ///
    /// # Errors
    /// See [`ProposeError`]. Whether it is committed is seen when it is applied.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(), ProposeError> {
        // A follower would forward it inside raft, where it is lost without a word.
        if !self.leads() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        self.raw.propose(Vec::new(), data).map_err(|_| ProposeError::Busy)
    }

    /// A peer says something.
    ///
    /// # Errors
    /// [`StepError::Message`]: it is dropped. [`StepError::Quarantine`]: this replica is not to be trusted any more.
    pub fn step(&mut self, message: PeerMessage) -> Result<(), StepError> {
        message.check(self.config.id)?;
        let message = message.0;
        let last = self.raw.raft.raft_log.last_index();
        let current = message.term >= self.raw.raft.term;
        match message.get_msg_type() {
            // A leader tells a follower only what the follower has acknowledged to be committed.
            MessageType::MsgHeartbeat if current && message.commit > last => {
                return Err(ReplicaError::LogLost { last, needed: message.commit }.into());
            }
            MessageType::MsgReadIndex if !self.admits_read(&message)? => return Ok(()),
            MessageType::MsgAppendResponse if current && !message.reject && message.index > last => {
                return Err(MessageError::Acknowledges { index: message.index, last }.into());
            }
            _ => {}
        }
        match self.raw.step(message) {
            Ok(()) | Err(raft::Error::ProposalDropped) => Ok(()),
            Err(raft::Error::StepPeerNotFound) => Err(MessageError::UnknownPeer.into()),
            Err(raft::Error::StepLocalMsg) => Err(MessageError::Kind.into()),
            Err(error) => Err(ReplicaError::Raft(error.to_string()).into()),
        }
    }

    /// What is to be done now. Ask until there is nothing.
    ///
    /// # Errors
    /// A reason to quarantine it.
    pub fn outputs(&mut self) -> Result<Option<Outputs>, ReplicaError> {
        let mut outputs = Outputs { messages: std::mem::take(&mut self.sendable), ..Outputs::default() };
        if self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let ticket = ready.number();
            let persist = Persist {
                ticket,
                hard_state: ready.hs().cloned(),
                entries: ready.take_entries(),
                must_sync: ready.must_sync(),
            };
            outputs.messages.extend(ready.take_messages().into_iter().map(PeerMessage));
            outputs.reads = self.answered_reads(ready.take_read_states());
            outputs.committed = self.hand_out(ready.take_committed_entries())?;
            let after = ready.take_persisted_messages();
            // Raft reads them from here as soon as the ready is advanced.
            self.raw.mut_store().append(&persist.entries)?;
            self.raw.advance_append_async(ready);
            self.outstanding.push_back(Outstanding { ticket, waits: persist.must_sync, messages: after });
            if persist.hard_state.is_some() || !persist.entries.is_empty() {
                outputs.persist = Some(persist);
            }
            self.settle();
            outputs.messages.append(&mut self.sendable);
            let leadership = (self.role(), self.leader());
            outputs.leadership_changed = leadership != self.leadership;
            self.leadership = leadership;
        }
        Ok((outputs != Outputs::default()).then_some(outputs))
    }

    /// Everything up to this [`Persist`] is written, and synced where it must be.
    pub fn persisted(&mut self, ticket: u64) {
        self.outstanding
            .iter_mut()
            .take_while(|waiting| waiting.ticket <= ticket)
            .for_each(|waiting| waiting.waits = false);
        self.settle();
    }

    /// Everything up to this index is applied.
    ///
    /// # Errors
    /// It was never handed out, or went back.
    pub fn applied(&mut self, index: u64) -> Result<(), ReplicaError> {
        let before = self.raw.raft.raft_log.applied;
        if index > self.handed_out {
            return Err(ReplicaError::AppliedTooFar { applied: index, handed_out: self.handed_out });
        }
        if index < before {
            return Err(ReplicaError::AppliedWentBack { applied: index, before });
        }
        self.raw.advance_apply_to(index);
        Ok(())
    }

    /// The state up to this index is durable: the log below is needed only by peers. Says where the log may begin now, if that is
    /// further on than before: write it, it may be lost.
    pub fn state_durable(&mut self, index: u64) -> Option<Truncated> {
        let applied = self.raw.raft.raft_log.applied;
        let mut up_to = index.min(applied);
        if self.raw.raft.prs().conf().voters().ids().len() > 1 {
            up_to = up_to.min(self.raw.store().last().saturating_sub(self.config.keep_for_peers));
        }
        self.raw.mut_store().truncate(up_to)
    }

    /// Entries in the log that are not committed.
    pub fn uncommitted(&self) -> u64 {
        let log = &self.raw.raft.raft_log;
        log.last_index().saturating_sub(log.committed)
    }

    /// Whether it leads and has committed an entry of its own term: it then knows everything that was ever committed.
    pub fn leads_with_authority(&self) -> bool {
        self.role() == ReplicaRole::Leader && self.raw.raft.commit_to_current_term()
    }

    /// How it is.
    pub fn status(&self) -> ReplicaStatus {
        let log = &self.raw.raft.raft_log;
        let store = self.raw.store();
        ReplicaStatus {
            role: self.role(),
            leader: self.leader(),
            term: self.raw.raft.term,
            last: log.last_index(),
            committed: log.committed,
            applied: log.applied,
            truncated: store.truncated(),
            log_entries: store.len(),
            log_bytes: store.bytes(),
        }
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn role(&self) -> ReplicaRole {
        match self.raw.raft.state {
            StateRole::Follower => ReplicaRole::Follower,
            StateRole::Candidate | StateRole::PreCandidate => ReplicaRole::Candidate,
            StateRole::Leader => ReplicaRole::Leader,
        }
    }

    fn leader(&self) -> Option<GroupMember> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    fn hand_out(&mut self, entries: Vec<Entry>) -> Result<Vec<Committed>, ReplicaError> {
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.get_entry_type() != EntryType::EntryNormal {
                return Err(ReplicaError::UnknownEntry { index: entry.index });
            }
            if entry.index != self.handed_out + 1 {
                return Err(ReplicaError::Gap { expected: self.handed_out + 1, found: entry.index });
            }
            self.handed_out = entry.index;
            committed.push(Committed { index: entry.index, term: entry.term, data: entry.data });
        }
        Ok(committed)
    }

    /// Tells raft what is persisted, and releases what waited for it, in order.
    fn settle(&mut self) {
        while self.outstanding.front().is_some_and(|waiting| !waiting.waits) {
            if let Some(done) = self.outstanding.pop_front() {
                self.raw.on_persist_ready(done.ticket);
                self.sendable.extend(done.messages.into_iter().map(PeerMessage));
            }
        }
    }
}
