//! The replica: raft's `RawNode`, driven on its asynchronous path.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};
use raft::{RawNode, StateRole};
use slog::Logger;

use super::config::{GroupMember, ReplicaConfig};
use super::error::{MessageError, ProposeError, ReplicaError, StepError};
use super::memory_log::{MemoryLog, Recovered, Truncated};
use super::message::PeerMessage;
use super::outputs::{Committed, Outputs, Persist, ReplicaRole, ReplicaStatus};

mod leadership;
pub(super) mod members;
pub(super) mod reads;
mod snapshots;

use members::Members;

/// Something handed out, until everything before it and itself is persisted.
struct Outstanding {
    ticket: u64,
    waits: bool,
    /// The index of the members that are stored with it.
    members: Option<u64>,
    /// Where the log begins with it.
    reset: Option<Truncated>,
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
    members: Members,
    /// The last index of a snapshot that is being installed. There is nothing between what is applied and it meanwhile: raft must not
    /// look there.
    installing: Option<u64>,
    /// The log on disk is to begin anew, before anything else is written.
    restarted: bool,
    /// More is committed than was written down.
    commit_unsaved: bool,
    leadership: (ReplicaRole, Option<GroupMember>),
    ticks: u64,
    /// At which tick each member of the group was heard last.
    heard: BTreeMap<GroupMember, u64>,
}

