//! Whatever a peer sends, it gets the registered code, nothing is lost, and the operator's log stays calm.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::future::Future;

use bytes::Bytes;
use rove_protocol::extension::{Extension, Extensions};
use rove_protocol::frame::put_frame;
use rove_protocol::ids::{ConversationId, PostNo, RequestId, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{Body, ConversationDown, Mark, Message, Open, Request};
use rove_protocol::registry::{ErrorCode, FrameType, Method, StreamType};
use rove_protocol::transport::SendStream as _;
use rove_tests::raw::{Raw, RawStream, text_post};
use rove_tests::{Server, people};

const WRITER: WriterId = WriterId([7; 16]);

/// Runs `story` against a server, then requires that nobody was logged as an error and that the server still serves.
async fn with_server<F: Future<Output = ()>>(story: impl FnOnce(std::sync::Arc<Server>) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let server = std::sync::Arc::new(Server::start(dir.path()));
    story(server.clone()).await;
    let credentials = people::credentials(&server, "witness").await;
    Raw::welcomed(&server, &credentials).await;
    let log = server.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "a client's fault was logged as ours: {errors:?}");
}

/// The code the connection is closed with after `bytes` on a control stream.
async fn close_code_after(server: &Server, bytes: &[u8]) -> ErrorCode {
    let raw = Raw::connect(server).await;
    let _control = raw.stream(StreamType::Control, bytes).await;
    raw.close_code().await
}

/// A session of an account that shares a conversation with another, the stream of that conversation open.
async fn in_conversation(server: &Server) -> (Raw, RawStream, RawStream, ConversationId) {
    let alice = people::credentials(server, "alice").await;
    let bob = people::credentials(server, "bob").await;
    let (raw, mut control) = Raw::welcomed(server, &alice).await;
    let conversation = control.create_direct(bob.account).await;
    let stream = raw.open(conversation, WRITER).await;
    (raw, control, stream, conversation)
}

