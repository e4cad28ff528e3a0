//! Single steps of the outbox that the simulation takes too seldom, or that it would not notice.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use rove_client_core::outbox::{CancelResult, Change, Draft, Effects, Item, Outbox, Outcome};
use rove_client_core::timeline::LocalId;
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{AccountId, DeviceId, MessageId, PostNo, PostTag, Seq, WriterId};
use rove_protocol::message::{Event, Posted, Refused};
use rove_protocol::registry::{ContentType, ErrorCode, EventKind};

const WRITER: WriterId = WriterId([1; 16]);
const OTHER: WriterId = WriterId([2; 16]);

fn hello() -> Draft {
    Draft::text(EventKind::Message, Seq(0), "hello")
}

fn name(number: u8) -> (LocalId, PostTag) {
    (LocalId(number.into()), PostTag([number; 16]))
}

fn item(number: u8, post_no: Option<u64>) -> Item {
    let (local, tag) = name(number);
    let number = post_no.map(PostNo);
    Item { local, tag: Some(tag), writer: WRITER, number, draft: hello(), created_ms: 0, void: None }
}

/// An outbox as it is after a restart, its stream open.
fn restarted(items: &[Item], last: u64, head: u64) -> Outbox {
    let mut outbox = Outbox::new(WRITER, 10);
    let mut effects = Effects::default();
    for item in items {
        if let Some(number) = item.number {
            outbox.restore_number(item.writer, number);
        }
        outbox.restore_item(item.clone(), None);
    }
    outbox.stream_opening(64);
    outbox.stream_opened(PostNo(last), Seq(head), &mut effects);
    assert_eq!(effects, Effects::default());
    outbox
}

fn event(seq: u64, (writer, post_no): (WriterId, u64), tag: PostTag) -> Event {
    Event {
        seq: Seq(seq),
        message_id: MessageId(seq),
        time_ms: seq,
        kind: EventKind::Message,
        author: AccountId(1),
        device: DeviceId(1),
        writer,
        post_no: PostNo(post_no),
        refers_to: Seq(0),
        content_type: ContentType::Text,
        crypto_epoch: 0,
        mentions: Vec::new().into(),
        body: "hello".into(),
        extensions: Extensions::with_tag(Some(tag)),
    }
}

/// Numbers, stores and sends what may be sent.
fn sent(outbox: &mut Outbox) -> Vec<u64> {
    outbox.number(&mut Effects::default());
    outbox.stored(outbox.numbered());
    std::iter::from_fn(|| outbox.next_to_send(0)).map(|post| post.post_no.0).collect()
}

fn posted(seq: u64) -> Outcome {
    Outcome::Posted { seq: Seq(seq), message_id: MessageId(seq), time_ms: seq }
}

#[test]
fn a_number_given_on_a_stream_that_was_cut_off_is_stored_and_sent_on_the_next() {
    let mut outbox = restarted(&[], 0, 0);
    let mut effects = Effects::default();
    outbox.enqueue(name(1), hello(), 0, &mut effects).unwrap();
    assert!(outbox.awaits_storing());

    // Before anybody said that the number is durable.
    outbox.stream_lost();
    outbox.stream_opening(64);
    outbox.stream_opened(PostNo(0), Seq(0), &mut effects);
    let mut again = Effects::default();
    outbox.number(&mut again);
    assert!(again.changes.is_empty(), "it has its number already");
    assert!(outbox.awaits_storing(), "and that is still to be stored");
    assert!(outbox.next_to_send(0).is_none(), "so it is not sent");

    outbox.stored(outbox.numbered());
    assert!(!outbox.awaits_storing());
    assert_eq!(outbox.next_to_send(0).map(|post| post.post_no), Some(PostNo(1)));
}

#[test]
fn a_number_that_was_never_stored_is_given_up_with_its_writer() {
    let mut outbox = restarted(&[], 0, 0);
    let mut effects = Effects::default();
    outbox.enqueue(name(1), hello(), 0, &mut effects).unwrap();
    outbox.stream_lost();
    outbox.set_writer(OTHER, &mut effects);
    outbox.stream_opening(64);
    outbox.stream_opened(PostNo(0), Seq(0), &mut effects);
    assert_eq!((outbox.open_writer(), sent(&mut outbox)), (OTHER, vec![1]));
}

