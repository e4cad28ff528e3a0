//! What a client may send, and when.
#![allow(clippy::wildcard_imports, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::messages::*;
use rove_protocol::error::Violation;
use rove_protocol::ids::{PostNo, RequestId};
use rove_protocol::limits;
use rove_protocol::message::{ControlUp, ConversationUp, FetchUp, InboxUp, Limits};
use rove_protocol::registry::{ErrorCode, FrameType, StreamType};
use rove_protocol::session::server::{Admission, Control, Conversation, Fetch, Inbox, Streams};

fn authenticating() -> Control {
    let mut control = Control::new();
    control.on_frame(hello().into()).unwrap();
    control
}

fn welcomed() -> Control {
    let mut control = authenticating();
    control.welcomed();
    control
}

fn opening() -> Conversation {
    let mut conversation = Conversation::new(&Limits::default());
    conversation.on_frame(open().into()).unwrap();
    conversation
}

fn out_of_state(frame: FrameType, when: &'static str) -> Violation {
    Violation::OutOfState { frame, when }
}

#[test]
fn rove_3_2_1_nothing_comes_before_hello() {
    for frame in [ControlUp::from(request(1)), ControlUp::from(suspend())] {
        let frame_type = frame.frame_type();
        let violation = Control::new().on_frame(frame).unwrap_err();
        assert_eq!(violation, out_of_state(frame_type, "before Hello"));
        assert_eq!(violation.code(), ErrorCode::FrameUnexpected);
    }
}

#[test]
fn rove_3_2_2_hello_comes_once() {
    let again = out_of_state(FrameType::Hello, "after Hello");
    assert_eq!(authenticating().on_frame(hello().into()), Err(again.clone()));
    assert_eq!(welcomed().on_frame(hello().into()), Err(again));
}

#[test]
fn rove_3_2_3_nothing_follows_hello_before_welcome() {
    for frame in [ControlUp::from(request(1)), ControlUp::from(suspend())] {
        let frame_type = frame.frame_type();
        assert_eq!(authenticating().on_frame(frame), Err(out_of_state(frame_type, "before Welcome")));
    }
}

#[test]
fn a_welcome_without_hello_opens_nothing() {
    let mut control = Control::new();
    control.welcomed();
    assert!(!control.is_open() && !control.has_hello());
    control.on_frame(hello().into()).unwrap();
    assert!(!control.is_open() && control.has_hello());
    control.welcomed();
    assert!(control.is_open());
}

#[test]
fn a_welcomed_client_asks_and_says_what_its_app_does() {
    let mut control = welcomed();
    assert_eq!(control.on_frame(request(1).into()), Ok(request(1).into()));
    assert_eq!(control.on_frame(suspend().into()), Ok(suspend().into()));
    assert_eq!(control.unanswered(), 1);
}

#[test]
fn rove_3_2_4_the_id_of_an_unanswered_request_is_not_used_again() {
    let mut control = welcomed();
    control.on_frame(request(7).into()).unwrap();
    let in_use = out_of_state(FrameType::Request, "with the id of an unanswered request");
    assert_eq!(control.on_frame(request(7).into()), Err(in_use));
    assert!(control.answered(RequestId(7)));
    assert_eq!(control.on_frame(request(7).into()), Ok(request(7).into()));
}

#[test]
fn rove_3_2_5_too_many_unanswered_requests_are_a_violation() {
    let mut control = welcomed();
    for id in 0..limits::REQUESTS_IN_FLIGHT as u64 {
        control.on_frame(request(id).into()).unwrap();
    }
    let violation = control.clone().on_frame(request(1_000).into()).unwrap_err();
    assert_eq!(violation, Violation::Limit { what: "unanswered requests", limit: limits::REQUESTS_IN_FLIGHT as u64 });
    assert_eq!(violation.code(), ErrorCode::LimitExceeded);
    assert!(control.answered(RequestId(0)));
    assert!(control.on_frame(request(1_000).into()).is_ok());
}

