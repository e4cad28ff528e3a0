//! The network between the nodes: raft messages travel like datagrams, commands on ordered connections.

use std::collections::BTreeMap;

use rove_protocol::ids::NodeId;

use crate::faults::{Fault, Fired};
use crate::rng::Rng;

/// A path that is blocked for so long closes the connection on it, with what was on its way. As long as an election.
const IDLE_US: u64 = 1_000_000;

/// How the network is at the moment, apart from paths that are blocked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Of a thousand raft messages, this many are lost.
    pub loss: u64,
    /// Of a thousand, this many arrive twice.
    pub duplicate: u64,
    /// Of a thousand, this many take long enough to be overtaken.
    pub reorder: u64,
    /// Of a thousand forwards, this many arrive again much later.
    pub stale: u64,
    /// Microseconds that everything takes longer, at most.
    pub delay_us: u64,
}

/// A blocked path, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    /// Which fault blocks it, so that it heals as a whole.
    by: u64,
    fault: Fault,
    from: NodeId,
    to: NodeId,
}

/// A connection between two nodes.
#[derive(Debug, Clone, Copy, Default)]
struct Connection {
    /// Counts connections; what travels on an old one never arrives.
    epoch: u64,
    up: bool,
    /// Nothing on it arrives before this, in either direction.
    not_before_us: [u64; 2],
    /// Since when its path is blocked.
    blocked_since_us: Option<u64>,
}

/// What becomes of the connections when time goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkUp {
    /// One end.
    pub one: NodeId,
    /// The other.
    pub other: NodeId,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    /// How it is.
    pub weather: Weather,
    latency_us: u64,
    blocks: Vec<Block>,
    connections: BTreeMap<(NodeId, NodeId), Connection>,
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    if one < other { (one, other) } else { (other, one) }
}

impl Network {
    /// A sound network in which everything takes `latency_us` or a little more. No connections yet.
    pub fn new(latency_us: u64) -> Self {
        Self { weather: Weather::default(), latency_us, blocks: Vec::new(), connections: BTreeMap::new() }
    }

    /// Blocks these paths in the name of `by`.
    pub fn block(&mut self, by: u64, fault: Fault, paths: impl IntoIterator<Item = (NodeId, NodeId)>) {
        self.blocks.extend(paths.into_iter().map(|(from, to)| Block { by, fault, from, to }));
    }

    /// Unblocks what was blocked in the name of `by`.
    pub fn unblock(&mut self, by: u64) {
        self.blocks.retain(|block| block.by != by);
    }

    /// Everything is well.
    pub fn heal(&mut self) {
        self.blocks.clear();
        self.weather = Weather::default();
    }

    fn blocked(&self, from: NodeId, to: NodeId) -> Option<Fault> {
        self.blocks.iter().find(|block| (block.from, block.to) == (from, to)).map(|block| block.fault)
    }

    fn travel_us(&self, rng: &mut Rng, fired: &mut Fired) -> u64 {
        let extra = rng.below(self.weather.delay_us + 1);
        if extra > 10 * self.latency_us.max(1_000) {
            fired.count(Fault::Delay);
        }
        self.latency_us + rng.below(self.latency_us / 2 + 1) + extra
    }

    /// After which times a raft message arrives: none, one or two.
    pub fn datagram(&self, from: NodeId, to: NodeId, rng: &mut Rng, fired: &mut Fired) -> Vec<u64> {
        if let Some(fault) = self.blocked(from, to) {
            fired.count(fault);
            return Vec::new();
        }
        if rng.chance(self.weather.loss) {
            fired.count(Fault::Loss);
            return Vec::new();
        }
        let mut first = self.travel_us(rng, fired);
        if rng.chance(self.weather.reorder) {
            fired.count(Fault::Reorder);
            first += rng.below(20 * self.latency_us + 50_000);
        }
        let mut arrivals = vec![first];
        if rng.chance(self.weather.duplicate) {
            fired.count(Fault::Duplicate);
            arrivals.push(first + rng.below(2_000_000));
        }
        arrivals
    }

    /// After which time something on the ordered connection arrives, and the connection's epoch; nothing if there is no connection.
    pub fn ordered(
        &mut self,
        now_us: u64,
        from: NodeId,
        to: NodeId,
        rng: &mut Rng,
        fired: &mut Fired,
    ) -> Option<(u64, u64)> {
        let travel = self.travel_us(rng, fired);
        let connection = self.connections.get_mut(&pair(from, to)).filter(|connection| connection.up)?;
        let direction = usize::from(from > to);
        let at = (now_us + travel).max(connection.not_before_us[direction] + 1);
        connection.not_before_us[direction] = at;
        Some((at - now_us, connection.epoch))
    }

