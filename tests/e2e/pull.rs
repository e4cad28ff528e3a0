//! Pull mode (D14): crowded conversations tell their clients only where the head is, and clients fetch.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails when what it needs is not there"
)]

use std::collections::BTreeMap;

use rove_client::ids::{AccountId, ConversationId, Seq, WriterId};
use rove_client::registry::{EventKind, Role, StreamMode, StreamType};
use rove_client::{Client, Conversation, Outcome, PostHandle};
use rove_protocol::message::{Body as _, ConversationDown, InboxDown, InboxOpen, MembersChanged, Message as _, Open};
use rove_tests::raw::{Raw, RawStream};
use rove_tests::talk::holds;
use rove_tests::{Server, http3, people, within_patience};

/// More than three members of whom more than three are there.
const CROWDED_ABOVE_THREE: &str = "pull_members = 3\npull_active = 3\n";

/// Signs these up, and waits until the server knows that they are there.
async fn online(server: &Server, names: &[&str]) -> Vec<Client> {
    let mut clients = Vec::new();
    for name in names {
        let client = people::sign_up(server, name).await;
        within_patience("the session", client.connected()).await.expect("the server takes it");
        clients.push(client);
    }
    clients
}

/// The conversation at each of them, once they have heard of it.
async fn open(clients: &[Client], id: ConversationId) -> Vec<Conversation> {
    let mut open = Vec::new();
    for client in clients {
        let mut list = client.conversations().expect("the client lives");
        within_patience("hearing of the group", async {
            while !list.list().iter().any(|summary| summary.id == id && summary.role != Role::None) {
                list.changed().await.expect("the client lives");
            }
        })
        .await;
        open.push(client.open_conversation(id).await.expect("it is known"));
    }
    open
}

/// Everybody posts `each` lines, all at once.
async fn talk(people: &[Conversation], what: &str, each: u32) -> Vec<PostHandle> {
    let mut handles = Vec::new();
    for number in 0..each {
        for (index, person) in people.iter().enumerate() {
            handles.push(person.post(&format!("{what} {index} {number}")).await.expect("the outbox has room"));
        }
    }
    handles
}

/// The last seq of what was said, all of which is acknowledged.
async fn said(handles: Vec<PostHandle>) -> Seq {
    let mut last = Seq(0);
    for handle in handles {
        match within_patience("the acknowledgement", handle.outcome()).await.expect("the client lives") {
            Outcome::Posted { seq, .. } => last = last.max(seq),
            Outcome::Refused(code) => panic!("refused: {code}"),
        }
    }
    last
}

/// The events held, by seq, byte for byte.
async fn log(conversation: &Conversation) -> BTreeMap<Seq, Vec<u8>> {
    let events = conversation.events_after(Seq(0), 100_000).await.expect("the store reads");
    events.into_iter().map(|event| (event.seq, event.encoded.to_vec())).collect()
}

/// How a stream that is opened now is served.
async fn mode(raw: &Raw, conversation: ConversationId) -> (StreamMode, RawStream) {
    let open = Open { conversation, after: Seq(0), seen: Seq(0), epoch: 0, writer: WriterId([9; 16]) };
    let mut stream = raw.stream(StreamType::Conversation, &open.to_frame()).await;
    match stream.next_of_conversation().await {
        ConversationDown::Opened(opened) => (opened.mode, stream),
        other => panic!("{other:?}"),
    }
}

/// Lets go of the conversation everywhere and opens it again, so that each stream is a new one.
async fn open_again(
    server: &Server,
    clients: &[Client],
    id: ConversationId,
    people: Vec<Conversation>,
) -> Vec<Conversation> {
    drop(people);
    let mut metrics = http3::Metrics::connect(server).await;
    within_patience("the streams to end", async {
        while metrics.get("rove_streams{type=\"conversation\"}").await > 0 {}
    })
    .await;
    open(clients, id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_in_a_crowded_group_fetches_the_same_log_up_to_heads_that_are_coalesced() {
    const EACH: u32 = 80;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), CROWDED_ABOVE_THREE);
    let clients = online(&server, &["alice", "bob", "carol", "dave", "erin"]).await;
    let rita = people::credentials(&server, "rita").await;
    let (raw, _control) = Raw::welcomed(&server, &rita).await;
    let mut members: Vec<AccountId> = clients[1..].iter().map(Client::account).collect();
    members.push(rita.account);
    let id = clients[0].create_group("crowd", &members).await.unwrap();
    let people = open(&clients, id).await;

    let (how, mut stream) = mode(&raw, id).await;
    assert_eq!(how, StreamMode::Pull);
    let inbox = InboxOpen { cursors: Vec::new().into() };
    let mut inbox = raw.stream(StreamType::Inbox, &inbox.to_frame()).await;
    let last = said(talk(&people, "at once", EACH).await).await;
    assert_eq!(last, Seq(1 + 5 * u64::from(EACH)), "the group's creation and every post");

    let (mut heads, mut events) = (Vec::new(), 0);
    while heads.last() != Some(&last) {
        let frame = inbox.next().await.expect("a line");
        if let Some(InboxDown::InboxLine(line)) = InboxDown::decode(frame).unwrap() {
            assert_eq!(line.conversation, id);
            events += usize::from(line.event.is_some());
            heads.push(line.head);
        }
    }
    assert!(heads.is_sorted(), "{heads:?}");
    assert!((heads.len() as u64) < last.0, "{} heads told of {last} events", heads.len());
    assert_eq!(events, 0, "a line of what is open carries no event");

    let first = {
        holds(&people[0], last).await;
        log(&people[0]).await
    };
    assert_eq!(first.keys().copied().collect::<Vec<_>>(), (1..=last.0).map(Seq).collect::<Vec<_>>());
    for person in &people[1..] {
        holds(person, last).await;
        assert_eq!(log(person).await, first);
    }
    assert_eq!(http3::metric(&server, "rove_events_sent_total").await, 0, "nothing came by a stream");
    assert!(http3::metric(&server, "rove_pages_total").await > 0);

    // A stream that is pulled carries posts and their answers, and nothing else.
    stream.write(rove_tests::raw::text_post(1, "from a stranger's client").to_frame()).await;
    let answer = stream.next_of_conversation().await;
    assert!(matches!(&answer, ConversationDown::Posted(posted) if posted.seq == last.next()), "{answer:?}");
    for person in &people {
        holds(person, last.next()).await;
    }
}

