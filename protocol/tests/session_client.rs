//! What a server may send, and when; and what a client must not.
#![allow(clippy::wildcard_imports, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::messages::*;
use rove_protocol::error::Violation;
use rove_protocol::ids::{ConversationId, PostNo, RequestId, Seq};
use rove_protocol::limits;
use rove_protocol::message::{ControlDown, ConversationDown, FetchDown, InboxDown, InboxSynced, Limits, Welcome};
use rove_protocol::registry::{ErrorCode, FrameType};
use rove_protocol::session::Misuse;
use rove_protocol::session::client::{Control, Conversation, Fetch, Inbox};

fn welcomed() -> Control {
    let mut control = Control::new();
    control.on_frame(welcome().into()).unwrap();
    control
}

/// A conversation opened after `after`, whose head is 100.
fn open_after(after: u64) -> Conversation {
    let mut conversation = Conversation::new(Seq(after));
    conversation.on_frame(opened(100).into()).unwrap();
    conversation
}

fn out_of_state(frame: FrameType, when: &'static str) -> Violation {
    Violation::OutOfState { frame, when }
}

#[test]
fn rove_3_2_3_a_client_asks_nothing_before_welcome() {
    let mut control = Control::new();
    assert_eq!(control.sent(RequestId(1)), Err(Misuse::OutOfState("welcomed")));
    control.on_frame(welcome().into()).unwrap();
    assert_eq!(control.sent(RequestId(1)), Ok(()));
}

#[test]
fn rove_3_2_6_no_answer_comes_before_welcome_and_welcome_comes_once() {
    let early = Control::new().on_frame(response(1).into());
    assert_eq!(early, Err(out_of_state(FrameType::Response, "before Welcome")));
    assert_eq!(welcomed().on_frame(welcome().into()), Err(out_of_state(FrameType::Welcome, "after Welcome")));
}

#[test]
fn rove_3_2_7_an_answer_to_no_request_is_a_violation() {
    let mut control = welcomed();
    let violation = control.on_frame(response(5).into()).unwrap_err();
    assert_eq!(violation, Violation::Unasked { frame: FrameType::Response, number: 5 });
    assert_eq!(violation.code(), ErrorCode::FrameUnexpected);
    control.sent(RequestId(5)).unwrap();
    assert_eq!(control.on_frame(response(5).into()), Ok(response(5).into()));
    assert!(control.on_frame(response(5).into()).is_err());
}

#[test]
fn answers_to_requests_come_in_any_order() {
    let mut control = welcomed();
    for id in [1, 2, 3] {
        control.sent(RequestId(id)).unwrap();
    }
    for id in [3, 1, 2] {
        control.on_frame(response(id).into()).unwrap();
    }
    assert_eq!(control.unanswered(), 0);
}

#[test]
fn rove_3_2_5_a_client_keeps_to_the_requests_that_welcome_allows() {
    let mut control = Control::new();
    let few = Welcome { limits: Limits { requests: 2, ..Limits::default() }, ..welcome() };
    control.on_frame(few.into()).unwrap();
    control.sent(RequestId(1)).unwrap();
    assert_eq!(control.sent(RequestId(1)), Err(Misuse::Duplicate(1)));
    control.sent(RequestId(2)).unwrap();
    assert_eq!(control.sent(RequestId(3)), Err(Misuse::TooMany { what: "requests", limit: 2 }));
}

#[test]
fn rove_3_2_8_go_away_may_come_at_any_time_and_again() {
    let mut control = Control::new();
    assert!(control.on_frame(go_away().into()).is_ok());
    control.on_frame(welcome().into()).unwrap();
    assert!(control.on_frame(go_away().into()).is_ok());
    assert!(control.is_open(), "the session works until the deadline");
}