impl Replica {
    /// A replica with what was found on disk; a new one with [`Recovered::default`].
    ///
    /// # Errors
    /// A reason to quarantine it.
    pub fn recover(config: ReplicaConfig, mut recovered: Recovered, logger: &Logger) -> Result<Self, ReplicaError> {
        let restarted = recovered.restart_if_installed();
        recovered.check()?;
        let founding = recovered.conf_state == ConfState::default();
        if founding {
            recovered.conf_state.voters.clone_from(&config.voters);
            if !config.voters.is_empty() && !config.voters.contains(&config.id) {
                return Err(ReplicaError::NotMember { id: config.id, members: config.voters });
            }
        }
        let members = Members {
            state: recovered.conf_state.clone(),
            index: recovered.conf_index,
            saved: recovered.conf_index,
            // A group that was founded once does not change its members because its configuration did.
            unsaved: (founding && !config.voters.is_empty()) || restarted,
        };
        if !members.state.voters.is_empty() {
            members::check(&members.state)
                .map_err(|reason| ReplicaError::Members { index: members.index, reason: reason.to_owned() })?;
        }
        let changes = recovered.changes_lacking();
        let applied = recovered.applied;
        let raft = config.raft(applied);
        raft.validate().map_err(|error| ReplicaError::Config(error.to_string()))?;
        let raw = RawNode::new(&raft, MemoryLog::new(recovered), logger)
            .map_err(|error| ReplicaError::Raft(error.to_string()))?;
        let mut replica = Self {
            config,
            raw,
            outstanding: VecDeque::new(),
            sendable: Vec::new(),
            handed_out: applied,
            members,
            installing: None,
            restarted,
            commit_unsaved: false,
            leadership: (ReplicaRole::Follower, None),
            ticks: 0,
            heard: BTreeMap::new(),
        };
        changes.iter().try_for_each(|change| replica.apply_members(change))?;
        Ok(replica)
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &ReplicaConfig {
        &self.config
    }

    /// One unit of time has passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
        // Not even an election: what it would look at is not there yet.
        if self.installing.is_none() {
            self.raw.tick();
        }
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
        if current && self.raw.raft.prs().get(message.from).is_some() {
            self.heard.insert(message.from, self.ticks);
        }
        match message.get_msg_type() {
            // A leader tells a follower only what the follower has acknowledged to be committed.
            MessageType::MsgHeartbeat if current && message.commit > last => {
                return Err(ReplicaError::LogLost { last, needed: message.commit }.into());
            }
            // What raft would look for below what is committed here, and not find, no leader ever says.
            MessageType::MsgAppend if current && self.contradicts(&message) => {
                return Err(ReplicaError::Contradicted { index: message.index }.into());
            }
            MessageType::MsgAppend if self.asks_for_snapshot(&message) => return Ok(()),
            MessageType::MsgTimeoutNow if self.installing.is_some() => return Ok(()),
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

    /// Whether an append's base is older than what is committed here, although it lies above.
    fn contradicts(&self, append: &Message) -> bool {
        let log = &self.raw.raft.raft_log;
        append.index >= log.committed && log.term(log.committed).is_ok_and(|term| append.log_term < term)
    }

    /// What is to be done now. Ask until there is nothing.
    ///
    /// # Errors
    /// A reason to quarantine it.
    pub fn outputs(&mut self) -> Result<Option<Outputs>, ReplicaError> {
        let mut outputs = Outputs { messages: std::mem::take(&mut self.sendable), ..Outputs::default() };
        if std::mem::take(&mut self.restarted) {
            outputs.persist = Some(self.begin_anew());
        } else if self.raw.has_ready() {
            self.take_ready(&mut outputs)?;
            let leadership = (self.role(), self.leader());
            outputs.leadership_changed = leadership != self.leadership;
            self.leadership = leadership;
        }
        let wanted = self.raw.store().take_wanted();
        if self.leads() {
            outputs.snapshots_wanted = wanted;
        }
        Ok((outputs != Outputs::default()).then_some(outputs))
    }

    /// One round of raft.
    fn take_ready(&mut self, outputs: &mut Outputs) -> Result<(), ReplicaError> {
        let mut ready = self.raw.ready();
        let mut persist = Persist {
            ticket: ready.number(),
            hard_state: ready.hs().cloned(),
            entries: ready.take_entries(),
            must_sync: ready.must_sync(),
            ..Persist::default()
        };
        let before = self.members.index;
        outputs.install = self.take_install(&ready);
        if let Some(install) = &outputs.install {
            persist.reset = Some(Truncated { index: install.index, term: install.term });
            persist.hard_state.get_or_insert_with(|| self.raw.raft.hard_state());
        }
        outputs.messages.extend(ready.take_messages().into_iter().map(PeerMessage));
        outputs.reads = self.answered_reads(ready.take_read_states());
        let committed = ready.take_committed_entries();
        let messages = ready.take_persisted_messages();
        // Raft reads them from here as soon as the ready is advanced.
        self.raw.mut_store().append(&persist.entries)?;
        self.raw.advance_append_async(ready);
        // After that, as it may change the members, and raft with them.
        outputs.committed = self.hand_out(committed)?;
        self.members.note(&mut persist, self.members.index != before);
        self.put_off_commit(&mut persist);
        self.await_persist(&persist, messages);
        if persist.hard_state.is_some() || !persist.entries.is_empty() || persist.conf_state.is_some() {
            outputs.persist = Some(persist);
        }
        self.settle();
        outputs.messages.append(&mut self.sendable);
        Ok(())
    }

    /// That more is committed is no reason to write: it goes with what is written next, and a replica that starts without it hears of it
    /// again. What is applied is committed, whatever the log says.
    fn put_off_commit(&mut self, persist: &mut Persist) {
        if persist.must_sync || persist.reset.is_some() {
            if std::mem::take(&mut self.commit_unsaved) {
                persist.hard_state.get_or_insert_with(|| self.raw.raft.hard_state());
            }
        } else if persist.hard_state.take().is_some() {
            self.commit_unsaved = true;
        }
    }

    /// The log of a state that was installed just before the power went: raft begins with it, now the disk does as well.
    fn begin_anew(&mut self) -> Persist {
        let mut persist = Persist {
            // Before all of raft's, which begin with 1.
            ticket: 0,
            reset: Some(self.raw.store().truncated()),
            hard_state: Some(self.raw.raft.hard_state()),
            must_sync: true,
            ..Persist::default()
        };
        self.members.note(&mut persist, true);
        self.await_persist(&persist, Vec::new());
        persist
    }

    fn await_persist(&mut self, persist: &Persist, messages: Vec<Message>) {
        self.outstanding.push_back(Outstanding {
            ticket: persist.ticket,
            waits: persist.must_sync,
            members: persist.conf_state.as_ref().map(|(_, index)| *index),
            reset: persist.reset,
            messages,
        });
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
        let last = self.raw.raft.raft_log.last_index();
        self.raw.advance_apply_to(index);
        if self.raw.raft.raft_log.last_index() > last {
            // Raft has appended the end of a joint configuration, and leaves it to the next heartbeat to tell anybody.
            self.raw.raft.bcast_append();
        }
        Ok(())
    }

    /// The state up to this index is durable: the log below is needed only by peers. Says where the log may begin now, if that is
    /// further on than before: write it, it may be lost.
    pub fn state_durable(&mut self, index: u64) -> Option<Truncated> {
        let applied = self.raw.raft.raft_log.applied;
        let mut up_to = index.min(applied);
        if self.raw.raft.prs().iter().len() > 1 {
            let config = &self.config;
            up_to = up_to.min(self.raw.store().all_but(config.keep_for_peers, config.keep_bytes_for_peers));
            up_to = self.oldest_on_its_way().map_or(up_to, |oldest| up_to.min(oldest));
        }
        if self.members.index > self.members.saved {
            // A restart takes from the log what the stored members lack.
            up_to = up_to.min(self.members.saved);
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
            membership: self.membership(),
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
            if entry.index != self.handed_out + 1 {
                return Err(ReplicaError::Gap { expected: self.handed_out + 1, found: entry.index });
            }
            let (index, term) = (entry.index, entry.term);
            let data = match entry.get_entry_type() {
                EntryType::EntryNormal => entry.data,
                EntryType::EntryConfChangeV2 => {
                    self.apply_members(&entry)?;
                    Bytes::new()
                }
                EntryType::EntryConfChange => return Err(ReplicaError::UnknownEntry { index }),
            };
            self.handed_out = index;
            committed.push(Committed { index, term, data });
        }
        Ok(committed)
    }

    /// Tells raft what is persisted, and releases what waited for it, in order.
    fn settle(&mut self) {
        while self.outstanding.front().is_some_and(|waiting| !waiting.waits) {
            if let Some(done) = self.outstanding.pop_front() {
                self.raw.on_persist_ready(done.ticket);
                self.members.saved = done.members.unwrap_or(self.members.saved);
                done.reset.into_iter().for_each(|begins| self.installed(begins.index));
                self.sendable.extend(done.messages.into_iter().map(PeerMessage));
            }
        }
    }
}
