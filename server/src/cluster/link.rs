//! A connection with a peer in use: a queue, a stream and a writer for each class, and readers for what the peer opens.
//!
//! All tasks of a link end when its connection is closed, and [`Running::end`] awaits them.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use rove_core::routing::{Forward, ForwardAck};
use rove_protocol::ids::NodeId;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::frame::{Body as _, Call, CallReply, Formation, FrameError, Presence, read_raft, within};
use super::hello::{Candidate, PeerHello};
use super::io::{FrameReader, LinkError, begin, close, skip};
use super::peer::Peer;
use super::queue::{Class, Counters, Queue};
use super::registry::{self, CloseCode, FrameType, StreamType};
use super::{CallError, Shared, snapshot};

/// As control: few and small, and somebody waits.
const CALL_PRIORITY: i32 = 2;

/// What whoever sends to a peer needs of the connection with it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) hello: PeerHello,
    pub(super) since: (Instant, SystemTime),
    /// Whether the node with the lower id dialled: of two connections, that one is kept.
    pub(super) by_lower: bool,
    pub(super) formation: Mutex<Bytes>,
    pub(super) snapshots: Semaphore,
    queues: [Queue; Class::ALL.len()],
    calls: Semaphore,
}

impl Link {
    /// The queue of a class.
    pub(super) fn queue(&self, class: Class) -> &Queue {
        &self.queues[class as usize]
    }

    /// Asks a question.
    pub(super) async fn call(&self, question: Bytes) -> Result<Bytes, CallError> {
        let _permit = self.calls.try_acquire().map_err(|_| CallError::Busy)?;
        let asking = async {
            let (mut send, recv) = self.connection.open_bi().await?;
            begin(&mut send, StreamType::CALL, CALL_PRIORITY).await?;
            send.write_chunk(Call { question }.to_frame()).await?;
            // Only a stream that was reset cannot be finished, and reading says so.
            let _ = send.finish();
            let mut recv = FrameReader::new(recv, registry::CALL_BYTES + registry::AROUND);
            let reply: Option<CallReply> = recv.expect().await?;
            Ok::<_, LinkError>(reply)
        };
        match tokio::time::timeout(registry::CALL_TIMEOUT, asking).await {
            Err(_) => Err(CallError::Timeout),
            Ok(Ok(Some(reply))) => Ok(reply.answer),
            Ok(Ok(None)) => Err(CallError::Unanswered),
            Ok(Err(error)) => Err(CallError::Lost(error.to_string())),
        }
    }
}

/// A link and its tasks.
pub(super) struct Running {
    pub(super) link: Arc<Link>,
    tasks: JoinSet<Result<(), LinkError>>,
}

impl Running {
    /// Puts a connection to use.
    pub(super) fn start(shared: &Arc<Shared>, peer: &Arc<Peer>, candidate: Candidate) -> Self {
        let Candidate { connection, send, recv, hello, dialled } = candidate;
        let lower = shared.config.node < peer.node;
        let link = Arc::new(Link {
            connection,
            formation: Mutex::new(hello.formation.clone()),
            since: (Instant::now(), SystemTime::now()),
            by_lower: dialled == lower,
            hello,
            snapshots: Semaphore::new(registry::SNAPSHOTS_AT_ONCE),
            queues: Class::ALL.map(|class| Queue::new(class, peer.counters(class).clone())),
            calls: Semaphore::new(registry::CALLS_AT_ONCE),
        });
        // What `link_up` makes its listener send finds the link, and nothing of it is heard before.
        peer.set_link(Some(link.clone()));
        shared.sink.link_up(peer.node, link.hello.clone());
        let mut tasks = JoinSet::new();
        for class in Class::ALL {
            tasks.spawn(write_class(link.clone(), class, peer.counters(class).clone()));
        }
        let ends = Ends { shared: shared.clone(), peer: peer.clone(), link: link.clone() };
        tasks.spawn(control(ends.clone(), send, recv));
        tasks.spawn(accept_uni(ends.clone()));
        tasks.spawn(accept_bi(ends));
        Self { link, tasks }
    }

