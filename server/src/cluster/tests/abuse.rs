//! A peer with a good certificate that breaks the rules, or takes nothing.

use rove_protocol::wire::put_varint;

use super::super::registry::{CloseCode, FrameType, StreamType};
use super::refusals::{Stranger, code, hello, say};
use super::*;

/// A node 1 by hand, linked with node 2: the lower id, whose connection node 2 takes at once.
struct Rogue {
    stranger: Stranger,
    connection: quinn::Connection,
    _control: (quinn::SendStream, quinn::RecvStream),
}

impl Rogue {
    async fn link(fixture: &Fixture, two: &TestNode) -> Self {
        let stranger = Stranger::new(&fixture.files(1));
        let connection = stranger.connect(fixture, 2).await.unwrap();
        let control = say(&connection, &hello(1)).await.unwrap();
        two.ear.up(1).await;
        Self { stranger, connection, _control: control }
    }

    /// Opens a stream and writes these bytes behind its type.
    async fn stream(&self, stream_type: u64, bytes: &[u8]) -> quinn::SendStream {
        let mut stream = self.connection.open_uni().await.unwrap();
        let mut all = Vec::new();
        put_varint(&mut all, stream_type);
        all.extend_from_slice(bytes);
        // The other end may close the connection before it has all of it.
        let _ = stream.write_all(&all).await;
        stream
    }

    async fn cut_off(&self) -> CloseCode {
        code(&soon("the cut", self.connection.closed()).await)
    }
}

fn raw(frame_type: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    rove_protocol::frame::put_frame(rove_protocol::registry::FrameType(frame_type), body, &mut bytes);
    bytes
}

#[tokio::test]
async fn whoever_breaks_the_rules_is_cut_off_and_left_alone_for_a_while() {
    let lines = Lines::listen();
    let fixture = Fixture::new(2);
    let two = fixture.start(2);
    let urgent = StreamType::URGENT.0;
    // 4 GiB, of which nothing comes.
    let rogue = Rogue::link(&fixture, &two).await;
    let _stream = rogue.stream(urgent, &[0xff, 0xff, 0xff, 0xff, 0x0f]).await;
    assert_eq!(rogue.cut_off().await, CloseCode::TOO_LARGE);
    two.ear.exactly(Heard::Down(1)).await;
    assert_eq!(lines.warnings(&["node 1", "4294967295 bytes"]), 1);
    // At once again.
    let again = rogue.stranger.connect(&fixture, 2).await.unwrap();
    let _control = say(&again, &hello(1)).await;
    assert_eq!(code(&soon("the refusal", again.closed()).await), CloseCode::RESTING);
    two.stop().await;
}

/// What a rogue does, and how the connection ends. Each with a node of its own, so that none waits for a rest.
async fn cut(stream_type: u64, bytes: &[u8]) -> CloseCode {
    let fixture = Fixture::new(2);
    let two = fixture.start(2);
    let rogue = Rogue::link(&fixture, &two).await;
    let _stream = rogue.stream(stream_type, bytes).await;
    let code = rogue.cut_off().await;
    two.ear.exactly(Heard::Down(1)).await;
    let heard_nothing =
        two.ear.heard.lock().iter().all(|heard| matches!(heard, Heard::Up(..) | Heard::Down(_) | Heard::Formation(..)));
    assert!(heard_nothing);
    two.stop().await;
    code
}

#[tokio::test]
async fn garbage_and_what_does_not_belong_there_close_with_a_code() {
    let (urgent, forward) = (StreamType::URGENT.0, StreamType::FORWARD.0);
    let raft = FrameType::RAFT.0;
    assert_eq!(cut(urgent, &raw(raft, &[0, 3, 0xff, 0xff, 0xff])).await, CloseCode::MALFORMED);
    assert_eq!(cut(urgent, &[0x80, 0x00]).await, CloseCode::MALFORMED, "a length in too long a form");
    assert_eq!(cut(urgent, &raw(FrameType::FORWARD.0, &[])).await, CloseCode::UNEXPECTED);
    assert_eq!(cut(urgent, &raw(0x7f, &[])).await, CloseCode::UNEXPECTED, "an unknown odd frame");
    assert_eq!(cut(forward, &raw(FrameType::FORWARD.0, &[1, 2])).await, CloseCode::MALFORMED);
    assert_eq!(cut(0x7f, &[]).await, CloseCode::UNEXPECTED, "an unknown odd stream");
    assert_eq!(cut(StreamType::CALL.0, &[]).await, CloseCode::UNEXPECTED, "a stream of the other kind");
    let large = vec![0; registry::PRESENCE_BYTES + 100];
    assert_eq!(cut(StreamType::PRESENCE.0, &raw(FrameType::PRESENCE.0, &large)).await, CloseCode::TOO_LARGE);
}

