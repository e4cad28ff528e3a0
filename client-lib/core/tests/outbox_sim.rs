//! One client and one server, whose connection breaks, whose answers are lost, whose process is killed and whose
//! database is put back from old copies, of the present or of futures that were given up, with the file beside it or
//! without. Nothing accepted is lost, nothing is doubled, order is kept (I2, I4, I10). All posts say the same: what they
//! are is told by their tags alone.
//!
//! One thing is taken for granted: what a process has sent reaches the server before the next process asks for the head,
//! or never. What it has sent on a connection that is gone may reach the server while the next one is there.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test's model of small numbers")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use rove_client_core::outbox::{Change, Draft, Effects, Item, Outbox, Outcome};
use rove_client_core::sync::{Arrival, Held};
use rove_client_core::timeline::LocalId;
use rove_protocol::ids::{AccountId, DeviceId, MessageId, PostNo, PostTag, Seq, WriterId};
use rove_protocol::message::{Event, Post, Posted, Refused};
use rove_protocol::registry::{ErrorCode, EventKind};

/// A small generator, so that a failing run is its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// D7, as a model.
struct Server {
    /// One in so many posts is turned away.
    busy: u64,
    log: Vec<Event>,
    last: BTreeMap<WriterId, u64>,
    outcomes: BTreeMap<(WriterId, u64), (Post, Result<u64, ErrorCode>)>,
}

/// What is refused for good, and what everything else says.
const RUDE: &[u8] = b"rude";
const KIND: &str = "hello";

enum Answer {
    Posted(Posted),
    Refused(Refused),
}

impl Server {
    fn refused(post: &Post, code: ErrorCode, consumed: bool, expected: u64) -> Answer {
        let expected = PostNo(expected);
        Answer::Refused(Refused { post_no: post.post_no, code, consumed, expected, retry_after_ms: 0 })
    }

    fn posted(post: &Post, seq: u64) -> Answer {
        Answer::Posted(Posted { post_no: post.post_no, seq: Seq(seq), message_id: MessageId(seq), time_ms: seq })
    }

    fn post(&mut self, writer: WriterId, post: &Post, random: &mut Random) -> Answer {
        let number = post.post_no.0;
        let last = self.last.get(&writer).copied().unwrap_or(0);
        if number > last + 1 {
            return Self::refused(post, ErrorCode::Gap, false, last + 1);
        }
        if number <= last {
            return match &self.outcomes[&(writer, number)] {
                (first, _) if first != post => Self::refused(post, ErrorCode::PostNoReused, false, last + 1),
                (_, Ok(seq)) => Self::posted(post, *seq),
                (_, Err(code)) => Self::refused(post, *code, true, last + 1),
            };
        }
        if random.one_in(self.busy) {
            return Self::refused(post, ErrorCode::Busy, false, number);
        }
        self.last.insert(writer, number);
        let outcome = if post.kind == EventKind::Void {
            Err(ErrorCode::Cancelled)
        } else if &post.body[..] == RUDE {
            // The same post is refused in every future.
            Err(ErrorCode::Forbidden)
        } else {
            let seq = self.log.len() as u64 + 1;
            self.log.push(Event {
                seq: Seq(seq),
                message_id: MessageId(seq),
                time_ms: seq,
                kind: post.kind,
                author: AccountId(1),
                device: DeviceId(1),
                writer,
                post_no: post.post_no,
                refers_to: post.refers_to,
                content_type: post.content_type,
                crypto_epoch: post.crypto_epoch,
                mentions: post.mentions.clone(),
                body: post.body.clone(),
                extensions: post.extensions.clone(),
            });
            Ok(seq)
        };
        self.outcomes.insert((writer, number), (post.clone(), outcome));
        match outcome {
            Ok(seq) => Self::posted(post, seq),
            Err(code) => Self::refused(post, code, true, number + 1),
        }
    }
}

/// What is on the client's disk. A clone is a backup.
#[derive(Clone, Default)]
struct Disk {
    rows: BTreeMap<LocalId, (Item, Option<ErrorCode>)>,
    numbers: BTreeMap<WriterId, PostNo>,
    cursor: u64,
    writer: WriterId,
    counter: u64,
    next_local: u64,
    /// Everything that was queued in the past of this state, in order.
    past: Vec<u64>,
}

