//! Datagrams: presence, heartbeats, typing.

use rove_protocol::frame::datagram_frames;
use rove_protocol::ids::AccountId;
use rove_protocol::message::{AccountRef, Body as _, DatagramDown, Heartbeat, Message as _, Suspend, Typing, Watch};
use rove_protocol::registry::{ClientState, ErrorCode, Method, PresenceStatus};
use rove_protocol::transport::Connection as _;

use crate::support::{Client, World, soon};

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
