//! One partition on one node: its replica, the commands of this node on their way to it, and those it gathers as a leader.
//!
//! The lane holds every decision about them; a shell (or the simulator) tells it what happened and carries out the
//! [`LaneOutputs`]. The path of a command: [`Lane::queue`] on its own node → the router sends it to the leader → the leader's intake
//! takes it once → the batcher makes an entry of what queued up → raft → applied on every node, and answered on its own.

mod handover;
mod mailing;
mod members;
mod reads;
#[cfg(test)]
mod tests;

use rove_protocol::ids::{NodeId, PartitionId};

use crate::command::Envelope;
use crate::life::Life;
use crate::replica::batcher::Batcher;
use crate::replica::{
    Committed, GroupMember, Install, MessageError, Outputs, PeerMessage, Persist, ProposeError, Replica, ReplicaError,
    ReplicaStatus, StepError, Truncated, node_of,
};
use crate::routing::{Forward, ForwardAck, Intake, Leadership, Router};
pub use handover::HandoverError;
pub use mailing::Mailing;
use reads::Reads;

/// Commands that a leader gathers at most before they are in its log: two full batches of each of eight nodes. Only a node that
/// ignores its own limits gets here; what does not fit is taken when it is sent again.
const MAX_GATHERED: usize = 65_536;

/// Ticks without a leader after which a partition is given up for now: commands are refused, and those that wait are let go.
/// Several elections long, so that only a node without a majority gets here.
const GIVE_UP_TICKS: u32 = 30;

/// What is to be done. Each part in order; the parts independently of each other, but for [`LaneOutputs::install`].
#[derive(Debug, Default)]
pub struct LaneOutputs {
    /// The state that was staged for [`Lane::step_snapshot`] takes the place of this replica's: when everything in
    /// [`LaneOutputs::committed`], and before, is applied, make it current and durable, *then* write [`LaneOutputs::persists`]. Until
    /// that is done the lane is not asked for outputs.
    pub install: Option<Install>,
    /// These replicas need more than the log still has: a snapshot. Said again from time to time until there is one.
    pub snapshots_wanted: Vec<GroupMember>,
    /// Write these to the log.
    pub persists: Vec<Persist>,
    /// Send these to the replicas of these nodes.
    pub messages: Vec<(NodeId, PeerMessage)>,
    /// Send these to these nodes.
    pub forwards: Vec<(NodeId, Forward)>,
    /// Send these to these nodes.
    pub acks: Vec<(NodeId, ForwardAck)>,
    /// Apply these.
    pub committed: Vec<Committed>,
    /// Reads that were asked for: the state is now at least as new as everything acknowledged before they were (true), or nobody
    /// can tell (false).
    pub reads: Vec<(u64, bool)>,
    /// Commands of this node whose outcome nobody can tell: let go of those who wait.
    pub given_up: Vec<Envelope>,
    /// Entries proposed.
    pub proposed: u64,
    /// [`Lane::leadership`] is another than before.
    pub leadership_changed: bool,
}

/// One partition on one node. See the [module](self).
pub struct Lane {
    node: NodeId,
    replica: Replica,
    router: Router,
    intake: Intake,
    batcher: Batcher,
    reads: Reads,
    leadership: Option<Leadership>,
    /// It changed, and no output has said so yet.
    leadership_unsaid: bool,
    leaderless_ticks: u32,
    durable: u64,
    /// The snapshot that is being installed.
    installing: Option<Truncated>,
}

impl Lane {
    /// The lane of a recovered replica on `node`, whose state is durable up to `durable`. Commands and reads
    /// of an earlier `life` of the node must not be taken for those of this one.
    pub fn new(replica: Replica, node: NodeId, life: Life, durable: u64) -> Self {
        let partition = replica.config().partition;
        Self {
            node,
            replica,
            router: Router::new(partition, life),
            intake: Intake::default(),
            batcher: Batcher::default(),
            reads: Reads::new(node, life),
            leadership: None,
            leadership_unsaid: false,
            leaderless_ticks: 0,
            durable,
            installing: None,
        }
    }

    /// The partition.
    pub fn partition(&self) -> PartitionId {
        self.replica.config().partition
    }

    /// How its replica is.
    pub fn status(&self) -> ReplicaStatus {
        self.replica.status()
    }

