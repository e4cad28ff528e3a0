//! A whole node on a real disk: what it answered is there, whatever happens to it.

mod cluster;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use rove_core::command::{Actor, ConversationCommand, ConversationOutcome, Effect};
use rove_core::conversation::{PartitionRow, read};
use rove_core::directory::{Credentials, Digest, DirectoryCommand, DirectoryOutcome, Handle, NewDevice, NewToken};
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, NodeId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::message::{Body as _, Post};
use rove_protocol::registry::{ContentType, ErrorCode, EventKind};
use tokio::sync::oneshot;

use super::stats::NodeStats;
use super::*;

const ALICE: Actor = Actor { account: AccountId(1), device: DeviceId(1) };
const BOB: AccountId = AccountId(2);

fn config(dir: &Path) -> NodeConfig {
    // Several threads apply.
    NodeConfig { partitions: 3, cores: 6, ..NodeConfig::new(dir, NodeId(1)) }
}

async fn start(dir: &Path) -> (Node, NodeRunner) {
    start_with(dir, Sinks::none()).await
}

async fn start_with(dir: &Path, sinks: Sinks) -> (Node, NodeRunner) {
    let (node, runner) = Node::start(config(dir), sinks).unwrap();
    assert!(node.ready().await);
    (node, runner)
}

async fn create(node: &Node, actor: Actor, peer: AccountId) -> ConversationId {
    let id = ConversationId::direct(actor.account, peer);
    let command = ConversationCommand::CreateDirect { actor, peer };
    let outcome = node.propose_conversation(node.partition_of(id), &command).unwrap().await.unwrap();
    assert!(matches!(outcome, ConversationOutcome::Conversation(_)), "{outcome:?}");
    id
}

fn post(
    node: &Node,
    id: ConversationId,
    actor: Actor,
    writer: u8,
    number: u64,
) -> oneshot::Receiver<ConversationOutcome> {
    post_of(node, id, actor, writer, number, format!("{writer}/{number}").into())
}

fn post_of(
    node: &Node,
    id: ConversationId,
    actor: Actor,
    writer: u8,
    number: u64,
    body: Bytes,
) -> oneshot::Receiver<ConversationOutcome> {
    let post = Post {
        post_no: PostNo(number),
        kind: EventKind::Message,
        refers_to: Seq(0),
        content_type: ContentType::default(),
        crypto_epoch: 0,
        mentions: Vec::new().into(),
        body,
        extensions: Extensions::default(),
    };
    let command = ConversationCommand::Post {
        conversation: id,
        actor,
        writer: WriterId([writer; 16]),
        post: post.encode_body().into(),
    };
    node.propose_conversation(node.partition_of(id), &command).unwrap()
}

async fn seq(answer: oneshot::Receiver<ConversationOutcome>) -> Seq {
    match answer.await.unwrap() {
        ConversationOutcome::Posted(posted) => posted.seq,
        other => panic!("{other:?}"),
    }
}

fn rows(node: &Node) -> Vec<PartitionRow> {
    (1..=node.partitions())
        .map(|number| read::partition(node.state(), PartitionId(number)).unwrap().unwrap_or_default())
        .collect()
}

