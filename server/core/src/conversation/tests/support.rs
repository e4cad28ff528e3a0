//! People, and a partition they write to.

use bytes::Bytes;
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::message::{Body, Event, Post};
use rove_protocol::registry::{ContentType, ErrorCode, EventKind, Role};
use rove_protocol::wire::List;

use crate::command::{
    Actor, Batch, ConversationCommand, ConversationOutcome, ConversationView, Effect, Envelope, Origin, PostedOutcome,
    RefusedOutcome,
};
use crate::conversation::{ConversationRow, MemberRow, PartitionMachine, read};
use crate::store::{MemoryStore, StateStore};

pub(super) const PARTITION: PartitionId = PartitionId(2);

pub(super) fn person(number: u64) -> Actor {
    Actor { account: AccountId(number), device: DeviceId(number * 10) }
}

pub(super) fn alice() -> Actor {
    person(1)
}

pub(super) fn bob() -> Actor {
    person(2)
}

pub(super) fn carol() -> Actor {
    person(3)
}

pub(super) fn dave() -> Actor {
    person(4)
}

/// The writer that a device uses first.
pub(super) fn writer_of(actor: Actor) -> WriterId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&actor.device.0.to_be_bytes());
    WriterId(id)
}

pub(super) fn message(no: u64, text: &str) -> Post {
    Post {
        post_no: PostNo(no),
        kind: EventKind::Message,
        refers_to: Seq(0),
        content_type: ContentType::Text,
        crypto_epoch: 0,
        mentions: List::default(),
        body: Bytes::copy_from_slice(text.as_bytes()),
        extensions: Extensions::default(),
    }
}

pub(super) fn about(no: u64, kind: EventKind, seq: u64) -> Post {
    Post { kind, refers_to: Seq(seq), ..message(no, "about it") }
}

/// A partition, the store it writes to, and its log so far.
pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) machine: PartitionMachine,
    pub(super) log: Vec<Vec<u8>>,
    pub(super) now_ms: u64,
    /// What the last entry said, answers apart.
    pub(super) effects: Vec<Effect>,
}

impl World {
    pub(super) fn new() -> Self {
        let store = MemoryStore::new();
        let machine = PartitionMachine::load(&store, PARTITION).unwrap();
        Self { store, machine, log: Vec::new(), now_ms: 1_700_000_000_000, effects: Vec::new() }
    }

    /// Puts the commands into one entry, applies and writes it. One outcome for each.
    pub(super) fn entry(&mut self, commands: &[ConversationCommand]) -> Vec<ConversationOutcome> {
        let envelope = |(ticket, command): (usize, &ConversationCommand)| Envelope {
            origin: Origin { node: NodeId(1), ticket: ticket as u64 + 1 },
            command: command.encode().into(),
        };
        let batch = Batch { time_ms: self.now_ms, commands: commands.iter().enumerate().map(envelope).collect() };
        self.log.push(batch.encode());
        let mut effects = Vec::new();
        self.machine.apply(&self.store, self.log.len() as u64, &self.log[self.log.len() - 1], &mut effects).unwrap();
        self.store.write(&self.machine.take_batch()).unwrap();
        let mut outcomes = Vec::new();
        self.effects.clear();
        for effect in effects {
            match effect {
                Effect::Answer { origin, outcome } => {
                    outcomes.push(outcome);
                    assert_eq!(origin, Origin { node: NodeId(1), ticket: outcomes.len() as u64 });
                }
                other => self.effects.push(other),
            }
        }
        assert_eq!(outcomes.len(), commands.len());
        outcomes
    }

    pub(super) fn run(&mut self, command: ConversationCommand) -> ConversationOutcome {
        self.entry(&[command]).remove(0)
    }

    pub(super) fn direct(&mut self, actor: Actor, peer: Actor) -> ConversationId {
        view(self.run(ConversationCommand::CreateDirect { actor, peer: peer.account })).conversation
    }

