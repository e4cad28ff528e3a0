//! The client against a small server that breaks connections at awkward moments, and against restored copies of its own
//! store.

mod early;
mod failover;
mod fake;
mod restored;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rove_protocol::ids::Seq;
use rove_protocol::registry::ErrorCode;

use crate::net::Network;
use crate::store::{AccountRow, Change, Store};
use crate::{
    Cancel, Client, ConnectionState, Content, Conversation, Delivery, Error, Options, Outcome, ServerAddress,
    StoreLocation,
};
use fake::{ALICE, Fake, ROOM};

/// Far longer than anything here takes; only a hang runs into it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

/// A client as it is after logging in, without the HTTP API.
async fn logged_in(server: &ServerAddress, options: Options) -> Client {
    let (store, loaded) = Store::open(&options.store, crate::inner::mint).unwrap();
    let account = AccountRow {
        server: server.to_string(),
        account: ALICE.0,
        device: ALICE.1,
        handle: "alice".to_owned(),
        secret: vec![1; 32].into(),
        access_token: String::new(),
        refresh_token: String::new(),
    };
    let network = Network::new(&server.trust, options.endpoint.as_ref()).unwrap();
    let client = Client::start(store, loaded, account.clone(), server.clone(), network, options);
    client.inner.state.lock().change(Change::Account(Box::new(account)));
    client.inner.flush().await.unwrap();
    client.supervise();
    client
}

/// Reconnects without making the test wait.
fn hasty(store: StoreLocation) -> Options {
    Options { max_backoff: Duration::from_millis(20), ..Options::new(store) }
}

async fn in_memory(server: &ServerAddress) -> Client {
    logged_in(server, hasty(StoreLocation::Memory)).await
}

async fn room(client: &Client) -> Conversation {
    // Known, as if it had been in the inbox before.
    client.inner.state.lock().conv(ROOM);
    soon(client.open_conversation(ROOM)).await.unwrap()
}

async fn holds(conversation: &Conversation, seq: u64) {
    let mut updates = conversation.updates();
    soon(async {
        while conversation.cursor() < Seq(seq) {
            updates.changed().await.unwrap();
        }
    })
    .await;
}

async fn texts(conversation: &Conversation) -> Vec<String> {
    let events = conversation.events_after(Seq(0), usize::MAX >> 1).await.unwrap();
    events.iter().map(|event| event.text().unwrap().to_owned()).collect()
}

fn numbered(from: u32, to: u32) -> Vec<String> {
    (from..=to).map(|number| number.to_string()).collect()
}