#[test]
fn what_was_queued_in_this_run_waits_for_no_part_of_the_log() {
    let mut outbox = restarted(&[], 0, 1_000);
    outbox.enqueue(name(1), hello(), 0, &mut Effects::default()).unwrap();
    assert_eq!(sent(&mut outbox), [1], "as soon as the stream is open");
    outbox.stream_lost();
    outbox.stream_opening(64);
    assert_eq!(sent(&mut outbox), [1], "and again in the same flight as Open");
}

#[test]
fn what_was_queued_before_this_run_waits_for_the_head_and_holds_back_what_follows() {
    for number in [None, Some(1)] {
        let mut outbox = restarted(&[item(1, number)], 0, 9);
        let mut effects = Effects::default();
        outbox.enqueue(name(2), hello(), 0, &mut effects).unwrap();
        outbox.caught_up(Seq(8), &mut effects);
        assert_eq!(sent(&mut outbox), []);
        outbox.caught_up(Seq(9), &mut effects);
        assert_eq!(sent(&mut outbox), [1, 2]);
        assert!(!effects.needs_writer);
    }
}

#[test]
fn an_event_with_the_tag_is_the_post_whatever_its_number_and_leaves_with_the_cursor() {
    for number in [None, Some(1)] {
        let mut outbox = restarted(&[item(1, number)], 0, 9);
        let mut effects = Effects::default();
        outbox.own_event(&event(9, (OTHER, 5), name(1).1), &mut effects);
        assert_eq!(effects.resolved, [(LocalId(1), posted(9))]);
        assert_eq!(effects.changes, [Change::Remove(LocalId(1))]);
        assert!(outbox.is_empty());
        assert_eq!(effects.needs_writer, number.is_some(), "a number that is never used leaves a hole");
    }
}

#[test]
fn the_same_text_under_the_same_number_is_not_the_post() {
    let mut outbox = restarted(&[item(1, Some(1))], 1, 9);
    let mut effects = Effects::default();
    outbox.own_event(&event(9, (WRITER, 1), name(2).1), &mut effects);
    assert_eq!(effects, Effects::default());
    outbox.caught_up(Seq(9), &mut effects);
    assert_eq!(sent(&mut outbox), [1], "the server will say so");
}

#[test]
fn nothing_is_appended_while_a_post_before_it_does_not_know_whose_its_number_is() {
    let mut outbox = restarted(&[item(1, Some(1)), item(2, Some(2))], 1, 9);
    let mut effects = Effects::default();
    outbox.caught_up(Seq(9), &mut effects);
    assert_eq!(sent(&mut outbox), [1]);
    let code = ErrorCode::PostNoReused;
    let refused = Refused { post_no: PostNo(1), code, consumed: false, expected: PostNo(2), retry_after_ms: 0 };
    outbox.refused(&refused, 0, 0, &mut effects);
    assert!(effects.needs_writer);
    assert_eq!(sent(&mut outbox), []);
    outbox.set_writer(OTHER, &mut effects);
    assert!(outbox.wants_reopen());
    outbox.stream_opening(64);
    outbox.stream_opened(PostNo(0), Seq(9), &mut effects);
    assert_eq!((outbox.open_writer(), sent(&mut outbox)), (OTHER, vec![1, 2]));
}

#[test]
fn what_may_have_been_posted_is_only_cancelled_when_the_log_says_that_it_was_not() {
    for in_log in [false, true] {
        let mut outbox = restarted(&[item(1, None)], 0, 9);
        let mut effects = Effects::default();
        assert_eq!(outbox.cancel(LocalId(1), &mut effects), CancelResult::Requested);
        assert_eq!(effects.resolved, []);
        if in_log {
            outbox.own_event(&event(9, (OTHER, 1), name(1).1), &mut effects);
        }
        outbox.caught_up(Seq(9), &mut effects);
        let expected = if in_log { posted(9) } else { Outcome::Refused(ErrorCode::Cancelled) };
        assert_eq!(effects.resolved, [(LocalId(1), expected)]);
        assert_eq!(effects.changes.last(), Some(&Change::Remove(LocalId(1))));
        assert_eq!(sent(&mut outbox), []);
    }
}

