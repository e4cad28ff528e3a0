//! The pieces of work that are counted. The same ones as of the micro benchmarks (`micro/`), with the batches of a busy server.

use std::hint::black_box;

use rove_benches::sample;
use rove_benches::work::{FanOut, Partition, decode_all};
use rove_core::store::MemoryStore;
use rove_protocol::message::{ConversationDown, ConversationUp, Message as _};

/// Posts of an entry, and events of a packet.
const BATCH: u64 = 64;
/// Members of a large conversation.
const MEMBERS: u64 = 100;

/// A name, the messages of each repetition, and the work: so many repetitions.
type Piece = (&'static str, u64, fn(u64));

const PIECES: [Piece; 6] = [
    ("post_encode", 1, post_encode),
    ("post_decode", 1, post_decode),
    ("event_decode", BATCH, event_decode),
    ("apply", BATCH, apply),
    ("dedup", BATCH, dedup),
    ("fan_out_to_100", 1, fan_out),
];

/// All of them, with their messages.
pub(crate) fn names() -> impl Iterator<Item = (&'static str, u64)> {
    PIECES.into_iter().map(|(name, messages, _)| (name, messages))
}

/// Runs one; false if there is none of that name.
pub(crate) fn run(name: &str, times: u64) -> bool {
    let piece = PIECES.into_iter().find(|(known, ..)| *known == name);
    piece.map(|(_, _, work)| work(times)).is_some()
}

fn post_encode(times: u64) {
    let (post, mut out) = (sample::post(1), Vec::with_capacity(1_024));
    for _ in 0..times {
        out.clear();
        black_box(&post).put_frame(&mut out);
        black_box(&out);
    }
}

fn post_decode(times: u64) {
    let frame = sample::post(1).to_frame();
    for _ in 0..times {
        decode_all(black_box(&frame), ConversationUp::decode, |message| drop(black_box(message)));
    }
}

fn event_decode(times: u64) {
    let mut bytes = Vec::new();
    (1..=BATCH).for_each(|seq| sample::event(seq).put_frame(&mut bytes));
    for _ in 0..times {
        decode_all(black_box(&bytes), ConversationDown::decode, |message| drop(black_box(message)));
    }
}

fn apply(times: u64) {
    let mut partition = Partition::with_a_group_of(2, MemoryStore::new());
    // As many however often it is: making them is not to be counted.
    let entries: Vec<_> = (0..crate::MANY).map(|_| partition.next_posts(BATCH)).collect();
    for entry in entries.iter().take(usize::try_from(times).unwrap_or(usize::MAX)) {
        let batch = partition.apply(entry);
        partition.write(&batch);
    }
}

fn dedup(times: u64) {
    let mut partition = Partition::with_a_group_of(2, MemoryStore::new());
    let entry = partition.next_posts(BATCH);
    let batch = partition.apply(&entry);
    partition.write(&batch);
    let again = partition.last_posts(BATCH);
    for _ in 0..times {
        let batch = partition.apply(&again);
        partition.write(&batch);
    }
}

fn fan_out(times: u64) {
    let mut conversation = FanOut::to(MEMBERS);
    (0..times).for_each(|_| conversation.publish());
}
