//! What the faults do to the world, and how it heals.

use rove_protocol::ids::NodeId;

use super::{HEAL_WITHIN_US, Happening, World};
use crate::disk::Crash;
use crate::faults::Fault;
use crate::history::Record;
use crate::nemesis::{Cure, Nemesis};
use crate::node::NodeEvent;

impl World {
    /// One fault, of a kind that this run has.
    pub(super) fn fault(&mut self) {
        let Some(fault) = self.nemesis.choose(&mut self.rng) else { return };
        let nodes = self.present();
        let Some(id) = self.rng.pick(&nodes) else { return };
        // Now and then so long that a node without a majority gives up what it has taken.
        let most_ms = if self.rng.chance(120) { 5_500 } else { 2_000 };
        let lasts = self.rng.between(50, most_ms) * 1_000;
        match fault {
            Fault::Loss | Fault::Delay | Fault::Reorder | Fault::Duplicate | Fault::StaleForward => {
                self.nemesis.storm(fault, &mut self.network.weather, &mut self.rng);
                self.queue.after(lasts, Happening::Cure(Cure::Weather(fault)));
            }
            Fault::Partition | Fault::OneWay | Fault::Bridge => {
                let name = self.nemesis.block(fault, id, &nodes, &mut self.network, &mut self.rng);
                self.queue.after(lasts, Happening::Cure(Cure::Unblock(name)));
            }
            Fault::LinkCut => {
                let other = self.rng.pick(&nodes).unwrap_or(id);
                if self.network.cut(id, other) {
                    self.fired.count(Fault::LinkCut);
                }
            }
            Fault::Kill | Fault::PowerLoss => {
                let kind = if fault == Fault::Kill { Crash::Kill } else { Crash::Power };
                let was_running = self.node(id).is_running();
                let lost = self.crash(id, kind, self.nemesis.tears());
                if was_running && (lost || fault == Fault::Kill) {
                    self.fired.count(fault);
                }
                self.restart_later(id);
            }
            Fault::PowerLossAll => {
                let tears = self.nemesis.tears();
                let lost: Vec<bool> = nodes.iter().map(|id| self.crash(*id, Crash::Power, tears)).collect();
                if lost.contains(&true) {
                    self.fired.count(Fault::PowerLossAll);
                }
                for id in nodes {
                    self.restart_later(id);
                }
            }
            Fault::TornTail => {
                self.crash(id, Crash::Power, true);
                self.restart_later(id);
            }
            Fault::SyncFailure => self.node(id).sync_fails = true,
            Fault::BitRot => self.rot(id),
            Fault::Pause => {
                if self.node(id).is_running() {
                    self.node(id).paused = true;
                    self.fired.count(Fault::Pause);
                    self.queue.after(lasts, Happening::Cure(Cure::Resume(id)));
                }
            }
            Fault::SlowDisk => {
                self.node(id).slow_disk = true;
                self.queue.after(lasts, Happening::Cure(Cure::QuickDisk(id)));
            }
            Fault::Clock => {
                let jump = i64::try_from(self.rng.below(2 * 86_400_000)).unwrap_or(0) - 86_400_000;
                self.node(id).clock_ms = jump;
                self.fired.count(Fault::Clock);
            }
            Fault::Transfer => {
                let to = self.rng.pick(&nodes).unwrap_or(id);
                for node in nodes {
                    self.tell_node(node, None, NodeEvent::Transfer(to));
                }
            }
            Fault::ClientCut => self.cut_client(),
            Fault::Absence => self.leave(id),
            Fault::Replace => self.replace(id),
            Fault::Add => self.add(),
            Fault::Remove => self.remove(id),
            Fault::Gate => self.turn_gate(),
            Fault::SnapshotCut => {
                for node in &mut self.nodes {
                    node.cuts_snapshot = true;
                }
                self.leave(id);
            }
            Fault::CrashBeforeInstall | Fault::CrashBeforeReset | Fault::CrashAfterReset => {
                for node in &mut self.nodes {
                    node.crash_at = Some(fault);
                }
                self.leave(id);
            }
        }
    }

    /// At most one disk rots, and none while nodes come or go: a second one would take the majority.
    fn rot(&mut self, id: NodeId) {
        if self.change.is_some() || self.all_present().any(|node| node.disk.is_rotten()) || !self.node(id).is_running()
        {
            return;
        }
        self.crash(id, Crash::Kill, false);
        let at = World::place_of(id);
        self.nodes[at].disk.rot(&mut self.rng);
        self.restart_later(id);
    }

    fn cut_client(&mut self) {
        let at = usize::try_from(self.rng.below(self.clients.len() as u64)).unwrap_or(0);
        let session = self.lines.iter().find(|(_, line)| line.client == at && line.heard).map(|(session, _)| *session);
        let Some(session) = session else { return };
        let Some(line) = self.lines.remove(&session) else { return };
        self.fired.count(Fault::ClientCut);
        self.with_client(at, |client, context| client.lost(session, context));
        self.tell_node(line.node, Some(line.boot), NodeEvent::SessionGone(session));
    }

    pub(super) fn cure(&mut self, cure: Cure) {
        match cure {
            Cure::Weather(fault) => Nemesis::calm(fault, &mut self.network.weather),
            Cure::Unblock(name) => self.network.unblock(name),
            Cure::Resume(id) => self.resume(id),
            Cure::QuickDisk(id) => self.node(id).slow_disk = false,
        }
    }

    pub(super) fn resume(&mut self, id: NodeId) {
        let node = self.node(id);
        if !std::mem::take(&mut node.paused) {
            return;
        }
        let mut ticked = false;
        for (boot, event) in self.deferred.remove(&id).unwrap_or_default() {
            // It can have stopped itself meanwhile.
            let tick = matches!(event, NodeEvent::Tick);
            debug_assert!(!(tick && ticked), "a node asks for one tick at a time");
            ticked |= tick;
            self.tell_node(id, boot, event);
        }
    }

    /// The last fault is over: from here on, everything has to become well.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.network.heal();
        for id in self.present() {
            self.resume(id);
            let node = self.node(id);
            (node.slow_disk, node.sync_fails, node.cuts_snapshot) = (false, false, false);
            (node.crash_at, node.away_until_us) = (None, 0);
            self.restart_later(id);
        }
        self.record(Record::Healed { within_us: HEAL_WITHIN_US });
    }
}