#[tokio::test]
async fn a_second_stream_of_one_class_is_refused() {
    let fixture = Fixture::new(2);
    let two = fixture.start(2);
    let rogue = Rogue::link(&fixture, &two).await;
    let _first = rogue.stream(StreamType::URGENT.0, &[]).await;
    let _second = rogue.stream(StreamType::URGENT.0, &[]).await;
    assert_eq!(rogue.cut_off().await, CloseCode::UNEXPECTED);
    two.stop().await;
}

#[tokio::test]
async fn unknown_even_frames_and_streams_are_skipped() {
    let fixture = Fixture::new(2);
    let two = fixture.start(2);
    let rogue = Rogue::link(&fixture, &two).await;
    let even = rogue.stream(0x7e, b"whatever").await;
    let presence = raw(FrameType::PRESENCE.0, &[1, 9]);
    let _stream = rogue.stream(StreamType::PRESENCE.0, &[raw(0x7e, b"whatever"), presence].concat()).await;
    two.ear.exactly(Heard::Presence(1, Bytes::from_static(&[9]))).await;
    soon("the stop", even.stopped()).await.unwrap();
    assert!(rogue.connection.close_reason().is_none());
    two.stop().await;
}

#[tokio::test]
async fn a_peer_that_reads_nothing_costs_bounded_memory_and_nobody_waits() {
    let fixture = Fixture::new(2);
    let two = fixture.start(2);
    let _rogue = Rogue::link(&fixture, &two).await;
    let append = vec![(PartitionId(1), message(2, 1, 1, 1_000_000))];
    for _ in 0..100 {
        two.cluster.send_raft(NodeId(1), append.clone());
    }
    let status = two.class(1, Class::Append);
    assert!(status.queued_bytes <= registry::APPEND_QUEUE_BYTES);
    assert!(status.dropped_frames >= 50 && status.dropped_bytes >= 50_000_000, "{status:?}");
    let mut refused = None;
    for first in 0..2 * registry::FORWARD_QUEUE_FRAMES as u64 {
        refused = refused.or(two.cluster.send_forward(NodeId(1), &forward(first)).err());
    }
    assert_eq!(refused, Some(SendError::Full));
    for _ in 0..2_000 {
        two.cluster.send_presence(NodeId(1), Bytes::from_static(&[0; 1_000])).unwrap();
    }
    assert!(two.class(1, Class::Presence).queued_frames <= registry::PRESENCE_QUEUE_FRAMES);
    two.stop().await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_not_there_to_be_opened() {
    let fixture = Fixture::new(2);
    let two = fixture.start(2);
    two.ear.silent.store(true, std::sync::atomic::Ordering::Relaxed);
    let rogue = Rogue::link(&fixture, &two).await;
    let mut streams = Vec::new();
    while let Ok(opened) = tokio::time::timeout(Duration::from_millis(200), rogue.connection.open_bi()).await {
        let (mut send, recv) = opened.unwrap();
        send.write_all(&[&[9][..], &raw(FrameType::CALL.0, &[1, 1])].concat()).await.unwrap();
        streams.push((send, recv));
    }
    // The control stream is one of them.
    assert_eq!(streams.len() + 1, registry::BIDI_STREAMS as usize);
    two.stop().await;
}

#[tokio::test]
async fn strangers_that_say_nothing_do_not_keep_peers_out() {
    let fixture = Fixture::new(2);
    let two = fixture.start(2);
    let stranger = Stranger::new(&fixture.files(1));
    let mut silent = Vec::new();
    for _ in 0..registry::RETRY_ABOVE + 2 {
        silent.push(stranger.connect(&fixture, 2).await.unwrap());
    }
    let one = fixture.start(1);
    two.ear.up(1).await;
    one.stop().await;
    two.stop().await;
}