/// Which copies of the database are put back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copies {
    No,
    /// Of states the present one came from.
    Ancestors,
    /// Of any state there ever was.
    Any,
}

impl Disk {
    /// Whether what is stored is a state of this store as it is now, going by what lies beside it.
    fn matches(&self, beside: (WriterId, u64)) -> bool {
        (self.writer, self.counter) == beside
    }
}

/// The connection: its writer, posts under way, answers under way, and the last event sent.
type Connection = (WriterId, VecDeque<Post>, VecDeque<Answer>, u64);

struct Sim {
    random: Random,
    /// What earlier connections of this process have on their way to the server, if such things happen.
    late: Option<Vec<(WriterId, VecDeque<Post>)>>,
    server: Server,
    disk: Disk,
    /// With what lay beside the database then.
    backups: Vec<(Disk, (WriterId, u64))>,
    /// Beside the database: writer and counter.
    sidecar: (WriterId, u64),
    writers: u64,
    minted_elsewhere: u64,
    outbox: Outbox,
    held: Held,
    connection: Option<Connection>,
    next_text: u64,
    now_ms: u64,
    /// Texts whose handles said posted or refused.
    ended: BTreeMap<u64, Outcome>,
    texts: BTreeMap<LocalId, u64>,
    /// For each text, what was queued before it in the same past.
    before: BTreeMap<u64, Vec<u64>>,
    /// What somebody wanted back: a copy from before that posts it later, out of its order.
    wanted_back: BTreeSet<u64>,
    restores: u32,
    swallowable: u32,
}

fn tag(text: u64) -> PostTag {
    let mut tag = [0xaa; 16];
    tag[..8].copy_from_slice(&text.to_be_bytes());
    PostTag(tag)
}

/// The number a test gave to a post.
fn text_of(tag: Option<PostTag>) -> u64 {
    u64::from_be_bytes(tag.unwrap().0[..8].try_into().unwrap())
}

impl Sim {
    fn new(seed: u64) -> Self {
        let writer = WriterId([1; 16]);
        let disk = Disk { writer, next_local: 1, ..Disk::default() };
        Self {
            random: Random(seed | 1),
            late: None,
            server: Server { busy: 12, log: Vec::new(), last: BTreeMap::new(), outcomes: BTreeMap::new() },
            disk,
            backups: Vec::new(),
            sidecar: (writer, 0),
            writers: 1,
            minted_elsewhere: 0,
            outbox: Outbox::new(writer, 1_000),
            held: Held::default(),
            connection: None,
            next_text: 1,
            now_ms: 0,
            ended: BTreeMap::new(),
            texts: BTreeMap::new(),
            before: BTreeMap::new(),
            wanted_back: BTreeSet::new(),
            restores: 0,
            swallowable: 0,
        }
    }

    /// What a connection has on its way when it is lost may arrive late, and the server is busier: so posts often get into the log
    /// by another way than that on which they were turned away.
    fn with_late_posts(mut self) -> Self {
        self.server.busy = 3;
        Self { late: Some(Vec::new()), ..self }
    }

    /// Stores what a step asked for. A commit that gives numbers is counted in the database and beside it.
    fn commit(&mut self, effects: Effects) {
        let numbering =
            effects.changes.iter().any(|change| matches!(change, Change::Put(item) if item.number.is_some()));
        if numbering {
            self.sidecar.1 += 1;
            self.disk.counter = self.sidecar.1;
        }
        for change in effects.changes {
            match change {
                Change::Put(item) => {
                    if let Some(number) = item.number {
                        let last = self.disk.numbers.entry(item.writer).or_default();
                        *last = number.max(*last);
                    }
                    self.disk.rows.insert(item.local, (item, None));
                }
                Change::Refused(local, code) => {
                    if let Some(row) = self.disk.rows.get_mut(&local) {
                        row.1 = Some(code);
                    }
                }
                Change::Remove(local) => {
                    self.disk.rows.remove(&local);
                }
            }
        }
        self.disk.cursor = self.held.cursor.0;
        for (local, outcome) in effects.resolved {
            let text = self.texts[&local];
            assert!(self.ended.insert(text, outcome).is_none(), "text {text} ended twice");
        }
        if effects.needs_writer {
            self.mint();
        }
    }

