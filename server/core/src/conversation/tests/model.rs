//! Random commands against a model that is too simple to be wrong: maps and lists, no store, no rounds, no cache.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rove_protocol::ids::{AccountId, ConversationId, Seq, WriterId};
use rove_protocol::message::{Body, Post};
use rove_protocol::registry::{ErrorCode, EventKind, Role};

use super::support::*;
use crate::command::{Actor, ConversationCommand, ConversationOutcome};
use crate::conversation::read;

/// One thing somebody does.
#[derive(Debug, Clone)]
enum Act {
    /// Posts the number that is `offset` away from the next one.
    Post {
        who: u64,
        device: u64,
        writer: u8,
        group: bool,
        offset: i64,
        kind: EventKind,
        refers: u64,
        text: u8,
    },
    Change {
        who: u64,
        whom: u64,
        role: u32,
    },
    Read {
        who: u64,
        group: bool,
        seq: u64,
    },
    /// The machine is dropped and loaded again.
    Restart,
    Tick(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let kind = prop_oneof![
        6 => Just(EventKind::Message),
        1 => Just(EventKind::Void),
        1 => Just(EventKind::Edit),
        1 => Just(EventKind::Deletion),
        1 => Just(EventKind::Reaction),
        1 => Just(EventKind::MembersChanged),
    ];
    // Mostly the next number, sometimes a repeat (the same text: an honest one) or a number out of turn.
    let offset = prop_oneof![6 => Just(0i64), 2 => Just(-1i64), 1 => -70..0i64, 1 => 1..3i64];
    let post = (1..5u64, 0..2u64, 0..3u8, any::<bool>(), offset, kind, 0..8u64, 0..4u8).prop_map(
        |(who, device, writer, group, offset, kind, refers, text)| Act::Post {
            who,
            device,
            writer,
            group,
            offset,
            kind,
            refers,
            text,
        },
    );
    prop_oneof![
        20 => post,
        4 => (1..5u64, 1..5u64, 0..5u32).prop_map(|(who, whom, role)| Act::Change { who, whom, role }),
        3 => (1..5u64, any::<bool>(), 0..60u64).prop_map(|(who, group, seq)| Act::Read { who, group, seq }),
        1 => Just(Act::Restart),
        1 => (0..5u64).prop_map(Act::Tick),
    ]
}

#[derive(Clone)]
struct Entry {
    kind: EventKind,
    author: AccountId,
}

/// A conversation in the model.
#[derive(Default)]
struct Talk {
    log: Vec<Entry>,
    /// Who is or was in it, as what, and the stays: first and last seq.
    members: BTreeMap<AccountId, (Role, Vec<(u64, u64)>)>,
    read: BTreeMap<AccountId, u64>,
    /// For each writer its device and, in order, the bytes and the decision about every number.
    writers: BTreeMap<WriterId, (u64, Vec<(Vec<u8>, Result<u64, ErrorCode>)>)>,
}

impl Talk {
    fn sees(&self, who: AccountId, seq: u64) -> bool {
        self.members[&who].1.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }

    /// What must be decided about the next number of a writer.
    fn decide(&self, who: AccountId, post: &Post) -> Result<(), ErrorCode> {
        let role = self.members[&who].0;
        if post.kind == EventKind::Void {
            return Err(ErrorCode::Cancelled);
        }
        if !role.may_post() {
            return Err(ErrorCode::Forbidden);
        }
        if post.kind == EventKind::MembersChanged {
            return Err(ErrorCode::InvalidArgument);
        }
        let seq = post.refers_to.0;
        if seq == 0 {
            return if post.kind == EventKind::Message { Ok(()) } else { Err(ErrorCode::InvalidArgument) };
        }
        if seq > self.log.len() as u64 || !self.sees(who, seq) {
            return Err(ErrorCode::InvalidArgument);
        }
        let target = &self.log[seq as usize - 1];
        let message = target.kind == EventKind::Message;
        match post.kind {
            EventKind::Edit | EventKind::Reaction if !message => Err(ErrorCode::InvalidArgument),
            EventKind::Edit if target.author != who => Err(ErrorCode::Forbidden),
            EventKind::Deletion if !message && target.kind != EventKind::Reaction => Err(ErrorCode::InvalidArgument),
            EventKind::Deletion if target.author != who && role < Role::Admin => Err(ErrorCode::Forbidden),
            _ => Ok(()),
        }
    }

