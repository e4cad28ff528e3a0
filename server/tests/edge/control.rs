//! The control stream and the session as a whole: who is let in, what is answered, how it ends.

use std::time::Duration;

use bytes::Bytes;
use rove_core::directory::DirectoryCommand;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, RequestId, Seq};
use rove_protocol::limits;
use rove_protocol::message::{
    Accounts, Body as _, ControlDown, CreateDirect, FindAccounts, GetConversation, HandleRef, Request,
};
use rove_protocol::registry::{ALPN, ClientState, ErrorCode, FrameType, Method, StreamType};
use rove_protocol::transport::{Connection as _, SendStream as _};
use rove_quic::{Trust, client_tls};
use rove_server::edge::EdgeConfig;

use crate::support::{Stream, User, World, closed, hello, open, post, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_flight_with_hello_open_and_post_is_served_whole() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let conversation = world.session(&alice).await.direct(bob.account).await.conversation;
    let connection = world.dial().await;
    let mut control = Stream::open(&connection, StreamType::Control).await;
    let mut stream = Stream::open(&connection, StreamType::Conversation).await;
    stream.send(&open(conversation, 1)).await;
    stream.send(&post(1, "at once")).await;
    control.send(&hello(&bob, ClientState::Background)).await;
    assert!(matches!(control.control().await, ControlDown::Welcome(_)));
    assert_eq!(stream.opened().await.head, Seq(1));
    assert_eq!(&stream.event().await.body[..], b"at once");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let handles = ["BOB", "nobody", "not@handle"].map(|text| HandleRef { handle: text.to_owned() }).to_vec();
    let response = a.ask(Method::FindAccounts, FindAccounts { handles: handles.into() }.encode_body()).await;
    let found = Accounts::decode_body(response.body).unwrap();
    let found: Vec<_> = found.accounts.iter().map(|info| (info.account, info.handle.as_str())).collect();
    assert_eq!(found, [(bob.account, "bob")]);
    let nowhere = GetConversation { conversation: ConversationId([7; 16]), after: AccountId(0) };
    for (method, body, code) in [
        (Method(0x7f02), Vec::new(), ErrorCode::Unsupported),
        (Method::CreateDirect, vec![0xff], ErrorCode::Malformed),
        (Method::CreateDirect, CreateDirect { peer: AccountId(999) }.encode_body(), ErrorCode::NotFound),
        (Method::GetConversation, nowhere.encode_body(), ErrorCode::NotFound),
    ] {
        assert_eq!(a.ask(method, body).await.code, code, "{method}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_and_an_unknown_device_look_the_same() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let wrong = User { secret: [1; 32], ..alice.clone() };
    let unknown = User { device: DeviceId(999), ..alice };
    for user in [wrong, unknown] {
        let connection = world.dial().await;
        let mut control = Stream::open(&connection, StreamType::Control).await;
        control.send(&hello(&user, ClientState::Foreground)).await;
        assert_eq!(closed(&connection).await, ErrorCode::Unauthenticated);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_session_closes_the_older_and_a_revoked_device_is_cut_off() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let older = world.session(&alice).await;
    let newer = world.session(&alice).await;
    assert_eq!(older.closed().await, ErrorCode::Replaced);
    let actor = rove_core::command::Actor { account: alice.account, device: alice.device };
    let revoke = DirectoryCommand::RevokeDevice { actor, device: alice.device };
    soon("a revocation", world.node.propose_directory(&revoke)).await.unwrap();
    assert_eq!(newer.closed().await, ErrorCode::Revoked);
    let connection = world.dial().await;
    let mut control = Stream::open(&connection, StreamType::Control).await;
    control.send(&hello(&alice, ClientState::Foreground)).await;
    assert_eq!(closed(&connection).await, ErrorCode::Revoked);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_violation_before_hello_closes_the_connection_with_its_code() {
    let world = World::start().await;
    let request = Request { id: RequestId(1), method: Method::Watch, body: Bytes::new() };
    for (frame_type, body, code) in [
        (FrameType::Request, request.encode_body(), ErrorCode::FrameUnexpected),
        (FrameType::Hello, vec![0; limits::FRAME_BEFORE_WELCOME + 1], ErrorCode::FrameTooLarge),
        (FrameType::Hello, vec![0xff], ErrorCode::Malformed),
        (FrameType(0x77), Vec::new(), ErrorCode::UnknownFrame),
    ] {
        let connection = world.dial().await;
        let mut control = Stream::open(&connection, StreamType::Control).await;
        control.raw(frame_type, &body).await;
        assert_eq!(closed(&connection).await, code, "{frame_type}");
    }
    let connection = world.dial().await;
    let _stream = Stream::open(&connection, StreamType::Inbox).await;
    assert_eq!(closed(&connection).await, ErrorCode::FrameUnexpected, "the first stream is the control stream");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_says_so_first_and_leaves_nothing_behind() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let mut a = world.session(&alice).await;
    let stats = world.hub.stats().clone();
    world.shutdown.cancel();
    match a.control.control().await {
        ControlDown::GoAway(away) => assert_eq!(away.code, ErrorCode::GoingAway),
        other => panic!("{other:?}"),
    }
    assert_eq!(a.closed().await, ErrorCode::GoingAway);
    world.stop().await;
    let gauge = |gauge: &std::sync::atomic::AtomicUsize| gauge.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((gauge(&stats.sessions), gauge(&stats.connections)), (0, 0));
    assert_eq!(stats.closes().get(&ErrorCode::GoingAway), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_tells_its_sessions_one_after_the_other_and_gives_them_one_deadline() {
    let drain = Duration::from_secs(10);
    let world = World::start_with(EdgeConfig { drain, ..EdgeConfig::default() }).await;
    // A second session of one device would take the place of the first.
    let mut sessions = Vec::new();
    for handle in ["alice", "bob", "carol"] {
        let user = world.user(handle).await;
        sessions.push(world.session(&user).await);
    }
    world.shutdown.cancel();
    let mut stays = Vec::new();
    for session in &mut sessions {
        match session.control.control().await {
            ControlDown::GoAway(away) => stays.push(away.deadline_ms),
            other => panic!("{other:?}"),
        }
    }
    stays.sort_unstable();
    assert_eq!(stays, [9_996, 9_998, 10_000], "each two milliseconds after the one before");
    // Whoever goes is not waited for.
    for session in &sessions {
        session.connection.close(ErrorCode::None, "");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_before_hello_is_cut() {
    let world = World::start().await;
    let (silent, half) = (world.dial().await, world.dial().await);
    let mut control = Stream::open(&half, StreamType::Control).await;
    control.send.write(Bytes::from_static(&[40, 1])).await.unwrap();
    assert_eq!(closed(&silent).await, ErrorCode::Timeout);
    assert_eq!(closed(&half).await, ErrorCode::Timeout);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_handshakes_have_to_prove_their_address_and_too_many_connections_are_refused() {
    let drain = Duration::from_millis(300);
    let world =
        World::start_with(EdgeConfig { retry_above: 0, max_connections: 1, drain, ..EdgeConfig::default() }).await;
    let alice = world.user("alice").await;
    let session = world.session(&alice).await;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(count(&world.hub.stats().retried), 1);
    let tls = client_tls(&Trust::Pins(vec![world.pin]), ALPN).unwrap();
    let refused = world.endpoint.connect_with(tls, world.address, "rove.test").unwrap();
    assert!(soon("a refusal", refused).await.is_err());
    assert_eq!(count(&world.hub.stats().refused_total), 1);
    drop(session);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_5_0_1_a_code_nobody_knows_counts_as_internal() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let stats = world.hub.stats().clone();
    for (closed, code) in (1..).zip([0x7777, 0x7778, u32::MAX]) {
        let session = world.session(&alice).await;
        session.connection.close(ErrorCode(code), "");
        // The next session of the device would end it with another code.
        soon("the session to end", async {
            while stats.closes().values().sum::<u64>() < closed {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(stats.closes().into_iter().collect::<Vec<_>>(), [(ErrorCode::Internal, 3)]);
    world.stop().await;
}