    fn mint(&mut self) {
        self.writers += 1;
        let mut writer = [0; 16];
        writer[..8].copy_from_slice(&self.writers.to_be_bytes());
        let writer = WriterId(writer);
        self.disk.writer = writer;
        self.sidecar = (writer, self.disk.counter);
        let mut effects = Effects::default();
        self.outbox.set_writer(writer, &mut effects);
        self.commit(effects);
    }

    fn queue(&mut self) {
        let local = LocalId(self.disk.next_local);
        self.disk.next_local += 1;
        let text = self.next_text;
        self.next_text += 1;
        self.texts.insert(local, text);
        self.before.insert(text, self.disk.past.clone());
        self.disk.past.push(text);
        let mut effects = Effects::default();
        let mut draft = Draft::text(EventKind::Message, Seq(0), KIND);
        if text % 10 == 7 {
            draft.body = RUDE.into();
        }
        self.outbox.enqueue((local, tag(text)), draft, self.now_ms, &mut effects).unwrap();
        self.store_numbers(effects);
    }

    /// Makes numbers durable. Anything may come in between.
    fn store_numbers(&mut self, effects: Effects) {
        let numbered = self.outbox.numbered();
        if effects.changes.is_empty() && !self.outbox.awaits_storing() {
            return;
        }
        match self.random.below(40) {
            // The stream, and with it whoever waited for the disk, is cut off. What was on its way to the disk gets there.
            0 => {
                let delivered = self.random.below(4) as usize;
                self.disconnect(delivered);
                self.commit(effects);
            }
            // The process is killed: before, or after.
            1 => self.restart(self.disk.clone()),
            2 => {
                self.commit(effects);
                self.restart(self.disk.clone());
            }
            // Another conversation has found the writer in use, and somebody else has written the changes.
            3 => {
                self.commit(effects);
                self.mint();
                self.minted_elsewhere += 1;
                self.outbox.stored(numbered);
            }
            _ => {
                self.commit(effects);
                self.outbox.stored(numbered);
            }
        }
    }

    fn connect(&mut self) {
        self.outbox.stream_opening(64);
        let writer = self.outbox.open_writer();
        self.connection = Some((writer, VecDeque::new(), VecDeque::new(), self.held.cursor.0));
        // Sometimes a few posts go in the same flight as Open.
        for _ in 0..self.random.below(3) {
            self.send();
        }
        let last = self.server.last.get(&writer).copied().unwrap_or(0);
        let head = Seq(self.server.log.len() as u64);
        self.held.opened(head, 1);
        let mut effects = Effects::default();
        self.outbox.stream_opened(PostNo(last), head, &mut effects);
        self.outbox.caught_up(self.held.cursor, &mut effects);
        self.commit(effects);
    }

    /// As many of the posts under way as given have reached the server; nobody hears the answers.
    fn disconnect(&mut self, delivered: usize) {
        if let Some((writer, posts, ..)) = self.connection.take() {
            let posts: VecDeque<Post> = posts.into_iter().take(delivered).collect();
            match &mut self.late {
                Some(late) if self.random.one_in(2) => late.push((writer, posts)),
                _ => {
                    for post in &posts {
                        self.server.post(writer, post, &mut self.random);
                    }
                }
            }
        }
        self.outbox.stream_lost();
    }

    /// The next post of some connection that is gone reaches the server. False if there is none.
    fn arrive_late(&mut self) -> bool {
        let Some(late) = self.late.as_mut().filter(|late| !late.is_empty()) else { return false };
        let which = self.random.below(late.len() as u64) as usize;
        let (writer, posts) = &mut late[which];
        match posts.pop_front() {
            Some(post) => _ = self.server.post(*writer, &post, &mut self.random),
            None => _ = late.swap_remove(which),
        }
        true
    }

    fn send(&mut self) -> bool {
        let mut effects = Effects::default();
        self.outbox.number(&mut effects);
        self.store_numbers(effects);
        if self.connection.is_none() {
            return false;
        }
        let Some(post) = self.outbox.next_to_send(self.now_ms) else {
            let reopen = self.outbox.wants_reopen();
            if reopen {
                self.disconnect(usize::MAX);
                self.connect();
            }
            return reopen;
        };
        if let Some((_, posts, ..)) = &mut self.connection {
            posts.push_back(post);
        }
        true
    }

