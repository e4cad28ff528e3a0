//! Nothing that whoever wrote the history says must not be: above all, a replica distrusts its disk only if the disk was damaged.

use super::Invariant;
use crate::history::Record;

pub(super) struct Sound;

impl Invariant for Sound {
    fn name(&self) -> &'static str {
        "sound"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Wrong { what } => Err(what.clone()),
            Record::Quarantined { node, damaged: false, reason } => {
                Err(format!("node {node} distrusts a disk that is sound: {reason}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rove_protocol::ids::NodeId;

    use super::*;
    use crate::invariants::example::verdict;

    #[test]
    fn a_quarantine_needs_a_damaged_disk() {
        let quarantined = |damaged| Record::Quarantined { node: NodeId(1), damaged, reason: "x".to_owned() };
        assert_eq!(verdict(Sound, &[quarantined(true)]), Ok(()));
        assert!(verdict(Sound, &[quarantined(false)]).is_err());
    }
}
