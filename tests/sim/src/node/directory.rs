//! The directory's replica on a node, and the carrier of its gates: what the server's directory writer and carrier do.

use std::collections::BTreeSet;

use bytes::Bytes;
use rove_core::command::{ConversationCommand, ConversationOutcome};
use rove_core::conversation::PartitionMachine;
use rove_core::directory::{
    AccountRow, AccountState, DirectoryCommand, DirectoryEffect, DirectoryMachine, DirectoryRead, DirectoryTx,
    MemoryDirectory,
};
use rove_core::placement::DIRECTORY;
use rove_protocol::ids::{AccountId, NodeId, PartitionId};

use super::edge::Waiter;
use super::{Action, Context, Node, Running};
use crate::bugs::Bug;

/// Gates carried at once. Few, so that it takes several goes.
const AT_ONCE: usize = 3;

/// What applies a partition's log.
pub(super) enum Machine {
    Conversations(Box<PartitionMachine>),
    Directory(DirectoryMachine),
}

impl Machine {
    pub(super) fn applied(&self) -> u64 {
        match self {
            Self::Conversations(machine) => machine.applied(),
            Self::Directory(machine) => machine.applied(),
        }
    }

    pub(super) fn state_hash(&self) -> u64 {
        match self {
            Self::Conversations(machine) => machine.state_hash(),
            Self::Directory(machine) => machine.state_hash(),
        }
    }
}

/// The directory before its first entry: everybody has signed up already.
pub fn founded(accounts: &BTreeSet<AccountId>) -> Result<MemoryDirectory, String> {
    let mut directory = MemoryDirectory::default();
    for id in accounts {
        let handle = format!("account{}", id.0);
        let row = AccountRow {
            id: *id,
            handle: handle.clone(),
            handle_key: handle,
            name: String::new(),
            password_hash: String::new(),
            state: AccountState::Active,
            created_ms: 0,
        };
        directory.put_account(&row).map_err(|error| error.to_string())?;
    }
    Ok(directory)
}

/// Who carries gates into the partitions, while the node leads the directory. Another leader begins anew.
#[derive(Default)]
pub(super) struct Carrier {
    /// Gates that some partition has not answered yet.
    waiting: BTreeSet<u64>,
    /// The last gate of those.
    last: u64,
    /// That all are done is on its way into the directory.
    closing: Option<u64>,
}

impl Running {
    /// Applies what is committed of the directory.
    pub(super) fn apply_directory(&mut self, id: NodeId, context: &mut Context<'_>) -> Result<(), String> {
        let Some(place) = self.places.get_mut(&DIRECTORY) else { return Ok(()) };
        place.applying = false;
        let (mut effects, mut last) = (Vec::new(), None);
        for entry in place.committed.drain(..) {
            let Machine::Directory(machine) = &mut place.machine else { return Err("no directory".to_owned()) };
            let applied = machine.apply(&mut self.directory, entry.index, &entry.data, &mut effects);
            applied.map_err(|error| error.to_string())?;
            super::apply::applied(id, DIRECTORY, &entry, machine.state_hash(), context)?;
            last = Some((entry.index, entry.term));
        }
        if let Some((index, term)) = last {
            place.lane.applied(index, term).map_err(|error| error.to_string())?;
        }
        for effect in effects {
            match effect {
                DirectoryEffect::Answer { origin, .. } if origin.node == id => {
                    if let Some(place) = self.places.get_mut(&DIRECTORY) {
                        place.lane.answered(origin.ticket);
                    }
                    self.tickets.remove(&origin.ticket);
                    self.carrier.closing.take_if(|ticket| *ticket == origin.ticket);
                }
                DirectoryEffect::Members(map) => context.actions.push(Action::Members(map)),
                DirectoryEffect::OutboxGrew => {
                    let rows = self.directory.outbox(usize::MAX).map_err(|error| error.to_string())?;
                    context.actions.push(Action::Gates(rows.iter().map(|row| (row.number, row.gate)).collect()));
                }
                DirectoryEffect::GatesDone(number) => context.actions.push(Action::GatesDone(number)),
                DirectoryEffect::Answer { .. }
                | DirectoryEffect::DeviceRevoked(_)
                | DirectoryEffect::ApplyVersion(_) => {}
            }
        }
        Ok(())
    }

    /// Carries the oldest gates into every partition, if they are this node's to carry.
    pub(super) fn carry(&mut self, id: NodeId, context: &mut Context<'_>) -> Result<(), String> {
        let leads = self.places.get(&DIRECTORY).is_some_and(|place| place.lane.leads());
        if !leads || !self.carrier.waiting.is_empty() || self.carrier.closing.is_some() {
            return Ok(());
        }
        let rows = self.directory.outbox(AT_ONCE).map_err(|error| error.to_string())?;
        let Some(last) = rows.last() else { return Ok(()) };
        self.carrier.last = last.number;
        let planted = context.bug == Some(Bug::GateInOnePartition);
        for row in &rows {
            let gate = ConversationCommand::Gate { number: row.number, gate: row.gate };
            for partition in 1..=if planted { 1 } else { context.plan.partitions } {
                let Some(ticket) =
                    self.take(id, PartitionId(partition), gate.encode().into(), Waiter::Carrier, context)
                else {
                    self.carrier.waiting.clear();
                    return Ok(());
                };
                self.carrier.waiting.insert(ticket);
            }
        }
        Ok(())
    }

    /// A gate has been applied, or not.
    pub(super) fn carried(
        &mut self,
        id: NodeId,
        ticket: u64,
        outcome: &ConversationOutcome,
        context: &mut Context<'_>,
    ) {
        if !self.carrier.waiting.remove(&ticket) {
            return;
        }
        if *outcome != ConversationOutcome::Done {
            self.carrier.waiting.clear();
        } else if self.carrier.waiting.is_empty() {
            let done = DirectoryCommand::GateDone { number: self.carrier.last };
            self.carrier.closing = self.take(id, DIRECTORY, done.encode().into(), Waiter::Carrier, context);
        }
    }

    /// Nobody can tell what became of something that the carrier proposed: it begins anew.
    pub(super) fn not_carried(&mut self, ticket: u64) {
        if self.carrier.waiting.contains(&ticket) {
            self.carrier.waiting.clear();
        }
        self.carrier.closing.take_if(|closing| *closing == ticket);
    }

    /// An operator wants something of the directory. Whether it was done shows when it is applied.
    pub(super) fn operate(&mut self, id: NodeId, command: Bytes, context: &mut Context<'_>) {
        self.take(id, DIRECTORY, command, Waiter::Operator, context);
    }
}

impl Node {
    /// Puts the directory of a snapshot in the place of this node's.
    pub(super) fn install_directory(
        &mut self,
        directory: &MemoryDirectory,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        self.checkpoint = directory.clone();
        let Some(running) = &mut self.running else { return Ok(()) };
        running.directory = directory.clone();
        let Some(place) = running.places.get_mut(&DIRECTORY) else { return Ok(()) };
        let machine = DirectoryMachine::load(&running.directory).map_err(|error| error.to_string())?;
        place.machine = Machine::Directory(machine);
        if let Some(map) = directory.members().map_err(|error| error.to_string())? {
            context.actions.push(Action::Members(map));
        }
        Ok(())
    }
}