    /// One step of the server or of the network.
    fn work(&mut self) -> bool {
        if self.late.is_some() && self.random.one_in(4) && self.arrive_late() {
            return true;
        }
        let random = self.random.next();
        let Some((writer, posts, back, told)) = &mut self.connection else { return false };
        if !random.is_multiple_of(3)
            && let Some(post) = posts.pop_front()
        {
            let answer = self.server.post(*writer, &post, &mut self.random);
            back.push_back(answer);
            return true;
        }
        let mut effects = Effects::default();
        // Events and answers come in either order.
        let event_first = random.is_multiple_of(2) || back.is_empty();
        if event_first && (*told as usize) < self.server.log.len() {
            let event = self.server.log[*told as usize].clone();
            *told += 1;
            if self.held.event(event.seq) == Arrival::Append {
                self.outbox.own_event(&event, &mut effects);
            }
        } else {
            match back.pop_front() {
                Some(Answer::Posted(posted)) => self.outbox.posted(&posted, &mut effects),
                Some(Answer::Refused(refused)) => {
                    self.outbox.refused(&refused, self.now_ms, random, &mut effects);
                }
                None => return !posts.is_empty(),
            }
        }
        self.outbox.caught_up(self.held.cursor, &mut effects);
        self.commit(effects);
        if self.outbox.wants_reopen() {
            self.disconnect(usize::MAX);
            self.connect();
        }
        true
    }

    /// The process is killed and started again, perhaps on an old copy of its database.
    fn restart(&mut self, disk: Disk) {
        let delivered = self.random.below(6) as usize;
        self.disconnect(delivered);
        while self.arrive_late() {}
        self.disk = disk;
        let mut outbox = Outbox::new(self.disk.writer, 1_000);
        for (writer, last) in &self.disk.numbers {
            outbox.restore_number(*writer, *last);
        }
        self.texts.clear();
        for (item, refused) in self.disk.rows.values() {
            let text = text_of(item.tag);
            self.texts.insert(item.local, text);
            // Nobody remembers having been told.
            self.ended.remove(&text);
            if let Some(code) = refused {
                self.ended.insert(text, Outcome::Refused(*code));
            }
            outbox.restore_item(item.clone(), *refused);
        }
        self.outbox = outbox;
        self.held = Held { cursor: Seq(self.disk.cursor), epoch: 1, ..Held::default() };
        if !self.disk.matches(self.sidecar) {
            self.mint();
        }
    }

    fn put_back(&mut self, copies: Copies) {
        let which = self.random.below(self.backups.len() as u64) as usize;
        let (disk, beside) = self.backups[which].clone();
        if copies == Copies::Ancestors {
            self.backups.truncate(which + 1);
        }
        self.restores += 1;
        if self.random.one_in(2) {
            self.sidecar = beside;
        }
        self.swallowable += u32::from(disk.matches(self.sidecar) && !disk.rows.is_empty());
        self.restart(disk);
    }

    fn cancel_one(&mut self) {
        let locals: Vec<LocalId> = self.texts.keys().copied().collect();
        if locals.is_empty() {
            return;
        }
        // The newest ones are the ones that are still to be had.
        let back = self.random.below(locals.len().min(20) as u64) as usize;
        let local = locals[locals.len() - 1 - back];
        self.wanted_back.insert(self.texts[&local]);
        let mut effects = Effects::default();
        self.outbox.cancel(local, &mut effects);
        self.commit(effects);
    }

