//! Raft messages of all lanes on their way to the transport: everything for one node in one frame, and what nobody waits for in the
//! frame of somebody else.
//!
//! The answer to a heartbeat says only that there is somebody. With a group's leaders spread over the nodes, each of these answers
//! would be a frame of its own, a packet, and a waking at either end; a tick later it goes out together with this node's own
//! heartbeats, and nodes at rest say half as much. A leader that counts its followers does so over several ticks.

use std::collections::BTreeMap;

use rove_protocol::ids::{NodeId, PartitionId};

use crate::replica::PeerMessage;

/// What is to be sent, by node.
#[derive(Debug, Default)]
pub struct Mailing {
    due: BTreeMap<NodeId, Vec<(PartitionId, PeerMessage)>>,
    /// The last answer of each group: an older one says nothing that it does not.
    waiting: BTreeMap<NodeId, BTreeMap<PartitionId, PeerMessage>>,
    ticked: bool,
}

impl Mailing {
    /// A message of a replica of `partition` for one on node `to`.
    pub fn add(&mut self, to: NodeId, partition: PartitionId, message: PeerMessage) {
        if message.may_wait() {
            self.waiting.entry(to).or_default().insert(partition, message);
        } else {
            self.due.entry(to).or_default().push((partition, message));
        }
    }

    /// One unit of time has passed: what waits has waited long enough.
    pub fn tick(&mut self) {
        self.ticked = true;
    }

    /// What is to be sent now, all that is for a node at once.
    pub fn take(&mut self) -> BTreeMap<NodeId, Vec<(PartitionId, PeerMessage)>> {
        let mut due = std::mem::take(&mut self.due);
        if std::mem::take(&mut self.ticked) {
            for to in self.waiting.keys() {
                due.entry(*to).or_default();
            }
        }
        for (to, messages) in &mut due {
            messages.extend(self.waiting.remove(to).unwrap_or_default());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;
    use raft::eraftpb::{Message, MessageType};

    use super::*;

    const NODE: NodeId = NodeId(2);
    const OTHER: NodeId = NodeId(3);

    fn message(kind: MessageType, context: &'static [u8]) -> PeerMessage {
        let mut message = Message { context: context.into(), ..Message::default() };
        message.set_msg_type(kind);
        PeerMessage::decode(&message.write_to_bytes().unwrap()).unwrap()
    }

    fn answer() -> PeerMessage {
        message(MessageType::MsgHeartbeatResponse, b"")
    }

    fn sent(mailing: &mut Mailing) -> Vec<(NodeId, usize)> {
        mailing.take().into_iter().map(|(to, messages)| (to, messages.len())).collect()
    }

    #[test]
    fn an_answer_to_a_heartbeat_waits_for_the_tick() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), answer());
        assert_eq!(sent(&mut mailing), []);
        mailing.tick();
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
        mailing.tick();
        assert_eq!(sent(&mut mailing), [], "it is sent once");
    }

    #[test]
    fn it_goes_along_with_what_does_not_wait_for_the_same_node() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), answer());
        mailing.add(OTHER, PartitionId(1), message(MessageType::MsgAppend, b""));
        assert_eq!(sent(&mut mailing), [(OTHER, 1)]);
        mailing.add(NODE, PartitionId(2), message(MessageType::MsgHeartbeat, b""));
        assert_eq!(sent(&mut mailing), [(NODE, 2)]);
    }

    #[test]
    fn the_answer_that_a_read_waits_for_goes_at_once() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), message(MessageType::MsgHeartbeatResponse, b"a read"));
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
    }

    #[test]
    fn a_peer_that_asks_without_end_fills_nothing() {
        let mut mailing = Mailing::default();
        (0..1_000).for_each(|_| mailing.add(NODE, PartitionId(1), answer()));
        mailing.tick();
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
    }
}
