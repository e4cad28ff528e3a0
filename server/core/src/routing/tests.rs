//! Exactly once and in order, whoever leads and whatever is lost.

use std::collections::VecDeque;

use bytes::Bytes;
use rove_protocol::ids::{NodeId, PartitionId};

use super::*;
use crate::command::{Envelope, Origin};
use crate::life::Life;

const PARTITION: PartitionId = PartitionId(3);

fn envelope(node: u64, ticket: u64) -> Envelope {
    Envelope { origin: Origin { node: NodeId(node), ticket }, command: Bytes::from(vec![0; 10]) }
}

fn leader(node: u64, term: u64) -> Leadership {
    Leadership { node: NodeId(node), term }
}

fn tickets(forward: &Forward) -> Vec<u64> {
    forward.envelopes.iter().map(|envelope| envelope.origin.ticket).collect()
}

fn router(tickets: std::ops::RangeInclusive<u64>) -> Router {
    let mut router = Router::new(PARTITION, Life::new(0, 0));
    tickets.for_each(|ticket| router.push(envelope(1, ticket)));
    router
}

#[test]
fn commands_wait_until_somebody_leads_and_go_in_order() {
    let mut router = router(1..=2);
    assert_eq!(router.next_forward(), None);
    router.led_by(Some(leader(2, 5)));
    let (to, forward) = router.next_forward().unwrap();
    assert_eq!((to, forward.term, forward.first, tickets(&forward)), (NodeId(2), 5, 1, vec![1, 2]));
    router.push(envelope(1, 3));
    let (_, forward) = router.next_forward().unwrap();
    assert_eq!((forward.first, tickets(&forward)), (3, vec![3]));
    assert_eq!(router.next_forward(), None);
    assert_eq!(router.answered(1), Some(10));
    assert_eq!((router.len(), router.bytes()), (2, 20));
}

#[test]
fn what_was_sent_in_an_earlier_term_is_sent_again_only_after_a_later_entry_was_applied() {
    let mut router = router(1..=3);
    router.led_by(Some(leader(2, 5)));
    router.next_forward().unwrap();
    router.led_by(Some(leader(3, 6)));
    router.push(envelope(1, 4));
    assert_eq!(router.next_forward(), None, "the log may still hold it");
    router.applied(5);
    router.answered(1);
    assert_eq!(router.next_forward(), None, "an entry of the same term says nothing");
    router.applied(6);
    let (to, forward) = router.next_forward().unwrap();
    assert_eq!((to, forward.term, forward.first, tickets(&forward)), (NodeId(3), 6, 1, vec![2, 3, 4]));
}

#[test]
fn the_leader_asks_for_what_was_lost_on_the_way_and_skips_what_it_has() {
    let mut router = router(1..=2);
    let mut intake = Intake::default();
    intake.lead(5);
    router.led_by(Some(leader(2, 5)));
    let (_, lost) = router.next_forward().unwrap();
    router.push(envelope(1, 3));
    let (_, forward) = router.next_forward().unwrap();
    let (taken, ack) = intake.take(NodeId(1), forward, 100);
    assert_eq!((taken.len(), ack.unwrap().next), (0, 1));
    router.acked(NodeId(2), ack.unwrap());
    let (_, again) = router.next_forward().unwrap();
    assert_eq!((again.first, tickets(&again)), (1, vec![1, 2, 3]));
    assert_eq!(intake.take(NodeId(1), again, 100).0.len(), 3);
    assert_eq!(intake.take(NodeId(1), lost, 100).0.len(), 0, "a repeat");
}

#[test]
fn after_silence_or_on_a_new_connection_the_leader_is_asked_what_is_due() {
    let mut router = router(1..=2);
    let mut intake = Intake::default();
    intake.lead(5);
    router.led_by(Some(leader(2, 5)));
    router.next_forward().unwrap();
    router.link_up(NodeId(3));
    assert_eq!(router.next_forward(), None, "not the leader's");
    router.link_up(NodeId(2));
    let (_, question) = router.next_forward().unwrap();
    assert_eq!((question.first, question.envelopes.len()), (3, 0));
    let (_, ack) = intake.take(NodeId(1), question, 100);
    router.acked(NodeId(2), ack.unwrap());
    assert_eq!(tickets(&router.next_forward().unwrap().1), [1, 2]);
    assert_eq!(router.next_forward(), None);
    (0..6).for_each(|_| router.tick());
    assert_eq!(router.next_forward().unwrap().1.envelopes.len(), 0);
}

