//! Three nodes whose messages are lost, late, doubled and out of order, and which restart: in the end all agree, within the lease.

use proptest::prelude::*;

use super::*;

const NODES: u64 = 3;
const PEOPLE: u64 = 12;
const BEAT: u64 = 20_000;
const LEASE: u64 = LEASE_HEARTBEATS * BEAT;
/// A round of the simulation, in which news go out.
const ROUND: u64 = 100;
const WATCHER: SessionId = SessionId(u64::MAX);

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What is on its way: when it comes, from whom, to whom.
type Flight = (u64, NodeId, NodeId, Vec<u8>);

struct World {
    rng: Rng,
    now: u64,
    tables: BTreeMap<NodeId, PresenceTable>,
    flights: Vec<Flight>,
    faults: bool,
    starts: u64,
}

fn node(starts: u64) -> PresenceTable {
    let mut table = PresenceTable::new(starts, BEAT).among_peers();
    table.watch(WATCHER, &(1..=PEOPLE).map(AccountId).collect());
    table
}

impl World {
    fn new(seed: u64) -> Self {
        let tables = (1..=NODES).map(|id| (NodeId(id), node(1))).collect();
        Self { rng: Rng(seed), now: 0, tables, flights: Vec::new(), faults: true, starts: 1 }
    }

    fn send(&mut self, from: NodeId, to: NodeId, said: &Said) {
        // One in five is lost, and one is doubled.
        let copies = match self.rng.below(5) {
            0 if self.faults => 0,
            1 if self.faults => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = if self.faults { self.rng.below(3_000) } else { 1 };
            self.flights.push((self.now + late, from, to, said.encode()));
        }
    }

    fn broadcast(&mut self, from: NodeId, said: &Said) {
        for to in (1..=NODES).map(NodeId).filter(|to| *to != from) {
            self.send(from, to, said);
        }
    }

    fn round(&mut self) {
        self.now += ROUND;
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.flights).into_iter().partition(|(at, ..)| *at <= now);
        self.flights = later;
        let mut due: Vec<Flight> = due;
        if !self.faults {
            due.sort_by_key(|(at, ..)| *at);
        }
        for (_, from, to, bytes) in due {
            let said = Said::decode(&bytes).unwrap();
            let Some(table) = self.tables.get_mut(&to) else { continue };
            if let (_, Some(answer)) = table.hear(from, said, now) {
                self.send(to, from, &answer);
            }
        }
        for id in self.tables.keys().copied().collect::<Vec<_>>() {
            let table = self.tables.get_mut(&id).unwrap();
            table.expire(now);
            let mut said = table.news();
            if now.is_multiple_of(1_000) {
                said.push(table.digest());
            }
            for said in &said {
                self.broadcast(id, said);
            }
        }
    }

    /// Somebody comes, stays or goes somewhere, or a node restarts.
    fn something(&mut self) {
        let (id, person) = (NodeId(1 + self.rng.below(NODES)), 1 + self.rng.below(PEOPLE));
        let restart = self.rng.below(60) == 0;
        let came = self.rng.below(2) == 0;
        let now = self.now;
        let Some(table) = self.tables.get_mut(&id) else { return };
        if restart {
            self.starts += 1;
            *table = node(self.starts);
        } else if came {
            table.beat(AccountId(person), SessionId(person), now);
        } else {
            table.goodbye(AccountId(person), SessionId(person), now);
        }
    }

    /// What every node should show.
    fn truth(&self) -> BTreeSet<AccountId> {
        let people = (1..=PEOPLE).map(AccountId);
        people.filter(|account| self.tables.values().any(|table| table.is_here(*account))).collect()
    }

    fn shown(&self, id: NodeId) -> BTreeSet<AccountId> {
        let (items, _) = self.tables[&id].changed_since(WATCHER, 0);
        items.into_iter().filter(|item| item.status == PresenceStatus::Online).map(|item| item.account).collect()
    }

    fn assert_agree(&self) {
        for id in self.tables.keys() {
            assert_eq!(self.shown(*id), self.truth(), "as {id} shows at {}", self.now);
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_to_messages_all_nodes_agree_within_the_lease(seed: u64) {
        let mut world = World::new(seed);
        for _ in 0..300 {
            world.something();
            world.round();
        }
        // Nothing new, and the network is well: what starts of nodes that are gone have claimed decays within their lease, and what was
        // lost is repaired.
        world.faults = false;
        for _ in 0..(LEASE + 6_000) / ROUND {
            world.round();
        }
        world.assert_agree();
        // A node dies.
        let dead = NodeId(1 + seed % NODES);
        world.tables.remove(&dead);
        for _ in 0..=LEASE / ROUND + 1 {
            world.round();
        }
        world.assert_agree();
        // Everybody falls silent.
        for _ in 0..LEASE / ROUND + 20 {
            world.round();
        }
        prop_assert_eq!(world.truth(), BTreeSet::new());
        world.assert_agree();
    }
}
