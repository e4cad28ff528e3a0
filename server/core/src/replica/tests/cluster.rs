//! A group of replicas with disks and a network that do as they are told. Everything is deterministic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState};
use rove_protocol::ids::PartitionId;
use slog::{Discard, Logger, o};

use crate::replica::{
    GroupMember, Install, PeerMessage, Persist, ProposeError, Recovered, Replica, ReplicaConfig, ReplicaError,
    ReplicaRole, SnapshotError, StepError, Truncated, node_of,
};

/// What survives a loss of power, and what is on its way there.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) conf_state: (ConfState, u64),
    pub(super) truncated: Truncated,
    pub(super) entries: Vec<Entry>,
    pub(super) pending: VecDeque<Persist>,
    /// Writes stay pending until somebody syncs.
    pub(super) slow: bool,
}

impl Disk {
    /// Makes the oldest pending write durable.
    fn sync_one(&mut self) -> Option<u64> {
        let write = self.pending.pop_front()?;
        if let Some(begins) = write.reset {
            assert!(write.hard_state.is_some() && write.conf_state.is_some() && write.must_sync);
            self.truncated = begins;
            self.entries.clear();
        }
        if let Some(conf_state) = write.conf_state {
            self.conf_state = conf_state;
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(write.entries);
        }
        Some(write.ticket)
    }

    fn truncate(&mut self, truncated: Truncated) {
        self.truncated = truncated;
        self.entries.retain(|entry| entry.index > truncated.index);
    }
}

/// What was applied: index, term, data.
pub(super) type Applied = (u64, u64, Vec<u8>);

/// A state machine that remembers what it was told. Durable up to `durable`.
#[derive(Default, Clone)]
pub(super) struct Machine {
    pub(super) log: Vec<Applied>,
    pub(super) durable: usize,
    /// The snapshot it came from last.
    pub(super) installed: Option<Install>,
}

impl Machine {
    pub(super) fn applied(&self) -> u64 {
        self.log.last().map_or(0, |(index, ..)| *index)
    }

    pub(super) fn applied_term(&self) -> u64 {
        self.log.last().map_or(0, |(_, term, _)| *term)
    }

    /// What was proposed, without the empty entries of new leaders.
    pub(super) fn values(&self) -> Vec<String> {
        self.log
            .iter()
            .filter(|(_, _, data)| !data.is_empty())
            .map(|(_, _, data)| String::from_utf8_lossy(data).into_owned())
            .collect()
    }
}

#[derive(Default)]
pub(super) struct Member {
    pub(super) replica: Option<Replica>,
    pub(super) disk: Disk,
    pub(super) machine: Machine,
    /// Answers to its reads.
    pub(super) reads: Vec<(u64, u64)>,
    /// A state that has arrived and is not current yet.
    pub(super) staged: Option<Vec<Applied>>,
    /// Power is lost when that state is current and durable, before the log says so.
    pub(super) dies_when_installed: bool,
    pub(super) installs: usize,
}

impl Member {
    fn die(&mut self) {
        self.replica = None;
        self.staged = None;
        self.disk.pending.clear();
        self.machine.log.truncate(self.machine.durable);
    }
}

pub(super) struct Cluster {
    pub(super) members: BTreeMap<GroupMember, Member>,
    /// Members of the beginning are 1 to this; others join.
    founders: u64,
    network: VecDeque<PeerMessage>,
    /// Who wants a snapshot of whom.
    pub(super) wanted: BTreeSet<(GroupMember, GroupMember)>,
    /// They are sent as soon as they are wanted.
    pub(super) ships: bool,
    /// Messages that still arrive; none are lost, they wait.
    pub(super) deliveries: Option<usize>,
    /// Ordered pairs that cannot reach each other.
    cut: BTreeSet<(GroupMember, GroupMember)>,
    /// Of 100 messages this many are lost, by a fixed pseudo-random sequence.
    pub(super) loss_percent: u64,
    /// Messages arrive in another order than they were sent in.
    pub(super) shuffles: bool,
    seed: u64,
    pub(super) lost: u64,
}

pub(super) fn logger() -> Logger {
    Logger::root(Discard, o!())
}

pub(super) fn config(id: GroupMember, size: u64) -> ReplicaConfig {
    // Who was not there in the beginning does not know who was.
    let voters = if id <= size { (1..=size).collect() } else { Vec::new() };
    let mut config = ReplicaConfig::new(PartitionId(1), id, voters);
    // Different for each and without chance, so that a test is the same every time.
    let ticks = 10 + 3 * usize::try_from(node_of(id).0).unwrap();
    config.election_ticks = ticks..ticks + 1;
    config.keep_for_peers = 0;
    config
}

impl Cluster {
    pub(super) fn new(size: u64) -> Self {
        let mut cluster = Self {
            members: BTreeMap::new(),
            founders: size,
            wanted: BTreeSet::new(),
            ships: false,
            deliveries: None,
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            loss_percent: 0,
            shuffles: false,
            seed: 42,
            lost: 0,
        };
        for id in 1..=size {
            cluster.join(id);
        }
        cluster
    }