#[test]
fn what_is_cancelled_too_late_is_posted_and_costs_no_writer() {
    let mut outbox = restarted(&[], 0, 0);
    let mut effects = Effects::default();
    outbox.enqueue(name(1), hello(), 0, &mut effects).unwrap();
    assert_eq!(sent(&mut outbox), [1]);
    outbox.stream_lost();
    assert_eq!(outbox.cancel(LocalId(1), &mut effects), CancelResult::Requested);
    outbox.stream_opening(64);
    outbox.stream_opened(PostNo(1), Seq(1), &mut effects);
    assert_eq!(outbox.next_to_send(0).map(|post| post.kind), Some(EventKind::Void));
    let code = ErrorCode::PostNoReused;
    let refused = Refused { post_no: PostNo(1), code, consumed: false, expected: PostNo(2), retry_after_ms: 0 };
    outbox.refused(&refused, 0, 0, &mut effects);
    assert_eq!(outbox.next_to_send(0).map(|post| post.kind), Some(EventKind::Message), "a repeat appends nothing");
    let answer = Posted { post_no: PostNo(1), seq: Seq(1), message_id: MessageId(1), time_ms: 1 };
    outbox.posted(&answer, &mut effects);
    assert_eq!(effects.resolved, [(LocalId(1), posted(1))]);
    assert!(!effects.needs_writer);
}

#[test]
fn a_flight_that_is_refused_is_one_refusal_however_many_posts_it_had() {
    let retry = |posts: u8| {
        let mut outbox = restarted(&[], 0, 0);
        let mut effects = Effects::default();
        for number in 1..=posts {
            outbox.enqueue(name(number), hello(), 0, &mut effects).unwrap();
        }
        for post_no in sent(&mut outbox) {
            let (code, post_no) = (ErrorCode::Unavailable, PostNo(post_no));
            let refused = Refused { post_no, code, consumed: false, expected: PostNo(1), retry_after_ms: 250 };
            outbox.refused(&refused, 0, 0, &mut effects);
        }
        outbox.retry_at_ms(0)
    };
    // Otherwise a node without a majority that turns away what is under way makes its clients wait for ten seconds at once.
    assert!(retry(1).is_some());
    assert_eq!(retry(10), retry(1));
}

fn gap(post_no: u64, expected: u64) -> Refused {
    let (post_no, expected) = (PostNo(post_no), PostNo(expected));
    Refused { post_no, code: ErrorCode::Gap, consumed: false, expected, retry_after_ms: 0 }
}

/// Two posts on their way.
fn two_in_flight() -> Outbox {
    let mut outbox = restarted(&[], 0, 0);
    for number in [1, 2] {
        outbox.enqueue(name(number), hello(), 0, &mut Effects::default()).unwrap();
    }
    assert_eq!(sent(&mut outbox), [1, 2]);
    outbox
}

// The first was turned away here, and came into the log behind the second by way of the node that the client was at before.
#[test]
fn a_gap_that_was_closed_before_the_answer_came_is_no_sign_that_the_server_forgot() {
    let (event, busy) = (event(1, (WRITER, 1), PostTag([1; 16])), Refused { code: ErrorCode::Busy, ..gap(1, 1) });
    let answer = Posted { post_no: PostNo(1), seq: Seq(1), message_id: MessageId(1), time_ms: 1 };
    let turned_away = |outbox: &mut Outbox, effects: &mut Effects| {
        outbox.refused(&busy, 0, 0, effects);
        outbox.own_event(&event, effects);
    };
    let unknown = |outbox: &mut Outbox, effects: &mut Effects| outbox.posted(&answer, effects);
    for first in [&turned_away as &dyn Fn(&mut Outbox, &mut Effects), &unknown] {
        let (mut outbox, mut effects) = (two_in_flight(), Effects::default());
        first(&mut outbox, &mut effects);
        outbox.refused(&gap(2, 1), 0, 0, &mut effects);
        assert!(!effects.needs_writer);
        assert_eq!(effects.resolved, [(LocalId(1), posted(1))]);
        assert_eq!(outbox.next_to_send(10_000).map(|post| post.post_no), Some(PostNo(2)), "it follows now");
    }
}

#[test]
fn a_gap_below_what_was_answered_before_the_post_was_sent_is_one_that_can_never_be_closed() {
    let (mut outbox, mut effects) = (two_in_flight(), Effects::default());
    for number in [1, 2] {
        let (post_no, seq) = (PostNo(number), Seq(number));
        outbox.posted(&Posted { post_no, seq, message_id: MessageId(number), time_ms: number }, &mut effects);
    }
    outbox.enqueue(name(3), hello(), 0, &mut effects).unwrap();
    assert_eq!(sent(&mut outbox), [3]);
    assert!(!effects.needs_writer);
    outbox.refused(&gap(3, 2), 0, 0, &mut effects);
    assert!(effects.needs_writer);
    assert_eq!(outbox.next_to_send(10_000), None, "not under this number");
}