/// The directory as it is on disk at this moment: what a crash would leave.
fn image(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            image(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash_and_comes_to_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let (node, runner) = start(&dir.path().join("a")).await;
    let id = create(&node, ALICE, BOB).await;
    let answers: Vec<_> = (1..=200).map(|number| post(&node, id, ALICE, 1, number)).collect();
    let mut last = Seq(0);
    for answer in answers {
        last = seq(answer).await;
    }
    // Nothing was flushed: the image has the log and no state.
    image(&dir.path().join("a"), &dir.path().join("b"));
    runner.stop().await.unwrap();
    drop(node);

    let (crashed, _crashed) = start(&dir.path().join("b")).await;
    let (stopped, _stopped) = start(&dir.path().join("a")).await;
    assert!(NodeStats::get(&crashed.stats().entries_applied) > NodeStats::get(&stopped.stats().entries_applied));
    assert_eq!(rows(&crashed), rows(&stopped), "applied index and state hash");
    for node in [&crashed, &stopped] {
        let partition = node.partition_of(id);
        let head = read::conversation(node.state(), partition, id).unwrap().unwrap().head;
        assert_eq!(head, last);
        assert_eq!(read::last_post_no(node.state(), partition, id, WriterId([1; 16])).unwrap(), PostNo(200));
        assert_eq!(seq(post(node, id, ALICE, 1, 200)).await, last, "a repeat gets the recorded outcome");
        assert_eq!(seq(post(node, id, ALICE, 1, 201)).await, last.next());
    }
}

#[tokio::test]
async fn a_node_dropped_in_the_middle_has_everything_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (node, runner) = start(dir.path()).await;
    let id = create(&node, ALICE, BOB).await;
    let answers: Vec<_> = (1..=2_000).map(|number| post(&node, id, ALICE, 1, number)).collect();
    let mut answers = answers.into_iter();
    for answer in answers.by_ref().take(100) {
        seq(answer).await;
    }
    tokio::task::spawn_blocking(move || drop(runner)).await.unwrap();
    let mut answered = 100;
    for answer in answers {
        answered += u64::from(answer.await.is_ok());
    }
    drop(node);
    let (node, _runner) = start(dir.path()).await;
    let last = read::last_post_no(node.state(), node.partition_of(id), id, WriterId([1; 16])).unwrap();
    assert!(last.0 >= answered, "{answered} answered, {last} there");
}

#[tokio::test]
async fn posts_in_flight_share_entries_and_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _runner) = start(dir.path()).await;
    let id = create(&node, ALICE, BOB).await;
    let (entries, syncs) = (NodeStats::get(&node.stats().entries_proposed), NodeStats::get(&node.stats().log_syncs));
    let answers: Vec<_> = (1..=1_000).map(|number| post(&node, id, ALICE, 1, number)).collect();
    for (index, answer) in answers.into_iter().enumerate() {
        assert_eq!(seq(answer).await, Seq(2 + index as u64), "in the order of the calls");
    }
    let entries = NodeStats::get(&node.stats().entries_proposed) - entries;
    let syncs = NodeStats::get(&node.stats().log_syncs) - syncs;
    assert!(entries <= 250, "{entries} entries for 1000 posts");
    assert!(syncs <= entries, "{syncs} syncs for {entries} entries");
    assert_eq!(NodeStats::get(&node.stats().posts_applied), 1_000);
}

#[tokio::test]
async fn a_node_that_has_nothing_to_do_does_next_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _runner) = start(dir.path()).await;
    let now = || {
        let stats = node.stats();
        (NodeStats::get(&stats.replica_ticks), NodeStats::get(&stats.replica_rounds))
    };
    let (ticks, rounds) = now();
    while now().0 < ticks + 20 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let (ticks, rounds) = (now().0 - ticks, now().1 - rounds);
    // One for each tick, and some for what the start has left behind.
    assert!(rounds <= 5 * ticks, "{rounds} rounds in {ticks} ticks");
}

#[tokio::test]
async fn after_a_graceful_stop_nothing_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let (node, runner) = start(dir.path()).await;
    let id = create(&node, ALICE, BOB).await;
    let answers: Vec<_> = (1..=50).map(|number| post(&node, id, ALICE, 1, number)).collect();
    runner.stop().await.unwrap();
    for answer in answers {
        seq(answer).await;
    }
    let refused =
        node.propose_conversation(PartitionId(1), &ConversationCommand::CreateDirect { actor: ALICE, peer: BOB });
    assert_eq!(refused.unwrap_err(), ProposeError::Stopping);
    drop(node);
    let (node, _runner) = start(dir.path()).await;
    let applied = NodeStats::get(&node.stats().entries_applied);
    assert_eq!(applied, u64::from(node.partitions()), "only what each new leader begins with");
}