    /// A replica with an empty disk.
    pub(super) fn join(&mut self, id: GroupMember) {
        self.members.insert(id, Member::default());
        self.restart(id).unwrap();
    }

    /// Starts a replica from what its disk and its state have.
    pub(super) fn restart(&mut self, id: GroupMember) -> Result<(), ReplicaError> {
        let founders = self.founders;
        let member = self.members.get_mut(&id).unwrap();
        member.machine.log.truncate(member.machine.durable);
        let recovered = Recovered {
            hard_state: member.disk.hard_state.clone(),
            truncated: member.disk.truncated,
            entries: member.disk.entries.clone(),
            conf_state: member.disk.conf_state.0.clone(),
            conf_index: member.disk.conf_state.1,
            applied: member.machine.applied(),
            installed: member.machine.installed.clone(),
        };
        member.replica = Some(Replica::recover(config(id, founders), recovered, &logger())?);
        Ok(())
    }

    /// Power is lost: what was not synced is gone, and so is the state that was not flushed.
    pub(super) fn crash(&mut self, id: GroupMember) {
        self.members.get_mut(&id).unwrap().die();
        self.network.retain(|message| message.to() != id);
    }

    /// What it has sent and has not arrived never does.
    pub(super) fn silence(&mut self, id: GroupMember) {
        self.network.retain(|message| message.from() != id);
    }

    pub(super) fn replica(&mut self, id: GroupMember) -> &mut Replica {
        self.members.get_mut(&id).unwrap().replica.as_mut().unwrap()
    }

    pub(super) fn isolate(&mut self, id: GroupMember) {
        for other in self.members.keys().copied().filter(|other| *other != id).collect::<Vec<_>>() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.loss_percent = 0;
    }

    pub(super) fn slow_disk(&mut self, id: GroupMember, slow: bool) {
        self.members.get_mut(&id).unwrap().disk.slow = slow;
    }

    /// Nothing is synced any more unless somebody asks for it.
    pub(super) fn slow_disks(&mut self) {
        for member in self.members.values_mut() {
            member.disk.slow = true;
        }
    }

    /// The next of a pseudo-random sequence, below `bound`.
    pub(super) fn random(&mut self, bound: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % bound
    }

    /// Another sequence.
    pub(super) fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// The message that arrives next.
    fn arriving(&mut self) -> Option<PeerMessage> {
        if self.network.is_empty() || self.deliveries == Some(0) {
            return None;
        }
        self.deliveries = self.deliveries.map(|left| left - 1);
        let waiting = self.network.len() as u64;
        if waiting > 1 && self.shuffles {
            let chosen = usize::try_from(self.random(waiting)).unwrap();
            return self.network.remove(chosen);
        }
        self.network.pop_front()
    }

    fn loses(&mut self) -> bool {
        let lost = self.random(100) < self.loss_percent;
        self.lost += u64::from(lost);
        lost
    }

    /// Does what the replicas ask for until they ask for nothing more.
    pub(super) fn settle(&mut self) {
        loop {
            let mut busy = false;
            let ids: Vec<GroupMember> = self.members.keys().copied().collect();
            for id in ids {
                busy |= self.work(id);
            }
            if self.ships {
                for (from, to) in std::mem::take(&mut self.wanted) {
                    busy |= self.ship(from, to).is_ok();
                }
            }
            while let Some(message) = self.arriving() {
                busy = true;
                if self.cut.contains(&(message.from(), message.to())) || self.loses() {
                    continue;
                }
                // Everything between replicas goes through its encoding.
                let message = PeerMessage::decode(&message.encode().unwrap()).unwrap();
                let to = message.to();
                if let Some(replica) = self.members.get_mut(&to).and_then(|member| member.replica.as_mut()) {
                    match replica.step(message) {
                        Ok(()) | Err(StepError::Message(_)) => {}
                        Err(StepError::Quarantine(reason)) => panic!("replica {to}: {reason}"),
                    }
                }
            }
            if !busy {
                return;
            }
        }
    }

