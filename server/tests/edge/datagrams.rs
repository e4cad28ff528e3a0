//! Datagrams: presence, heartbeats, typing.

use rove_protocol::frame::datagram_frames;
use rove_protocol::ids::{AccountId, Seq};
use rove_protocol::limits;
use rove_protocol::message::{
    AccountRef, Body as _, DatagramDown, Heartbeat, InboxDown, Message as _, Suspend, Typing, Watch,
};
use rove_protocol::registry::{ClientState, ErrorCode, Method, PresenceStatus, Role, StreamType};
use rove_protocol::transport::Connection as _;

use crate::support::{Client, Stream, User, World, closed, hello, soon};

async fn datagram(client: &Client) -> DatagramDown {
    let datagram = soon("a datagram", client.connection.read_datagram()).await.unwrap();
    let frame = datagram_frames(datagram).unwrap().remove(0);
    DatagramDown::decode(frame).unwrap().unwrap()
}

async fn wait_presence(client: &Client, account: AccountId, status: PresenceStatus, hidden: AccountId) {
    loop {
        if let DatagramDown::Presence(presence) = datagram(client).await {
            assert!(presence.items.iter().all(|item| item.account != hidden), "no conversation with them");
            if presence.items.iter().any(|item| item.account == account && item.status == status) {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_goes_to_those_who_share_a_conversation_and_typing_to_members() {
    let world = World::start().await;
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let accounts: Vec<_> = [bob.account, carol.account].map(|account| AccountRef { account }).to_vec();
    let watch = Watch { accounts: accounts.into() };
    assert_eq!(a.ask(Method::Watch, watch.encode_body()).await.code, ErrorCode::None);
    let _c = world.session(&carol).await;
    let mut b = world.session(&bob).await;
    wait_presence(&a, bob.account, PresenceStatus::Online, carol.account).await;

    a.connection.send_datagram(Heartbeat { number: 4, inbox_version: 0, presence_version: 0 }.to_frame().into());
    loop {
        if let DatagramDown::HeartbeatAck(ack) = datagram(&a).await {
            assert_eq!(ack.number, 4);
            break;
        }
    }
    let typing = Typing { conversation, account: AccountId(0), typing: true };
    b.connection.send_datagram(typing.to_frame().into());
    loop {
        if let DatagramDown::Typing(typing) = datagram(&a).await {
            assert_eq!(typing.account, bob.account);
            break;
        }
    }
    b.control.send(&Suspend { state: ClientState::Leaving }).await;
    wait_presence(&a, bob.account, PresenceStatus::Offline, carol.account).await;
    world.stop().await;
}

/// The typing told before a heartbeat is acknowledged: datagrams of a connection are taken, and sent, in their order.
async fn acknowledged(client: &Client, number: u64) -> Vec<Typing> {
    client.connection.send_datagram(Heartbeat { number, inbox_version: 0, presence_version: 0 }.to_frame().into());
    let mut typing = Vec::new();
    loop {
        match datagram(client).await {
            DatagramDown::HeartbeatAck(ack) if ack.number == number => return typing,
            DatagramDown::Typing(told) => typing.push(told),
            DatagramDown::HeartbeatAck(_) | DatagramDown::Presence(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_3_6_3_no_datagram_has_an_effect_before_hello() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let watch = Watch { accounts: vec![AccountRef { account: bob.account }].into() };
    assert_eq!(a.ask(Method::Watch, watch.encode_body()).await.code, ErrorCode::None);

    // Bob's device with a wrong secret. Datagrams go first, so they are there when `Hello` is judged.
    let connection = world.dial().await;
    for number in 1..=4 {
        connection.send_datagram(Heartbeat { number, inbox_version: 0, presence_version: 0 }.to_frame().into());
        let typing = Typing { conversation, account: bob.account, typing: true };
        connection.send_datagram(typing.to_frame().into());
    }
    let mut control = Stream::open(&connection, StreamType::Control).await;
    control.send(&hello(&User { secret: [1; 32], ..bob.clone() }, ClientState::Foreground)).await;
    assert_eq!(closed(&connection).await, ErrorCode::Unauthenticated);
    let answered = soon("what came before the close", connection.read_datagram()).await;
    assert!(answered.is_err(), "a heartbeat was answered: {answered:?}");
    let taken = world.hub.stats().datagrams.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((taken, world.hub.online()), (0, 1), "and Alice is the only one online");
    assert_eq!(acknowledged(&a, 1).await, [], "nobody types");

    // They count once it is clear whose they are.
    let b = world.session(&bob).await;
    assert_eq!(acknowledged(&b, 9).await, []);
    wait_presence(&a, bob.account, PresenceStatus::Online, AccountId(0)).await;
    world.stop().await;
}

/// Waits for the line that says that the log goes to `head`.
async fn reached(inbox: &mut Stream, head: u64) {
    while inbox.line().await.head < Seq(head) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rove_3_6_4_typing_names_its_sender_and_goes_from_who_may_post_to_members_of_small_conversations() {
    let world = World::start().await;
    let mut members = Vec::new();
    for number in 0..limits::TYPING_MEMBERS {
        members.push(world.user(&format!("member-{number}")).await.account);
    }
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let mut a = world.session(&alice).await;
    let (b, c) = (world.session(&bob).await, world.session(&carol).await);
    let types = |from: &Client, conversation, account| {
        from.connection.send_datagram(Typing { conversation, account, typing: true }.to_frame().into());
    };
    // Bob's lines tell when a change counts.
    let mut inbox = b.inbox().await;
    assert!(matches!(inbox.inbox().await, InboxDown::InboxSynced(_)));
    let group = a.group(&[bob.account]).await;
    reached(&mut inbox, 1).await;

    types(&a, group, carol.account);
    assert_eq!(acknowledged(&a, 1).await, [], "not to its sender");
    let told = acknowledged(&b, 1).await;
    assert_eq!(told, [Typing { conversation: group, account: alice.account, typing: true }], "whatever it said");
    assert_eq!(acknowledged(&c, 1).await, [], "members only");

    types(&c, group, alice.account);
    assert_eq!(acknowledged(&c, 2).await, []);
    assert_eq!(acknowledged(&b, 2).await, [], "from members only");

    a.change(group, bob.account, Role::ReadOnly).await;
    reached(&mut inbox, 2).await;
    types(&b, group, bob.account);
    assert_eq!(acknowledged(&b, 3).await, []);
    assert_eq!(acknowledged(&a, 2).await, [], "who only reads has nothing to type");

    // As many members as may be, and one more.
    a.change(group, bob.account, Role::Member).await;
    let (fit, one_more) = members.split_at(limits::TYPING_MEMBERS as usize - 2);
    for account in fit {
        a.change(group, *account, Role::Member).await;
    }
    reached(&mut inbox, 3 + fit.len() as u64).await;
    types(&a, group, alice.account);
    assert_eq!(acknowledged(&a, 3).await, []);
    assert_eq!(acknowledged(&b, 4).await.len(), 1);
    a.change(group, one_more[0], Role::Member).await;
    reached(&mut inbox, 4 + fit.len() as u64).await;
    types(&a, group, alice.account);
    assert_eq!(acknowledged(&a, 4).await, []);
    assert_eq!(acknowledged(&b, 5).await, [], "nobody follows the typing of a crowd");
    world.stop().await;
}