#[test]
fn a_node_that_starts_again_in_the_same_term_is_not_taken_for_what_it_was() {
    // Once more on its disk; and on an empty one, on which it counts its starts from one again.
    for lives in [[Life::new(0, 1), Life::new(0, 2)], [Life::new(0, 7), Life::new(1, 1)]] {
        let mut intake = Intake::default();
        intake.lead(5);
        let [before, after] = [(10, lives[0]), (20, lives[1])].map(|(tickets, life)| {
            let mut router = Router::new(PARTITION, life);
            (1..=2).for_each(|ticket| router.push(envelope(1, tickets + ticket)));
            router.led_by(Some(leader(2, 5)));
            router.next_forward().unwrap().1
        });
        let late = before.clone();
        let mut take = |forward| -> Vec<u64> {
            intake.take(NodeId(1), forward, 100).0.iter().map(|envelope| envelope.origin.ticket).collect()
        };
        assert_eq!((take(before), take(after)), (vec![11, 12], vec![21, 22]));
        assert!(take(late).is_empty());
    }
}

#[test]
fn a_leader_takes_nothing_of_another_term_and_no_more_than_it_has_room_for() {
    let mut intake = Intake::default();
    intake.lead(5);
    let forward = |term, first, tickets: std::ops::RangeInclusive<u64>| Forward {
        partition: PARTITION,
        term,
        oldest: 1,
        first,
        envelopes: tickets.map(|ticket| envelope(1, ticket)).collect(),
    };
    assert_eq!(intake.take(NodeId(1), forward(4, 1, 1..=2), 100), (vec![], None));
    assert_eq!(intake.take(NodeId(1), forward(5, 1, 1..=3), 2).0.len(), 2);
    assert_eq!(intake.take(NodeId(1), forward(5, 4, 4..=4), 2).1.unwrap().next, 3);
    assert_eq!(intake.take(NodeId(2), forward(5, 1, 1..=1), 2).0.len(), 1, "each node has its own numbers");
    intake.lead(7);
    assert_eq!(intake.take(NodeId(1), forward(7, 1, 1..=3), 100).0.len(), 3, "and each term");
}

#[test]
fn what_a_snapshot_may_have_skipped_is_given_up_and_the_rest_goes_on() {
    let mut router = router(1..=2);
    router.led_by(Some(leader(2, 5)));
    router.next_forward().unwrap();
    router.push(envelope(1, 3));
    let given_up = router.give_up(false);
    assert_eq!(given_up.len(), 2);
    let (_, forward) = router.next_forward().unwrap();
    assert_eq!((forward.first, tickets(&forward)), (3, vec![3]), "numbers of a term are not used twice");
    let mut intake = Intake::default();
    intake.lead(5);
    assert_eq!(intake.take(NodeId(1), forward, 100).0.len(), 1, "the leader does not wait for what was given up");
    assert_eq!(router.give_up(true).len(), 1);
    assert_eq!((router.len(), router.bytes()), (0, 0));
}

/// A group that elects leaders at random, loses what was not committed, and whose messages get lost.
struct Model {
    random: u64,
    routers: Vec<Router>,
    applied: Vec<usize>,
    links: Vec<VecDeque<(usize, Message)>>,
    term: u64,
    leader: usize,
    intake: Intake,
    log: Vec<(u64, Option<Envelope>)>,
    committed: usize,
    next_ticket: u64,
}

