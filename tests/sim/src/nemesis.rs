//! Which fault comes next, and how bad it is.

use rove_protocol::ids::NodeId;

use crate::faults::{Fault, Faults};
use crate::network::{Network, Weather};
use crate::rng::Rng;

/// The end of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// The weather is as it was.
    Weather(Fault),
    /// Paths that were blocked under this name are free.
    Unblock(u64),
    /// A process goes on.
    Resume(NodeId),
    /// A disk is quick again.
    QuickDisk(NodeId),
}

/// Chooses faults.
#[derive(Debug)]
pub struct Nemesis {
    faults: Faults,
    names: u64,
}

impl Nemesis {
    /// One that may use these.
    pub fn new(faults: Faults) -> Self {
        Self { faults, names: 0 }
    }

    /// The next fault.
    pub fn choose(&self, rng: &mut Rng) -> Option<Fault> {
        let kinds: Vec<Fault> = self.faults.iter().collect();
        rng.pick(&kinds)
    }

    /// Whether losing power tears what was being written.
    pub fn tears(&self) -> bool {
        self.faults.has(Fault::TornTail)
    }

    /// The weather becomes bad in one way.
    pub fn storm(&self, fault: Fault, weather: &mut Weather, rng: &mut Rng) {
        match fault {
            Fault::Loss => weather.loss = rng.pick(&[10, 100, 300]).unwrap_or(100),
            Fault::Duplicate => weather.duplicate = rng.between(20, 300),
            Fault::Reorder => weather.reorder = rng.between(20, 500),
            Fault::StaleForward => weather.stale = rng.between(50, 500),
            Fault::Delay => weather.delay_us = rng.between(20, 500) * 1_000,
            _ => {}
        }
    }

    /// The weather becomes good again in that way.
    pub fn calm(fault: Fault, weather: &mut Weather) {
        let calm = Weather::default();
        match fault {
            Fault::Loss => weather.loss = calm.loss,
            Fault::Duplicate => weather.duplicate = calm.duplicate,
            Fault::Reorder => weather.reorder = calm.reorder,
            Fault::StaleForward => weather.stale = calm.stale,
            Fault::Delay => weather.delay_us = calm.delay_us,
            _ => {}
        }
    }

    /// Blocks paths around `id`, one of the `nodes` there are, and says under which name.
    pub fn block(&mut self, fault: Fault, id: NodeId, nodes: &[NodeId], network: &mut Network, rng: &mut Rng) -> u64 {
        self.names += 1;
        let others: Vec<NodeId> = nodes.iter().copied().filter(|other| *other != id).collect();
        let paths: Vec<(NodeId, NodeId)> = match fault {
            Fault::Partition => others.iter().flat_map(|other| [(id, *other), (*other, id)]).collect(),
            Fault::OneWay => rng.pick(&others).map(|other| (other, id)).into_iter().collect(),
            _ => match others.as_slice() {
                [one, other, ..] => vec![(*one, *other), (*other, *one)],
                _ => Vec::new(),
            },
        };
        network.block(self.names, fault, paths);
        self.names
    }
}
