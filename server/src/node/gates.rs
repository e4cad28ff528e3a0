//! Carries the directory's outbox into every partition (D9).
//!
//! The outbox is replicated, so whoever leads can carry it, from the beginning if need be: partitions apply a gate once, and the
//! directory forgets what all have applied. Nothing is kept here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use rove_core::command::{ConversationCommand, ConversationOutcome};
use rove_core::directory::{DirectoryCommand, DirectoryOutcome};
use rove_protocol::ids::PartitionId;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::error::{FatalError, StartError};
use super::handle::{DIRECTORY, Node, Phase};
use super::machine::Outbox;
use super::peers::Peers;
use super::snapshots;
use super::stats::NodeStats;
use super::supervisor::{Stage, Supervisor};

/// Gates carried at once. They are rare: an operator's action or a lost phone.
const AT_ONCE: usize = 64;

/// How soon what did not go through is tried again: a partition without a leader finds one in about a second.
const RETRY: Duration = Duration::from_millis(100);

/// How often the outbox is looked at without being asked to, in case a wake-up was lost with a change of leader.
const LOOK: Duration = Duration::from_secs(5);

/// Starts the carrier.
pub(super) fn start(
    supervisor: &mut Supervisor,
    node: Node,
    peers: Arc<dyn Peers>,
    mut outbox: impl Outbox,
    wake: Receiver<()>,
) -> Result<(), StartError> {
    let runtime = snapshots::runtime("gates")?;
    supervisor.spawn(Stage::Helper, "gates", move || run(&node, &*peers, &runtime, &mut outbox, &wake))
}

/// Runs until the node stops.
fn run(
    node: &Node,
    peers: &dyn Peers,
    runtime: &Runtime,
    outbox: &mut impl Outbox,
    wake: &Receiver<()>,
) -> Result<(), FatalError> {
    let shared = &node.0.shared;
    let mut wait = RETRY;
    loop {
        match wake.recv_timeout(wait) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // The directory writer has ended.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if shared.phase() == Phase::Stopping || shared.killed.load(Ordering::Acquire) {
            return Ok(());
        }
        wait = match carry(node, peers, runtime, outbox)? {
            Carried::Nothing => LOOK,
            Carried::All(number) => {
                NodeStats::add(&shared.stats.gates_done, number);
                Duration::ZERO
            }
            Carried::NotAll => RETRY,
        };
    }
}

enum Carried {
    /// The outbox is empty, or not ours to carry.
    Nothing,
    /// This many, everywhere.
    All(u64),
    /// Some partition has not applied some.
    NotAll,
}

fn carry(node: &Node, peers: &dyn Peers, runtime: &Runtime, outbox: &mut impl Outbox) -> Result<Carried, FatalError> {
    if !node.0.shared.doors[usize::from(DIRECTORY.0)].leads() {
        return Ok(Carried::Nothing);
    }
    let rows = outbox
        .pending(AT_ONCE)
        .map_err(|error| FatalError::Apply { partition: DIRECTORY, message: error.to_string() })?;
    let Some(last) = rows.last().map(|row| row.number) else { return Ok(Carried::Nothing) };
    let mut answers: Vec<oneshot::Receiver<ConversationOutcome>> = Vec::new();
    let mut far = Vec::new();
    for row in &rows {
        let command = ConversationCommand::Gate { number: row.number, gate: row.gate };
        for partition in (1..=node.partitions()).map(PartitionId) {
            if !node.is_here(partition) {
                far.push(carry_far(node, peers, partition, command.encode().into()));
                continue;
            }
            match node.propose_conversation(partition, &command) {
                Ok(answer) => answers.push(answer),
                Err(_) => return Ok(Carried::NotAll),
            }
        }
    }
    if !runtime.block_on(futures::future::join_all(far)).into_iter().all(|applied| applied) {
        return Ok(Carried::NotAll);
    }
    for answer in answers {
        if answer.blocking_recv() != Ok(ConversationOutcome::Done) {
            return Ok(Carried::NotAll);
        }
    }
    let Ok(done) = node.queue_directory(&DirectoryCommand::GateDone { number: last }) else {
        return Ok(Carried::NotAll);
    };
    if done.blocking_recv() == Ok(DirectoryOutcome::Done) {
        Ok(Carried::All(rows.len() as u64))
    } else {
        Ok(Carried::NotAll)
    }
}

/// To a partition that others hold: the first of them that can.
async fn carry_far(node: &Node, peers: &dyn Peers, partition: PartitionId, command: Bytes) -> bool {
    for holder in node.holders(partition) {
        if peers.carry_gate(holder, partition, command.clone()).await {
            return true;
        }
    }
    false
}
