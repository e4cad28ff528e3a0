//! Pages of history.

use rove_protocol::ids::Seq;
use rove_protocol::message::{Fetch, FetchDown};
use rove_protocol::registry::{Anchor, StreamType};

use crate::support::{Stream, World, post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_replayed_and_fetched_from_any_anchor() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut a = world.session(&alice).await;
    let conversation = a.direct(bob.account).await.conversation;
    let mut stream = a.open(conversation, 1).await;
    stream.opened().await;
    let mut posted = Vec::new();
    let text = "x".repeat(1_000);
    for number in 1..=200 {
        stream.send(&post(number, &text)).await;
        posted.push(stream.posted().await);
    }

    // 200 kB of replay, from the store and the ring, without a hole.
    let mut replay = a.open(conversation, 0).await;
    assert_eq!(replay.opened().await.head, Seq(201));
    for seq in 1..=201 {
        assert_eq!(replay.event().await.seq, Seq(seq));
    }

    let mut fetch = Stream::open(&a.connection, StreamType::Fetch).await;
    let page = |anchor, at, backward| Fetch { conversation, anchor, at, backward, limit: 3, seen: Seq(0) };
    fetch.send(&page(Anchor::Seq, 10, false)).await;
    fetch.send(&page(Anchor::MessageId, posted[50].message_id.0, false)).await;
    fetch.send(&page(Anchor::Head, 0, true)).await;
    fetch.send(&page(Anchor::Time, posted[199].time_ms + 1, false)).await;
    for expected in [vec![10, 11, 12], vec![52, 53, 54], vec![199, 200, 201], vec![]] {
        let mut seqs = Vec::new();
        let end = loop {
            match fetch.fetched().await {
                FetchDown::Event(event) => seqs.push(event.seq.0),
                FetchDown::Page(page) => break page,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(seqs, expected);
        assert_eq!((end.first.0, end.head), (expected.first().copied().unwrap_or(0), Seq(201)));
    }
    world.stop().await;
}