    fn post(&mut self, actor: Actor, writer: WriterId, post: &Post) -> ConversationOutcome {
        let no = post.post_no.0;
        if !self.members.contains_key(&actor.account) {
            let own = self.writers.get(&writer).filter(|(device, _)| *device == actor.device.0);
            return refusal(no, ErrorCode::NotFound, false, own.map_or(1, |(_, all)| all.len() as u64 + 1));
        }
        if self.writers.get(&writer).is_some_and(|(device, _)| *device != actor.device.0) {
            return refusal(no, ErrorCode::WriterTaken, false, 1);
        }
        let last = self.writers.get(&writer).map_or(0, |(_, all)| all.len() as u64);
        let bytes = post.encode_body();
        if no > last + 1 {
            return refusal(no, ErrorCode::Gap, false, last + 1);
        }
        if no <= last {
            let (was, decided) = &self.writers[&writer].1[no as usize - 1];
            return match decided {
                _ if *was != bytes => refusal(no, ErrorCode::PostNoReused, false, last + 1),
                Ok(seq) => at(no, *seq),
                Err(code) => refusal(no, *code, true, last + 1),
            };
        }
        let decided = self.decide(actor.account, post).map(|()| {
            self.log.push(Entry { kind: post.kind, author: actor.account });
            self.stay_on();
            self.log.len() as u64
        });
        self.writers.entry(writer).or_insert((actor.device.0, Vec::new())).1.push((bytes, decided));
        match decided {
            Ok(seq) => at(no, seq),
            Err(code) => for_good(no, code),
        }
    }

    /// Whoever is in sees the newest event.
    fn stay_on(&mut self) {
        let head = self.log.len() as u64;
        for (role, stays) in self.members.values_mut() {
            if *role != Role::None {
                stays.last_mut().unwrap().1 = head;
            }
        }
    }

