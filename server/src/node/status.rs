//! What the replica thread shows of its replicas: to metrics, to admission, and to the operator.

use std::sync::atomic::Ordering;

use rove_core::lane::Lane;
use rove_core::replica::{Membership, ReplicaRole, node_of};

use super::admission::Admission;
use super::handle::Shared;
use super::replica_thread::ReplicaThread;
use super::stats::{PartitionStats, Role};

impl ReplicaThread {
    /// How every replica is, for those who ask.
    pub(super) fn show_status(&self) {
        let status = |lane: &Lane| {
            let status = lane.status();
            PartitionStats {
                partition: lane.partition(),
                role: match status.role {
                    ReplicaRole::Follower if status.membership == Membership::Learner => Role::Learner,
                    ReplicaRole::Follower => Role::Follower,
                    ReplicaRole::Candidate => Role::Candidate,
                    ReplicaRole::Leader => Role::Leader,
                },
                leader: status.leader.map(node_of),
                term: status.term,
                last: status.last,
                committed: status.committed,
                applied: status.applied,
                durable: lane.durable(),
                state_hash: self.progress.state_hashes[usize::from(lane.partition().0)],
                log_entries: status.log_entries,
                log_bytes: status.log_bytes,
                queued: self.shared.doors[usize::from(lane.partition().0)].queued(),
            }
        };
        *self.shared.status.lock() = self.lanes.iter().map(status).collect();
        let queued = self.shared.doors.iter().map(Admission::queued).sum();
        self.shared.stats.proposals_queued.store(queued, Ordering::Relaxed);
        self.shared.stats.tickets.store(self.shared.tickets.waiting(), Ordering::Relaxed);
    }
}

/// Tells those who wait for it who leads, the partition's door whether it is open, and the operator when that changes.
pub(super) fn show_leadership(shared: &Shared, lane: &Lane, changed: bool) {
    let partition = lane.partition();
    let leader = lane.leadership();
    let door = &shared.doors[usize::from(partition.0)];
    shared.leaders.send_if_modified(|leaders| {
        let (now, shown) = (leader.map(|leader| leader.node), leaders.get_mut(usize::from(partition.0)));
        shown.is_some_and(|shown| std::mem::replace(shown, now) != now)
    });
    let opened = door.set(lane.is_open(), lane.leads());
    if changed {
        let leader = leader.map(|leader| leader.node);
        tracing::info!(%partition, leads = lane.leads(), ?leader, term = lane.status().term, "leadership");
    }
    match opened {
        Some(true) => tracing::info!(%partition, "the partition takes commands again"),
        Some(false) => tracing::warn!(%partition, "no leader of the partition can be reached: commands are refused"),
        None => {}
    }
}
