//! Snapshots: whole, cut off and resumed, refused, slow.

use super::*;
use tokio::sync::Semaphore;

/// Chunks made of their number; counts how often each was read.
struct Chunks {
    count: u64,
    size: usize,
    salt: u8,
}

impl SnapshotSource for Chunks {
    fn chunk(&mut self, number: u64) -> BoxFuture<'_, std::io::Result<Option<Bytes>>> {
        let byte = u8::try_from(number % 251).unwrap() ^ self.salt;
        let chunk = (number < self.count).then(|| Bytes::from(vec![byte; self.size]));
        async move { Ok(chunk) }.boxed()
    }
}

/// What a receiver has, kept over its connections.
#[derive(Default)]
struct Store {
    chunks: Vec<Bytes>,
    progress: SnapshotProgress,
    restarts: usize,
    finished: bool,
}

/// Takes a chunk for every permit.
struct Receiver {
    store: Arc<Mutex<Store>>,
    permits: Arc<Semaphore>,
}

impl SnapshotReceiver for Receiver {
    fn have(&self) -> SnapshotProgress {
        self.store.lock().progress
    }
    fn restart(&mut self) -> BoxFuture<'_, Result<(), String>> {
        let mut store = self.store.lock();
        store.chunks.clear();
        store.restarts += 1;
        async { Ok(()) }.boxed()
    }
    fn chunk(&mut self, bytes: Bytes, progress: SnapshotProgress) -> BoxFuture<'_, Result<(), String>> {
        async move {
            self.permits.acquire().await.unwrap().forget();
            let mut store = self.store.lock();
            store.chunks.push(bytes);
            store.progress = progress;
            Ok(())
        }
        .boxed()
    }
    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>> {
        self.store.lock().finished = true;
        async { Ok(()) }.boxed()
    }
}

/// Two linked nodes, of which the second takes snapshots.
struct Pair {
    one: TestNode,
    two: TestNode,
    store: Arc<Mutex<Store>>,
    permits: Arc<Semaphore>,
}

impl Pair {
    async fn new(permits: usize) -> Self {
        let fixture = Fixture::new(2);
        let (one, two) = (fixture.start(1), fixture.start(2));
        one.ear.up(2).await;
        two.ear.up(1).await;
        let (store, permits) = (Arc::<Mutex<Store>>::default(), Arc::new(Semaphore::new(permits)));
        let (taken, allowed) = (store.clone(), permits.clone());
        *two.ear.snapshots.lock() =
            Some(Box::new(move |_| Ok(Box::new(Receiver { store: taken.clone(), permits: allowed.clone() }))));
        Self { one, two, store, permits }
    }

    async fn send(&self, mut source: Chunks) -> Result<SnapshotSent, SnapshotError> {
        let header = SnapshotHeader { partition: PartitionId(3), id: [1; 16], meta: Bytes::from_static(b"meta") };
        soon("a snapshot", self.one.cluster.send_snapshot(NodeId(2), header, &mut source)).await
    }

    async fn stop(self) {
        self.one.stop().await;
        self.two.stop().await;
    }
}

fn chunks(count: u64) -> Chunks {
    Chunks { count, size: registry::CHUNK_BYTES, salt: 0 }
}

#[tokio::test]
async fn a_snapshot_arrives_whole() {
    let pair = Pair::new(1_000).await;
    assert_eq!(pair.send(chunks(40)).await, Ok(SnapshotSent { from: 0, chunks: 40 }));
    {
        let store = pair.store.lock();
        assert!(store.finished && store.chunks.len() == 40 && store.chunks[39][..] == vec![39; registry::CHUNK_BYTES]);
    }
    pair.stop().await;
}