#[tokio::test]
async fn flushing_lets_go_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let quick = NodeConfig { flush_every: std::time::Duration::ZERO, ..config(dir.path()) };
    let (node, runner) = Node::start(quick, Sinks::none()).unwrap();
    assert!(node.ready().await);
    let id = create(&node, ALICE, BOB).await;
    let partition = node.partition_of(id);
    let mut number = 0;
    // Each post gives the node time to flush what came before.
    let truncated = loop {
        number += 1;
        seq(post(&node, id, ALICE, 1, number)).await;
        let stats = node.partition_stats()[usize::from(partition.0)];
        if stats.durable > 10 && stats.log_entries < stats.last {
            break stats;
        }
    };
    assert!(truncated.log_entries <= truncated.last - truncated.durable);
    tokio::task::spawn_blocking(move || drop(runner)).await.unwrap();
    drop(node);
    let (node, _runner) = start(dir.path()).await;
    assert_eq!(seq(post(&node, id, ALICE, 1, number)).await, Seq(number + 1), "from a log that begins in the middle");
}

#[tokio::test]
async fn a_data_directory_is_for_one_process_and_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let (node, runner) = start(dir.path()).await;
    assert!(matches!(Node::start(config(dir.path()), Sinks::none()), Err(StartError::InUse { .. })));
    runner.stop().await.unwrap();
    drop(node);
    let other = NodeConfig { node_id: NodeId(2), members: vec![NodeId(2)], ..config(dir.path()) };
    assert!(matches!(Node::start(other, Sinks::none()), Err(StartError::OtherNode { found: NodeId(1), .. })));
    let other = NodeConfig { partitions: 4, ..config(dir.path()) };
    assert!(matches!(Node::start(other, Sinks::none()), Err(StartError::OtherPartitions { found: 3, expected: 4 })));
}

#[tokio::test]
async fn a_log_that_lost_what_the_state_has_is_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let (node, runner) = start(dir.path()).await;
    create(&node, ALICE, BOB).await;
    runner.stop().await.unwrap();
    drop(node);
    std::fs::remove_dir_all(dir.path().join("raft")).unwrap();
    std::fs::remove_file(dir.path().join("raft-synced")).unwrap();
    let error = Node::start(config(dir.path()), Sinks::none()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::Quarantined { .. }), "{error}");
}

#[tokio::test]
async fn an_old_copy_of_the_log_is_refused_even_without_the_state_to_contradict_it() {
    let dir = tempfile::tempdir().unwrap();
    let (node, runner) = start(dir.path()).await;
    let id = create(&node, ALICE, BOB).await;
    image(&dir.path().join("raft"), &dir.path().join("old"));
    seq(post(&node, id, ALICE, 1, 1)).await;
    runner.stop().await.unwrap();
    drop(node);
    for gone in ["raft", "state", "directory"] {
        std::fs::remove_dir_all(dir.path().join(gone)).unwrap();
    }
    std::fs::rename(dir.path().join("old"), dir.path().join("raft")).unwrap();
    let error = Node::start(config(dir.path()), Sinks::none()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::Watermark(_)), "{error}");
}

#[tokio::test]
async fn a_state_that_was_lost_is_quarantined_once_the_log_is_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let quick = NodeConfig { flush_every: std::time::Duration::ZERO, ..config(dir.path()) };
    let (node, runner) = Node::start(quick, Sinks::none()).unwrap();
    assert!(node.ready().await);
    let id = create(&node, ALICE, BOB).await;
    let mut number = 0;
    while node.partition_stats()[usize::from(node.partition_of(id).0)].durable < 5 {
        number += 1;
        seq(post(&node, id, ALICE, 1, number)).await;
    }
    seq(post(&node, id, ALICE, 1, number + 1)).await;
    runner.stop().await.unwrap();
    drop(node);
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    let error = Node::start(config(dir.path()), Sinks::none()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::Quarantined { .. }), "{error}");
}

/// Remembers who was revoked.
#[derive(Default)]
struct Revoked(Mutex<Vec<DeviceId>>);

impl DirectorySink for Revoked {
    fn device_revoked(&self, device: DeviceId) {
        self.0.lock().push(device);
    }

    fn devices(&self) -> Vec<DeviceId> {
        (1..=10).map(DeviceId).collect()
    }
}

