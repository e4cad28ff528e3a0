//! I11: receipts are monotone and never pass the head.

use std::collections::BTreeMap;

use rove_protocol::ids::{AccountId, ConversationId, NodeId, Seq};

use super::Invariant;
use crate::history::{ClientId, Record};

#[derive(Default)]
pub(super) struct Receipts {
    seen: BTreeMap<(Option<ClientId>, Option<NodeId>, ConversationId, AccountId), Seq>,
}

impl Invariant for Receipts {
    fn name(&self) -> &'static str {
        "I11 receipts"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            // It applies again what it had not flushed, and says it again.
            Record::Down { node } => self.seen.retain(|(_, of, _, _), _| *of != Some(*node)),
            // Another node, which may know less.
            Record::Opened { client, .. } => self.seen.retain(|(of, _, _, _), _| *of != Some(*client)),
            Record::Receipt { client, node, conversation, account, read, head } => {
                if read > head {
                    return Err(format!(
                        "account {account} has read seq {read} of {conversation}, which ends at {head}"
                    ));
                }
                let before = self.seen.entry((*client, *node, *conversation, *account)).or_default();
                if *read < *before {
                    return Err(format!("account {account} had read seq {before} of {conversation}, now {read}"));
                }
                *before = *read;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::{PLACE, verdict};

    #[test]
    fn a_receipt_neither_goes_back_nor_passes_the_head() {
        let receipt = |read, head| Record::Receipt {
            client: None,
            node: Some(NodeId(1)),
            conversation: PLACE,
            account: AccountId(1),
            read: Seq(read),
            head: Seq(head),
        };
        let down = Record::Down { node: NodeId(1) };
        assert_eq!(verdict(Receipts::default(), &[receipt(2, 5), receipt(5, 5), down, receipt(1, 5)]), Ok(()));
        assert!(verdict(Receipts::default(), &[receipt(2, 5), receipt(1, 5)]).is_err());
        assert!(verdict(Receipts::default(), &[receipt(6, 5)]).is_err());
    }
}