#[tokio::test]
async fn frames_that_are_not_right_close_the_connection_with_their_code() {
    with_server(|server| async move {
        let mut odd = Vec::new();
        put_frame(FrameType(0x7001), b"?", &mut odd);
        let critical = people::credentials(&server, "carol").await.hello();
        let mut body = critical.encode_body();
        Extensions::new(vec![Extension { id: 77, value: Bytes::new() }]).unwrap().put(&mut body);
        let mut extended = Vec::new();
        put_frame(FrameType::Hello, &body, &mut extended);
        let request = Request { id: RequestId(1), method: Method::Watch, body: Bytes::new() }.to_frame();

        for (what, bytes, code) in [
            ("a length of 4 GiB", vec![0xff, 0xff, 0xff, 0xff, 0x0f], ErrorCode::FrameTooLarge),
            ("a length padded to two bytes", vec![0x81, 0x00, 0x01], ErrorCode::NotCanonical),
            ("a Hello that ends in its first field", vec![0x02, 0x01, 0x80], ErrorCode::Malformed),
            ("an unknown odd frame", odd, ErrorCode::UnknownFrame),
            ("an unknown critical extension", extended, ErrorCode::CriticalExtension),
            ("a request before Hello", request, ErrorCode::FrameUnexpected),
            (
                "a frame of another stream",
                Mark { delivered: Seq(1), read: Seq(1) }.to_frame(),
                ErrorCode::FrameUnexpected,
            ),
        ] {
            assert_eq!(close_code_after(&server, &bytes).await, code, "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_is_malformed() {
    with_server(|server| async move {
        let raw = Raw::connect(&server).await;
        let mut control = raw.stream(StreamType::Control, &[0x20, 0x01, 0x02]).await;
        control.send.finish();
        assert_eq!(raw.close_code().await, ErrorCode::Malformed);
    })
    .await;
}

#[tokio::test]
async fn unknown_even_frames_are_skipped_and_unknown_streams_stopped() {
    with_server(|server| async move {
        let credentials = people::credentials(&server, "carol").await;
        let mut bytes = Vec::new();
        put_frame(FrameType(0x7000), b"grease", &mut bytes);
        bytes.extend(credentials.hello().to_frame());
        let raw = Raw::connect(&server).await;
        let mut control = raw.stream(StreamType::Control, &bytes).await;
        assert!(control.next().await.is_some(), "welcomed all the same");
        let mut unknown = raw.stream(StreamType(126), b"").await;
        assert!(unknown.next().await.is_none(), "the unknown stream is ended");
        let peer = people::credentials(&server, "dave").await;
        control.create_direct(peer.account).await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_secret_is_unauthenticated() {
    with_server(|server| async move {
        let mut credentials = people::credentials(&server, "carol").await;
        credentials.secret = Bytes::from_static(&[9; limits::SECRET]);
        assert_eq!(close_code_after(&server, &credentials.hello().to_frame()).await, ErrorCode::Unauthenticated);
        credentials.device.0 += 1_000;
        assert_eq!(close_code_after(&server, &credentials.hello().to_frame()).await, ErrorCode::Unauthenticated);
    })
    .await;
}

#[tokio::test]
async fn silence_is_cut_off() {
    with_server(|server| async move {
        let raw = Raw::connect(&server).await;
        assert_eq!(raw.close_code().await, ErrorCode::Timeout);
    })
    .await;
}

#[tokio::test]
async fn a_reused_number_and_a_gap_are_refused_and_consume_nothing() {
    with_server(|server| async move {
        let (_raw, _control, mut stream, _) = in_conversation(&server).await;
        stream.write(text_post(1, "one").to_frame()).await;
        let ConversationDown::Posted(first) = stream.next_answer().await else { panic!("refused") };

        stream.write(text_post(1, "one").to_frame()).await;
        assert_eq!(stream.next_answer().await, ConversationDown::Posted(first.clone()), "a repeat, the same answer");

        stream.write(text_post(1, "another body").to_frame()).await;
        let ConversationDown::Refused(reused) = stream.next_answer().await else { panic!("posted") };
        assert_eq!((reused.code, reused.consumed), (ErrorCode::PostNoReused, false));

        stream.write(text_post(5, "too far").to_frame()).await;
        let ConversationDown::Refused(gap) = stream.next_answer().await else { panic!("posted") };
        assert_eq!((gap.code, gap.consumed, gap.expected), (ErrorCode::Gap, false, PostNo(2)));

        stream.write(text_post(2, "two").to_frame()).await;
        let ConversationDown::Posted(second) = stream.next_answer().await else { panic!("refused") };
        assert_eq!(second.seq, first.seq.next());
    })
    .await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_session_goes_on() {
    with_server(|server| async move {
        let (_raw, _control, mut stream, _) = in_conversation(&server).await;
        stream.write(text_post(1, &"x".repeat(limits::BODY + 1)).to_frame()).await;
        let ConversationDown::Refused(refused) = stream.next_answer().await else { panic!("posted") };
        assert_eq!((refused.code, refused.consumed), (ErrorCode::BodyTooLarge, true));
        stream.write(text_post(2, &"x".repeat(limits::BODY)).to_frame()).await;
        assert!(matches!(stream.next_answer().await, ConversationDown::Posted(_)));
    })
    .await;
}

#[tokio::test]
async fn a_post_before_open_is_out_of_state() {
    with_server(|server| async move {
        let (raw, _control, _stream, _) = in_conversation(&server).await;
        let _early = raw.stream(StreamType::Conversation, &text_post(1, "early").to_frame()).await;
        assert_eq!(raw.close_code().await, ErrorCode::FrameUnexpected);
    })
    .await;
}

#[tokio::test]
async fn a_missing_conversation_closes_its_stream_only() {
    with_server(|server| async move {
        let (raw, _control, mut stream, _) = in_conversation(&server).await;
        let conversation = ConversationId([0xab; 16]);
        let open = Open { conversation, after: Seq(0), seen: Seq(0), epoch: 0, writer: WRITER };
        let mut missing = raw.stream(StreamType::Conversation, &open.to_frame()).await;
        let ConversationDown::Closed(closed) = missing.next_of_conversation().await else { panic!("opened") };
        assert_eq!(closed.code, ErrorCode::NotFound);
        assert!(missing.next().await.is_none(), "and the stream ends");
        stream.write(text_post(1, "still here").to_frame()).await;
        assert!(matches!(stream.next_answer().await, ConversationDown::Posted(_)));
    })
    .await;
}