#[test]
fn a_server_does_not_answer_what_was_not_asked() {
    let mut control = welcomed();
    control.on_frame(request(1).into()).unwrap();
    assert!(!control.answered(RequestId(2)));
    assert!(control.answered(RequestId(1)));
    assert!(!control.answered(RequestId(1)));
}

#[test]
fn rove_3_1_2_the_first_stream_is_the_control_stream() {
    for other in [StreamType::Inbox.0, StreamType::Conversation.0, StreamType::Fetch.0, 0x70, 62 + 64] {
        let violation = Streams::new(&Limits::default()).accept(other.into()).unwrap_err();
        assert_eq!(violation, Violation::StreamUnexpected { stream_type: other.into() });
        assert_eq!(violation.code(), ErrorCode::FrameUnexpected);
    }
}

fn streams() -> Streams {
    let mut streams = Streams::new(&Limits::default());
    assert_eq!(streams.accept(1), Ok(Admission::Serve(StreamType::Control)));
    streams
}

#[test]
fn rove_3_1_3_there_is_one_control_stream() {
    assert_eq!(streams().accept(1), Err(Violation::StreamUnexpected { stream_type: 1 }));
}

#[test]
fn rove_3_1_4_a_stream_of_an_unknown_type_is_stopped_and_the_session_goes_on() {
    let mut streams = streams();
    for unknown in [0, 5, 62 + 64, u64::from(u32::MAX), u64::MAX, (1 << 32) + 1] {
        assert_eq!(streams.accept(unknown), Ok(Admission::Stop(ErrorCode::UnknownStreamType)));
    }
    assert_eq!(streams.accept(2), Ok(Admission::Serve(StreamType::Inbox)));
}

#[test]
fn rove_3_1_5_a_stream_too_many_is_stopped_until_another_ends() {
    for (stream_type, limit) in [
        (StreamType::Inbox, 1),
        (StreamType::Conversation, limits::CONVERSATION_STREAMS),
        (StreamType::Fetch, limits::FETCH_STREAMS),
    ] {
        let mut streams = streams();
        for _ in 0..limit {
            assert_eq!(streams.accept(stream_type.0.into()), Ok(Admission::Serve(stream_type)));
        }
        assert_eq!(streams.accept(stream_type.0.into()), Ok(Admission::Stop(ErrorCode::LimitExceeded)));
        streams.ended(stream_type);
        assert_eq!(streams.accept(stream_type.0.into()), Ok(Admission::Serve(stream_type)));
        assert_eq!(streams.accept(stream_type.0.into()), Ok(Admission::Stop(ErrorCode::LimitExceeded)));
    }
}

#[test]
fn rove_3_4_1_nothing_comes_before_open() {
    for frame in [ConversationUp::from(post(1)), ConversationUp::from(mark(0, 0))] {
        let frame_type = frame.frame_type();
        let violation = Conversation::new(&Limits::default()).on_frame(frame).unwrap_err();
        assert_eq!(violation, out_of_state(frame_type, "before Open"));
    }
}

#[test]
fn rove_3_4_2_open_comes_once() {
    assert_eq!(opening().on_frame(open().into()), Err(out_of_state(FrameType::Open, "after Open")));
    let mut conversation = opening();
    conversation.opened();
    assert_eq!(conversation.on_frame(open().into()), Err(out_of_state(FrameType::Open, "after Open")));
}

#[test]
fn rove_3_4_3_posts_and_marks_may_follow_open_in_the_same_flight() {
    let mut conversation = opening();
    assert_eq!(conversation.on_frame(post(1).into()), Ok(post(1).into()));
    assert_eq!(conversation.on_frame(mark(3, 2).into()), Ok(mark(3, 2).into()));
    assert!(!conversation.is_open());
}