    /// Waits until the link is of no use any more, and says why. Cancelling it loses nothing.
    pub(super) async fn failed(&mut self) -> LinkError {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(()))) | None => LinkError::Lost(quinn::ConnectionError::LocallyClosed),
            Some(Err(error)) => LinkError::Task(error.to_string()),
        }
    }

    /// Closes the connection and awaits all tasks.
    pub(super) async fn end(mut self, code: CloseCode, reason: &str) {
        close(&self.link.connection, code, reason);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What a task of a link works with.
#[derive(Clone)]
struct Ends {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    link: Arc<Link>,
}

async fn write_class(link: Arc<Link>, class: Class, counters: Arc<Counters>) -> Result<(), LinkError> {
    let mut stream = link.connection.open_uni().await?;
    begin(&mut stream, class.stream(), class.priority()).await?;
    loop {
        let mut batch = tokio::select! {
            batch = link.queue(class).next() => batch,
            lost = link.connection.closed() => return Err(lost.into()),
        };
        let (frames, bytes) = (batch.len(), batch.iter().map(Bytes::len).sum());
        stream.write_all_chunks(&mut batch).await?;
        Counters::add(&counters.sent_frames, frames);
        Counters::add(&counters.sent_bytes, bytes);
    }
}

/// The control stream after `Hello`: news of the formation, both ways.
async fn control(ends: Ends, mut send: SendStream, mut recv: FrameReader) -> Result<(), LinkError> {
    let mut formation = ends.shared.formation.subscribe();
    // What was said in `Hello` may be older than what there is by now.
    formation.mark_changed();
    loop {
        tokio::select! {
            frame = recv.next() => match frame? {
                Some((FrameType::FORMATION, body)) => {
                    let news = Formation::from_body(body)?.formation;
                    within(FrameType::FORMATION, news.len(), registry::FORMATION_BYTES, "bytes of formation state")?;
                    ends.link.formation.lock().clone_from(&news);
                    let (sink, from) = (ends.shared.sink.clone(), ends.peer.node);
                    let heard = tokio::task::spawn_blocking(move || sink.formation(from, news)).await;
                    heard.map_err(|error| LinkError::Task(error.to_string()))?;
                }
                Some((other, _)) => skip(other)?,
                None => return Err(LinkError::Ended(StreamType::CONTROL)),
            },
            changed = formation.changed() => {
                // The sender is in `Shared`, which this task holds.
                let _ = changed;
                let news = formation.borrow_and_update().clone();
                send.write_chunk(Formation { formation: news }.to_frame()).await?;
            }
        }
    }
}

/// Takes the streams of the peer's classes, one of each.
async fn accept_uni(ends: Ends) -> Result<(), LinkError> {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let mut readers = JoinSet::new();
    let error = loop {
        tokio::select! {
            stream = ends.link.connection.accept_uni() => match stream {
                Ok(stream) => drop(readers.spawn(read_uni(ends.clone(), stream, taken.clone()))),
                Err(error) => break error.into(),
            },
            Some(ended) = readers.join_next() => if let Some(error) = failure(ended) { break error },
        }
    };
    readers.shutdown().await;
    Err(error)
}

fn failure(ended: Result<Result<(), LinkError>, JoinError>) -> Option<LinkError> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(error) => Some(LinkError::Task(error.to_string())),
    }
}

async fn read_uni(ends: Ends, stream: RecvStream, taken: Arc<Mutex<Vec<Class>>>) -> Result<(), LinkError> {
    // Until it is known what may come, as little as can be.
    let mut reader = FrameReader::new(stream, registry::AROUND);
    let Some(stream_type) = reader.stream_type().await? else { return Ok(()) };
    let Some(class) = Class::of_stream(stream_type) else { return skip_stream(stream_type, &mut reader) };
    {
        let mut taken = taken.lock();
        if taken.contains(&class) {
            return Err(LinkError::StreamType(stream_type));
        }
        taken.push(class);
    }
    reader.set_limit(class.frame_limit());
    while let Some((frame_type, body)) = reader.next().await? {
        let counters = ends.peer.counters(class);
        Counters::add(&counters.received_frames, 1);
        Counters::add(&counters.received_bytes, body.len());
        deliver(&ends, class, frame_type, body)?;
    }
    Err(LinkError::Ended(stream_type))
}

