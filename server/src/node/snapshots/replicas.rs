//! The replica thread's part: who is sent a snapshot, and which one is installed.

use std::collections::BTreeMap;

use crossbeam_channel::Sender;
use rove_core::replica::{GroupMember, Install, PeerMessage, Persist, StepError, node_of};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::outgoing::Job;
use super::{SENT_AT_ONCE, SnapshotEvent, Staged, Verdict};
use crate::node::error::FatalError;
use crate::node::replica_thread::ReplicaThread;

/// Bytes of log that may gather behind a snapshot on its way. The log is kept for its receiver meanwhile, in memory: one that takes
/// longer than this is given up, and another one is captured.
const MAX_KEPT_BYTES: u64 = 256 * 1024 * 1024;

/// A snapshot on its way.
struct OnItsWay {
    partition: PartitionId,
    to: GroupMember,
    /// Raft knows of it, and has to be told its end.
    begun: bool,
    stop: CancellationToken,
}

/// Snapshots that are sent and installed.
pub(in crate::node) struct Sending {
    jobs: Sender<Job>,
    on_their_way: Vec<OnItsWay>,
    /// Staged states that raft has taken.
    staged: BTreeMap<PartitionId, Staged>,
    /// What is to be written to the log once the state is there.
    installing: BTreeMap<PartitionId, Vec<Persist>>,
    /// Of all senders and of the stager: they end with this.
    stop: CancellationToken,
    _end: DropGuard,
}

impl Sending {
    pub(in crate::node) fn new(jobs: Sender<Job>, stop: CancellationToken) -> Self {
        let (on_their_way, staged, installing) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let end = stop.clone().drop_guard();
        Self { jobs, on_their_way, staged, installing, stop, _end: end }
    }

    /// Whether a state is being installed: the lane has nothing to say meanwhile.
    pub(in crate::node) fn installs(&self, partition: PartitionId) -> bool {
        self.installing.contains_key(&partition)
    }

    /// Whether any state is.
    pub(in crate::node) fn is_installing(&self) -> bool {
        !(self.installing.is_empty() && self.staged.is_empty())
    }

    /// A replica needs a snapshot. If it cannot be sent now it will be asked for again.
    pub(in crate::node) fn want(&mut self, partition: PartitionId, to: GroupMember) {
        let busy = self.on_their_way.iter().any(|other| node_of(other.to) == node_of(to));
        if busy || self.on_their_way.len() >= SENT_AT_ONCE {
            return;
        }
        let stop = self.stop.child_token();
        if self.jobs.try_send(Job { partition, to, stop: stop.clone() }).is_ok() {
            self.on_their_way.push(OnItsWay { partition, to, begun: false, stop });
        }
    }

    /// Raft has let go of its log for a staged state: what it wants written waits until that is durable.
    pub(in crate::node) fn install(
        &mut self,
        partition: PartitionId,
        install: Install,
        persists: Vec<Persist>,
    ) -> Result<(Install, Staged), FatalError> {
        let nothing = || FatalError::Apply { partition, message: "there is no staged state to install".to_owned() };
        let staged = self.staged.remove(&partition).ok_or_else(nothing)?;
        self.installing.insert(partition, persists);
        Ok((install, staged))
    }

    /// The state is there: what may be written to the log now.
    pub(in crate::node) fn installed(&mut self, partition: PartitionId) -> Vec<Persist> {
        self.installing.remove(&partition).unwrap_or_default()
    }

    fn find(&mut self, partition: PartitionId, to: GroupMember) -> Option<usize> {
        self.on_their_way.iter().position(|other| (other.partition, other.to) == (partition, to))
    }
}

impl ReplicaThread {
    pub(in crate::node) fn snapshot_event(&mut self, event: SnapshotEvent) -> Result<(), FatalError> {
        match event {
            SnapshotEvent::Captured { partition, to, index, reply } => {
                let message = self.captured(partition, to, index);
                if let Some(place) = self.sending.find(partition, to) {
                    self.sending.on_their_way[place].begun = message.is_ok();
                }
                // A sender that has gone says so itself.
                let _ = reply.send(message);
            }
            SnapshotEvent::Sent { partition, to, ok } => {
                let ended = self.sending.find(partition, to).map(|place| self.sending.on_their_way.swap_remove(place));
                if ended.is_some_and(|ended| ended.begun) {
                    self.lane(partition).replica().snapshot_done(to, ok);
                }
            }
            SnapshotEvent::Staged { from, message, staged, reply } => {
                let verdict = self.staged(from, *message, staged)?;
                // The stager may have gone: what was taken is installed all the same.
                let _ = reply.send(verdict);
            }
        }
        Ok(())
    }

    /// What raft says with a state that was captured at `index`.
    fn captured(&mut self, partition: PartitionId, to: GroupMember, index: u64) -> Result<PeerMessage, String> {
        let replica = self.lane(partition).replica();
        let term = replica.term_at(index).ok_or("the log does not reach back to it")?;
        replica.snapshot_message(to, index, term).map_err(|error| error.to_string())
    }

    fn staged(&mut self, from: NodeId, message: PeerMessage, staged: Staged) -> Result<Verdict, FatalError> {
        let partition = staged.partition();
        if self.sending.staged.contains_key(&partition) {
            return Ok(Verdict::Refused(staged, "another one is about to be installed".to_owned()));
        }
        match self.lane(partition).step_snapshot(from, message) {
            Ok(true) => {
                tracing::info!(%partition, node = %from, "a snapshot takes the place of the state");
                self.sending.staged.insert(partition, staged);
                Ok(Verdict::Taken)
            }
            Ok(false) => Ok(Verdict::Useless(staged)),
            Err(StepError::Message(error)) => Ok(Verdict::Refused(staged, error.to_string())),
            Err(StepError::Quarantine(reason)) => Err(FatalError::Replica { partition, reason }),
        }
    }

    /// Gives up snapshots that the log has outgrown, and those of partitions that another node leads by now.
    pub(in crate::node) fn bound_snapshots(&mut self) {
        for on_its_way in &self.sending.on_their_way {
            let lane = &self.lanes[usize::from(on_its_way.partition.0)];
            if !lane.leads() || lane.status().log_bytes > MAX_KEPT_BYTES {
                on_its_way.stop.cancel();
            }
        }
    }
}