    /// One round of one replica: its outputs, its disk, its state. Whether there was anything.
    fn work(&mut self, id: GroupMember) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        let Some(replica) = member.replica.as_mut() else { return false };
        let mut busy = false;
        while let Some(outputs) = replica.outputs().unwrap() {
            busy = true;
            self.wanted.extend(outputs.snapshots_wanted.into_iter().map(|to| (id, to)));
            if let Some(install) = outputs.install {
                member.machine.log = member.staged.take().expect("the state was staged before");
                member.machine.durable = member.machine.log.len();
                assert_eq!((install.index, install.term), (member.machine.applied(), member.machine.applied_term()));
                member.machine.installed = Some(install);
                member.installs += 1;
                if std::mem::take(&mut member.dies_when_installed) {
                    member.die();
                    return true;
                }
                member.disk.pending.extend(outputs.persist);
                self.network.extend(outputs.messages);
                assert!(outputs.committed.is_empty());
                continue;
            }
            member.disk.pending.extend(outputs.persist);
            self.network.extend(outputs.messages);
            member.reads.extend(outputs.reads);
            for entry in outputs.committed {
                assert_eq!(entry.index, member.machine.applied() + 1, "entries are handed out without holes");
                member.machine.log.push((entry.index, entry.term, entry.data.to_vec()));
                replica.applied(entry.index).unwrap();
            }
        }
        if !member.disk.slow {
            while let Some(ticket) = member.disk.sync_one() {
                busy = true;
                replica.persisted(ticket);
            }
        }
        busy
    }

    /// Captures the state of `from` and sends it to `to`, where it is staged. Whether that installs it.
    pub(super) fn ship(&mut self, from: GroupMember, to: GroupMember) -> Result<bool, SnapshotError> {
        let taken = self.ship_unreported(from, to)?;
        self.replica(from).snapshot_done(to, taken.is_some());
        Ok(taken == Some(true))
    }

    /// The same, and its sender does not know yet what became of it.
    pub(super) fn ship_unreported(
        &mut self,
        from: GroupMember,
        to: GroupMember,
    ) -> Result<Option<bool>, SnapshotError> {
        if self.members[&from].replica.is_none() {
            return Ok(None);
        }
        let machine = &self.members[&from].machine;
        let (index, term, state) = (machine.applied(), machine.applied_term(), machine.log.clone());
        let message = self.replica(from).snapshot_message(to, index, term)?;
        let message = PeerMessage::decode(&message.encode().unwrap()).unwrap();
        let reachable = !self.cut.contains(&(from, to)) && self.random(100) >= self.loss_percent;
        let taken = match self.members.get_mut(&to) {
            Some(Member { replica: Some(replica), staged, .. }) if reachable => match replica.step_snapshot(message) {
                Ok(wanted) => {
                    *staged = wanted.then_some(state).or_else(|| staged.take());
                    Some(wanted)
                }
                Err(StepError::Message(_)) => None,
                Err(StepError::Quarantine(reason)) => panic!("replica {to}: {reason}"),
            },
            _ => None,
        };
        Ok(taken)
    }

    /// A slow disk completes its oldest write.
    pub(super) fn sync_one(&mut self, id: GroupMember) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        let Some(ticket) = member.disk.sync_one() else { return false };
        if let Some(replica) = member.replica.as_mut() {
            replica.persisted(ticket);
        }
        true
    }

    /// The state is flushed, and the log truncated below it.
    pub(super) fn flush(&mut self, id: GroupMember) -> Option<Truncated> {
        let member = self.members.get_mut(&id).unwrap();
        member.machine.durable = member.machine.log.len();
        let truncated = member.replica.as_mut()?.state_durable(member.machine.applied())?;
        member.disk.truncate(truncated);
        Some(truncated)
    }

    pub(super) fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.members.values_mut().filter_map(|member| member.replica.as_mut()).for_each(Replica::tick);
            self.settle();
        }
    }

    /// Ticks until one of `among` leads with an entry of its own term committed.
    pub(super) fn elect(&mut self, among: &[GroupMember]) -> GroupMember {
        for _ in 0..200 {
            self.tick(1);
            for id in among {
                let leads = self.members[id].replica.as_ref().is_some_and(Replica::leads_with_authority);
                if leads {
                    return *id;
                }
            }
        }
        panic!("no leader among {among:?} after 200 ticks");
    }

    pub(super) fn propose(&mut self, id: GroupMember, value: &str) -> Result<(), ProposeError> {
        self.replica(id).propose(value.as_bytes().to_vec())
    }

    /// Proposes to whoever leads until it is applied by `witness`, as a client with a number would.
    pub(super) fn post(&mut self, value: &str, witness: GroupMember) {
        for _ in 0..500 {
            if self.members[&witness].machine.values().iter().any(|applied| applied == value) {
                return;
            }
            let leader = self
                .members
                .iter()
                .find(|(_, member)| {
                    member.replica.as_ref().is_some_and(|replica| replica.status().role == ReplicaRole::Leader)
                })
                .map(|(id, _)| *id);
            if let Some(leader) = leader {
                let replica = self.replica(leader);
                if replica.uncommitted() == 0 {
                    let _ = replica.propose(value.as_bytes().to_vec());
                }
            }
            self.tick(1);
        }
        panic!("{value} was never applied");
    }

    /// The answer to a read, if it came.
    pub(super) fn read(&self, id: GroupMember, context: u64) -> Option<u64> {
        self.members[&id].reads.iter().find(|(asked, _)| *asked == context).map(|(_, index)| *index)
    }

    pub(super) fn values(&self, id: GroupMember) -> Vec<String> {
        self.members[&id].machine.values()
    }
}