    /// A group of `owner` and of members with their roles.
    pub(super) fn group(&mut self, owner: Actor, members: &[(Actor, Role)]) -> ConversationId {
        let members = members.iter().map(|(actor, role)| (actor.account, *role)).collect();
        let create =
            ConversationCommand::CreateGroup { actor: owner, nonce: [5; 16], title: "ours".to_owned(), members };
        view(self.run(create)).conversation
    }

    pub(super) fn change(
        &mut self,
        actor: Actor,
        conversation: ConversationId,
        changes: &[(Actor, Role)],
    ) -> ConversationOutcome {
        let changes = changes.iter().map(|(actor, role)| (actor.account, *role)).collect();
        self.run(ConversationCommand::ChangeMembers { actor, conversation, changes })
    }

    pub(super) fn post(&mut self, conversation: ConversationId, actor: Actor, post: &Post) -> ConversationOutcome {
        self.post_as(conversation, actor, writer_of(actor), post)
    }

    pub(super) fn post_as(
        &mut self,
        conversation: ConversationId,
        actor: Actor,
        writer: WriterId,
        post: &Post,
    ) -> ConversationOutcome {
        self.run(post_command(conversation, actor, writer, post))
    }

    pub(super) fn say(&mut self, conversation: ConversationId, actor: Actor, no: u64, text: &str) -> PostedOutcome {
        posted(self.post(conversation, actor, &message(no, text)))
    }

    pub(super) fn conversation(&self, id: ConversationId) -> ConversationRow {
        read::conversation(&self.store, PARTITION, id).unwrap().unwrap()
    }

    pub(super) fn member(&self, id: ConversationId, actor: Actor) -> Option<MemberRow> {
        read::member(&self.store, PARTITION, id, actor.account).unwrap()
    }

    /// The whole log of a conversation, decoded.
    pub(super) fn events(&self, id: ConversationId) -> Vec<Event> {
        let stored = read::events(&self.store, PARTITION, id, Seq(1), Seq(u64::MAX), usize::MAX).unwrap();
        stored.into_iter().map(|event| Event::decode_body(event.body).unwrap()).collect()
    }

    /// A copy of the partition on another store, made by applying the log again, writing after every `round` entries.
    pub(super) fn replay(&self, round: usize) -> (MemoryStore, PartitionMachine) {
        let store = MemoryStore::new();
        let mut machine = PartitionMachine::load(&store, PARTITION).unwrap();
        for (index, data) in self.log.iter().enumerate() {
            machine.apply(&store, index as u64 + 1, data, &mut Vec::new()).unwrap();
            if (index + 1).is_multiple_of(round) {
                store.write(&machine.take_batch()).unwrap();
            }
        }
        store.write(&machine.take_batch()).unwrap();
        (store, machine)
    }
}

pub(super) fn post_command(
    conversation: ConversationId,
    actor: Actor,
    writer: WriterId,
    post: &Post,
) -> ConversationCommand {
    ConversationCommand::Post { conversation, actor, writer, post: post.encode_body().into() }
}

pub(super) fn view(outcome: ConversationOutcome) -> ConversationView {
    match outcome {
        ConversationOutcome::Conversation(view) => view,
        other => panic!("{other:?}"),
    }
}

pub(super) fn posted(outcome: ConversationOutcome) -> PostedOutcome {
    match outcome {
        ConversationOutcome::Posted(posted) => posted,
        other => panic!("{other:?}"),
    }
}

/// A refusal that uses the number up.
pub(super) fn for_good(no: u64, code: ErrorCode) -> ConversationOutcome {
    refusal(no, code, true, no + 1)
}

pub(super) fn refusal(no: u64, code: ErrorCode, consumed: bool, expected: u64) -> ConversationOutcome {
    let (post_no, expected) = (PostNo(no), PostNo(expected));
    ConversationOutcome::Refused(RefusedOutcome { post_no, code, consumed, expected })
}

pub(super) fn failed(code: ErrorCode) -> ConversationOutcome {
    ConversationOutcome::Failed(code)
}
