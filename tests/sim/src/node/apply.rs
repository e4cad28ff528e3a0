//! The state writer: applies what is committed, writes it, then tells whoever waits. Most of the planted bugs are here.

use rove_core::command::{Batch, ConversationCommand, ConversationOutcome, Effect, Envelope};
use rove_core::conversation::read;
use rove_core::placement::DIRECTORY;
use rove_core::replica::Committed;
use rove_core::store::{MemoryStore, Op, StateRead, StateStore};
use rove_protocol::ids::{NodeId, PartitionId};
use rove_protocol::message::{Body, Post};
use rove_protocol::registry::Role;

use super::directory::Machine;
use super::edge::Waiter;
use super::{Context, Running};
use crate::bugs::Bug;
use crate::history::Record;

/// The table of conversations in the keys of the state (their third byte).
const CONVERSATIONS: u8 = 2;

impl Running {
    pub(super) fn apply(
        &mut self,
        id: NodeId,
        partition: PartitionId,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        if partition == DIRECTORY {
            return self.apply_directory(id, context);
        }
        let Some(place) = self.places.get_mut(&partition) else { return Ok(()) };
        let Machine::Conversations(machine) = &mut place.machine else { return Ok(()) };
        place.applying = false;
        let mut effects = Vec::new();
        let (mut last_index, mut last_term) = (machine.applied(), 0);
        for entry in place.committed.drain(..) {
            let data = planted(id, partition, &entry.data, &self.store, context);
            machine.apply(&self.store, entry.index, &data, &mut effects).map_err(|error| error.to_string())?;
            (last_index, last_term) = (entry.index, entry.term);
            applied(id, partition, &entry, machine.state_hash(), context)?;
        }
        let mut batch = machine.take_batch();
        if context.bug == Some(Bug::SeqReused) {
            let store = &self.store;
            // The first one stays, or there would be no conversation at all.
            batch.ops.retain(|op| match op {
                Op::Put(key, _) => key.get(2) != Some(&CONVERSATIONS) || !matches!(store.get(key), Ok(Some(_))),
                Op::Delete(_) => true,
            });
        }
        self.store.write(&batch).map_err(|error| error.to_string())?;
        self.unflushed.push(batch);
        self.publish(id, partition, effects, context)?;
        if let Some(place) = self.places.get_mut(&partition).filter(|_| last_term > 0) {
            place.lane.applied(last_index, last_term).map_err(|error| error.to_string())?;
        }
        self.serve(partition, context)
    }

    /// Tells who waits, and writes down what a watcher would see.
    fn publish(
        &mut self,
        id: NodeId,
        partition: PartitionId,
        effects: Vec<Effect>,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        let mut last_seq = None;
        for effect in effects {
            match effect {
                Effect::Answer { origin, outcome } if origin.node == id => {
                    if let Some(place) = self.places.get_mut(&partition) {
                        place.lane.answered(origin.ticket);
                    }
                    self.answer(id, origin.ticket, &outcome, context);
                }
                Effect::Answer { .. } => {}
                Effect::Event { seq, .. } => last_seq = Some(seq),
                Effect::Members { conversation, changes } => {
                    let seq = last_seq.ok_or("a change of members without its event")?;
                    for (account, role) in changes {
                        let inside = role != Role::None;
                        context.record(Record::Member { conversation, seq, account, inside });
                    }
                }
                Effect::Read { conversation, account, read } => {
                    let row = read::conversation(&self.store, partition, conversation);
                    let head = row.map_err(|error| error.to_string())?.map_or(read, |row| row.head);
                    let (client, node) = (None, Some(id));
                    context.record(Record::Receipt { client, node, conversation, account, read, head });
                    self.receipt(conversation, account, read, head, context);
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, id: NodeId, ticket: u64, outcome: &ConversationOutcome, context: &mut Context<'_>) {
        match self.tickets.remove(&ticket) {
            Some(Waiter::Session { session, .. }) => self.tell(session, outcome, context),
            Some(Waiter::Carrier) => self.carried(id, ticket, outcome, context),
            Some(Waiter::Operator) | None => {}
        }
    }
}

/// Writes down that an entry was applied, and what commands it holds if it was never applied before.
pub(super) fn applied(
    node: NodeId,
    partition: PartitionId,
    entry: &Committed,
    state: u64,
    context: &mut Context<'_>,
) -> Result<(), String> {
    let (index, term, digest) = (entry.index, entry.term, xxhash_rust::xxh3::xxh3_64(&entry.data));
    context.record(Record::Applied { node, partition, index, term, digest, state });
    let anywhere = context.applied_anywhere.entry(partition).or_default();
    if index > *anywhere {
        *anywhere = index;
        for origin in commands(&entry.data)?.iter().map(|envelope| envelope.origin) {
            context.record(Record::Command { partition, node: origin.node, ticket: origin.ticket });
        }
    }
    Ok(())
}

fn commands(data: &[u8]) -> Result<Vec<Envelope>, String> {
    if data.is_empty() {
        return Ok(Vec::new());
    }
    Ok(Batch::decode(data).map_err(|error| error.to_string())?.commands)
}

/// The entry as it is applied: itself, unless a bug is planted.
fn planted(
    id: NodeId,
    partition: PartitionId,
    data: &bytes::Bytes,
    store: &MemoryStore,
    context: &mut Context<'_>,
) -> bytes::Bytes {
    let Some(bug @ (Bug::OrderSwapped | Bug::DedupSkipped)) = context.bug else { return data.clone() };
    let Ok(mut batch) = Batch::decode(data) else { return data.clone() };
    if bug == Bug::DedupSkipped {
        batch.commands.iter_mut().for_each(|envelope| renumber(partition, envelope, store));
    } else if id == NodeId(2) {
        // Answers stay where they were: nobody notices at once.
        batch.commands.reverse();
    }
    batch.encode().into()
}

/// Makes the writer's next post of a repeated one.
fn renumber(partition: PartitionId, envelope: &mut Envelope, store: &MemoryStore) {
    let Ok(ConversationCommand::Post { conversation, actor, writer, post }) =
        ConversationCommand::decode(&envelope.command)
    else {
        return;
    };
    let Ok(mut decoded) = Post::decode_body(post) else { return };
    let last = read::last_post_no(store, partition, conversation, writer).unwrap_or_default();
    if decoded.post_no <= last {
        decoded.post_no = last.next();
    }
    let post = decoded.encode_body().into();
    envelope.command = ConversationCommand::Post { conversation, actor, writer, post }.encode().into();
}