    fn run(mut self, steps: u32, copies: Copies) -> Self {
        for _ in 0..steps {
            self.now_ms += 50;
            match self.random.below(100) {
                0..25 => self.queue(),
                25..50 => {
                    self.send();
                }
                50..88 => {
                    self.work();
                }
                88..92 if self.connection.is_none() => self.connect(),
                92 | 93 => {
                    let delivered = self.random.below(6) as usize;
                    self.disconnect(delivered);
                }
                94 if copies != Copies::No => self.backups.push((self.disk.clone(), self.sidecar)),
                95 => {
                    let disk = self.disk.clone();
                    self.restart(disk);
                }
                96 if copies != Copies::No && !self.backups.is_empty() && self.random.one_in(3) => {
                    self.put_back(copies);
                }
                97 => self.cancel_one(),
                98 | 99 => _ = self.arrive_late(),
                _ => {}
            }
        }
        // The last fault heals: everything must come to an end.
        while self.arrive_late() {}
        for _ in 0..100_000 {
            self.now_ms += 500;
            if self.connection.is_none() {
                self.connect();
            }
            let sent = self.send();
            let worked = self.work();
            if !sent && !worked && self.outbox.is_empty() && self.held.is_in_step() {
                break;
            }
        }
        self
    }

    fn check(&self) {
        assert!(self.outbox.is_empty(), "I10: everything ends; left: {:?}", self.outbox.pending());
        let log: Vec<u64> = self.server.log.iter().map(|event| text_of(event.extensions.tag())).collect();
        let place: BTreeMap<u64, usize> = log.iter().enumerate().map(|(place, text)| (*text, place)).collect();
        assert_eq!(place.len(), log.len(), "I2: a post is in the log twice: {log:?}");
        for (text, at) in &place {
            let last = self.before[text].iter().filter(|text| !self.wanted_back.contains(text));
            let last = last.filter_map(|text| place.get(text)).max();
            assert!(last < Some(at), "I4: {text} is before what was queued before it: {log:?}");
        }
        for (text, outcome) in &self.ended {
            match outcome {
                Outcome::Posted { seq, .. } => assert_eq!(log[seq.0 as usize - 1], *text, "I1"),
                Outcome::Refused(code) => assert!(!place.contains_key(text), "I9: {text} was refused: {code}"),
            }
        }
        for text in self.texts.values() {
            assert!(self.ended.contains_key(text), "I10: nobody was told how {text} ended");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn posts_are_neither_lost_nor_doubled_nor_reordered_across_reconnects_and_kills(seed: u64) {
        Sim::new(seed).run(600, Copies::No).check();
    }

    #[test]
    fn nor_when_what_was_sent_on_a_connection_that_is_gone_arrives_late(seed: u64) {
        Sim::new(seed).with_late_posts().run(1_500, Copies::No).check();
    }

    #[test]
    fn nor_when_old_copies_are_put_back_and_posts_arrive_late(seed: u64) {
        Sim::new(seed).with_late_posts().run(1_500, Copies::Any).check();
    }

    #[test]
    fn nor_when_the_store_is_put_back_from_old_copies(seed: u64) {
        Sim::new(seed).run(1_500, Copies::Ancestors).check();
    }

    #[test]
    fn nor_when_copies_of_futures_that_were_given_up_are_put_back(seed: u64) {
        Sim::new(seed).run(1_500, Copies::Any).check();
    }
}

/// Nobody else uses the writer, and the server forgets nothing.
#[test]
fn a_store_that_is_no_copy_keeps_its_writer_whatever_arrives_late() {
    for seed in 1..200 {
        let sim = Sim::new(seed * 104_729).with_late_posts().run(1_500, Copies::No);
        assert_eq!(sim.writers, 1 + sim.minted_elsewhere, "{seed}");
    }
}

#[test]
fn the_simulation_really_restores_copies_mints_writers_and_posts_much() {
    for copies in [Copies::Ancestors, Copies::Any] {
        let (mut restores, mut unnoticed, mut writers, mut posted) = (0, 0, 0, 0);
        for seed in 1..20 {
            let sim = Sim::new(seed * 7_919).run(1_500, copies);
            restores += sim.restores;
            unnoticed += sim.swallowable;
            writers += sim.writers;
            posted += sim.server.log.len();
        }
        let done = (restores, unnoticed, writers, posted);
        assert!(restores > 40 && unnoticed > 10 && writers > 60 && posted > 2_000, "{done:?}");
    }
}

/// A writer minted when everything had been seen already left the old one's posts waiting for ever.
#[test]
fn what_was_stuck_once_comes_to_an_end() {
    Sim::new(4_891_329_835_397_526_736).run(1_500, Copies::Ancestors).check();
}