#[tokio::test]
async fn a_snapshot_without_a_chunk_is_one_too() {
    let pair = Pair::new(0).await;
    assert_eq!(pair.send(chunks(0)).await, Ok(SnapshotSent { from: 0, chunks: 0 }));
    assert!(pair.store.lock().finished);
    pair.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_was_cut_off_goes_on_where_it_was() {
    let pair = Pair::new(7).await;
    let cut = async {
        eventually("seven chunks", || pair.store.lock().chunks.len() == 7).await;
        let link = pair.one.cluster.0.peer(NodeId(2)).unwrap().link().unwrap();
        link.connection.close(quinn::VarInt::from_u32(13), b"cut");
    };
    let (sent, ()) = tokio::join!(pair.send(chunks(30)), cut);
    assert!(matches!(sent, Err(SnapshotError::Lost(_))), "{sent:?}");
    assert!(!pair.store.lock().finished);
    pair.one.ear.up_times(2, 2).await;
    // By then the receiver of the first try is gone.
    pair.two.ear.up_times(1, 2).await;
    pair.permits.add_permits(100);
    assert_eq!(pair.send(chunks(30)).await, Ok(SnapshotSent { from: 7, chunks: 30 }));
    {
        let store = pair.store.lock();
        assert!(store.finished && store.restarts == 0 && store.chunks.len() == 30);
        assert!((0..30).all(|number| store.chunks[usize::from(number)][0] == number));
    }
    pair.stop().await;
}

#[tokio::test]
async fn what_is_there_of_another_content_is_sent_again() {
    let pair = Pair::new(1_000).await;
    pair.send(chunks(5)).await.unwrap();
    let other = Chunks { salt: 0x80, ..chunks(8) };
    assert_eq!(pair.send(other).await, Ok(SnapshotSent { from: 0, chunks: 8 }));
    let shorter = Chunks { salt: 0x80, ..chunks(3) };
    assert_eq!(pair.send(shorter).await, Ok(SnapshotSent { from: 0, chunks: 3 }));
    {
        let store = pair.store.lock();
        assert!(store.restarts == 2 && store.chunks.len() == 3 && store.chunks[0][0] == 0x80);
    }
    pair.stop().await;
}

#[tokio::test]
async fn a_snapshot_nobody_wants_is_refused_with_the_reason() {
    let pair = Pair::new(1_000).await;
    *pair.two.ear.snapshots.lock() = None;
    let refused = pair.send(chunks(5)).await;
    assert_eq!(refused, Err(SnapshotError::Refused("no snapshot is wanted".to_owned())));
    let too_large = Chunks { size: registry::CHUNK_BYTES + 1, ..chunks(5) };
    let store = pair.store.clone();
    let permits = pair.permits.clone();
    *pair.two.ear.snapshots.lock() =
        Some(Box::new(move |_| Ok(Box::new(Receiver { store: store.clone(), permits: permits.clone() }))));
    assert!(matches!(pair.send(too_large).await, Err(SnapshotError::Source(_))));
    assert!(pair.one.peer(2).connected && pair.one.peer(2).links == 1, "the link is not to blame");
    pair.stop().await;
}

#[tokio::test]
async fn a_receiver_that_reads_slowly_delays_nothing_else() {
    let pair = Pair::new(1).await;
    let beside = async {
        eventually("a first chunk", || !pair.store.lock().chunks.is_empty()).await;
        // The window of the stream is full from here on, and nobody takes anything out.
        for round in 0..20 {
            let beat = vec![(PartitionId(0), message(1, 2, round, 0))];
            let append = vec![(PartitionId(0), message(1, 2, round, 500_000))];
            pair.one.cluster.send_raft(NodeId(2), beat.iter().chain(&append).cloned().collect());
            pair.two.ear.exactly(Heard::Raft(1, beat)).await;
            pair.two.ear.exactly(Heard::Raft(1, append)).await;
            pair.one.cluster.call(NodeId(2), Bytes::new()).await.unwrap();
        }
        assert_eq!(pair.store.lock().chunks.len(), 1, "the snapshot still waits");
        pair.permits.add_permits(1_000);
    };
    let (sent, ()) = tokio::join!(pair.send(chunks(200)), beside);
    assert_eq!(sent, Ok(SnapshotSent { from: 0, chunks: 200 }));
    pair.stop().await;
}

#[tokio::test]
async fn only_so_many_snapshots_go_to_one_peer_at_once() {
    let pair = Pair::new(0).await;
    let third = async {
        let slots = || pair.one.cluster.0.peer(NodeId(2)).unwrap().link().unwrap().snapshots.available_permits();
        eventually("two snapshots", || slots() == 0).await;
        let refused = pair.send(chunks(1)).await;
        pair.permits.add_permits(1_000);
        refused
    };
    let (_, _, refused) = tokio::join!(pair.send(chunks(2)), pair.send(chunks(2)), third);
    assert_eq!(refused, Err(SnapshotError::Busy));
    pair.stop().await;
}

#[test]
fn the_checksum_of_the_whole_depends_on_every_chunk_and_their_order() {
    let of = |chunks: &[&[u8]]| chunks.iter().fold(SnapshotProgress::default(), |progress, chunk| progress.with(chunk));
    assert_ne!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
    assert_ne!(of(&[b"ab"]), of(&[b"a", b"b"]));
    assert_ne!(of(&[b"a"]).digest, of(&[b"b"]).digest);
    // On disk at receivers, and on the wire: it may not change.
    assert_eq!(of(&[b"a", b"b"]), SnapshotProgress { chunks: 2, digest: of(&[b"a"]).with(b"b").digest });
}
