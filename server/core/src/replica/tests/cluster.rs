//! A group of replicas with disks and a network that do as they are told. Everything is deterministic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{Entry, HardState};
use rove_protocol::ids::PartitionId;
use slog::{Discard, Logger, o};

use crate::replica::{
    GroupMember, PeerMessage, Persist, ProposeError, Recovered, Replica, ReplicaConfig, ReplicaError, ReplicaRole,
    StepError, Truncated,
};

/// What survives a loss of power, and what is on its way there.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
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

/// A state machine that remembers what it was told: the data of each entry by index. Durable up to `durable`.
#[derive(Default, Clone)]
pub(super) struct Machine {
    pub(super) log: Vec<(u64, Vec<u8>)>,
    pub(super) durable: usize,
}

impl Machine {
    pub(super) fn applied(&self) -> u64 {
        self.log.last().map_or(0, |(index, _)| *index)
    }

    /// What was proposed, without the empty entries of new leaders.
    pub(super) fn values(&self) -> Vec<String> {
        self.log
            .iter()
            .filter(|(_, data)| !data.is_empty())
            .map(|(_, data)| String::from_utf8_lossy(data).into_owned())
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
}

pub(super) struct Cluster {
    pub(super) members: BTreeMap<GroupMember, Member>,
    network: VecDeque<PeerMessage>,
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
    let mut config = ReplicaConfig::new(PartitionId(1), id, (1..=size).collect());
    // Different for each and without chance, so that a test is the same every time.
    let ticks = 10 + 3 * usize::try_from(id).unwrap();
    config.election_ticks = ticks..ticks + 1;
    config.keep_for_peers = 0;
    config
}

impl Cluster {
    pub(super) fn new(size: u64) -> Self {
        let mut cluster = Self {
            members: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            loss_percent: 0,
            shuffles: false,
            seed: 42,
            lost: 0,
        };
        for id in 1..=size {
            cluster.members.insert(id, Member::default());
        }
        for id in 1..=size {
            cluster.restart(id).unwrap();
        }
        cluster
    }

    /// Starts a replica from what its disk and its state have.
    pub(super) fn restart(&mut self, id: GroupMember) -> Result<(), ReplicaError> {
        let size = self.members.len() as u64;
        let member = self.members.get_mut(&id).unwrap();
        member.machine.log.truncate(member.machine.durable);
        let recovered = Recovered {
            hard_state: member.disk.hard_state.clone(),
            truncated: member.disk.truncated,
            entries: member.disk.entries.clone(),
            applied: member.machine.applied(),
            ..Recovered::default()
        };
        member.replica = Some(Replica::recover(config(id, size), recovered, &logger())?);
        Ok(())
    }

    /// Power is lost: what was not synced is gone, and so is the state that was not flushed.
    pub(super) fn crash(&mut self, id: GroupMember) {
        let member = self.members.get_mut(&id).unwrap();
        member.replica = None;
        member.disk.pending.clear();
        member.machine.log.truncate(member.machine.durable);
        self.network.retain(|message| message.to() != id);
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
            member.disk.pending.extend(outputs.persist);
            self.network.extend(outputs.messages);
            member.reads.extend(outputs.reads);
            for entry in outputs.committed {
                assert_eq!(entry.index, member.machine.applied() + 1, "entries are handed out without holes");
                member.machine.log.push((entry.index, entry.data.to_vec()));
            }
            replica.applied(member.machine.applied()).unwrap();
        }
        if !member.disk.slow {
            while let Some(ticket) = member.disk.sync_one() {
                busy = true;
                replica.persisted(ticket);
            }
        }
        busy
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
        let truncated = member.replica.as_mut().unwrap().state_durable(member.machine.applied())?;
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
