//! A partition with one group, and the log it applies.

use std::ops::RangeInclusive;

use rove_core::command::{Actor, Batch, ConversationCommand, ConversationOutcome, Effect, Envelope, Origin};
use rove_core::conversation::PartitionMachine;
use rove_core::store::{StateStore, WriteBatch};
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PartitionId, WriterId};
use rove_protocol::limits;
use rove_protocol::message::Body as _;
use rove_protocol::registry::Role;

use crate::sample;

const OWNER: Actor = Actor { account: AccountId(1), device: DeviceId(1) };
const WRITER: WriterId = WriterId([5; 16]);
/// Members of a large group: as many as one request may make. It costs no more at apply, as nothing is written per member (D13).
pub const MANY: u64 = limits::MEMBERS_PER_REQUEST as u64;

/// A partition on any store.
pub struct Partition<S> {
    store: S,
    machine: PartitionMachine,
    group: ConversationId,
    index: u64,
    posts: u64,
    effects: Vec<Effect>,
}

#[expect(clippy::expect_used, reason = "a store of our own, and work that fails is to end")]
impl<S: StateStore> Partition<S> {
    /// With a group of so many members, in an empty store.
    ///
    /// # Panics
    /// If the store fails.
    pub fn with_a_group_of(members: u64, store: S) -> Self {
        let machine = PartitionMachine::load(&store, PartitionId(1)).expect("an empty partition");
        let nonce = [3; 16];
        let group = ConversationId::group(OWNER.account, nonce);
        let mut partition = Self { store, machine, group, index: 0, posts: 0, effects: Vec::new() };
        let members = (2..=members).map(|account| (AccountId(account), Role::Member)).collect();
        let create = ConversationCommand::CreateGroup { actor: OWNER, nonce, title: "bench".to_owned(), members };
        let created = partition.entry(&[create]);
        let batch = partition.apply(&created);
        partition.write(&batch);
        partition
    }

    /// An entry of the log with the writer's next `count` posts.
    pub fn next_posts(&mut self, count: u64) -> Vec<u8> {
        let numbers = self.posts + 1..=self.posts + count;
        self.posts += count;
        self.entry(&self.posts_of(numbers))
    }

    /// An entry with the writer's last `count` posts again, as after a lost connection.
    pub fn last_posts(&self, count: u64) -> Vec<u8> {
        self.entry(&self.posts_of(self.posts + 1 - count..=self.posts))
    }

    fn posts_of(&self, numbers: RangeInclusive<u64>) -> Vec<ConversationCommand> {
        let post = |number| ConversationCommand::Post {
            conversation: self.group,
            actor: OWNER,
            writer: WRITER,
            post: sample::post(number).encode_body().into(),
        };
        numbers.map(post).collect()
    }

    fn entry(&self, commands: &[ConversationCommand]) -> Vec<u8> {
        let envelope = |(ticket, command): (u64, &ConversationCommand)| Envelope {
            origin: Origin { node: NodeId(1), ticket },
            command: command.encode().into(),
        };
        let commands = (1..).zip(commands).map(envelope).collect();
        Batch { time_ms: sample::TIME_MS + self.index, commands }.encode()
    }

    /// Applies the next entry; what is to be written.
    ///
    /// # Panics
    /// If the store fails.
    pub fn apply(&mut self, entry: &[u8]) -> WriteBatch {
        self.index += 1;
        self.effects.clear();
        self.machine.apply(&self.store, self.index, entry, &mut self.effects).expect("an entry of our own");
        self.machine.take_batch()
    }

    /// Writes it.
    ///
    /// # Panics
    /// If the store fails.
    pub fn write(&self, batch: &WriteBatch) {
        self.store.write(batch).expect("a store that works");
    }

    /// How many posts the last entry appended, and to how many it gave an answer that they are in the log: more if they were there before.
    ///
    /// # Panics
    /// If anything was refused.
    pub fn outcome(&self) -> (usize, usize) {
        let events = self.effects.iter().filter(|effect| matches!(effect, Effect::Event { .. })).count();
        let answers = self.effects.iter().filter(|effect| match effect {
            Effect::Answer { outcome: ConversationOutcome::Posted(_), .. } => true,
            Effect::Answer { outcome: ConversationOutcome::Refused(_) | ConversationOutcome::Failed(_), .. } => {
                panic!("{effect:?}")
            }
            _ => false,
        });
        (events, answers.count())
    }
}

#[cfg(test)]
mod tests {
    use rove_core::store::MemoryStore;

    use super::*;

    #[test]
    fn posts_are_appended_once_and_answered_each_time() {
        let mut partition = Partition::with_a_group_of(MANY, MemoryStore::new());
        let posts = partition.next_posts(5);
        let batch = partition.apply(&posts);
        partition.write(&batch);
        assert_eq!(partition.outcome(), (5, 5));
        let again = partition.last_posts(3);
        partition.apply(&again);
        assert_eq!(partition.outcome(), (0, 3));
    }
}