#[test]
fn rove_3_1_6_nothing_follows_closed_on_any_stream() {
    let code = ErrorCode::GoingAway;
    let mut control = Control::new();
    control.on_frame(closed(code).into()).unwrap();
    assert_eq!(control.on_frame(ControlDown::from(go_away())), Err(out_of_state(FrameType::GoAway, "after Closed")));
    assert_eq!(control.sent(RequestId(1)), Err(Misuse::OutOfState("welcomed")));

    let mut conversation = open_after(0);
    conversation.on_frame(closed(code).into()).unwrap();
    let late = conversation.on_frame(ConversationDown::from(event(1)));
    assert_eq!(late, Err(out_of_state(FrameType::Event, "after Closed")));
    assert_eq!(conversation.posted(PostNo(1)), Err(Misuse::OutOfState("open any more")));

    let mut inbox = Inbox::new();
    inbox.on_frame(closed(code).into()).unwrap();
    assert!(inbox.on_frame(InboxSynced { version: 1 }.into()).is_err());

    let mut stream = Fetch::new();
    stream.sent(&fetch(1)).unwrap();
    stream.on_frame(closed(code).into()).unwrap();
    assert_eq!(stream.on_frame(FetchDown::from(page(0, 0))), Err(out_of_state(FrameType::Page, "after Closed")));
    assert_eq!(stream.sent(&fetch(1)), Err(Misuse::OutOfState("open any more")));
}

#[test]
fn rove_3_4_6_opened_comes_first_and_once() {
    let early: [ConversationDown; 5] =
        [event(1).into(), unavailable(1, 1).into(), posted(1).into(), refused(1).into(), receipt().into()];
    for frame in early {
        let mut conversation = Conversation::new(Seq(0));
        conversation.posted(PostNo(1)).unwrap();
        let frame_type = frame.frame_type();
        assert_eq!(conversation.on_frame(frame), Err(out_of_state(frame_type, "before Opened")));
    }
    assert_eq!(open_after(0).on_frame(opened(100).into()), Err(out_of_state(FrameType::Opened, "after Opened")));
}

#[test]
fn a_conversation_that_cannot_be_opened_is_closed_instead() {
    let mut conversation = Conversation::new(Seq(0));
    assert!(conversation.on_frame(closed(ErrorCode::NotFound).into()).is_ok());
    assert!(!conversation.is_open());
}

#[test]
fn rove_6_2_1_seqs_follow_the_cursor_without_a_hole() {
    let mut conversation = open_after(4);
    for seq in 5..=7 {
        conversation.on_frame(event(seq).into()).unwrap();
        assert_eq!(conversation.cursor(), Seq(seq));
    }
    for (wrong, kind) in [(9, "a hole"), (7, "a repeat"), (1, "an old one"), (0, "none at all")] {
        let violation = conversation.clone().on_frame(event(wrong).into()).unwrap_err();
        assert_eq!(violation, Violation::SeqOrder { expected: 8, got: wrong }, "{kind}");
        assert_eq!(violation.code(), ErrorCode::FrameUnexpected);
    }
}

#[test]
fn rove_6_2_2_an_unavailable_range_moves_the_cursor_like_its_events() {
    let mut conversation = open_after(0);
    conversation.on_frame(unavailable(1, 40).into()).unwrap();
    assert_eq!(conversation.cursor(), Seq(40));
    conversation.on_frame(event(41).into()).unwrap();
    let violation = conversation.clone().on_frame(unavailable(43, 50).into()).unwrap_err();
    assert_eq!(violation, Violation::SeqOrder { expected: 42, got: 43 });
    conversation.on_frame(unavailable(42, 42).into()).unwrap();
    assert_eq!(conversation.cursor(), Seq(42));
}

#[test]
fn the_last_of_all_seqs_has_no_successor() {
    let mut conversation = open_after(0);
    conversation.on_frame(unavailable(1, u64::MAX).into()).unwrap();
    assert!(conversation.on_frame(event(u64::MAX).into()).is_err());
    assert!(conversation.on_frame(unavailable(u64::MAX, u64::MAX).into()).is_err());
}