    /// Whether something that was sent on the connection of this epoch arrives now: yes, later (the path is blocked), or never.
    pub fn arrives(&self, from: NodeId, to: NodeId, epoch: u64) -> Arrival {
        let current = self.connections.get(&pair(from, to)).is_some_and(|known| known.up && known.epoch == epoch);
        if !current {
            Arrival::Never
        } else if self.blocked(from, to).or_else(|| self.blocked(to, from)).is_some() {
            Arrival::Later
        } else {
            Arrival::Now
        }
    }

    /// The connection between these two is gone. Whether there was one.
    pub fn cut(&mut self, one: NodeId, other: NodeId) -> bool {
        self.connections.get_mut(&pair(one, other)).is_some_and(|connection| std::mem::take(&mut connection.up))
    }

    /// Closes connections whose path is blocked for too long, and makes new ones between nodes that run.
    pub fn look_after_connections(&mut self, now_us: u64, running: &[NodeId]) -> Vec<LinkUp> {
        let mut made = Vec::new();
        for (at, one) in running.iter().enumerate() {
            for other in running.iter().skip(at + 1) {
                let blocked = self.blocked(*one, *other).or_else(|| self.blocked(*other, *one)).is_some();
                let connection = self.connections.entry(pair(*one, *other)).or_default();
                if blocked {
                    let since = *connection.blocked_since_us.get_or_insert(now_us);
                    connection.up &= now_us - since < IDLE_US;
                } else {
                    connection.blocked_since_us = None;
                    if !connection.up {
                        *connection = Connection { epoch: connection.epoch + 1, up: true, ..Connection::default() };
                        made.push(LinkUp { one: *one, other: *other });
                    }
                }
            }
        }
        made
    }
}

/// When something on a connection arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is there.
    Now,
    /// The path is blocked: it is sent again underneath.
    Later,
    /// Its connection is gone.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn a_path_that_is_blocked_one_way_loses_datagrams_one_way() {
        let (mut rng, mut fired) = (Rng::new(1), Fired::default());
        let mut network = Network::new(100);
        network.block(7, Fault::OneWay, [(A, B)]);
        assert!(network.datagram(A, B, &mut rng, &mut fired).is_empty());
        assert_eq!(network.datagram(B, A, &mut rng, &mut fired).len(), 1);
        assert_eq!(fired.of(Fault::OneWay), 1);
        network.unblock(7);
        assert_eq!(network.datagram(A, B, &mut rng, &mut fired).len(), 1);
    }

    #[test]
    fn a_connection_keeps_order_and_what_was_on_it_is_gone_when_it_is_cut() {
        let (mut rng, mut fired) = (Rng::new(1), Fired::default());
        let mut network = Network::new(100);
        assert_eq!(network.ordered(0, A, B, &mut rng, &mut fired), None, "there is none yet");
        assert_eq!(network.look_after_connections(0, &[A, B]), [LinkUp { one: A, other: B }]);
        network.weather.delay_us = 1_000_000;
        let sent: Vec<(u64, u64)> = (0..50).filter_map(|_| network.ordered(0, A, B, &mut rng, &mut fired)).collect();
        assert!(sent.is_sorted_by(|one, other| one.0 < other.0));
        let epoch = sent[0].1;
        assert_eq!(network.arrives(A, B, epoch), Arrival::Now);
        network.block(1, Fault::OneWay, [(B, A)]);
        assert_eq!(network.arrives(A, B, epoch), Arrival::Later);
        network.heal();
        assert!(network.cut(B, A));
        network.look_after_connections(1, &[A, B]);
        assert_eq!(network.arrives(A, B, epoch), Arrival::Never);
    }

    #[test]
    fn a_path_that_is_blocked_for_long_closes_its_connection() {
        let mut network = Network::new(100);
        network.look_after_connections(0, &[A, B]);
        network.block(1, Fault::Partition, [(A, B)]);
        network.look_after_connections(10, &[A, B]);
        assert_eq!(network.arrives(A, B, 1), Arrival::Later);
        network.look_after_connections(10 + IDLE_US, &[A, B]);
        assert_eq!(network.arrives(A, B, 1), Arrival::Never);
    }
}
