//! The inbox stream.

use rove_protocol::ids::Seq;
use rove_protocol::message::{Body as _, Event, InboxDown, InboxOpen};
use rove_protocol::registry::StreamType;

use crate::support::{Stream, World, post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_tells_what_changed_after_its_cursors_with_small_events_inside() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let direct = a.direct(bob.account).await.conversation;
    let group = a.group(&[bob.account]).await;
    let b = world.session(&bob).await;
    let mut inbox = b.inbox().await;
    let mut lines = [inbox.line().await, inbox.line().await];
    lines.sort_by_key(|line| line.conversation != direct);
    assert_eq!([lines[0].conversation, lines[1].conversation], [direct, group]);
    assert!(lines.iter().all(|line| line.event.is_some()));
    assert_eq!((lines[0].title.as_str(), lines[1].title.as_str()), ("", "group"));

    // Away, and something happens in one of them.
    drop((inbox, b));
    let mut stream = a.open(group, 1).await;
    stream.opened().await;
    stream.send(&post(1, "while you were away")).await;
    let posted = stream.posted().await;
    let cursors = lines.iter().map(|line| rove_protocol::message::PartitionCursor {
        partition: line.partition,
        message_id: lines.iter().map(|line| line.last_message_id).max().unwrap(),
    });
    let mut cursors: Vec<_> = cursors.collect();
    cursors.dedup();
    let b = world.session(&bob).await;
    let mut inbox = Stream::open(&b.connection, StreamType::Inbox).await;
    inbox.send(&InboxOpen { cursors: cursors.into() }).await;
    let InboxDown::InboxLine(line) = inbox.inbox().await else { panic!("no line") };
    assert_eq!((line.conversation, line.head, line.last_message_id), (group, Seq(2), posted.message_id));
    let event = Event::decode_body(line.event.unwrap()).unwrap();
    assert_eq!(&event.body[..], b"while you were away");
    assert!(matches!(inbox.inbox().await, InboxDown::InboxSynced(_)), "and nothing of the other one");
    world.stop().await;
}