    /// The replica, to ask what is not the lane's business.
    pub fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// Who leads, if anybody is known to.
    pub fn leadership(&self) -> Option<Leadership> {
        self.leadership
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.leadership.is_some_and(|leadership| leadership.node == self.node)
    }

    /// Whether commands are taken: there is a leader, or one is about to be elected.
    pub fn is_open(&self) -> bool {
        self.leaderless_ticks < GIVE_UP_TICKS
    }

    /// Last index whose effects are durable in the state.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Commands of this node that are not applied yet.
    pub fn waiting(&self) -> usize {
        self.router.len()
    }

    /// Whether nothing that was accepted is still on its way.
    pub fn is_idle(&self) -> bool {
        let status = self.replica.status();
        self.router.is_empty() && self.batcher.is_empty() && (!self.leads() || status.last == status.applied)
    }

    /// Whether everything is applied that was acknowledged anywhere before this replica found somebody to ask.
    pub fn caught_up(&self) -> bool {
        self.reads.caught_up()
    }

    /// A command of this node. Whether there is room for it was decided before.
    pub fn queue(&mut self, envelope: Envelope) {
        self.router.push(envelope);
    }

    /// Another node forwards commands.
    pub fn forwarded(&mut self, from: NodeId, forward: Forward, outputs: &mut LaneOutputs) {
        // Rule 1 of the routing: not in another term, and not when somebody else leads.
        if !self.leads() {
            return;
        }
        let room = MAX_GATHERED.saturating_sub(self.batcher.len());
        let (envelopes, ack) = self.intake.take(from, forward, room);
        for envelope in envelopes {
            self.batcher.push(envelope);
        }
        outputs.acks.extend(ack.map(|ack| (from, ack)));
    }

    /// The leader says which command is due.
    pub fn forward_acked(&mut self, from: NodeId, ack: ForwardAck) {
        self.router.acked(from, ack);
    }

    /// There is a new connection to `node`: what was sent over the last one may be lost.
    pub fn link_up(&mut self, node: NodeId) {
        self.router.link_up(node);
    }

    /// A replica of node `from` says something. A message of a replica of another node is dropped.
    ///
    /// # Errors
    /// See [`Replica::step`].
    pub fn step(&mut self, from: NodeId, message: PeerMessage) -> Result<(), StepError> {
        if node_of(message.from()) != from {
            return Err(MessageError::UnknownPeer.into());
        }
        self.replica.step(message)?;
        self.leadership_unsaid |= self.look_at_leadership();
        Ok(())
    }

    /// What a leader of node `from` says with a snapshot, whose state is staged. True if it is to be installed:
    /// [`LaneOutputs::install`] follows.
    ///
    /// # Errors
    /// See [`Replica::step_snapshot`].
    pub fn step_snapshot(&mut self, from: NodeId, message: PeerMessage) -> Result<bool, StepError> {
        if node_of(message.from()) != from {
            return Err(MessageError::UnknownPeer.into());
        }
        let taken = self.replica.step_snapshot(message)?;
        self.leadership_unsaid |= self.look_at_leadership();
        Ok(taken)
    }

    /// One unit of time has passed.
    pub fn tick(&mut self) {
        self.replica.tick();
        self.router.tick();
        self.reads.tick();
        self.leaderless_ticks = if self.leadership.is_some() { 0 } else { self.leaderless_ticks.saturating_add(1) };
    }

    /// Everything up to this ticket is written, and synced where it must be.
    pub fn persisted(&mut self, ticket: u64) {
        self.replica.persisted(ticket);
        let applied = self.replica.status().applied;
        if let Some(installed) = self.installing.take_if(|installing| installing.index <= applied) {
            self.router.applied(installed.term);
            self.reads.applied(installed.index);
        }
    }

    /// Everything up to `index`, an entry of `term`, is applied and can be read.
    ///
    /// # Errors
    /// See [`Replica::applied`].
    pub fn applied(&mut self, index: u64, term: u64) -> Result<(), ReplicaError> {
        self.replica.applied(index)?;
        self.router.applied(term);
        self.reads.applied(index);
        Ok(())
    }

