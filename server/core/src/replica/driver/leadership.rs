//! Standing for election, handing leadership over, and peers that cannot be reached.

use raft::ProgressState;

use super::Replica;
use crate::replica::config::GroupMember;

impl Replica {
    /// Stands for election now, if it may: it votes, and has its state.
    pub fn campaign(&mut self) {
        // Raft would let a learner stand, and one that knows no members win.
        if self.raw.raft.promotable() && self.installing.is_none() {
            // Refused only by a replica that leads, or that has a change of the members to apply first.
            let _ = self.raw.campaign();
        }
    }

    /// Stands for election now if nobody else could: a group of one need not wait for anyone.
    pub fn campaign_if_alone(&mut self) {
        let voters = self.raw.raft.prs().conf().voters();
        if voters.ids().len() == 1 && voters.contains(self.config.id) {
            self.campaign();
        }
    }

    /// Asks `to` to take over as leader. Whether that is under way: not if this replica does not lead, and `to` must be another voter.
    ///
    /// Proposals are refused meanwhile. If `to` has not taken over within an election time-out the attempt is over and this replica
    /// leads on; another `to` puts an end to it at once.
    pub fn transfer_leadership(&mut self, to: GroupMember) -> bool {
        let voter = self.raw.raft.prs().conf().voters().contains(to);
        if !self.leads() || to == self.config.id || !voter {
            return false;
        }
        self.raw.transfer_leader(to);
        self.is_transferring()
    }

    /// The replicas that vote.
    pub fn voters(&self) -> Vec<GroupMember> {
        self.conf_state().get_voters().to_vec()
    }

    /// As the leader: the last index that `member` is known to have, and whether it has answered lately and can be sent entries.
    pub fn progress_of(&self, member: GroupMember) -> (u64, bool) {
        let progress = self.raw.raft.prs().get(member);
        progress.map_or((0, false), |progress| {
            (progress.matched, self.answers(member) && progress.state != ProgressState::Snapshot)
        })
    }

    /// Whether `member` was heard within an election time-out. Raft's own mark of that is wiped whenever the leader counts its followers,
    /// and says nothing until the next of them has answered.
    pub(super) fn answers(&self, member: GroupMember) -> bool {
        let within = self.config.election_ticks.start as u64;
        self.heard.get(&member).is_some_and(|at| self.ticks - at <= within)
    }

    /// Whether leadership is being handed over.
    pub fn is_transferring(&self) -> bool {
        self.leads() && self.raw.raft.lead_transferee.is_some()
    }
}
