//! Snapshots: a state instead of entries that the log no longer has.
//!
//! ```text
//! leader    replica thread ─wanted─▶ sender ─captured at entry n─▶ replica thread ─what raft says─▶ sender ─chunks─▶ transport
//! follower  transport ─chunks─▶ stager ─what raft says─▶ replica thread ─install─▶ its writer ─▶ replica thread ─▶ log
//! ```
//!
//! Nothing of it waits on the replica thread: sending and staging have threads of their own, and the install is one step on the thread
//! of the state's writer, behind everything that was handed out before: a flushed batch for conversations, a rename for the directory.
//! Only then is the log reset: whoever dies in between finds the state of the snapshot, and which one it was, and begins the log
//! anew after it.
//!
//! The transport holds nothing of the node but the way to its stager: when the node has stopped, its files are closed.

mod incoming;
mod outgoing;
mod replicas;
mod stager;
mod states;

use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use rove_core::replica::{GroupMember, PeerMessage};
use rove_protocol::ids::{NodeId, PartitionId};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::StartError;
use super::handle::Shared;
use super::peers::Peers;
use super::supervisor::{Stage, Supervisor};
use crate::storage::directory::DirectoryFiles;
use crate::storage::state::StateDb;

pub(super) use incoming::{Request, SnapshotInbox, requests};
pub(super) use replicas::Sending;
use stager::Stager;
pub(super) use states::Staged;

/// Snapshots that are sent at once: the disk is the limit, and one large partition must not hold up the small ones.
const SENT_AT_ONCE: usize = 2;

/// Events that may wait: each sender and the stager say one thing and wait for the answer, or for their next job.
const EVENTS: usize = 2 * SENT_AT_ONCE + 1;

/// The first byte of what travels beside the chunks: how the rest, and the chunks, are to be read.
const VERSION: u8 = 1;

/// What senders and the stager say to the replica thread.
pub(super) enum SnapshotEvent {
    /// A state was captured that has applied everything up to `index`. What raft says with it comes back, or why it is of no use.
    Captured {
        partition: PartitionId,
        to: GroupMember,
        index: u64,
        reply: oneshot::Sender<Result<PeerMessage, String>>,
    },
    /// It has arrived, or not. Follows every job.
    Sent { partition: PartitionId, to: GroupMember, ok: bool },
    /// A state from node `from` is staged.
    Staged { from: NodeId, message: Box<PeerMessage>, staged: Staged, reply: oneshot::Sender<Verdict> },
}

/// What becomes of a staged state.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It will be installed.
    Taken,
    /// It says nothing new.
    Useless(Staged),
    /// It cannot be, and why.
    Refused(Staged, String),
}

/// What sending and staging need of the node.
#[derive(Clone)]
pub(super) struct Snapshots {
    pub(super) shared: Arc<Shared>,
    pub(super) state: Arc<StateDb>,
    pub(super) directory: DirectoryFiles,
    pub(super) peers: Arc<dyn Peers>,
}

/// The ways to the threads of snapshots.
pub(super) struct Started {
    /// The threads end when this is dropped.
    pub(super) sending: Sending,
    pub(super) events: mpsc::Receiver<SnapshotEvent>,
    /// Partitions whose state was replaced.
    pub(super) reclaims: Sender<PartitionId>,
}

/// Starts the threads that send, stage, and give back what was replaced; `requests` is what peers offer.
pub(super) fn start(
    supervisor: &mut Supervisor,
    snapshots: &Snapshots,
    requests: mpsc::Receiver<Request>,
) -> Result<Started, StartError> {
    let (events, said) = mpsc::channel(EVENTS);
    let stop = CancellationToken::new();
    let stager = Stager::new(snapshots.clone(), events.clone(), stop.clone());
    let on = runtime("snapshots-in")?;
    supervisor.spawn(Stage::Pipeline, "snapshots-in", move || {
        on.block_on(stager.run(requests));
        Ok(())
    })?;
    let jobs = outgoing::start(supervisor, snapshots, &events)?;
    let (reclaims, replaced) = bounded(usize::from(snapshots.shared.partitions));
    let state = Arc::clone(&snapshots.state);
    supervisor.spawn(Stage::Pipeline, "reclaim", move || {
        replaced.into_iter().for_each(|partition| state.reclaim(partition));
        Ok(())
    })?;
    Ok(Started { sending: Sending::new(jobs, stop), events: said, reclaims })
}

/// A runtime for one thread that waits for the transport as well as for a disk.
fn runtime(name: &'static str) -> Result<Runtime, StartError> {
    Builder::new_current_thread().enable_time().build().map_err(|source| StartError::Thread { name, source })
}