    /// The command of this node with this ticket was applied and answered. Returns its bytes if it was waiting.
    pub fn answered(&mut self, ticket: u64) -> Option<usize> {
        self.router.answered(ticket)
    }

    /// The state up to `index` is durable. Says where the log may begin now, if that is further on than before.
    pub fn state_durable(&mut self, index: u64) -> Option<Truncated> {
        self.durable = self.durable.max(index);
        self.replica.state_durable(index)
    }

    /// Asks for a read of everything that is acknowledged by now; `context` comes back in [`LaneOutputs::reads`]. False if too many
    /// are waiting.
    pub fn read_index(&mut self, context: u64) -> bool {
        self.reads.ask(context)
    }

    /// What is to be done now, added to `outputs`. False when there is nothing (more), or nothing else may be done before an install.
    /// `now_ms` is this node's wall clock, the stamp of what it proposes.
    ///
    /// # Errors
    /// A reason to quarantine the replica.
    pub fn outputs(&mut self, now_ms: u64, outputs: &mut LaneOutputs) -> Result<bool, ReplicaError> {
        self.route(outputs);
        self.propose(now_ms, outputs);
        // Without anybody to answer it a question is lost, and asked again only after a while.
        let answerable = if self.leads() { self.replica.leads_with_authority() } else { self.leadership.is_some() };
        if answerable && let Some(context) = self.reads.next() {
            self.replica.read_index(context);
        }
        let more = match self.replica.outputs()? {
            Some(done) => {
                self.take(done, outputs);
                outputs.install.is_none()
            }
            None => false,
        };
        self.reads.take_ready(&mut outputs.reads);
        self.leadership_unsaid |= self.look_at_leadership();
        outputs.leadership_changed |= std::mem::take(&mut self.leadership_unsaid);
        Ok(more)
    }

    fn take(&mut self, done: Outputs, outputs: &mut LaneOutputs) {
        outputs.persists.extend(done.persist);
        outputs.messages.extend(done.messages.into_iter().map(|message| (node_of(message.to()), message)));
        outputs.committed.extend(done.committed);
        outputs.snapshots_wanted.extend(done.snapshots_wanted);
        if let Some(install) = done.install {
            // What was sent may be among what the snapshot has applied, unseen here.
            outputs.given_up.append(&mut self.router.give_up(false));
            self.installing = Some(Truncated { index: install.index, term: install.term });
            outputs.install = Some(install);
        }
        let applied = self.replica.status().applied;
        done.reads.into_iter().for_each(|(context, index)| self.reads.found(context, index, applied));
    }

    /// Sends what waits to whoever leads, which may be this node, or lets go of it.
    fn route(&mut self, outputs: &mut LaneOutputs) {
        if !self.is_open() {
            outputs.given_up.append(&mut self.router.give_up(true));
        }
        while let Some((leader, forward)) = self.router.next_forward() {
            if leader != self.node {
                outputs.forwards.push((leader, forward));
                continue;
            }
            // An answer to oneself takes no way that could lose it.
            let mut own = LaneOutputs::default();
            self.forwarded(leader, forward, &mut own);
            own.acks.into_iter().for_each(|(from, ack)| self.router.acked(from, ack));
        }
    }

    /// Makes entries of what queued up.
    fn propose(&mut self, now_ms: u64, outputs: &mut LaneOutputs) {
        while let Some(taken) = self.batcher.take(now_ms, self.replica.uncommitted()) {
            match self.replica.propose(taken.batch.encode()) {
                Ok(()) => outputs.proposed += 1,
                Err(ProposeError::Busy) => {
                    self.batcher.put_back(taken);
                    break;
                }
                // Whoever sent them sends them again.
                Err(ProposeError::NotLeader { .. }) => break,
            }
        }
    }

    /// Notices a change of leader or of its term. Says whether there was one.
    fn look_at_leadership(&mut self) -> bool {
        let status = self.replica.status();
        let now = status.leader.map(|leader| Leadership { node: node_of(leader), term: status.term });
        if now == self.leadership {
            return false;
        }
        self.leadership = now;
        // Gathered in another term: those who sent them send them again to whoever leads now.
        self.batcher.drain().for_each(drop);
        if self.leads() {
            self.intake.lead(status.term);
        }
        self.router.led_by(now);
        true
    }
}
