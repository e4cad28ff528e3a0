//! I6: a linearizable read returns at least the last seq acknowledged, and at least what any read returned, before it was asked for.

use std::collections::BTreeMap;

use rove_protocol::ids::{ConversationId, Seq};

use super::Invariant;
use crate::history::{PostEnd, Record};

#[derive(Default)]
pub(super) struct Linearizable {
    known: BTreeMap<ConversationId, Seq>,
    asked: BTreeMap<u64, (ConversationId, Seq)>,
}

impl Linearizable {
    fn known(&mut self, conversation: ConversationId, seq: Seq) {
        let known = self.known.entry(conversation).or_default();
        *known = (*known).max(seq);
    }
}

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "I6 linearizable reads"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::PostEnded { conversation, end: PostEnd::Posted(seq), .. } => self.known(*conversation, *seq),
            Record::ReadSent { call, conversation } => {
                let floor = self.known.get(conversation).copied().unwrap_or_default();
                self.asked.insert(*call, (*conversation, floor));
            }
            Record::ReadEnded { call, head } => {
                let Some((conversation, floor)) = self.asked.remove(call) else { return Ok(()) };
                if head.is_some_and(|head| head < floor) {
                    return Err(format!(
                        "read {call} of {conversation} returned {head:?}, but seq {floor} was known before"
                    ));
                }
                if let Some(head) = head {
                    self.known(conversation, *head);
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
    use crate::invariants::example::{PLACE, posted, verdict};

    #[test]
    fn a_read_sees_what_was_acknowledged_or_read_before_it() {
        let asks = |call| Record::ReadSent { call, conversation: PLACE };
        let reads = |call, head| Record::ReadEnded { call, head: Some(Seq(head)) };
        let run = |records: &[Record]| verdict(Linearizable::default(), records);
        assert_eq!(run(&[asks(1), posted(1, 1), reads(1, 0)]), Ok(()), "asked before");
        assert!(run(&[posted(1, 1), asks(1), reads(1, 0)]).is_err());
        assert!(run(&[asks(1), reads(1, 5), asks(2), reads(2, 4)]).is_err());
        assert_eq!(run(&[posted(1, 1), asks(1), Record::ReadEnded { call: 1, head: None }]), Ok(()));
    }
}
