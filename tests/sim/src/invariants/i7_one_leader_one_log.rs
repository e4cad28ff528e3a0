//! I7: at most one leader for each (partition, term); a committed prefix never changes; the terms of a log never go back.

use std::collections::BTreeMap;

use rove_protocol::ids::{NodeId, PartitionId};

use super::Invariant;
use crate::history::Record;

#[derive(Default)]
pub(super) struct OneLog {
    leaders: BTreeMap<(PartitionId, u64), NodeId>,
    /// Term and digest of each entry.
    entries: BTreeMap<(PartitionId, u64), (u64, u64)>,
}

impl Invariant for OneLog {
    fn name(&self) -> &'static str {
        "I7 one leader, one log"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Leads { node, partition, term } => {
                let leader = *self.leaders.entry((*partition, *term)).or_insert(*node);
                if leader != *node {
                    return Err(format!("nodes {leader} and {node} both lead partition {partition} in term {term}"));
                }
            }
            Record::Applied { node, partition, index, term, digest, .. } => {
                let entry = (*term, *digest);
                let known = *self.entries.entry((*partition, *index)).or_insert(entry);
                if known != entry {
                    return Err(format!(
                        "entry {index} of partition {partition} was {known:?}; on node {node} it is {entry:?} (term, digest)"
                    ));
                }
                let before = index.checked_sub(1).and_then(|before| self.entries.get(&(*partition, before)));
                if before.is_some_and(|(before, _)| before > term) {
                    return Err(format!(
                        "entry {index} of partition {partition} is of term {term}, older than the one before"
                    ));
                }
            }
            Record::Installed { node, partition, index, term, .. } => {
                let known = self.entries.get(&(*partition, *index)).map(|(known, _)| known);
                if known.is_some_and(|known| known != term) {
                    return Err(format!(
                        "node {node} has a snapshot of partition {partition} up to entry {index} of term {term}, whose term is {known:?}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::verdict;

    fn leads(node: u64, term: u64) -> Record {
        Record::Leads { node: NodeId(node), partition: PartitionId(1), term }
    }

    fn applied(node: u64, index: u64, term: u64, digest: u64) -> Record {
        Record::Applied { node: NodeId(node), partition: PartitionId(1), index, term, digest, state: 0 }
    }

    #[test]
    fn a_term_has_one_leader() {
        assert_eq!(verdict(OneLog::default(), &[leads(1, 1), leads(2, 2), leads(1, 1)]), Ok(()));
        assert!(verdict(OneLog::default(), &[leads(1, 1), leads(2, 1)]).is_err());
    }

    #[test]
    fn a_snapshot_ends_with_the_entry_that_others_have_there() {
        let installed =
            |term| Record::Installed { node: NodeId(2), partition: PartitionId(1), index: 1, term, state: 0 };
        assert_eq!(verdict(OneLog::default(), &[applied(1, 1, 1, 7), installed(1)]), Ok(()));
        assert!(verdict(OneLog::default(), &[applied(1, 1, 1, 7), installed(2)]).is_err());
    }

    #[test]
    fn what_was_applied_once_is_the_same_everywhere_and_for_ever() {
        assert_eq!(verdict(OneLog::default(), &[applied(1, 1, 1, 7), applied(2, 1, 1, 7)]), Ok(()));
        assert!(verdict(OneLog::default(), &[applied(1, 1, 1, 7), applied(2, 1, 1, 8)]).is_err());
        assert!(verdict(OneLog::default(), &[applied(1, 1, 2, 7), applied(1, 2, 1, 7)]).is_err());
    }
}
