//! I8: replicas at the same applied index have the same state hash, however often they started again or
//! were sent a snapshot.

use std::collections::BTreeMap;

use rove_protocol::ids::{NodeId, PartitionId};

use super::Invariant;
use crate::history::Record;

#[derive(Default)]
pub(super) struct SameState {
    states: BTreeMap<(PartitionId, u64), (NodeId, u64)>,
}

impl Invariant for SameState {
    fn name(&self) -> &'static str {
        "I8 same index, same state"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        let (Record::Applied { node, partition, index, state, .. }
        | Record::Installed { node, partition, index, state, .. }) = record
        else {
            return Ok(());
        };
        let (first, known) = *self.states.entry((*partition, *index)).or_insert((*node, *state));
        if known == *state {
            return Ok(());
        }
        Err(format!(
            "partition {partition} at entry {index}: {known:016x} on node {first}, {state:016x} on node {node}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::verdict;

    #[test]
    fn two_replicas_at_one_index_have_one_state() {
        let applied = |node, index, state| Record::Applied {
            node: NodeId(node),
            partition: PartitionId(1),
            index,
            term: 1,
            digest: 0,
            state,
        };
        assert_eq!(verdict(SameState::default(), &[applied(1, 1, 5), applied(2, 1, 5), applied(2, 2, 6)]), Ok(()));
        assert!(verdict(SameState::default(), &[applied(1, 1, 5), applied(2, 1, 6)]).is_err());
        let installed =
            |state| Record::Installed { node: NodeId(2), partition: PartitionId(1), index: 1, term: 1, state };
        assert_eq!(verdict(SameState::default(), &[applied(1, 1, 5), installed(5)]), Ok(()));
        assert!(
            verdict(SameState::default(), &[applied(1, 1, 5), installed(6)]).is_err(),
            "a snapshot of another state"
        );
    }
}