/// The seq of the event that took `account` out, once `witness` holds it.
async fn left_at(witness: &Conversation, account: AccountId) -> Seq {
    let gone = |event: &rove_client::Event| {
        let changed = MembersChanged::decode_body(event.body.clone());
        event.kind == EventKind::MembersChanged
            && changed.is_ok_and(|changed| changed.changes.iter().any(|c| c.account == account && c.role == Role::None))
    };
    let mut updates = witness.updates();
    within_patience("the event that took somebody out", async {
        loop {
            let events = witness.events_after(Seq(0), 100_000).await.expect("the store reads");
            if let Some(event) = events.iter().rev().find(|event| gone(&event.event)) {
                return event.seq;
            }
            updates.changed().await.expect("the client lives");
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_becomes_crowded_and_lonely_again_loses_nothing() {
    const EACH: u32 = 40;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), CROWDED_ABOVE_THREE);
    let clients = online(&server, &["alice", "bob", "carol", "dave"]).await;
    let rita = people::credentials(&server, "rita").await;
    let (raw, _control) = Raw::welcomed(&server, &rita).await;
    let (alice, carol, dave) = (&clients[0], &clients[2], &clients[3]);
    let (few, more) = (&clients[..2], &clients[..]);
    let id = alice.create_group("group", &[clients[1].account(), rita.account]).await.unwrap();
    let people = open(few, id).await;
    assert_eq!(mode(&raw, id).await.0, StreamMode::Live);
    let mut posts = talk(&people, "few", EACH).await;

    // Two come while people talk. Who has it open goes on as before; who opens it now pulls.
    let join = |client: &Client| (client.account(), Role::Member);
    alice.change_members(id, &[join(carol), join(dave)]).await.unwrap();
    let newcomers = open(&more[2..], id).await;
    assert_eq!(mode(&raw, id).await.0, StreamMode::Pull);
    posts.append(&mut talk(&people, "some live", EACH).await);
    posts.append(&mut talk(&newcomers, "some pull", EACH).await);
    let last = said(std::mem::take(&mut posts)).await;
    for person in people.iter().chain(&newcomers) {
        holds(person, last).await;
    }
    let people = open_again(&server, more, id, people.into_iter().chain(newcomers).collect()).await;
    let before = http3::metric(&server, "rove_events_sent_total").await;
    let last = said(talk(&people, "all pull", EACH).await).await;
    for person in &people {
        holds(person, last).await;
    }
    assert_eq!(http3::metric(&server, "rove_events_sent_total").await, before, "all of them pulled");

    // The two go in the middle of what is said. What was said until then they hold, and no more.
    let posts = talk(&people[..2], "good-bye", EACH).await;
    alice.change_members(id, &[(carol.account(), Role::None), (dave.account(), Role::None)]).await.unwrap();
    let last = said(posts).await;
    for person in &people[..2] {
        holds(person, last).await;
    }
    let left = left_at(&people[0], carol.account()).await;
    for person in &people[2..] {
        holds(person, left).await;
        assert_eq!((person.cursor(), person.head()), (left, left));
    }
    let people = open_again(&server, few, id, people).await;
    assert_eq!(mode(&raw, id).await.0, StreamMode::Live);
    let before = http3::metric(&server, "rove_pages_total").await;
    let last = said(talk(&people, "few again", EACH).await).await;
    for person in &people {
        holds(person, last).await;
    }
    assert_eq!(http3::metric(&server, "rove_pages_total").await, before, "nobody pulled");

    // One comes back, and has all but what was said without it.
    alice.change_members(id, &[join(carol)]).await.unwrap();
    let back = open(std::slice::from_ref(carol), id).await;
    assert_eq!(mode(&raw, id).await.0, StreamMode::Pull);
    let last = said(talk(&back, "back", EACH).await).await;
    let everything = {
        holds(&people[0], last).await;
        log(&people[0]).await
    };
    holds(&people[1], last).await;
    assert_eq!(log(&people[1]).await, everything);
    holds(&back[0], last).await;
    let hers = log(&back[0]).await;
    assert!(hers.iter().all(|(seq, event)| everything.get(seq) == Some(event)), "as everybody has it");
    let missing: Vec<Seq> = everything.keys().copied().filter(|seq| !hers.contains_key(seq)).collect();
    let joined = everything.keys().copied().find(|seq| hers.contains_key(seq)).expect("she holds something");
    let rejoined = hers.keys().copied().find(|seq| *seq > left).expect("she came back");
    let hidden = (1..joined.0).chain(left.0 + 1..rejoined.0).map(Seq);
    assert_eq!(missing, hidden.collect::<Vec<_>>(), "without her: before {joined}, and from {left} to {rejoined}");
}
