//! Raft messages of all lanes on their way to the transport: everything for one node in one frame, and what nobody waits for in the
//! frame of somebody else.
//!
//! A heartbeat and its answer say only that there is somebody, and the answer to news of a commit, or to anything else that brought no
//! entries, only what was said before. With a group's leaders spread over the nodes, and each group counting its ticks from when it was
//! elected, each of these would be a frame of its own, a packet, and a waking at either end. They go out together instead, with the next
//! frame that somebody waits for, or else with the next beat of the node, which is as often as a group's: nodes at rest say less, and
//! wake less often, and a post costs its leader two frames less. A leader that counts its followers does so over more than two beats, and
//! one that probes where a follower's log parts from its own waits a beat longer.
//!
//! And nodes at rest keep time with each other: the beat of one is answered with the other's own, if that would come soon anyhow. What they
//! say goes one after the other then, so that each packet acknowledges the one before, and the nodes wake together and seldom. The
//! one whose unit of time ends first sets the pace; when it falls silent the others are half a beat late once.

use std::collections::BTreeMap;

use rove_protocol::ids::{NodeId, PartitionId};

use crate::replica::{GroupMember, HEARTBEAT_TICKS, PeerMessage};

/// What may wait; of each, the last that a group says to a replica has all that those before it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Heartbeat,
    SignOfLife,
    Accepted,
}

/// What is to be sent, by node.
#[derive(Debug, Default)]
pub struct Mailing {
    due: BTreeMap<NodeId, Vec<(PartitionId, PeerMessage)>>,
    /// By the replica that it is for: of a node that is being rebuilt a group has two, for a while.
    waiting: BTreeMap<NodeId, BTreeMap<(PartitionId, GroupMember, Kind), PeerMessage>>,
    /// Term and index that each group here has accepted last, by whom it was said to.
    accepted: BTreeMap<(NodeId, PartitionId), (u64, u64)>,
    /// Since the last beat.
    ticks: usize,
    /// Whether that was an answer to another node's.
    answered: bool,
    /// Whether another node's has come since then.
    heard: bool,
}

impl Mailing {
    /// A message of a replica of `partition` for one on node `to`.
    pub fn add(&mut self, to: NodeId, partition: PartitionId, message: PeerMessage) {
        let said_before =
            message.accepts().is_some_and(|up_to| self.accepted.insert((to, partition), up_to) == Some(up_to));
        let kind = match () {
            () if message.is_heartbeat() => Kind::Heartbeat,
            () if message.is_sign_of_life() => Kind::SignOfLife,
            () if said_before => Kind::Accepted,
            () => return self.due.entry(to).or_default().push((partition, message)),
        };
        self.waiting.entry(to).or_default().insert((partition, message.to(), kind), message);
    }

    /// One unit of time has passed. With the beat, what waits has waited long enough.
    pub fn tick(&mut self) {
        self.ticks += 1;
    }

    /// A message of another node has come. If it is of its beat, this node's comes with what is sent next, unless the last one was in this
    /// unit of time.
    pub fn heard(&mut self, message: &PeerMessage) {
        self.heard |= message.is_heartbeat();
    }

    /// Whether this node's beat is now. After one that was an answer the next one waits longer, for the other node to be first again.
    fn beats(&mut self) -> bool {
        let own = self.ticks >= HEARTBEAT_TICKS + usize::from(self.answered);
        let answers = std::mem::take(&mut self.heard) && self.ticks > 0;
        if own || answers {
            (self.ticks, self.answered) = (0, !own);
        }
        own || answers
    }

