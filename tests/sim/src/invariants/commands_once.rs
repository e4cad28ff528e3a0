//! What routing promises: a command that a node took is in the log exactly once, and a node's commands are there in the order in which it
//! took them, whoever led meanwhile. Only a node that stops, or says that it gave up, may leave some out.

use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::{NodeId, PartitionId};

use super::Invariant;
use crate::history::Record;

#[derive(Default)]
pub(super) struct CommandsOnce {
    last: BTreeMap<(PartitionId, NodeId), u64>,
    waiting: BTreeMap<NodeId, BTreeSet<(PartitionId, u64)>>,
    settled: bool,
}

impl Invariant for CommandsOnce {
    fn name(&self) -> &'static str {
        "commands are in the log once and in order"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Taken { node, partition, ticket } => {
                self.waiting.entry(*node).or_default().insert((*partition, *ticket));
            }
            Record::GivenUp { node, partition, ticket } => {
                self.waiting.entry(*node).or_default().remove(&(*partition, *ticket));
            }
            Record::Down { node } | Record::Quarantined { node, .. } => {
                self.waiting.remove(node);
            }
            Record::Command { partition, node, ticket } => {
                let last = self.last.entry((*partition, *node)).or_default();
                if *ticket <= *last {
                    return Err(format!(
                        "of partition {partition}, command {ticket} of node {node} comes after {last}"
                    ));
                }
                *last = *ticket;
                if let Some(waiting) = self.waiting.get_mut(node) {
                    waiting.remove(&(*partition, *ticket));
                }
            }
            Record::Settled => self.settled = true,
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        let lost = self.waiting.iter().find_map(|(node, waiting)| Some((node, waiting.first()?)));
        match lost {
            Some((node, (partition, ticket))) if self.settled => {
                Err(format!("command {ticket} of node {node} is not in the log of partition {partition}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::verdict;

    #[test]
    fn every_command_is_there_once_and_in_order() {
        let (node, partition) = (NodeId(1), PartitionId(1));
        let taken = |ticket| Record::Taken { node, partition, ticket };
        let command = |ticket| Record::Command { partition, node, ticket };
        let run = |records: &[Record]| verdict(CommandsOnce::default(), records);
        assert_eq!(run(&[taken(1), taken(2), command(1), command(2), Record::Settled]), Ok(()));
        assert!(run(&[taken(1), taken(2), command(2), command(1)]).is_err(), "order");
        assert!(run(&[taken(1), command(1), command(1)]).is_err(), "twice");
        assert!(run(&[taken(1), Record::Settled]).is_err(), "lost");
        assert_eq!(run(&[taken(1), Record::Down { node }, Record::Settled]), Ok(()));
        assert_eq!(run(&[taken(1), Record::GivenUp { node, partition, ticket: 1 }, Record::Settled]), Ok(()));
    }
}