enum Message {
    Forward(Forward),
    Ack(ForwardAck),
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut model = Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            routers: (0..3).map(|_| Router::new(PARTITION, Life::new(0, 0))).collect(),
            applied: vec![0; 3],
            links: (0..9).map(|_| VecDeque::new()).collect(),
            term: 0,
            leader: 0,
            intake: Intake::default(),
            log: Vec::new(),
            committed: 0,
            next_ticket: 0,
        };
        model.elect();
        model
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % limit as u64).unwrap()
    }

    fn elect(&mut self) {
        self.term += 1;
        self.leader = self.below(3);
        // The new leader has everything committed and some of the rest.
        let kept = self.committed + self.below(self.log.len() - self.committed + 1);
        self.log.truncate(kept);
        self.log.push((self.term, None));
        self.intake = Intake::default();
        self.intake.lead(self.term);
    }

    fn step(&mut self, faults: bool) {
        let node = self.below(3);
        match self.below(if faults { 12 } else { 9 }) {
            0 => {
                self.next_ticket += 1;
                self.routers[node].push(envelope(node as u64, self.next_ticket));
            }
            1 => self.routers[node].led_by(Some(leader(self.leader as u64, self.term))),
            2 | 3 => self.send(node),
            4 => self.committed = (self.committed + self.below(3)).min(self.log.len()),
            5 => self.apply(node),
            6 | 7 => {
                let link = self.below(9);
                self.receive(link);
            }
            8 => self.routers[node].tick(),
            9 => self.elect(),
            10 => {
                // One message is lost, the connection is not.
                let link = self.below(9);
                self.links[link].pop_front();
            }
            _ => {
                let (from, to) = (self.below(3), self.below(3));
                self.links[from * 3 + to].clear();
                self.routers[from].link_up(NodeId(to as u64));
            }
        }
    }

    fn send(&mut self, node: usize) {
        if let Some((to, forward)) = self.routers[node].next_forward() {
            let to = usize::try_from(to.0).unwrap();
            self.links[node * 3 + to].push_back((node, Message::Forward(forward)));
        }
    }

    fn receive(&mut self, link: usize) {
        let to = link % 3;
        let Some((from, message)) = self.links[link].pop_front() else { return };
        match message {
            // Who leads in the term of the message: an earlier leader may get it, and takes it into a log that nobody keeps.
            Message::Forward(forward) if to == self.leader => {
                let (taken, ack) = self.intake.take(NodeId(from as u64), forward, 5);
                let term = self.term;
                self.log.extend(taken.into_iter().map(|envelope| (term, Some(envelope))));
                if let Some(ack) = ack {
                    self.links[to * 3 + from].push_back((to, Message::Ack(ack)));
                }
            }
            Message::Forward(_) => {}
            Message::Ack(ack) => self.routers[to].acked(NodeId(from as u64), ack),
        }
    }

    fn apply(&mut self, node: usize) {
        if self.applied[node] >= self.committed {
            return;
        }
        let (term, entry) = self.log[self.applied[node]].clone();
        self.applied[node] += 1;
        if let Some(envelope) = entry
            && envelope.origin.node == NodeId(node as u64)
        {
            assert!(self.routers[node].answered(envelope.origin.ticket).is_some(), "applied twice: {envelope:?}");
        }
        self.routers[node].applied(term);
    }

    fn check(&self) {
        for node in 0..3 {
            let of_node = self.log.iter().filter_map(|(_, entry)| entry.as_ref());
            let found: Vec<u64> = of_node
                .filter(|envelope| envelope.origin.node == NodeId(node))
                .map(|envelope| envelope.origin.ticket)
                .collect();
            assert!(found.is_sorted_by(|a, b| a < b), "out of order or twice: {found:?}");
        }
    }
}

#[test]
fn every_command_is_in_the_log_once_and_in_order_through_elections_and_losses() {
    for seed in 1..=400 {
        let mut model = Model::new(seed);
        for _ in 0..1_500 {
            model.step(true);
            model.check();
        }
        for _ in 0..6_000 {
            model.step(false);
        }
        model.check();
        // Whatever was proposed while nothing fails any more is still on its way; what was before has arrived.
        for _ in 0..1_000 {
            for node in 0..3 {
                let now = leader(model.leader as u64, model.term);
                model.routers[node].led_by(Some(now));
                (0..6).for_each(|_| model.routers[node].tick());
                (0..4).for_each(|_| model.send(node));
                (0..9).for_each(|link| model.receive(link));
                model.committed = model.log.len();
                (0..20).for_each(|_| model.apply(node));
            }
        }
        assert!(model.routers.iter().all(Router::is_empty), "seed {seed}");
    }
}