async fn post_all(conversation: &Conversation, from: u32, to: u32) {
    let mut handles = Vec::new();
    for text in numbered(from, to) {
        handles.push(conversation.post(&text).await.unwrap());
    }
    for handle in handles {
        assert!(matches!(soon(handle.outcome()).await.unwrap(), Outcome::Posted { .. }));
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn database(&self) -> PathBuf {
        self.0.path().join("alice.db")
    }
    fn options(&self) -> Options {
        hasty(StoreLocation::File(self.database()))
    }
    async fn open(&self) -> Client {
        Client::open(self.options()).await.unwrap()
    }
    /// Copies the database, and the file beside it if `whole`, to another folder.
    fn copy(&self, whole: bool) -> Copy {
        let to = tempfile::tempdir().unwrap();
        for name in files(self.0.path()) {
            if name != "alice.db.lock" && (whole || name != "alice.db.writer") {
                std::fs::copy(self.0.path().join(&name), to.path().join(&name)).unwrap();
            }
        }
        Copy(to)
    }
}

struct Copy(tempfile::TempDir);

impl Copy {
    fn restore_into(&self, folder: &Folder) {
        for name in files(folder.0.path()) {
            if name != "alice.db.writer" {
                std::fs::remove_file(folder.0.path().join(name)).unwrap();
            }
        }
        for name in files(self.0.path()) {
            std::fs::copy(self.0.path().join(&name), folder.0.path().join(&name)).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn posts_come_once_and_in_order_however_often_the_connection_is_dropped_before_the_answer() {
    let fake = Fake::start();
    fake.world.lock().drop_every = Some(17);
    let client = in_memory(&fake.address).await;
    let room = room(&client).await;
    post_all(&room, 1, 200).await;
    assert_eq!(fake.world.lock().texts(), numbered(1, 200));
    holds(&room, 200).await;
    assert_eq!(texts(&room).await, numbered(1, 200));
    assert!(client.stats().reconnects >= 10, "{:?}", client.stats());
    client.close().await;
}

#[tokio::test]
async fn an_overloaded_server_holds_posts_back_without_reordering_them() {
    let fake = Fake::start();
    fake.world.lock().busy_every = Some(5);
    let client = in_memory(&fake.address).await;
    let room = room(&client).await;
    post_all(&room, 1, 60).await;
    assert_eq!(fake.world.lock().texts(), numbered(1, 60));
    assert_eq!(client.stats().reconnects, 0);
}

#[tokio::test]
async fn a_move_to_another_socket_loses_neither_the_session_nor_a_post() {
    let fake = Fake::start();
    let client = in_memory(&fake.address).await;
    let room = room(&client).await;
    post_all(&room, 1, 20).await;
    for round in 0..5 {
        client.network_changed(None).unwrap();
        post_all(&room, 21 + round * 20, 40 + round * 20).await;
    }
    assert_eq!(fake.world.lock().texts(), numbered(1, 120));
    let stats = client.stats();
    assert_eq!((stats.reconnects, stats.rebinds, fake.world.lock().sessions), (0, 5, 1));
}

#[tokio::test]
async fn a_node_that_leaves_is_left_before_it_is_gone() {
    let (first, other) = (Fake::start(), Fake::start());
    let second = Fake::with_world(first.world.clone());
    drop(other);
    let client = in_memory(&first.trusting(&second)).await;
    let room = room(&client).await;
    post_all(&room, 1, 10).await;
    let mut state = client.state();
    let ConnectionState::Connected { node: before, .. } = state.borrow_and_update().clone() else {
        panic!("connected")
    };
    first.leave_for(second.socket_address());
    soon(state.changed()).await.unwrap();
    // From one session to the next, without a moment of being disconnected.
    let ConnectionState::Connected { node: after, .. } = state.borrow_and_update().clone() else {
        panic!("{:?}", state.borrow())
    };
    let _ = (before, after);
    post_all(&room, 11, 20).await;
    assert_eq!(first.world.lock().texts(), numbered(1, 20));
    assert_eq!(client.stats().reconnects, 1);
}

#[tokio::test]
async fn a_revoked_device_is_closed_for_good_and_says_why() {
    let fake = Fake::start();
    fake.world.lock().turn_away = Some(ErrorCode::Revoked);
    let client = in_memory(&fake.address).await;
    let mut state = client.state();
    let closed = soon(state.wait_for(|state| matches!(state, ConnectionState::Closed { .. }))).await.unwrap().clone();
    assert_eq!(closed, ConnectionState::Closed { code: ErrorCode::Revoked });
    let room = room(&client).await;
    assert!(matches!(room.post("x").await, Err(Error::Closed(ErrorCode::Revoked))));
    assert_eq!(fake.world.lock().sessions, 1, "it does not try again");
}

#[tokio::test]
async fn offline_posts_are_shown_as_queued_up_to_the_limit_and_can_be_taken_back() {
    let nobody = ServerAddress::pinned("127.0.0.1", 1, vec![[0; 32]]);
    let options = Options { outbox_posts: 3, ..Options::new(StoreLocation::Memory) };
    let client = logged_in(&nobody, options).await;
    let room = room(&client).await;
    let first = room.post("1").await.unwrap();
    room.post("2").await.unwrap();
    room.post("3").await.unwrap();
    assert!(matches!(room.post("4").await, Err(Error::OutboxFull { limit: 3 })));
    assert_eq!(room.cancel(first.local()).await.unwrap(), Cancel::Done);
    assert_eq!(soon(first.outcome()).await.unwrap(), Outcome::Refused(ErrorCode::Cancelled));
    room.post("4").await.unwrap();
    let timeline = room.timeline(10).await.unwrap();
    let shown: Vec<_> = timeline.iter().map(|item| (item.text().unwrap(), item.delivery)).collect();
    assert_eq!(shown, [("2", Delivery::Queued), ("3", Delivery::Queued), ("4", Delivery::Queued)]);
    assert!(matches!(room.post(&"x".repeat(17_000)).await, Err(Error::TooLong { limit: 16_384, .. })));
}

#[tokio::test]
async fn a_refused_post_is_shown_until_it_is_dismissed_and_holds_up_nothing() {
    let fake = Fake::start();
    fake.world.lock().forbidden = Some("rude");
    let client = in_memory(&fake.address).await;
    let room = room(&client).await;
    let rude = room.post("rude").await.unwrap();
    let local = rude.local();
    let kind = room.post("kind").await.unwrap();
    assert_eq!(soon(rude.outcome()).await.unwrap(), Outcome::Refused(ErrorCode::Forbidden));
    assert!(matches!(soon(kind.outcome()).await.unwrap(), Outcome::Posted { seq: Seq(1), .. }));
    holds(&room, 1).await;
    let timeline = room.timeline(10).await.unwrap();
    assert_eq!(timeline.len(), 2);
    assert_eq!(timeline[1].delivery, Delivery::Refused(ErrorCode::Forbidden));
    assert_eq!(room.cancel(local).await.unwrap(), Cancel::Done);
    assert_eq!(room.timeline(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_long_log_is_begun_near_its_end_and_older_pages_come_when_asked_for() {
    let fake = Fake::start();
    for number in 1..=300 {
        fake.world.lock().others_post(&number.to_string());
    }
    let options = Options { initial_events: 50, ..Options::new(StoreLocation::Memory) };
    let client = logged_in(&fake.address, options).await;
    soon(client.synced()).await.unwrap();
    let list = client.conversations().unwrap().list();
    assert_eq!((list[0].title.as_str(), list[0].head, list[0].unread), ("room", Seq(300), 300));
    assert_eq!(list[0].last.as_ref().unwrap().text(), Some("300"));
    let room = soon(client.open_conversation(ROOM)).await.unwrap();
    holds(&room, 300).await;
    assert_eq!(texts(&room).await, numbered(251, 300));
    assert_eq!(soon(room.fetch_older(Seq(251), 100)).await.unwrap(), Seq(151));
    assert_eq!(texts(&room).await, numbered(151, 300));
    assert_eq!(soon(room.fetch_older(Seq(151), 500)).await.unwrap(), Seq(1));
    let timeline = room.timeline_before(Seq(11), 5).await.unwrap();
    let shown: Vec<_> = timeline.iter().map(|item| item.content.clone()).collect();
    assert_eq!(shown, (6..=10).map(|number| Content::Text(number.to_string())).collect::<Vec<_>>());
    room.mark_read(Seq(290)).await.unwrap();
    assert_eq!(client.conversations().unwrap().list()[0].unread, 10);
}

#[tokio::test]
async fn two_clients_never_share_a_store() {
    let folder = Folder::new();
    let nobody = ServerAddress::pinned("127.0.0.1", 1, vec![[0; 32]]);
    let client = logged_in(&nobody, folder.options()).await;
    assert!(matches!(Client::open(folder.options()).await, Err(Error::StoreLocked)));
    client.close().await;
    folder.open().await.close().await;
    assert!(matches!(Client::open(Options::new(StoreLocation::Memory)).await, Err(Error::NotLoggedIn)));
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_read_the_files_of_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let nobody = ServerAddress::pinned("127.0.0.1", 1, vec![[0; 32]]);
    let client = logged_in(&nobody, folder.options()).await;
    room(&client).await.post("x").await.unwrap();
    for name in files(folder.0.path()) {
        let mode = std::fs::metadata(folder.0.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

#[tokio::test]
async fn what_was_queued_when_the_program_died_is_posted_by_the_next_one() {
    let fake = Fake::start();
    let folder = Folder::new();
    fake.world.lock().drop_every = Some(7);
    let client = logged_in(&fake.address, folder.options()).await;
    let conversation = room(&client).await;
    for text in numbered(1, 50) {
        conversation.post(&text).await.unwrap();
    }
    // No goodbye: whatever was under way is cut off.
    drop((client, conversation));
    let client = soon(async {
        loop {
            match Client::open(folder.options()).await {
                Ok(client) => break client,
                // The tasks of the dropped client are still letting go of the store.
                Err(Error::StoreLocked) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    let conversation = room(&client).await;
    holds(&conversation, 50).await;
    post_all(&conversation, 51, 60).await;
    assert_eq!(fake.world.lock().texts(), numbered(1, 60));
    assert_eq!(client.stats().writers_minted, 0, "it is the same store");
}

#[tokio::test]
async fn a_restored_copy_of_the_store_takes_a_new_writer_and_nothing_is_lost_or_doubled() {
    let fake = Fake::start();
    let folder = Folder::new();
    let client = logged_in(&fake.address, folder.options()).await;
    post_all(&room(&client).await, 1, 5).await;
    client.close().await;
    let copy = folder.copy(false);
    let client = folder.open().await;
    post_all(&room(&client).await, 6, 9).await;
    client.close().await;
    copy.restore_into(&folder);
    let client = folder.open().await;
    assert_eq!(client.stats().writers_minted, 1);
    let conversation = room(&client).await;
    post_all(&conversation, 10, 12).await;
    holds(&conversation, 12).await;
    assert_eq!(fake.world.lock().texts(), numbered(1, 12));
    assert_eq!(texts(&conversation).await, numbered(1, 12));
}

/// Queues posts in a store that cannot reach its server, and copies it.
async fn copy_with_queue(folder: &Folder, fake: &Fake, whole: bool) -> Copy {
    let client = logged_in(&fake.address, folder.options()).await;
    post_all(&room(&client).await, 1, 3).await;
    client.close().await;
    fake.world.lock().turn_away = Some(ErrorCode::Busy);
    let client = folder.open().await;
    let conversation = room(&client).await;
    for text in numbered(4, 6) {
        conversation.post(&text).await.unwrap();
    }
    drop(conversation);
    client.close().await;
    fake.world.lock().turn_away = None;
    folder.copy(whole)
}

#[tokio::test]
async fn what_a_copy_had_queued_and_its_lost_future_posted_is_not_posted_again() {
    for whole in [false, true] {
        let fake = Fake::start();
        let folder = Folder::new();
        let copy = copy_with_queue(&folder, &fake, whole).await;
        let client = folder.open().await;
        let conversation = room(&client).await;
        holds(&conversation, 6).await;
        post_all(&conversation, 7, 8).await;
        drop(conversation);
        client.close().await;
        copy.restore_into(&folder);
        let client = folder.open().await;
        let conversation = room(&client).await;
        let ninth = conversation.post("9").await.unwrap();
        assert!(matches!(soon(ninth.outcome()).await.unwrap(), Outcome::Posted { .. }));
        holds(&conversation, 9).await;
        assert_eq!(fake.world.lock().texts(), numbered(1, 9), "with the file beside it restored too: {whole}");
        assert_eq!(conversation.queued(), 0);
        assert_eq!(client.stats().writers_minted, 1);
    }
}

#[tokio::test]
async fn posts_where_the_account_is_not_a_member_are_refused_and_not_kept_for_ever() {
    let fake = Fake::start();
    let client = in_memory(&fake.address).await;
    let elsewhere = rove_protocol::ids::ConversationId([9; 16]);
    client.inner.state.lock().conv(elsewhere);
    let conversation = client.open_conversation(elsewhere).await.unwrap();
    let post = conversation.post("anybody?").await.unwrap();
    assert_eq!(soon(post.outcome()).await.unwrap(), Outcome::Refused(ErrorCode::NotFound));
    assert_eq!(conversation.queued(), 0);
    // The session and its other conversations are not touched by that.
    post_all(&room(&client).await, 1, 5).await;
    assert_eq!(client.stats().reconnects, 0);
}
