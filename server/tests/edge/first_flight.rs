//! What a client may do before it is known who it is.

use bytes::Bytes;
use futures::FutureExt as _;
use rove_protocol::limits;
use rove_protocol::message::ControlDown;
use rove_protocol::registry::{ClientState, ErrorCode, FrameType, StreamType};
use rove_protocol::transport::SendStream as _;

use crate::support::{Stream, User, World, closed, hello, open, post};

/// Writes until flow control takes nothing more at once: how many bytes it took.
fn fill(stream: &mut Stream) -> u64 {
    let mut taken = 0;
    // One byte at a time: each is taken whole or not at all.
    while stream.send.write(Bytes::from_static(&[0])).now_or_never().is_some_and(|written| written.is_ok()) {
        taken += 1;
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_3_7_1_before_welcome_only_the_control_stream_is_read_and_64_kib_are_taken() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let conversation = world.session(&alice).await.direct(bob.account).await.conversation;

    // The credit, to the byte, over as many streams as it takes.
    let connection = world.dial().await;
    let mut streams = vec![Stream::open(&connection, StreamType::Control).await];
    let mut taken = 1;
    while taken < limits::CREDIT_BEFORE_WELCOME && streams.len() < 4 {
        let mut stream = Stream::open(&connection, StreamType::Conversation).await;
        taken += 1 + fill(&mut stream);
        streams.push(stream);
    }
    assert_eq!(taken, limits::CREDIT_BEFORE_WELCOME);
    drop((streams, connection));

    // What would close the connection if it were read does nothing: it is the secret that is wrong.
    let connection = world.dial().await;
    let mut control = Stream::open(&connection, StreamType::Control).await;
    let mut stream = Stream::open(&connection, StreamType::Conversation).await;
    stream.send(&open(conversation, 0)).await;
    stream.send(&post(1, &"x".repeat(limits::BODY))).await;
    stream.raw(FrameType(0x77), b"").await;
    control.send(&hello(&User { secret: [1; 32], ..alice.clone() }, ClientState::Background)).await;
    assert_eq!(closed(&connection).await, ErrorCode::Unauthenticated);
    let heard = connection.quinn().stats().frame_rx;
    assert_eq!((heard.max_data, heard.max_stream_data), (0, 0), "nor was there more credit");

    // The same with the right one is read, and there is more credit.
    let connection = world.dial().await;
    let mut control = Stream::open(&connection, StreamType::Control).await;
    let mut stream = Stream::open(&connection, StreamType::Conversation).await;
    stream.send(&open(conversation, 0)).await;
    control.send(&hello(&alice, ClientState::Background)).await;
    assert!(matches!(control.control().await, ControlDown::Welcome(_)));
    stream.opened().await;
    stream.raw(FrameType(0x77), b"").await;
    assert_eq!(closed(&connection).await, ErrorCode::UnknownFrame);
    assert!(connection.quinn().stats().frame_rx.max_data > 0);
    world.stop().await;
}
