//! Snapshots: each on a stream of its own, behind everything else, at the pace of whoever receives it, from where an earlier try
//! was cut off.
//!
//! ```text
//! sender    SnapshotHeader                    SnapshotChunk … SnapshotChunk  SnapshotEnd
//! receiver                  SnapshotBegin                                                SnapshotDone
//! ```
//!
//! Every chunk has a checksum of its own. All of them have one together, which grows chunk by chunk, so that a receiver that goes on
//! says with one number what it has; a sender whose chunks are others begins anew.

use bytes::Bytes;
use futures::future::BoxFuture;
use quinn::{SendStream, VarInt};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::PeerSink;
use super::frame::{Begin, Body as _, Chunk, Done, End, FrameError, Header, Refused, within};
use super::io::{FrameReader, LinkError, begin, skip};
use super::link::Link;
use super::registry::{self, CloseCode, FrameType, StreamType};

/// Behind everything else.
const PRIORITY: i32 = -1;
/// How long either end may take for one step: a flush of a large store on a slow disk.
const STEP: std::time::Duration = std::time::Duration::from_secs(60);

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Of which partition.
    pub partition: PartitionId,
    /// Names its content: two snapshots with one id have the same chunks.
    pub id: [u8; 16],
    /// What the receiver has to know beside the chunks; at most 64 KiB, opaque to the transport.
    pub meta: Bytes,
}

/// How much of a snapshot is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// Chunks, from the first on.
    pub chunks: u64,
    /// The checksum of them together.
    pub digest: u64,
}

impl SnapshotProgress {
    /// With one chunk more.
    #[must_use]
    pub fn with(self, chunk: &[u8]) -> Self {
        let mut joined = [0; 16];
        joined[..8].copy_from_slice(&self.digest.to_le_bytes());
        joined[8..].copy_from_slice(&xxh3_64(chunk).to_le_bytes());
        Self { chunks: self.chunks + 1, digest: xxh3_64(&joined) }
    }
}

/// Where a snapshot comes from.
pub trait SnapshotSource: Send {
    /// Chunk `number`, from 0, of at most 256 KiB; `None` after the last. The same bytes each time for one id of a snapshot. Chunks
    /// are asked for in order, but perhaps from the first on a second time.
    fn chunk(&mut self, number: u64) -> BoxFuture<'_, std::io::Result<Option<Bytes>>>;
}

/// Where a snapshot goes. Dropping it keeps what is there, so that another try can go on.
pub trait SnapshotReceiver: Send {
    /// What is there from an earlier try.
    fn have(&self) -> SnapshotProgress;

    /// Forgets what is there: the sender begins with the first chunk.
    fn restart(&mut self) -> BoxFuture<'_, Result<(), String>>;

    /// Takes the next chunk; `progress` is what is there with it, to be kept for [`SnapshotReceiver::have`]. The next is read when
    /// this is done: a slow disk slows the sender, and nothing else.
    fn chunk(&mut self, bytes: Bytes, progress: SnapshotProgress) -> BoxFuture<'_, Result<(), String>>;

    /// All chunks are there and their checksum is right: puts the snapshot in place.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>>;
}

/// Why a snapshot did not arrive. What the receiver has, it keeps: trying again goes on from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There is no connection.
    #[error("there is no connection with the node")]
    Unlinked,
    /// Enough snapshots are on their way to this peer.
    #[error("{} snapshots are on their way to the node already", registry::SNAPSHOTS_AT_ONCE)]
    Busy,
    /// The receiver does not want it, and why.
    #[error("the receiver refused it: {0}")]
    Refused(String),
    /// It could not be read here.
    #[error("it cannot be read: {0}")]
    Source(String),
    /// The connection ended, or the receiver did something else than what is written here.
    #[error("it was cut off: {0}")]
    Lost(String),
}