/// An unknown stream: left alone if its type is even.
fn skip_stream(stream_type: StreamType, reader: &mut FrameReader) -> Result<(), LinkError> {
    let known = StreamType::ALL.iter().any(|(known, _)| *known == stream_type);
    if known || stream_type.0 % 2 == 1 {
        return Err(LinkError::StreamType(stream_type));
    }
    reader.stop(CloseCode::UNEXPECTED);
    Ok(())
}

fn deliver(ends: &Ends, class: Class, frame_type: FrameType, body: Bytes) -> Result<(), FrameError> {
    let (from, sink) = (ends.peer.node, &ends.shared.sink);
    match (class, frame_type) {
        (Class::Urgent | Class::Append, FrameType::RAFT) => sink.raft(from, read_raft(body)?),
        (Class::Forward, FrameType::FORWARD) => sink.forward(from, Forward::from_body(body)?),
        (Class::Forward, FrameType::FORWARD_ACK) => sink.forward_ack(from, ForwardAck::from_body(body)?),
        (Class::Presence, FrameType::PRESENCE) => sink.presence(from, Presence::from_body(body)?.presence),
        (_, other) => skip(other)?,
    }
    Ok(())
}

/// Takes the peer's questions and snapshots. How many there are at once is bounded by how many streams it may open.
async fn accept_bi(ends: Ends) -> Result<(), LinkError> {
    let snapshots = Arc::new(Semaphore::new(2 * registry::SNAPSHOTS_AT_ONCE));
    let mut serving = JoinSet::new();
    let error = loop {
        tokio::select! {
            streams = ends.link.connection.accept_bi() => match streams {
                Ok((send, recv)) => drop(serving.spawn(serve(ends.clone(), send, recv, snapshots.clone()))),
                Err(error) => break error.into(),
            },
            Some(ended) = serving.join_next() => if let Some(error) = failure(ended) { break error },
        }
    };
    serving.shutdown().await;
    Err(error)
}

/// One bidirectional stream of the peer. What is wrong with the stream alone is no failure of the link.
async fn serve(ends: Ends, send: SendStream, recv: RecvStream, snapshots: Arc<Semaphore>) -> Result<(), LinkError> {
    let mut reader = FrameReader::new(recv, registry::CALL_BYTES + registry::AROUND);
    let (peer, sink) = (ends.peer.node, &ends.shared.sink);
    let served = match reader.stream_type().await {
        Ok(Some(StreamType::CALL)) => serve_call(&ends, peer, send, reader).await,
        Ok(Some(StreamType::SNAPSHOT)) => snapshot::receive(peer, &**sink, send, reader, &snapshots).await,
        Ok(Some(other)) => skip_stream(other, &mut reader),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match served {
        Err(LinkError::GivenUp(_) | LinkError::Timeout(_) | LinkError::Ended(_)) => Ok(()),
        other => other,
    }
}

async fn serve_call(ends: &Ends, from: NodeId, mut send: SendStream, mut reader: FrameReader) -> Result<(), LinkError> {
    // As on the asking side.
    let _ = send.set_priority(CALL_PRIORITY);
    let serving = async {
        let Some(Call { question }) = reader.expect().await? else { return Err(LinkError::Ended(StreamType::CALL)) };
        let answer = ends.shared.sink.call(from, question).await;
        if answer.len() > registry::CALL_BYTES {
            tracing::error!(node = %from, bytes = answer.len(), "an answer to another node is too large and is not sent");
            return Ok(());
        }
        send.write_chunk(CallReply { answer }.to_frame()).await?;
        // As when asking.
        let _ = send.finish();
        Ok(())
    };
    let served = tokio::time::timeout(registry::CALL_TIMEOUT, serving).await;
    served.unwrap_or(Err(LinkError::Timeout("a question or its answer")))
}