    fn change(&mut self, who: AccountId, whom: AccountId, role: Role) -> Option<ErrorCode> {
        let Some((own, _)) = self.members.get(&who) else { return Some(ErrorCode::NotFound) };
        let old = self.members.get(&whom).map_or(Role::None, |(role, _)| *role);
        if *own == Role::None {
            return Some(ErrorCode::Forbidden);
        }
        if old == role {
            return None;
        }
        let (own, high) = (*own, old.max(role) >= Role::Admin);
        let lowers_himself = who == whom && role < old;
        if !lowers_himself && (own < Role::Admin || (high && own != Role::Owner)) {
            return Some(ErrorCode::Forbidden);
        }
        let others = self.members.iter().filter(|(account, (role, _))| **account != whom && *role != Role::None);
        let owned = role == Role::Owner || others.clone().any(|(_, (role, _))| *role == Role::Owner);
        if !owned && (role != Role::None || others.count() > 0) {
            return Some(ErrorCode::Forbidden);
        }
        self.log.push(Entry { kind: EventKind::MembersChanged, author: who });
        let head = self.log.len() as u64;
        self.stay_on();
        let member = self.members.entry(whom).or_insert((Role::None, Vec::new()));
        if old == Role::None {
            member.1.push((head, head));
            // The present stay and the earlier ones that are remembered.
            let remembered = member.1.len().saturating_sub(crate::conversation::EARLIER_STAYS + 1);
            member.1.drain(..remembered);
            let read = self.read.entry(whom).or_insert(0);
            *read = (*read).max(head - 1);
        }
        member.0 = role;
        None
    }
}

fn at(no: u64, seq: u64) -> ConversationOutcome {
    ConversationOutcome::Posted(crate::command::PostedOutcome {
        post_no: rove_protocol::ids::PostNo(no),
        seq: Seq(seq),
        message_id: rove_protocol::ids::MessageId(0),
        time_ms: 0,
    })
}

/// The outcome without what the model does not know.
fn plain(outcome: ConversationOutcome) -> ConversationOutcome {
    match outcome {
        ConversationOutcome::Posted(posted) => at(posted.post_no.0, posted.seq.0),
        other => other,
    }
}

fn device(who: u64, device: u64) -> Actor {
    Actor { device: rove_protocol::ids::DeviceId(who * 10 + device), ..person(who) }
}

struct Play {
    world: World,
    ids: [ConversationId; 2],
    talks: [Talk; 2],
    /// Every acknowledgement so far: where, which post, which seq and name.
    acknowledged: BTreeMap<(usize, WriterId, u64), (Seq, rove_protocol::ids::MessageId)>,
}

impl Play {
    fn new() -> Self {
        let mut world = World::new();
        let ids =
            [world.direct(alice(), bob()), world.group(alice(), &[(bob(), Role::Member), (carol(), Role::Admin)])];
        let member = |who: Actor, role| (who.account, (role, vec![(1, 1)]));
        let talk = |members: Vec<_>| Talk {
            log: vec![Entry { kind: EventKind::Created, author: alice().account }],
            members: members.into_iter().collect(),
            read: BTreeMap::from([(alice().account, 1)]),
            ..Talk::default()
        };
        let direct = talk(vec![member(alice(), Role::Member), member(bob(), Role::Member)]);
        let group = talk(vec![member(alice(), Role::Owner), member(bob(), Role::Member), member(carol(), Role::Admin)]);
        Self { world, ids, talks: [direct, group], acknowledged: BTreeMap::new() }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Post { who, device: which, writer, group, offset, kind, refers, text } => {
                let (index, actor) = (usize::from(group), device(who, which));
                let writer = WriterId([writer; 16]);
                let next = self.talks[index].writers.get(&writer).map_or(1, |(_, all)| all.len() as i64 + 1);
                let no = (next + offset).max(1) as u64;
                let mut post = message(no, &format!("text {}", if offset < 0 { 0 } else { text }));
                post.kind = kind;
                post.refers_to = Seq(refers);
                // An honest repeat sends what it sent.
                if offset == -1
                    && let Some((bytes, _)) =
                        self.talks[index].writers.get(&writer).and_then(|(_, all)| all.get(no as usize - 1))
                {
                    post = Post::decode_body(bytes.clone().into()).unwrap();
                }
                let outcome = self.world.post_as(self.ids[index], actor, writer, &post);
                if let ConversationOutcome::Posted(posted) = outcome {
                    let name = (posted.seq, posted.message_id);
                    let first = *self.acknowledged.entry((index, writer, no)).or_insert(name);
                    assert_eq!(first, name, "I2: every acknowledgement of a post names the same event");
                }
                assert_eq!(plain(outcome), self.talks[index].post(actor, writer, &post), "{act:?}");
            }
            Act::Change { who, whom, role } => {
                let outcome = self.world.change(person(who), self.ids[1], &[(person(whom), Role(role))]);
                let expected = self.talks[1].change(AccountId(who), AccountId(whom), Role(role));
                match expected {
                    Some(code) => assert_eq!(outcome, failed(code), "{act:?}"),
                    None => assert_eq!(view(outcome).head.0, self.talks[1].log.len() as u64, "{act:?}"),
                }
            }
            Act::Read { who, group, seq } => {
                let talk = &mut self.talks[usize::from(group)];
                let conversation = self.ids[usize::from(group)];
                let command = ConversationCommand::MarkRead { conversation, account: AccountId(who), read: Seq(seq) };
                let outcome = self.world.run(command);
                let expected = match talk.members.get(&AccountId(who)) {
                    None => failed(ErrorCode::NotFound),
                    Some((Role::None, _)) => failed(ErrorCode::Forbidden),
                    Some(_) => {
                        let read = talk.read.entry(AccountId(who)).or_insert(0);
                        let new = seq.min(talk.log.len() as u64);
                        assert_eq!(self.world.effects.len(), usize::from(new > *read), "one effect when it moves");
                        *read = (*read).max(new);
                        ConversationOutcome::Done
                    }
                };
                assert_eq!(outcome, expected, "{act:?}");
            }
            Act::Restart => {
                self.world.machine = crate::conversation::PartitionMachine::load(&self.world.store, PARTITION).unwrap();
            }
            Act::Tick(ms) => self.world.now_ms = self.world.now_ms + ms - 2,
        }
    }