#[test]
fn rove_3_4_5_no_post_is_answered_before_opened() {
    let mut conversation = opening();
    conversation.on_frame(post(1).into()).unwrap();
    assert!(!conversation.answered(PostNo(1)));
    conversation.opened();
    assert!(conversation.answered(PostNo(1)));
    assert!(!conversation.answered(PostNo(1)));
}

#[test]
fn an_opened_without_open_opens_nothing() {
    let mut conversation = Conversation::new(&Limits::default());
    conversation.opened();
    assert!(!conversation.is_open());
}

#[test]
fn rove_3_4_4_too_many_unanswered_posts_are_a_violation() {
    let mut conversation = opening();
    conversation.opened();
    for number in 1..=limits::UNANSWERED_POSTS as u64 {
        conversation.on_frame(post(number).into()).unwrap();
    }
    let violation = conversation.clone().on_frame(post(65).into()).unwrap_err();
    assert_eq!(violation, Violation::Limit { what: "unanswered posts", limit: limits::UNANSWERED_POSTS as u64 });
    assert_eq!(violation.code(), ErrorCode::LimitExceeded);
    // Answers may come in any order.
    assert!(conversation.answered(PostNo(9)));
    assert_eq!(conversation.on_frame(post(65).into()), Ok(post(65).into()));
}

#[test]
fn a_post_sent_again_while_its_first_copy_is_unanswered_counts_twice_and_is_answered_twice() {
    let mut conversation = opening();
    conversation.opened();
    for number in [5, 6, 5, 6] {
        conversation.on_frame(post(number).into()).unwrap();
    }
    assert_eq!(conversation.unanswered(), 4);
    assert!(conversation.answered(PostNo(6)) && conversation.answered(PostNo(6)));
    assert!(!conversation.answered(PostNo(6)));
}

#[test]
fn limits_of_the_session_decide_and_not_those_of_the_protocol() {
    let few = Limits { unanswered_posts: 1, requests: 1, conversation_streams: 1, ..Limits::default() };
    let mut conversation = Conversation::new(&few);
    conversation.on_frame(open().into()).unwrap();
    conversation.on_frame(post(1).into()).unwrap();
    assert!(conversation.on_frame(post(2).into()).is_err());
    let mut control = Control::with_limits(&few);
    control.on_frame(hello().into()).unwrap();
    control.welcomed();
    control.on_frame(request(1).into()).unwrap();
    assert!(control.on_frame(request(2).into()).is_err());
    let mut streams = Streams::new(&few);
    streams.accept(1).unwrap();
    streams.accept(3).unwrap();
    assert_eq!(streams.accept(3), Ok(Admission::Stop(ErrorCode::LimitExceeded)));
}

#[test]
fn rove_3_3_1_inbox_open_comes_once() {
    let mut inbox = Inbox::new();
    assert!(!inbox.is_open());
    assert_eq!(inbox.on_frame(inbox_open().into()), Ok(InboxUp::from(inbox_open())));
    assert!(inbox.is_open());
    assert_eq!(inbox.on_frame(inbox_open().into()), Err(out_of_state(FrameType::InboxOpen, "after InboxOpen")));
}

#[test]
fn rove_3_5_1_too_many_unanswered_fetches_are_a_violation() {
    let mut stream = Fetch::new();
    assert!(!stream.answered());
    for _ in 0..limits::FETCHES_IN_FLIGHT {
        assert_eq!(stream.on_frame(fetch(10).into()), Ok(FetchUp::from(fetch(10))));
    }
    let violation = stream.clone().on_frame(fetch(10).into()).unwrap_err();
    assert_eq!(violation, Violation::Limit { what: "unanswered fetches", limit: limits::FETCHES_IN_FLIGHT as u64 });
    assert!(stream.answered());
    assert!(stream.on_frame(fetch(10).into()).is_ok());
    assert_eq!(stream.unanswered(), limits::FETCHES_IN_FLIGHT);
}
