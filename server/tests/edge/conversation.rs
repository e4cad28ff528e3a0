//! Conversation streams: posts and events, slow readers, and who may see what.

use std::time::Duration;

use rove_protocol::ids::{NodeId, PostNo, Seq};
use rove_protocol::limits;
use rove_protocol::message::{Body as _, Closed, ConversationDown, InboxDown, Mark, Message as _, Open};
use rove_protocol::registry::{ClientState, ErrorCode, EventKind, FrameType, Role, StreamType};
use rove_protocol::transport::{ReadError, SendStream as _, TransportError};
use rove_server::edge::EdgeConfig;

use crate::support::{Stream, World, hello, open, post, soon, tls};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_talk() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let b = world.session(&bob).await;
    assert_eq!((a.welcome.account, a.welcome.node), (alice.account, NodeId(1)));
    let mut inbox = b.inbox().await;
    assert!(matches!(inbox.inbox().await, InboxDown::InboxSynced(_)), "an empty inbox is in step at once");

    let info = a.direct(bob.account).await;
    assert_eq!((info.member_count, info.members.len()), (2, 2));
    let line = inbox.line().await;
    assert_eq!((line.conversation, line.peer, line.head), (info.conversation, alice.account, Seq(1)));

    let mut at_alice = a.open(info.conversation, 0).await;
    assert_eq!(at_alice.opened().await.head, Seq(1));
    assert_eq!(at_alice.event().await.kind, EventKind::Created);
    let mut at_bob = b.open(info.conversation, 1).await;
    assert_eq!(at_bob.opened().await.role, Role::Member);

    at_alice.send(&post(1, "hello")).await;
    at_alice.send(&post(2, "bob")).await;
    let mut answers = Vec::new();
    let mut events = Vec::new();
    while answers.len() < 2 || events.len() < 2 {
        match at_alice.conversation().await {
            ConversationDown::Posted(posted) => answers.push((posted.post_no.0, posted.seq.0)),
            ConversationDown::Event(event) => events.push(event.seq.0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((answers, events), (vec![(1, 2), (2, 3)], vec![2, 3]));
    for (seq, text) in [(2, "hello"), (3, "bob")] {
        let event = at_bob.event().await;
        assert_eq!((event.seq, event.author, &event.body[..]), (Seq(seq), alice.account, text.as_bytes()));
    }
    while inbox.line().await.head != Seq(3) {}

    // Bob reads; Alice is told.
    at_bob.send(&Mark { delivered: Seq(3), read: Seq(3) }).await;
    loop {
        if let ConversationDown::Receipt(receipt) = at_alice.conversation().await
            && receipt.read == Seq(3)
        {
            assert_eq!((receipt.account, receipt.delivered), (bob.account, Seq(3)));
            break;
        }
    }
    while inbox.line().await.read != Seq(3) {}

    // A repeated post has its first answer, and nothing happens.
    at_alice.send(&post(2, "bob")).await;
    let again = at_alice.posted().await;
    assert_eq!((again.post_no, again.seq), (PostNo(2), Seq(3)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_taken_out_sees_it_and_no_more() {
    let world = World::start().await;
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let (mut a, b, c) = (world.session(&alice).await, world.session(&bob).await, world.session(&carol).await);
    let group = a.group(&[bob.account]).await;

    // Never a member: as if there were no such conversation.
    let mut outside = c.open(group, 0).await;
    let closed = Closed { code: ErrorCode::NotFound, last_seq: Seq(0) };
    assert_eq!(outside.conversation().await, ConversationDown::Closed(closed));
    assert!(outside.ended().await);

    let mut stream = b.open(group, 0).await;
    stream.opened().await;
    assert_eq!(stream.event().await.seq, Seq(1));
    a.change(group, bob.account, Role::None).await;
    assert_eq!(stream.event().await.kind, EventKind::MembersChanged);
    let closed = Closed { code: ErrorCode::Forbidden, last_seq: Seq(2) };
    assert_eq!(stream.conversation().await, ConversationDown::Closed(closed));
    assert!(stream.ended().await);

    // Let in later: what was before is accounted for.
    a.change(group, carol.account, Role::Member).await;
    let mut inside = c.open(group, 0).await;
    inside.opened().await;
    match inside.conversation().await {
        ConversationDown::Unavailable(range) => assert_eq!((range.from, range.to), (Seq(1), Seq(2))),
        other => panic!("{other:?}"),
    }
    assert_eq!(inside.event().await.seq, Seq(3));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_violation_on_an_open_stream_closes_the_connection_with_its_code() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let conversation = world.session(&alice).await.direct(bob.account).await.conversation;
    let critical = [Mark { delivered: Seq(1), read: Seq(1) }.encode_body(), vec![3, 0]].concat();
    for (frame_type, body, code) in [
        (FrameType::Post, vec![0; limits::FRAME + 1], ErrorCode::FrameTooLarge),
        (FrameType(0x77), Vec::new(), ErrorCode::UnknownFrame),
        (FrameType::Open, open(conversation, 0).encode_body(), ErrorCode::FrameUnexpected),
        (FrameType::Hello, hello(&alice, ClientState::Foreground).encode_body(), ErrorCode::FrameUnexpected),
        (FrameType::Mark, critical, ErrorCode::CriticalExtension),
        (FrameType::Mark, vec![0x80, 0x00, 0x00], ErrorCode::NotCanonical),
    ] {
        let client = world.session(&alice).await;
        let mut stream = client.open(conversation, 0).await;
        stream.opened().await;
        stream.raw(frame_type, &body).await;
        assert_eq!(client.closed().await, code, "{frame_type}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unknown_but_not_critical_leaves_the_connection_alone() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut client = world.session(&alice).await;
    let mut stream = Stream::open(&client.connection, StreamType(0x7e)).await;
    let stopped = soon("the stream to be stopped", stream.send.stopped()).await;
    assert_eq!(stopped, TransportError::Stopped(ErrorCode::UnknownStreamType));
    let read = soon("the stream to be reset", stream.recv.next()).await;
    assert_eq!(read, Err(ReadError::Transport(TransportError::Reset(ErrorCode::UnknownStreamType))));

    let conversation = client.direct(bob.account).await.conversation;
    let mut stream = client.open(conversation, 0).await;
    stream.raw(FrameType(0x7e), b"grease").await;
    assert_eq!(stream.opened().await.head, Seq(1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_holds_up_only_itself() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let busy = a.direct(bob.account).await.conversation;
    let quiet = a.group(&[bob.account]).await;
    let b = world.session(&bob).await;
    let mut stuck = b.open(busy, 1).await;
    stuck.opened().await;
    let mut stream = a.open(busy, 1).await;
    stream.opened().await;
    let text = "x".repeat(16_000);
    for number in 1..=40 {
        stream.send(&post(number, &text)).await;
        stream.posted().await;
    }
    let mut other = b.open(quiet, 0).await;
    assert_eq!(other.opened().await.head, Seq(1));
    assert_eq!(other.event().await.seq, Seq(1));
    for seq in 2..=41 {
        assert_eq!(stuck.event().await.seq, Seq(seq), "all of it is there when it is read");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_not_what_the_client_knows_is_not_opened() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    for (seen, epoch, code) in [(100, 0, ErrorCode::Behind), (1, 7, ErrorCode::EpochChanged)] {
        let mut stream = Stream::open(&a.connection, StreamType::Conversation).await;
        stream.send(&Open { seen: Seq(seen), epoch, ..open(conversation, 1) }).await;
        let closed = Closed { code, last_seq: Seq(1) };
        assert_eq!(stream.conversation().await, ConversationDown::Closed(closed));
        assert!(stream.ended().await);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_too_many_is_stopped_and_the_others_go_on() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let mut open = Vec::new();
    for _ in 0..limits::CONVERSATION_STREAMS {
        let mut stream = a.open(conversation, 1).await;
        stream.opened().await;
        open.push(stream);
    }
    let mut one_more = a.open(conversation, 1).await;
    let stopped = soon("the stream to be stopped", one_more.send.stopped()).await;
    assert_eq!(stopped, TransportError::Stopped(ErrorCode::LimitExceeded));
    open[0].send(&post(1, "still here")).await;
    for stream in &mut open {
        assert_eq!(&stream.event().await.body[..], b"still here");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_3_8_1_a_stream_whose_client_does_not_read_is_read_all_the_same() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let b = world.session(&bob).await;
    let mut reader = b.open(conversation, 1).await;
    reader.opened().await;
    let mut deaf = a.open(conversation, 1).await;
    // More than every window and buffer on the way back holds; the answers wait behind it.
    let text = "x".repeat(16_000);
    for number in 1..=limits::UNANSWERED_POSTS as u64 {
        deaf.send(&post(number, &text)).await;
    }
    for seq in 2..=limits::UNANSWERED_POSTS as u64 + 1 {
        assert_eq!(reader.event().await.seq, Seq(seq));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_3_8_1_a_server_with_too_much_to_do_says_busy_and_reads_on() {
    let drain = Duration::from_millis(300);
    let world =
        World::start_node(|node| node.queue_commands = 8, EdgeConfig { drain, ..EdgeConfig::default() }, tls()).await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let mut stream = a.open(conversation, 1).await;
    stream.opened().await;
    let (mut first, mut busy) = (1, 0);
    // All of them at once, from the first that was not taken on, until it was too much.
    while busy == 0 {
        let posts = first..first + limits::UNANSWERED_POSTS as u64;
        let flight = posts.clone().flat_map(|number| post(number, "now").to_frame()).collect::<Vec<_>>();
        stream.send.write(flight.into()).await.unwrap();
        for _ in posts {
            match stream.answer().await {
                ConversationDown::Posted(posted) => first = first.max(posted.post_no.0 + 1),
                ConversationDown::Refused(refused) => {
                    assert!(!refused.consumed, "{refused:?}");
                    assert!([ErrorCode::Busy, ErrorCode::Gap].contains(&refused.code), "{refused:?}");
                    if refused.code == ErrorCode::Busy {
                        assert!(refused.retry_after_ms > 0, "{refused:?}");
                        busy += 1;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // What was refused consumed nothing, and the session goes on.
    loop {
        stream.send(&post(first, "later")).await;
        match stream.answer().await {
            ConversationDown::Posted(posted) => break assert_eq!(posted.post_no, PostNo(first)),
            // The last of those that were taken may still hold its place.
            ConversationDown::Refused(refused) => assert_eq!(refused.code, ErrorCode::Busy, "{refused:?}"),
            other => panic!("{other:?}"),
        }
    }
    world.stop().await;
}