fn sign_up(handle: &str) -> DirectoryCommand {
    let digest = |what: &str| Digest::of(format!("{handle} {what}").as_bytes());
    let token = |what| NewToken { token: digest(what), lifetime_ms: 60_000 };
    DirectoryCommand::SignUp {
        handle: Handle::parse(handle).unwrap(),
        name: String::new(),
        password_hash: "hash".to_owned(),
        device: NewDevice {
            name: String::new(),
            credentials: Credentials { secret: digest("secret"), access: token("access"), refresh: token("refresh") },
        },
        idempotency: None,
    }
}

/// A new account and its device.
async fn signed_up(node: &Node, handle: &str) -> Actor {
    match node.propose_directory(&sign_up(handle)).await.unwrap() {
        DirectoryOutcome::SignedIn { account, device } => Actor { account, device },
        other => panic!("not signed in: {other:?}"),
    }
}

/// Looks, while it is told of a revocation, at what a session would that registers just then.
#[derive(Default)]
struct Registering {
    node: OnceLock<Node>,
    seen: Mutex<Vec<(u64, bool)>>,
}

impl DirectorySink for Registering {
    fn device_revoked(&self, device: DeviceId) {
        let node = self.node.get().unwrap();
        let admitted = node.read_directory(move |directory| directory.admits(device).unwrap());
        let admitted = futures::executor::block_on(admitted).unwrap();
        self.seen.lock().push((node.revocations(), admitted));
    }

    fn devices(&self) -> Vec<DeviceId> {
        Vec::new()
    }
}

#[tokio::test]
async fn a_revocation_is_in_the_directory_and_counted_before_any_session_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let registering = Arc::new(Registering::default());
    let sinks = Sinks { directory: Arc::clone(&registering) as Arc<dyn DirectorySink>, ..Sinks::none() };
    let (node, runner) = start_with(dir.path(), sinks).await;
    registering.node.set(node.clone()).map_err(|_| "set twice").unwrap();
    for (handle, revoked) in [("alice", 1), ("bob", 2)] {
        let actor = signed_up(&node, handle).await;
        let device = actor.device;
        assert_eq!(node.revocations(), revoked - 1, "nothing else is counted");
        node.propose_directory(&DirectoryCommand::RevokeDevice { actor, device }).await.unwrap();
        assert_eq!(registering.seen.lock().last(), Some(&(revoked, false)));
    }
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_revocation_returns_when_every_partition_refuses_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let revoked = Arc::new(Revoked::default());
    let sinks = Sinks { directory: Arc::clone(&revoked) as Arc<dyn DirectorySink>, ..Sinks::none() };
    let (node, _runner) = start_with(dir.path(), sinks).await;
    let actor = signed_up(&node, "alice").await;
    let device = actor.device;
    let peers: Vec<AccountId> = (100..110).map(AccountId).collect();
    let mut ids = Vec::new();
    for peer in peers {
        ids.push(create(&node, actor, peer).await);
    }
    for id in &ids {
        seq(post(&node, *id, actor, 1, 1)).await;
    }
    let outcome = node.propose_directory(&DirectoryCommand::RevokeDevice { actor, device }).await.unwrap();
    assert!(matches!(outcome, DirectoryOutcome::Gated { .. }), "{outcome:?}");
    assert_eq!(*revoked.0.lock(), [device]);
    for id in &ids {
        match post(&node, *id, actor, 1, 2).await.unwrap() {
            ConversationOutcome::Refused(refused) => assert_eq!(refused.code, ErrorCode::Revoked),
            other => panic!("{other:?}"),
        }
    }
    let left = node.read_directory(|directory| directory.outbox(1).unwrap().len()).await.unwrap();
    assert_eq!(left, 0, "the outbox is empty again");
}

#[tokio::test]
async fn accounts_survive_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (node, runner) = start(dir.path()).await;
    node.propose_directory(&sign_up("alice")).await.unwrap();
    tokio::task::spawn_blocking(move || drop(runner)).await.unwrap();
    drop(node);
    let (node, _runner) = start(dir.path()).await;
    let outcome = node.propose_directory(&sign_up("alice")).await.unwrap();
    assert_eq!(outcome, DirectoryOutcome::Failed(ErrorCode::NameTaken));
    let found = node.read_directory(|directory| directory.account_by_handle("alice").unwrap().is_some()).await;
    assert_eq!(found, Ok(true));
}

