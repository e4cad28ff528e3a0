//! Single steps of the outbox that the simulation takes too seldom.

use rove_client_core::outbox::{Draft, Effects, Outbox};
use rove_client_core::timeline::LocalId;
use rove_protocol::ids::{PostNo, Seq, WriterId};
use rove_protocol::registry::EventKind;

#[test]
fn a_number_given_on_a_stream_that_was_cut_off_is_stored_and_sent_on_the_next() {
    let mut outbox = Outbox::new(WriterId([1; 16]), 10);
    let mut effects = Effects::default();
    outbox.stream_opening(64);
    outbox.stream_opened(PostNo(0), Seq(0), &mut effects);
    outbox.enqueue(LocalId(1), Draft::text(EventKind::Message, Seq(0), "hello"), 0, &mut effects).unwrap();
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
