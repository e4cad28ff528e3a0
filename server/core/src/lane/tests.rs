//! What three lanes must hold together. The whole, with disks and faults, is the simulation's.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use slog::{Discard, Logger, o};

use super::*;
use crate::command::{Batch, Origin};
use crate::replica::{MessageError, Recovered, ReplicaConfig};

const PARTITION: PartitionId = PartitionId(1);

enum Packet {
    Raft(PeerMessage),
    Forward(Forward),
    Ack(ForwardAck),
}

/// Lanes with instant disks, and what each has applied.
struct World {
    lanes: BTreeMap<u64, Lane>,
    applied: BTreeMap<u64, Vec<u64>>,
    reads: BTreeMap<u64, Vec<(u64, bool)>>,
    given_up: BTreeMap<u64, Vec<u64>>,
    network: VecDeque<(u64, u64, Packet)>,
    down: Vec<u64>,
    /// Who led when a node said that leadership had changed, as often as it said so.
    told: BTreeMap<u64, Vec<Option<NodeId>>>,
}

impl World {
    fn new() -> Self {
        let mut lanes = BTreeMap::new();
        for node in 1..=3 {
            let mut config = ReplicaConfig::new(PARTITION, node, vec![1, 2, 3]);
            let ticks = 10 + 3 * usize::try_from(node).unwrap();
            config.election_ticks = ticks..ticks + 1;
            let replica = Replica::recover(config, Recovered::default(), &Logger::root(Discard, o!())).unwrap();
            lanes.insert(node, Lane::new(replica, NodeId(node), Life::new(0, 1), 0));
        }
        Self {
            lanes,
            applied: BTreeMap::new(),
            reads: BTreeMap::new(),
            given_up: BTreeMap::new(),
            network: VecDeque::new(),
            down: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    fn lane(&mut self, node: u64) -> &mut Lane {
        self.lanes.get_mut(&node).unwrap()
    }

    fn propose(&mut self, node: u64, ticket: u64) {
        let origin = Origin { node: NodeId(node), ticket };
        self.lane(node).queue(Envelope { origin, command: Bytes::from_static(b"x") });
    }

    fn collect(&mut self, node: u64) -> bool {
        let mut outputs = LaneOutputs::default();
        let lane = self.lanes.get_mut(&node).unwrap();
        while lane.outputs(1, &mut outputs).unwrap() {}
        if outputs.leadership_changed {
            let leader = lane.leadership().map(|leadership| leadership.node);
            self.told.entry(node).or_default().push(leader);
        }
        let mut worked = false;
        for persist in outputs.persists {
            worked = true;
            lane.persisted(persist.ticket);
        }
        for entry in outputs.committed {
            worked = true;
            let batch = if entry.data.is_empty() { None } else { Some(Batch::decode(&entry.data).unwrap()) };
            for envelope in batch.into_iter().flat_map(|batch| batch.commands) {
                self.applied.entry(node).or_default().push(envelope.origin.ticket);
                if envelope.origin.node == NodeId(node) {
                    lane.answered(envelope.origin.ticket);
                }
            }
            lane.applied(entry.index, entry.term).unwrap();
        }
        self.reads.entry(node).or_default().extend(outputs.reads);
        self.given_up.entry(node).or_default().extend(outputs.given_up.iter().map(|command| command.origin.ticket));
        let raft = outputs.messages.into_iter().map(|(to, message)| (to, Packet::Raft(message)));
        let forwards = outputs.forwards.into_iter().map(|(to, forward)| (to, Packet::Forward(forward)));
        let acks = outputs.acks.into_iter().map(|(to, ack)| (to, Packet::Ack(ack)));
        for (to, packet) in raft.chain(forwards).chain(acks) {
            worked = true;
            if !self.down.contains(&node) && !self.down.contains(&to.0) {
                self.network.push_back((node, to.0, packet));
            }
        }
        worked
    }

    fn settle(&mut self) {
        loop {
            let mut worked = false;
            for node in 1..=3 {
                worked |= self.collect(node);
            }
            while let Some((from, to, packet)) = self.network.pop_front() {
                let mut outputs = LaneOutputs::default();
                let lane = self.lane(to);
                match packet {
                    Packet::Raft(message) => lane.step(NodeId(from), message).unwrap(),
                    Packet::Forward(forward) => lane.forwarded(NodeId(from), forward, &mut outputs),
                    Packet::Ack(ack) => lane.forward_acked(NodeId(from), ack),
                }
                self.network.extend(outputs.acks.into_iter().map(|(back, ack)| (to, back.0, Packet::Ack(ack))));
            }
            if !worked {
                return;
            }
        }
    }

    fn ticks(&mut self, number: usize) {
        for _ in 0..number {
            (1..=3).for_each(|node| self.lane(node).tick());
            self.settle();
        }
    }

    fn leader(&mut self) -> u64 {
        let up: Vec<u64> = (1..=3).filter(|node| !self.down.contains(node)).collect();
        for _ in 0..200 {
            let leader = up.iter().copied().find(|node| {
                let lane = self.lanes.get_mut(node).unwrap();
                lane.leads() && lane.replica().leads_with_authority()
            });
            if let Some(leader) = leader {
                return leader;
            }
            self.ticks(1);
        }
        panic!("nobody leads");
    }

    fn applied(&self, node: u64) -> &[u64] {
        self.applied.get(&node).map_or(&[], Vec::as_slice)
    }
}

#[test]
fn commands_of_every_node_are_applied_once_on_all_in_one_order() {
    let mut world = World::new();
    world.leader();
    for ticket in 1..=30 {
        world.propose(1 + ticket % 3, ticket);
    }
    world.ticks(5);
    assert_eq!(world.applied(1).len(), 30);
    assert_eq!(world.applied(1), world.applied(2));
    assert_eq!(world.applied(1), world.applied(3));
    assert!(world.lanes.values().all(|lane| lane.waiting() == 0 && lane.is_idle()));
}

#[test]
fn what_was_on_its_way_to_a_leader_that_died_is_applied_once_under_the_next() {
    let mut world = World::new();
    let old = world.leader();
    let follower = 1 + old % 3;
    world.propose(follower, 1);
    // It reaches the old leader, which appends it, and nobody hears of it any more.
    world.collect(follower);
    world.down = vec![old];
    world.propose(follower, 2);
    let new = world.leader();
    world.ticks(5);
    assert_ne!(old, new);
    assert_eq!(world.applied(follower), [1, 2]);
    world.down.clear();
    world.ticks(30);
    for node in 1..=3 {
        assert_eq!(world.applied(node), [1, 2], "node {node}");
    }
}

#[test]
fn a_node_alone_gives_up_what_waits_and_takes_nothing_until_it_is_back() {
    let mut world = World::new();
    let leader = world.leader();
    let alone = 1 + leader % 3;
    world.down = vec![alone];
    world.propose(alone, 7);
    assert!(world.lane(alone).read_index(1));
    world.ticks(100);
    assert!(!world.lane(alone).is_open());
    assert_eq!(world.given_up[&alone], [7]);
    assert_eq!(world.reads[&alone], [(1, false)]);
    world.down.clear();
    world.ticks(20);
    assert!(world.lane(alone).is_open());
    world.propose(alone, 8);
    world.ticks(5);
    assert_eq!(world.applied(alone), [8]);
}

#[test]
fn a_read_on_a_follower_waits_for_everything_acknowledged_before_it() {
    let mut world = World::new();
    let leader = world.leader();
    let follower = 1 + leader % 3;
    world.propose(leader, 1);
    world.ticks(1);
    assert!(world.lane(follower).read_index(5));
    world.settle();
    assert_eq!(world.reads[&follower], [(5, true)]);
    assert_eq!(world.applied(follower), [1]);
}

#[test]
fn a_node_has_caught_up_only_when_it_has_applied_what_was_acknowledged_while_it_was_away() {
    let mut world = World::new();
    world.down = vec![3];
    let leader = world.leader();
    (1..=5).for_each(|ticket| world.propose(leader, ticket));
    world.ticks(100);
    assert!(world.lane(leader).caught_up() && world.lane(3 - leader).caught_up());
    assert!(!world.lane(3).caught_up(), "it has heard of nobody");
    world.down.clear();
    for _ in 0..100 {
        world.ticks(1);
        assert!(!world.lane(3).caught_up() || world.applied(3).len() == 5);
    }
    assert!(world.lane(3).caught_up());
}

#[test]
fn a_message_in_the_name_of_another_nodes_replica_is_dropped() {
    let mut world = World::new();
    world.leader();
    world.ticks(2);
    (1..=3).for_each(|node| world.lane(node).tick());
    (1..=3).for_each(|node| world.lane(node).tick());
    for node in 1..=3 {
        world.collect(node);
    }
    let (from, to, packet) = world.network.pop_front().unwrap();
    let Packet::Raft(message) = packet else { panic!("a heartbeat was due") };
    let liar = NodeId(6 - from - to);
    let refused = world.lane(to).step(liar, message);
    assert!(matches!(refused, Err(StepError::Message(MessageError::UnknownPeer))), "{refused:?}");
}

#[test]
fn a_change_of_leader_is_said_although_a_message_brought_it() {
    let mut world = World::new();
    let leader = world.leader();
    for node in 1..=3 {
        assert_eq!(world.told[&node].last(), Some(&Some(NodeId(leader))), "node {node}");
    }
}

#[test]
fn leadership_goes_where_it_is_asked_to_go_and_nothing_is_lost() {
    let mut world = World::new();
    let old = world.leader();
    let heir = 1 + old % 3;
    for ticket in 1..=10 {
        world.propose(1 + ticket % 3, ticket);
    }
    world.ticks(5);
    assert_eq!(world.lane(old).hand_over(NodeId(heir)), Ok(()));
    for ticket in 11..=20 {
        world.propose(1 + ticket % 3, ticket);
    }
    world.ticks(5);
    assert_eq!(world.leader(), heir);
    for node in 1..=3 {
        let mut applied = world.applied(node).to_vec();
        applied.sort_unstable();
        assert_eq!(applied, (1..=20).collect::<Vec<_>>(), "node {node}");
    }
}

#[test]
fn leadership_is_not_handed_to_who_cannot_take_it() {
    let mut world = World::new();
    let leader = world.leader();
    let (follower, silent) = (1 + leader % 3, 1 + (leader + 1) % 3);
    world.ticks(5);
    let told = HandoverError::NotLeader { leader: Some(NodeId(leader)) };
    assert_eq!(world.lane(follower).hand_over(NodeId(silent)), Err(told));
    assert_eq!(world.lane(leader).hand_over(NodeId(leader)), Err(HandoverError::Leads(NodeId(leader))));
    assert_eq!(world.lane(leader).hand_over(NodeId(9)), Err(HandoverError::NotVoter(NodeId(9))));
    world.down.push(silent);
    world.ticks(60);
    let refused = world.lane(leader).hand_over(NodeId(silent));
    assert!(matches!(refused, Err(HandoverError::Behind { node, .. }) if node == NodeId(silent)), "{refused:?}");
}