impl From<LinkError> for SnapshotError {
    fn from(error: LinkError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// A snapshot that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotSent {
    /// The chunk it began with: those before it were there.
    pub from: u64,
    /// How many chunks it has.
    pub chunks: u64,
}

/// Sends a snapshot.
pub(super) async fn send(
    link: &Link,
    header: SnapshotHeader,
    source: &mut dyn SnapshotSource,
) -> Result<SnapshotSent, SnapshotError> {
    let _permit = link.snapshots.try_acquire().map_err(|_| SnapshotError::Busy)?;
    let (mut send, recv) = link.connection.open_bi().await.map_err(LinkError::from)?;
    let mut answers = FrameReader::new(recv, registry::REASON_BYTES + registry::AROUND);
    begin(&mut send, StreamType::SNAPSHOT, PRIORITY).await?;
    let SnapshotHeader { partition, id, meta } = header;
    send.write_chunk(Header { partition, id, meta }.to_frame()).await.map_err(LinkError::from)?;
    let Begin { next, digest } = answer(&mut answers).await?;
    let mut progress = catch_up(source, SnapshotProgress { chunks: next, digest }).await?;
    let from = progress.chunks;
    while let Some(bytes) = read(source, progress.chunks).await? {
        let chunk = Chunk { number: progress.chunks, checksum: xxh3_64(&bytes), bytes: bytes.clone() };
        write(&mut send, chunk.to_frame(), &mut answers).await?;
        progress = progress.with(&bytes);
    }
    let end = End { chunks: progress.chunks, digest: progress.digest };
    write(&mut send, end.to_frame(), &mut answers).await?;
    // Only a stream that was reset cannot be finished, and the answer says so.
    let _ = send.finish();
    let Done {} = answer(&mut answers).await?;
    Ok(SnapshotSent { from, chunks: progress.chunks })
}

async fn read(source: &mut dyn SnapshotSource, number: u64) -> Result<Option<Bytes>, SnapshotError> {
    let chunk = source.chunk(number).await.map_err(|error| SnapshotError::Source(error.to_string()))?;
    match chunk {
        Some(bytes) if bytes.len() > registry::CHUNK_BYTES => {
            Err(SnapshotError::Source(format!("chunk {number} has {} bytes", bytes.len())))
        }
        chunk => Ok(chunk),
    }
}

/// Reads here what the receiver has: its checksum must be ours, otherwise all is sent.
async fn catch_up(source: &mut dyn SnapshotSource, have: SnapshotProgress) -> Result<SnapshotProgress, SnapshotError> {
    let mut progress = SnapshotProgress::default();
    while progress.chunks < have.chunks {
        let Some(bytes) = read(source, progress.chunks).await? else { return Ok(SnapshotProgress::default()) };
        progress = progress.with(&bytes);
    }
    Ok(if progress == have { progress } else { SnapshotProgress::default() })
}

/// Writes a frame, unless the receiver gives up meanwhile.
async fn write(send: &mut SendStream, frame: Bytes, answers: &mut FrameReader) -> Result<(), SnapshotError> {
    tokio::select! {
        written = timeout(STEP, send.write_chunk(frame)) => match written {
            Ok(Ok(())) => Ok(()),
            // Whoever stops a stream says why, right behind it.
            Ok(Err(quinn::WriteError::Stopped(_))) => Err(refusal(answers).await),
            Ok(Err(error)) => Err(LinkError::from(error).into()),
            Err(_) => Err(LinkError::Timeout("room for a chunk").into()),
        },
        refused = refusal(answers) => Err(refused),
    }
}

/// The receiver's next answer, which can only be a refusal. Cancelling it loses nothing.
async fn refusal(answers: &mut FrameReader) -> SnapshotError {
    loop {
        let error = match answers.next().await {
            Ok(Some((FrameType::SNAPSHOT_REFUSED, body))) => match Refused::from_body(body) {
                Ok(refused) => return SnapshotError::Refused(refused.reason),
                Err(error) => error.into(),
            },
            Ok(Some((other, _))) => match skip(other) {
                Ok(()) => continue,
                Err(error) => error.into(),
            },
            Ok(None) => LinkError::Ended(StreamType::SNAPSHOT),
            Err(error) => error,
        };
        return error.into();
    }
}

/// The receiver's next answer.
async fn answer<B: super::frame::Body>(answers: &mut FrameReader) -> Result<B, SnapshotError> {
    let waiting = async {
        loop {
            match answers.next().await? {
                Some((frame_type, body)) if frame_type == B::TYPE => {
                    return Ok(B::from_body(body).map_err(LinkError::from)?);
                }
                Some((FrameType::SNAPSHOT_REFUSED, body)) => {
                    return Err(SnapshotError::Refused(Refused::from_body(body).map_err(LinkError::from)?.reason));
                }
                Some((other, _)) => skip(other).map_err(LinkError::from)?,
                None => return Err(LinkError::Ended(StreamType::SNAPSHOT).into()),
            }
        }
    };
    timeout(STEP, waiting).await.unwrap_or(Err(LinkError::Timeout("the receiver's answer").into()))
}

/// Why a snapshot is not taken.
enum NotTaken {
    /// The stream or what was on it.
    Link(LinkError),
    /// It is not wanted, or its content is not what it should be.
    Refused(String),
}

impl From<LinkError> for NotTaken {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<FrameError> for NotTaken {
    fn from(error: FrameError) -> Self {
        Self::Link(error.into())
    }
}

/// Receives a snapshot whose stream's type has been read.
pub(super) async fn receive(
    from: NodeId,
    sink: &dyn PeerSink,
    mut send: SendStream,
    mut recv: FrameReader,
    places: &Semaphore,
) -> Result<(), LinkError> {
    // As on the sending side.
    let _ = send.set_priority(PRIORITY);
    recv.set_limit(registry::CHUNK_BYTES + registry::AROUND);
    let taken = match places.try_acquire() {
        Ok(_place) => take(from, sink, &mut send, &mut recv).await,
        Err(_) => Err(NotTaken::Refused("too many snapshots at once".to_owned())),
    };
    match taken {
        Ok(()) => send.write_chunk(Done {}.to_frame()).await?,
        Err(NotTaken::Refused(mut reason)) => {
            tracing::warn!(node = %from, reason, "a snapshot was not taken");
            let end = (0..=registry::REASON_BYTES.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
            reason.truncate(end.unwrap_or(0));
            send.write_chunk(Refused { reason }.to_frame()).await?;
            recv.stop(CloseCode::NOT_ALLOWED);
        }
        Err(NotTaken::Link(error)) => {
            // Nothing is wrong with a stream that is reset twice.
            let _ = send.reset(VarInt::from_u32(error.close_code().0));
            return Err(error);
        }
    }
    // As on the sending side.
    let _ = send.finish();
    Ok(())
}

async fn take(
    from: NodeId,
    sink: &dyn PeerSink,
    send: &mut SendStream,
    recv: &mut FrameReader,
) -> Result<(), NotTaken> {
    let (frame_type, body) = next(recv).await?;
    if frame_type != FrameType::SNAPSHOT_HEADER {
        return Err(FrameError::Unexpected(frame_type).into());
    }
    let Header { partition, id, meta } = Header::from_body(body)?;
    within(FrameType::SNAPSHOT_HEADER, meta.len(), registry::SNAPSHOT_META_BYTES, "bytes about a snapshot")?;
    let mut receiver = sink.snapshot(from, SnapshotHeader { partition, id, meta }).await.map_err(NotTaken::Refused)?;
    let mut progress = receiver.have();
    let begin = Begin { next: progress.chunks, digest: progress.digest };
    send.write_chunk(begin.to_frame()).await.map_err(LinkError::from)?;
    loop {
        match next(recv).await? {
            (FrameType::SNAPSHOT_CHUNK, body) => {
                let Chunk { number, checksum, bytes } = Chunk::from_body(body)?;
                within(FrameType::SNAPSHOT_CHUNK, bytes.len(), registry::CHUNK_BYTES, "bytes of a chunk")?;
                if number == 0 && progress.chunks > 0 {
                    receiver.restart().await.map_err(NotTaken::Refused)?;
                    progress = SnapshotProgress::default();
                }
                if number != progress.chunks {
                    return Err(NotTaken::Refused(format!("chunk {number} came where {} was due", progress.chunks)));
                }
                if xxh3_64(&bytes) != checksum {
                    return Err(NotTaken::Refused(format!("the checksum of chunk {number} is wrong")));
                }
                progress = progress.with(&bytes);
                receiver.chunk(bytes, progress).await.map_err(NotTaken::Refused)?;
            }
            (FrameType::SNAPSHOT_END, body) => {
                let End { chunks, digest } = End::from_body(body)?;
                if (SnapshotProgress { chunks, digest }) != progress {
                    return Err(NotTaken::Refused("the checksum of the whole is wrong".to_owned()));
                }
                return receiver.finish().await.map_err(NotTaken::Refused);
            }
            (other, _) => skip(other)?,
        }
    }
}

async fn next(recv: &mut FrameReader) -> Result<(FrameType, Bytes), LinkError> {
    let frame = timeout(STEP, recv.next()).await.map_err(|_| LinkError::Timeout("the next part of a snapshot"))?;
    frame?.ok_or(LinkError::Ended(StreamType::SNAPSHOT))
}