/// Fails at the first event.
struct Clumsy;

impl EffectSink for Clumsy {
    fn publish(&self, _partition: PartitionId, effects: &[Effect]) {
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Event { .. })), "clumsy");
    }

    fn reset(&self, _partition: PartitionId, _last_hi: u64) {}
}

#[tokio::test]
async fn a_panicking_thread_takes_the_node_down_loudly() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = Sinks { effects: Arc::new(Clumsy), ..Sinks::none() };
    let (node, mut runner) = start_with(dir.path(), sinks).await;
    let id = ConversationId::direct(ALICE.account, BOB);
    let command = ConversationCommand::CreateDirect { actor: ALICE, peer: BOB };
    let _ = node.propose_conversation(node.partition_of(id), &command).unwrap().await;
    let failure = runner.failed().await;
    assert!(matches!(failure, FatalError::Panicked { name: "state-writer", .. }), "{failure}");
    assert!(!node.ready().await);
    assert_eq!(node.propose_conversation(node.partition_of(id), &command).unwrap_err(), ProposeError::Stopping);
    assert!(runner.stop().await.is_ok(), "it was reported already");
}

#[tokio::test]
async fn reads_run_on_the_pool_and_see_what_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _runner) = start(dir.path()).await;
    let id = create(&node, ALICE, BOB).await;
    let last = seq(post(&node, id, ALICE, 1, 1)).await;
    let partition = node.partition_of(id);
    let (head, thread) = node
        .read(move |state| {
            let head = read::conversation(state, partition, id).unwrap().unwrap().head;
            (head, std::thread::current().name().map(str::to_owned))
        })
        .await
        .unwrap();
    assert_eq!((head, thread.as_deref()), (last, Some("rove-read")));
}

#[tokio::test]
async fn a_partition_that_does_not_exist_and_a_command_too_large_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _runner) = start(dir.path()).await;
    let command = ConversationCommand::CreateDirect { actor: ALICE, peer: BOB };
    for partition in [PartitionId(0), PartitionId(4)] {
        let refused = node.propose_conversation(partition, &command).unwrap_err();
        assert_eq!(refused, ProposeError::UnknownPartition(partition));
    }
    let large = ConversationCommand::CreateGroup {
        actor: ALICE,
        nonce: [0; 16],
        title: "x".repeat(100_000),
        members: Vec::new(),
    };
    assert!(matches!(node.propose_conversation(PartitionId(1), &large), Err(ProposeError::TooLarge { .. })));
}

#[tokio::test]
async fn the_state_is_flushed_when_there_is_much_log_even_long_before_it_is_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig {
        flush_every: std::time::Duration::from_secs(24 * 60 * 60),
        flush_log_bytes: 256 * 1024,
        ..config(&dir.path().join("a"))
    };
    let (node, _runner) = Node::start(config, Sinks::none()).unwrap();
    assert!(node.ready().await);
    let id = create(&node, ALICE, BOB).await;
    let mut posted = 0;
    // The first flush may be of the beginning.
    while NodeStats::get(&node.stats().state_flushes) < 2 {
        posted += 1;
        assert!(posted <= 20_000, "{} flushes", NodeStats::get(&node.stats().state_flushes));
        seq(post_of(&node, id, ALICE, 1, posted, vec![1; 4 * 1024].into())).await;
    }
    // What a crash leaves is in the state as of the flush, and the log plays only the rest.
    image(&dir.path().join("a"), &dir.path().join("b"));
    let (crashed, _crashed) = start(&dir.path().join("b")).await;
    let head = |node: &Node| read::conversation(node.state(), node.partition_of(id), id).unwrap().unwrap().head;
    assert_eq!(head(&crashed), head(&node), "nothing is lost");
    let (all, again) = [&node, &crashed].map(|node| NodeStats::get(&node.stats().entries_applied)).into();
    assert!(again < all, "{again} of {all} entries were applied again");
}
