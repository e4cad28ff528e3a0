//! A server may be newer than the client: its codes may be ones nobody here knows.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use rove_client_core::outbox::{Draft, Effects, Outbox, Outcome};
use rove_client_core::timeline::LocalId;
use rove_protocol::ids::{PostNo, PostTag, Seq, WriterId};
use rove_protocol::message::Refused;
use rove_protocol::registry::{ErrorCode, EventKind};

/// What becomes of a post that is refused: who is told what, and what is sent again when.
fn refused(code: ErrorCode, consumed: bool) -> (bool, Option<Outcome>, Option<PostNo>, Option<PostNo>) {
    let mut outbox = Outbox::new(WriterId([1; 16]), 10);
    let mut effects = Effects::default();
    outbox.stream_opening(64);
    outbox.stream_opened(PostNo(0), Seq(0), &mut effects);
    outbox.caught_up(Seq(0), &mut effects);
    outbox
        .enqueue((LocalId(1), PostTag([1; 16])), Draft::text(EventKind::Message, Seq(0), "hello"), 0, &mut effects)
        .unwrap();
    outbox.stored(outbox.numbered());
    let post = outbox.next_to_send(0).unwrap();
    let mut effects = Effects::default();
    let refused = Refused { post_no: post.post_no, code, consumed, expected: post.post_no, retry_after_ms: 500 };
    outbox.refused(&refused, 1_000, 0, &mut effects);
    let next = |outbox: &mut Outbox, now_ms| outbox.next_to_send(now_ms).map(|post| post.post_no);
    let told = effects.resolved.first().map(|(_, outcome)| *outcome);
    (effects.needs_writer, told, next(&mut outbox, 1_499), next(&mut outbox, 60_000))
}

#[test]
fn rove_5_0_1_a_post_refused_with_an_unknown_code_fares_as_with_internal() {
    let unknown = ErrorCode(0x7777);
    assert_eq!(unknown.name(), None);
    let again = (false, None, None, Some(PostNo(1)));
    assert_eq!(
        (refused(unknown, false), refused(ErrorCode::Internal, false)),
        (again, again),
        "it is sent again later"
    );
    let over = |code| (false, Some(Outcome::Refused(code)), None, None);
    assert_eq!(refused(unknown, true), over(unknown), "it is over, and whoever posted it is told");
    assert_eq!(refused(ErrorCode::Internal, true), over(ErrorCode::Internal));
}
