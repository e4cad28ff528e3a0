//! How nodes stop and start, and who notices.

use rove_protocol::ids::NodeId;

use super::{Happening, World};
use crate::disk::Crash;
use crate::faults::Fault;
use crate::history::Record;
use crate::node::Node;
use crate::wire::SessionId;

/// How long a process takes to start again, at most.
const RESTART_US: u64 = 1_500_000;

/// How long a node is away at least that is to need a snapshot: some thirty entries.
const AWAY_US: u64 = 1_500_000;

impl World {
    pub(super) fn restart(&mut self, id: NodeId) {
        let now_us = self.queue.now_us();
        let present = self.is_present(id);
        let node = self.node(id);
        if present && !node.is_running() && !node.quarantined && now_us >= node.away_until_us {
            self.with_node(id, Node::start);
        }
    }

    pub(super) fn restart_later(&mut self, id: NodeId) {
        // Some are back before anybody has noticed: in the same term, with what they promised in it.
        let most = if self.rng.chance(400) { RESTART_US / 50 } else { RESTART_US };
        self.queue.after(self.rng.below(most), Happening::Restart(id));
    }

    /// A node stops, if it runs. Whether something was lost.
    pub(super) fn crash(&mut self, id: NodeId, crash: Crash, tear: bool) -> bool {
        let at = World::place_of(id);
        if !self.nodes[at].is_running() {
            return false;
        }
        let loss = self.nodes[at].crash(crash, tear, &mut self.rng);
        if loss.torn {
            self.fired.count(Fault::TornTail);
        }
        self.record(Record::Down { node: id });
        self.gone(id);
        loss.lost > 0
    }

    /// Everybody notices sooner or later that a node is gone.
    pub(super) fn gone(&mut self, id: NodeId) {
        for other in self.present().into_iter().filter(|other| *other != id) {
            self.network.cut(id, other);
        }
        self.deferred.remove(&id);
        let sessions: Vec<SessionId> =
            self.lines.iter().filter(|(_, line)| line.node == id).map(|(session, _)| *session).collect();
        for session in sessions {
            self.queue.after(self.rng.below(200_000), Happening::ClientLost(session));
        }
    }

    /// A node stops and stays away long enough to need a snapshot, if the others can go on meanwhile.
    pub(super) fn leave(&mut self, id: NodeId) {
        if !self.all_present().all(Node::is_running) {
            return;
        }
        self.crash(id, Crash::Kill, false);
        let away_us = AWAY_US + self.rng.below(2 * AWAY_US);
        self.node(id).away_until_us = self.queue.now_us() + away_us;
        self.queue.after(away_us, Happening::Restart(id));
    }

    /// A node stops at a step of an install.
    pub(super) fn crash_in_install(&mut self, id: NodeId, step: Fault) {
        self.fired.count(step);
        for node in &mut self.nodes {
            node.crash_at = None;
        }
        let kind = if self.rng.chance(500) { Crash::Kill } else { Crash::Power };
        self.crash(id, kind, false);
        self.restart_later(id);
    }
}
