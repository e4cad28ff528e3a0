//! The end of a run: whether everything has come to rest, and what everybody has then.

use std::collections::BTreeMap;

use rove_core::conversation::read;
use rove_core::placement::ShardMap;
use rove_protocol::ids::{ConversationId, PartitionId, Seq};
use rove_protocol::message::{Body, Event};

use super::World;
use crate::client::{Client, message_of};
use crate::history::{ClientId, Record};
use crate::node::Node;

impl World {
    /// Whether nothing is on its way any more, and everybody has everything.
    pub(super) fn is_settled(&self) -> bool {
        if self.change.is_some() || !self.gates.are_open() {
            return false;
        }
        let mut indexes: BTreeMap<PartitionId, [u64; 3]> = BTreeMap::new();
        for node in self.all_present().filter(|node| !node.quarantined) {
            let Some(places) = node.status() else { return false };
            for (partition, place) in places {
                let known = *indexes.entry(partition).or_insert(place.indexes);
                let [last, committed, applied] = place.indexes;
                if known != place.indexes || last != applied || committed != applied || !place.idle {
                    return false;
                }
            }
        }
        self.clients.iter().all(|client| {
            client.is_done() && Some(client.cursor()) == self.head(client.conversation()) && client.cursor() > Seq(0)
        })
    }

    /// The head that the first node that runs knows.
    fn head(&self, conversation: ConversationId) -> Option<Seq> {
        let store = self.nodes.iter().find_map(Node::store)?;
        let partition = ShardMap::even(self.plan.partitions).of_conversation(conversation);
        read::conversation(store, partition, conversation).ok().flatten().map(|row| row.head)
    }

    /// Writes the final state of everything into the history.
    pub(super) fn read_everything(&mut self) {
        let mut records = Vec::new();
        let mut conversations: Vec<ConversationId> = self.clients.iter().map(Client::conversation).collect();
        conversations.sort_unstable();
        conversations.dedup();
        for node in &self.nodes {
            let Some(store) = node.store() else { continue };
            for conversation in &conversations {
                let partition = ShardMap::even(self.plan.partitions).of_conversation(*conversation);
                let events = read::events(store, partition, *conversation, Seq(1), Seq(u64::MAX - 1), usize::MAX);
                let decoded: Result<Vec<_>, String> = events.map_err(|error| error.to_string()).and_then(|events| {
                    let decode = |event: read::StoredEvent| {
                        let decoded = Event::decode_body(event.body).map_err(|error| error.to_string())?;
                        Ok((event.seq, message_of(&decoded)))
                    };
                    events.into_iter().map(decode).collect()
                });
                records.push(match decoded {
                    Ok(messages) => Record::FinalLog { node: node.id, conversation: *conversation, messages },
                    Err(error) => Record::Wrong { what: format!("node {}: {error}", node.id) },
                });
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            if Some(client.cursor()) == self.head(client.conversation()) {
                records.push(Record::ReadAll { client: ClientId(number as u64) });
            }
        }
        for record in records {
            self.record(record);
        }
    }

    /// How everything is, for who looks for the reason of a failure.
    pub(super) fn describe(&self) -> String {
        let mut lines = Vec::new();
        for node in &self.nodes {
            lines.push(format!("node {}: running {}, quarantined {}", node.id, node.is_running(), node.quarantined));
            for (partition, place) in node.status().unwrap_or_default() {
                lines.push(format!("  partition {partition}: {place:?}"));
            }
        }
        lines.extend(self.clients.iter().map(Client::trouble));
        lines.join("\n")
    }
}