    /// What is to be sent now, all that is for a node at once.
    pub fn take(&mut self) -> BTreeMap<NodeId, Vec<(PartitionId, PeerMessage)>> {
        let mut due = std::mem::take(&mut self.due);
        if self.beats() {
            for to in self.waiting.keys() {
                due.entry(*to).or_default();
            }
        }
        for (to, messages) in &mut due {
            let waited = self.waiting.remove(to).unwrap_or_default();
            messages.extend(waited.into_iter().map(|((partition, ..), message)| (partition, message)));
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

    fn accepted(term: u64, index: u64, reject: bool) -> PeerMessage {
        let mut message = Message { term, index, reject, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppendResponse);
        PeerMessage::decode(&message.write_to_bytes().unwrap()).unwrap()
    }

    fn beat(mailing: &mut Mailing) {
        (0..HEARTBEAT_TICKS).for_each(|_| mailing.tick());
    }

    fn sent(mailing: &mut Mailing) -> Vec<(NodeId, usize)> {
        mailing.take().into_iter().map(|(to, messages)| (to, messages.len())).collect()
    }

    #[test]
    fn heartbeats_of_all_groups_and_answers_to_them_wait_for_the_beat() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), answer());
        assert_eq!(sent(&mut mailing), []);
        mailing.tick();
        mailing.add(NODE, PartitionId(2), message(MessageType::MsgHeartbeat, b""));
        assert_eq!(sent(&mut mailing), [], "each group has a beat of its own, the node has one");
        mailing.tick();
        mailing.add(NODE, PartitionId(3), message(MessageType::MsgHeartbeat, b""));
        assert_eq!(sent(&mut mailing), [(NODE, 3)]);
        mailing.add(NODE, PartitionId(1), answer());
        beat(&mut mailing);
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
        beat(&mut mailing);
        assert_eq!(sent(&mut mailing), [], "it is sent once");
    }

    #[test]
    fn a_beat_is_answered_with_a_beat_once_in_a_unit_of_time() {
        let heartbeat = message(MessageType::MsgHeartbeat, b"");
        let mut mailing = Mailing::default();
        let hears = |mailing: &mut Mailing, heard: &PeerMessage| {
            mailing.add(NODE, PartitionId(1), answer());
            mailing.heard(heard);
            sent(mailing).len()
        };
        assert_eq!(hears(&mut mailing, &heartbeat), 0, "no time has passed since this node's own");
        mailing.tick();
        assert_eq!(hears(&mut mailing, &answer()), 0, "an answer is none");
        assert_eq!(hears(&mut mailing, &heartbeat), 1);
        assert_eq!(hears(&mut mailing, &heartbeat), 0);
        mailing.tick();
        assert_eq!(hears(&mut mailing, &heartbeat), 1);
    }

    #[test]
    fn a_node_that_answered_lets_the_other_be_first_and_beats_by_itself_if_that_is_silent() {
        let mut mailing = Mailing::default();
        mailing.tick();
        mailing.heard(&message(MessageType::MsgHeartbeat, b""));
        assert_eq!(sent(&mut mailing), []);
        mailing.add(NODE, PartitionId(1), answer());
        let beats: Vec<bool> = (0..7)
            .map(|_| {
                mailing.tick();
                mailing.add(NODE, PartitionId(1), answer());
                !sent(&mut mailing).is_empty()
            })
            .collect();
        assert_eq!(beats, [false, false, true, false, true, false, true], "later once, then as ever");
    }

    /// Nodes whose units of time end so long after each other, and messages that take no time; when each has sent, in thousandths of
    /// a unit.
    fn at_rest<const NODES: usize>(offsets: [u32; NODES]) -> [Vec<u32>; NODES] {
        let mut nodes: [Mailing; NODES] = std::array::from_fn(|_| Mailing::default());
        let mut beats: [Vec<u32>; NODES] = std::array::from_fn(|_| Vec::new());
        for now in 0..100_000 {
            let mut turns: Vec<usize> = (0..NODES).filter(|node| now % 1_000 == offsets[*node]).collect();
            for node in &turns {
                nodes[*node].tick();
            }
            while let Some(node) = turns.pop() {
                let others = (0..NODES).filter(|other| *other != node);
                for other in others.clone() {
                    nodes[node].add(NodeId(other as u64), PartitionId(1), message(MessageType::MsgHeartbeat, b""));
                }
                if !nodes[node].take().is_empty() {
                    beats[node].push(now);
                    for other in others {
                        nodes[other].heard(&message(MessageType::MsgHeartbeat, b""));
                        turns.push(other);
                    }
                }
            }
        }
        beats
    }

    #[test]
    fn nodes_at_rest_beat_together_and_no_more_often_than_one_alone() {
        for offsets in [[0, 300, 700], [0, 1, 2], [0, 0, 0], [500, 0, 999]] {
            let beats = at_rest(offsets);
            let [first, ..] = &beats;
            assert!((49..=51).contains(&first.len()), "{offsets:?}: {first:?}");
            let together = |beats: &Vec<u32>| beats[5..].iter().all(|beat| first.contains(beat));
            assert!(beats.iter().all(together), "{offsets:?}: {beats:?}");
        }
    }

    #[test]
    fn it_goes_along_with_what_does_not_wait_for_the_same_node() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), answer());
        mailing.add(OTHER, PartitionId(1), message(MessageType::MsgAppend, b""));
        assert_eq!(sent(&mut mailing), [(OTHER, 1)]);
        mailing.add(NODE, PartitionId(2), message(MessageType::MsgAppend, b""));
        assert_eq!(sent(&mut mailing), [(NODE, 2)]);
    }

    #[test]
    fn what_a_read_waits_for_goes_at_once() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), message(MessageType::MsgHeartbeatResponse, b"a read"));
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
        mailing.add(NODE, PartitionId(1), message(MessageType::MsgHeartbeat, b"a read"));
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
    }

    #[test]
    fn that_entries_are_in_the_log_is_said_at_once_and_again_only_at_the_tick() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), accepted(3, 7, false));
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
        mailing.add(NODE, PartitionId(1), accepted(3, 7, false));
        assert_eq!(sent(&mut mailing), [], "that more is committed brings nothing to say");
        mailing.add(NODE, PartitionId(1), answer());
        beat(&mut mailing);
        assert_eq!(sent(&mut mailing), [(NODE, 2)], "neither takes the place of the other");
        mailing.add(NODE, PartitionId(1), accepted(3, 8, false));
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
    }

    #[test]
    fn what_another_leader_or_term_or_group_is_told_is_news_to_it() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), accepted(3, 7, false));
        mailing.add(NODE, PartitionId(2), accepted(3, 7, false));
        mailing.add(NODE, PartitionId(1), accepted(4, 7, false));
        mailing.add(OTHER, PartitionId(1), accepted(4, 7, false));
        assert_eq!(sent(&mut mailing), [(NODE, 3), (OTHER, 1)]);
    }

    #[test]
    fn both_replicas_of_a_node_that_is_being_rebuilt_are_sent_their_heartbeats() {
        let mut mailing = Mailing::default();
        for to in [3, (1 << 32) | 3] {
            let mut message = Message { to, ..Message::default() };
            message.set_msg_type(MessageType::MsgHeartbeat);
            mailing.add(OTHER, PartitionId(1), PeerMessage::decode(&message.write_to_bytes().unwrap()).unwrap());
        }
        beat(&mut mailing);
        assert_eq!(sent(&mut mailing), [(OTHER, 2)]);
    }

    #[test]
    fn a_refusal_never_waits() {
        let mut mailing = Mailing::default();
        mailing.add(NODE, PartitionId(1), accepted(3, 7, true));
        mailing.add(NODE, PartitionId(1), accepted(3, 7, true));
        assert_eq!(sent(&mut mailing), [(NODE, 2)]);
    }

    #[test]
    fn a_peer_that_asks_without_end_fills_nothing() {
        let mut mailing = Mailing::default();
        (0..1_000).for_each(|_| mailing.add(NODE, PartitionId(1), answer()));
        beat(&mut mailing);
        assert_eq!(sent(&mut mailing), [(NODE, 1)]);
    }
}
