//! I3: one order for each conversation: (conversation, seq) → message is one function across replicas, readers and time, and every
//! replica's seqs are 1, 2, 3, …

use std::collections::BTreeMap;

use rove_protocol::ids::{ConversationId, Seq};

use super::Invariant;
use crate::history::{ClientId, Message, Record};

#[derive(Default)]
pub(super) struct OneOrder {
    messages: BTreeMap<(ConversationId, Seq), Message>,
    conversations: BTreeMap<ClientId, ConversationId>,
}

impl OneOrder {
    fn found(&mut self, conversation: ConversationId, seq: Seq, message: &Message) -> Result<(), String> {
        let known = *self.messages.entry((conversation, seq)).or_insert(*message);
        if known == *message {
            return Ok(());
        }
        Err(format!("seq {seq} of {conversation} is {known:?} and {message:?}"))
    }
}

impl Invariant for OneOrder {
    fn name(&self) -> &'static str {
        "I3 one order"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Client { client, conversation, .. } => {
                self.conversations.insert(*client, *conversation);
            }
            Record::Arrived { client, from, message: Some(message), .. } => {
                if let Some(conversation) = self.conversations.get(client).copied() {
                    return self.found(conversation, *from, message);
                }
            }
            Record::FinalLog { node, conversation, messages } => {
                for (due, (seq, message)) in (1..).zip(messages) {
                    if seq.0 != due {
                        return Err(format!("node {node} has seq {seq} of {conversation} where {due} was due"));
                    }
                    self.found(*conversation, *seq, message)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rove_protocol::ids::NodeId;

    use super::*;
    use crate::invariants::example::{PLACE, arrived, client, message, verdict};

    fn log(messages: &[(u64, u64)]) -> Record {
        let messages = messages.iter().map(|(seq, no)| (Seq(*seq), message(*no))).collect();
        Record::FinalLog { node: NodeId(1), conversation: PLACE, messages }
    }

    #[test]
    fn a_seq_is_one_message_for_everybody() {
        let begin = [client(1), arrived(1, message(7))];
        let with = |record: Record| verdict(OneOrder::default(), &[&begin[..], &[record]].concat());
        assert_eq!(with(log(&[(1, 7), (2, 8)])), Ok(()));
        assert!(with(log(&[(1, 8)])).is_err());
        assert!(with(arrived(1, message(8))).is_err());
        assert!(with(log(&[(1, 7), (3, 8)])).is_err(), "a hole");
    }
}