#[test]
fn rove_6_2_3_a_head_below_the_cursor_is_a_violation() {
    let mut conversation = Conversation::new(Seq(101));
    assert_eq!(conversation.on_frame(opened(100).into()), Err(Violation::SeqOrder { expected: 101, got: 100 }));
    assert!(Conversation::new(Seq(100)).on_frame(opened(100).into()).is_ok());
}

#[test]
fn rove_3_4_7_an_answer_to_no_post_is_a_violation() {
    let mut conversation = open_after(0);
    let unasked = Violation::Unasked { frame: FrameType::Posted, number: 1 };
    assert_eq!(conversation.on_frame(posted(1).into()), Err(unasked.clone()));
    conversation.posted(PostNo(1)).unwrap();
    assert!(conversation.on_frame(posted(1).into()).is_ok());
    assert_eq!(conversation.on_frame(posted(1).into()), Err(unasked));
    let unasked = Violation::Unasked { frame: FrameType::Refused, number: 2 };
    assert_eq!(conversation.on_frame(refused(2).into()), Err(unasked));
}

#[test]
fn posts_sent_again_after_a_refusal_are_each_answered() {
    let mut conversation = Conversation::new(Seq(0));
    for number in [1, 2, 1] {
        conversation.posted(PostNo(number)).unwrap();
    }
    conversation.on_frame(opened(0).into()).unwrap();
    for answer in [refused(1).into(), ConversationDown::from(refused(2)), posted(1).into()] {
        conversation.on_frame(answer).unwrap();
    }
    assert_eq!(conversation.unanswered(), 0);
}

#[test]
fn rove_3_4_4_a_client_keeps_to_the_posts_that_may_be_unanswered() {
    let mut conversation = Conversation::new(Seq(0));
    for number in 1..=limits::UNANSWERED_POSTS as u64 {
        conversation.posted(PostNo(number)).unwrap();
    }
    let full = Misuse::TooMany { what: "posts", limit: limits::UNANSWERED_POSTS };
    assert_eq!(conversation.posted(PostNo(65)), Err(full));
    conversation.on_frame(opened(0).into()).unwrap();
    conversation.on_frame(posted(1).into()).unwrap();
    assert_eq!(conversation.posted(PostNo(65)), Ok(()));
}

#[test]
fn the_inbox_may_be_in_step_more_than_once() {
    let mut inbox = Inbox::new();
    assert!(!inbox.is_synced());
    for version in [3, 8] {
        inbox.on_frame(InboxDown::from(InboxSynced { version })).unwrap();
        assert!(inbox.is_synced());
    }
}

fn asked(limits: &[u32]) -> Fetch {
    let mut stream = Fetch::new();
    for limit in limits {
        stream.sent(&fetch(*limit)).unwrap();
    }
    stream
}

fn feed(stream: &mut Fetch, frames: impl IntoIterator<Item = FetchDown>) -> Result<(), Violation> {
    frames.into_iter().try_for_each(|frame| stream.on_frame(frame).map(drop))
}

#[test]
fn rove_3_5_2_pages_come_in_the_order_they_were_asked_for() {
    let mut stream = Fetch::new();
    stream.sent(&fetch(2)).unwrap();
    let mut other = fetch(2);
    other.conversation = ConversationId([9; 16]);
    stream.sent(&other).unwrap();
    let mut second = page(0, 0);
    second.conversation = other.conversation;
    let unasked = Violation::Unasked { frame: FrameType::Page, number: 0 };
    assert_eq!(stream.clone().on_frame(second.clone().into()), Err(unasked));
    feed(&mut stream, [event(8).into(), event(9).into(), page(8, 9).into(), second.into()]).unwrap();
    assert_eq!(stream.unanswered(), 0);
}

#[test]
fn rove_3_5_3_what_was_not_asked_for_is_a_violation() {
    for (frame, number) in [(FetchDown::from(event(3)), 3), (unavailable(4, 5).into(), 4), (page(0, 0).into(), 0)] {
        let frame_type = frame.frame_type();
        assert_eq!(Fetch::new().on_frame(frame), Err(Violation::Unasked { frame: frame_type, number }));
    }
}

