//! Carries the directory's outbox into every partition (D9).
//!
//! The outbox is replicated, so whoever leads can carry it, from the beginning if need be: partitions apply a gate once, and the
//! directory forgets what all have applied. Nothing is kept here.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rove_core::command::{ConversationCommand, ConversationOutcome};
use rove_core::directory::{DirectoryCommand, DirectoryOutcome};
use rove_protocol::ids::PartitionId;
use tokio::sync::oneshot;

use super::error::FatalError;
use super::handle::{DIRECTORY, Node, Phase};
use super::machine::Outbox;
use super::stats::NodeStats;

/// Gates carried at once. They are rare: an operator's action or a lost phone.
const AT_ONCE: usize = 64;

/// How soon what did not go through is tried again: a partition without a leader finds one in about a second.
const RETRY: Duration = Duration::from_millis(100);

/// How often the outbox is looked at without being asked to, in case a wake-up was lost with a change of leader.
const LOOK: Duration = Duration::from_secs(5);

/// Runs until the node stops.
pub(super) fn run(node: &Node, outbox: &mut impl Outbox, wake: &Receiver<()>) -> Result<(), FatalError> {
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
        wait = match carry(node, outbox)? {
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

fn carry(node: &Node, outbox: &mut impl Outbox) -> Result<Carried, FatalError> {
    if !node.0.shared.doors[usize::from(DIRECTORY.0)].leads() {
        return Ok(Carried::Nothing);
    }
    let rows = outbox
        .pending(AT_ONCE)
        .map_err(|error| FatalError::Apply { partition: DIRECTORY, message: error.to_string() })?;
    let Some(last) = rows.last().map(|row| row.number) else { return Ok(Carried::Nothing) };
    let mut answers: Vec<oneshot::Receiver<ConversationOutcome>> = Vec::new();
    for row in &rows {
        let command = ConversationCommand::Gate { number: row.number, gate: row.gate };
        for partition in 1..=node.partitions() {
            match node.propose_conversation(PartitionId(partition), &command) {
                Ok(answer) => answers.push(answer),
                Err(_) => return Ok(Carried::NotAll),
            }
        }
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