    /// What must hold at the end, read back from the store.
    fn check(&self) {
        for (index, (id, talk)) in self.ids.iter().zip(&self.talks).enumerate() {
            let events = self.world.events(*id);
            let row = self.world.conversation(*id);
            assert_eq!(row.head.0, talk.log.len() as u64);
            let mut numbers = BTreeSet::new();
            for (place, (event, entry)) in events.iter().zip(&talk.log).enumerate() {
                assert_eq!(event.seq.0, place as u64 + 1, "I3: dense");
                assert_eq!((event.kind, event.author), (entry.kind, entry.author));
                if event.post_no.0 > 0 {
                    assert!(numbers.insert((event.writer, event.post_no)), "I2: at most once");
                }
            }
            assert_eq!(events.len(), talk.log.len(), "I9: what was refused never appears");
            assert!(
                events
                    .windows(2)
                    .all(|pair| { pair[0].message_id < pair[1].message_id && pair[0].time_ms <= pair[1].time_ms })
            );
            for ((at, writer, no), (seq, name)) in &self.acknowledged {
                let event = if *at == index { &events[seq.0 as usize - 1] } else { continue };
                assert_eq!(
                    (event.writer, event.post_no.0, event.message_id),
                    (*writer, *no, *name),
                    "I1: there for good"
                );
            }
            let count = talk.members.values().filter(|(role, _)| *role != Role::None).count();
            assert_eq!(row.member_count as usize, count);
            assert_eq!(read::members(&self.world.store, PARTITION, *id, AccountId(0), 99).unwrap().len(), count);
            for (account, (role, stays)) in &talk.members {
                let member = read::member(&self.world.store, PARTITION, *id, *account).unwrap().unwrap();
                assert_eq!(member.role, *role);
                assert_eq!(member.read.0, talk.read.get(account).copied().unwrap_or(0));
                assert!(member.read <= row.head, "I11: never passes the head");
                for seq in 1..=row.head.0 {
                    let sees = stays.iter().any(|(first, last)| (*first..=*last).contains(&seq));
                    assert_eq!(member.may_see(Seq(seq)), sees, "{account} {seq}");
                }
            }
        }
        for round in [1, 5, usize::MAX] {
            let (store, machine) = self.world.replay(round);
            assert_eq!(machine.state_hash(), self.world.machine.state_hash(), "I8");
            assert_eq!(store.rows(), self.world.store.rows());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn whatever_people_do_the_machine_decides_as_the_model_and_the_invariants_hold(
        acts in proptest::collection::vec(act(), 1..250)
    ) {
        let mut play = Play::new();
        for act in &acts {
            play.act(act);
        }
        play.check();
    }

    #[test]
    fn arbitrary_bytes_are_an_error_or_an_entry_and_never_a_panic(data in proptest::collection::vec(any::<u8>(), 1..200)) {
        let mut world = World::new();
        world.direct(alice(), bob());
        let mut with_version = data.clone();
        with_version[0] = 1;
        for bytes in [data, with_version] {
            let mut machine = crate::conversation::PartitionMachine::load(&world.store, PARTITION).unwrap();
            let _ = machine.apply(&world.store, 2, &bytes, &mut Vec::new());
        }
    }
}
