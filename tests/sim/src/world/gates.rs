//! Operators who suspend accounts and let them back in, and say so again until it is done.

use std::collections::BTreeSet;

use rove_core::command::Gate;
use rove_core::directory::{DirectoryCommand, MemoryDirectory};
use rove_protocol::ids::AccountId;

use super::World;
use crate::client::Client;
use crate::faults::Fault;
use crate::history::Record;
use crate::node::{NodeEvent, founded};

/// How long an operator waits before asking again, perhaps another node.
const AGAIN_US: u64 = 700_000;

/// What is known of the directory's outbox.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// The last gate that was seen, and the last that all partitions have.
    seen: u64,
    done: u64,
    /// Suspended, as far as the directory goes.
    suspended: BTreeSet<AccountId>,
}

impl Gates {
    /// Whether everybody may do everything everywhere.
    pub(super) fn are_open(&self) -> bool {
        self.suspended.is_empty() && self.done == self.seen
    }
}

/// The directory before its first entry, with everybody in it.
pub(super) fn directory(clients: &[Client]) -> MemoryDirectory {
    founded(&clients.iter().map(Client::account).collect()).unwrap_or_default()
}

impl World {
    /// Somebody is suspended, or let back in.
    pub(super) fn turn_gate(&mut self) {
        let accounts: Vec<AccountId> = self.clients.iter().map(Client::account).collect();
        let Some(account) = self.rng.pick(&accounts) else { return };
        self.operate(&if self.gates.suspended.contains(&account) {
            DirectoryCommand::RestoreAccount { account }
        } else {
            DirectoryCommand::SuspendAccount { account }
        });
    }

    /// An operator asks any node.
    pub(super) fn operate(&mut self, command: &DirectoryCommand) {
        self.again_us = self.queue.now_us() + AGAIN_US;
        let nodes = self.present();
        if let Some(node) = self.rng.pick(&nodes) {
            self.tell_node(node, None, NodeEvent::Operate(command.encode().into()));
        }
    }

    /// Whether it is time to ask again for what is not done.
    pub(super) fn asks_again(&self) -> bool {
        self.queue.now_us() >= self.again_us
    }

    /// A node has these in its outbox: those that no other had before are new.
    pub(super) fn see_gates(&mut self, gates: &[(u64, Gate)]) {
        for (number, gate) in gates {
            if *number <= self.gates.seen {
                continue;
            }
            self.gates.seen = *number;
            let (account, shut) = match gate {
                Gate::AccountSuspended(account) => (*account, true),
                Gate::AccountRestored(account) => (*account, false),
                Gate::DeviceRevoked(_) | Gate::ApplyVersion(_) => continue,
            };
            if shut {
                self.gates.suspended.insert(account);
            } else {
                self.gates.suspended.remove(&account);
            }
            self.record(Record::Gate { number: *number, account, shut });
        }
    }

    /// A node knows that all partitions have these.
    pub(super) fn see_gates_done(&mut self, number: u64) {
        if number > self.gates.done {
            self.gates.done = number;
            self.fired.count(Fault::Gate);
            self.record(Record::GatesDone { number });
        }
    }

    /// When there are no more faults everybody is let back in.
    pub(super) fn look_after_gates(&mut self) {
        if !self.healed || !self.asks_again() {
            return;
        }
        if let Some(account) = self.gates.suspended.first().copied() {
            self.operate(&DirectoryCommand::RestoreAccount { account });
        }
    }
}