#[test]
fn rove_6_6_1_a_page_accounts_for_each_of_its_seqs() {
    feed(&mut asked(&[9]), [unavailable(1, 4).into(), event(5).into(), unavailable(6, 6).into(), page(1, 6).into()])
        .unwrap();
    let hole = feed(&mut asked(&[9]), [event(5).into(), event(7).into()]);
    assert_eq!(hole, Err(Violation::SeqOrder { expected: 6, got: 7 }));
    let descending = feed(&mut asked(&[9]), [event(5).into(), event(4).into()]);
    assert_eq!(descending, Err(Violation::SeqOrder { expected: 6, got: 4 }));
    assert_eq!(feed(&mut asked(&[9]), [event(0).into()]), Err(Violation::SeqOrder { expected: 1, got: 0 }));
}

#[test]
fn rove_6_6_2_a_page_names_the_seqs_that_came() {
    let wrong_first = feed(&mut asked(&[9]), [event(5).into(), page(4, 5).into()]);
    assert_eq!(wrong_first, Err(Violation::SeqOrder { expected: 5, got: 4 }));
    let wrong_last = feed(&mut asked(&[9]), [event(5).into(), page(5, 6).into()]);
    assert_eq!(wrong_last, Err(Violation::SeqOrder { expected: 5, got: 6 }));
    let not_empty = feed(&mut asked(&[9]), [page(1, 1).into()]);
    assert_eq!(not_empty, Err(Violation::SeqOrder { expected: 0, got: 1 }));
}

#[test]
fn rove_6_6_3_a_page_has_no_more_events_than_asked_for() {
    let mut stream = asked(&[2, 1]);
    let more = feed(&mut stream.clone(), [event(1).into(), event(2).into(), event(3).into()]);
    assert_eq!(more, Err(Violation::Limit { what: "events in a page", limit: 2 }));
    // The count begins anew with each page.
    feed(&mut stream, [event(1).into(), event(2).into(), page(1, 2).into(), event(7).into(), page(7, 7).into()])
        .unwrap();
}

#[test]
fn rove_3_5_1_a_client_keeps_to_the_fetches_that_may_be_unanswered() {
    let mut stream = asked(&[1; limits::FETCHES_IN_FLIGHT]);
    let full = Misuse::TooMany { what: "fetches", limit: limits::FETCHES_IN_FLIGHT };
    assert_eq!(stream.sent(&fetch(1)), Err(full));
    stream.on_frame(page(0, 0).into()).unwrap();
    assert_eq!(stream.sent(&fetch(1)), Ok(()));
}

#[test]
fn rove_3_7_2_until_welcome_a_client_keeps_to_what_every_server_allows() {
    // Streams of the first flight have no other limits than these.
    let mut conversation = Conversation::new(Seq(0));
    for number in 1..=limits::UNANSWERED_POSTS as u64 {
        conversation.posted(PostNo(number)).unwrap();
    }
    let one_more = PostNo(limits::UNANSWERED_POSTS as u64 + 1);
    assert!(matches!(conversation.posted(one_more), Err(Misuse::TooMany { .. })));
    let mut stream = asked(&[1; limits::FETCHES_IN_FLIGHT]);
    assert!(matches!(stream.sent(&fetch(1)), Err(Misuse::TooMany { .. })));
    assert!(!Control::new().is_open(), "and there are no requests at all");

    // A server that allows more is believed once it has said so.
    let generous = Limits { unanswered_posts: 1_000, requests: 1_000, ..Limits::default() };
    let mut conversation = Conversation::with_limits(Seq(0), &generous);
    for number in 1..=1_000 {
        conversation.posted(PostNo(number)).unwrap();
    }
    let mut control = Control::new();
    control.on_frame(Welcome { limits: generous, ..welcome() }.into()).unwrap();
    for id in 1..=1_000 {
        control.sent(RequestId(id)).unwrap();
    }
}
