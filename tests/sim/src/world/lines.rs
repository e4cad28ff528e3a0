//! Clients and their connections to nodes.

use rove_protocol::ids::{AccountId, NodeId};

use super::{Happening, World};
use crate::client::{Client, ClientAction, ClientContext, Group};
use crate::node::NodeEvent;
use crate::options::Plan;
use crate::wire::{SessionId, ToNode};

/// A connection of a client.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) client: usize,
    pub(super) node: NodeId,
    pub(super) boot: u64,
    /// Nothing arrives before this: at the client, at the node.
    not_before_us: [u64; 2],
    /// The client still listens.
    pub(super) heard: bool,
}

impl World {
    pub(super) fn with_client(&mut self, at: usize, work: impl FnOnce(&mut Client, &mut ClientContext<'_>)) {
        let nodes = self.present();
        let mut context = ClientContext {
            now_us: self.queue.now_us(),
            rng: &mut self.rng,
            nodes: &nodes,
            next_name: &mut self.next_name,
            active: self.active,
            lively: !self.healed,
            actions: Vec::new(),
        };
        if let Some(client) = self.clients.get_mut(at) {
            work(client, &mut context);
        }
        for action in context.actions {
            match action {
                ClientAction::Connect(session, node) => {
                    let boot = self.node(node).boot;
                    let line = Line { client: at, node, boot, not_before_us: [0; 2], heard: true };
                    self.lines.insert(session, line);
                }
                ClientAction::Disconnect(session) => {
                    if let Some(line) = self.lines.get_mut(&session) {
                        line.heard = false;
                    }
                    if let Some(delay) = self.line_delay(session, 1) {
                        self.queue.after(delay, Happening::NodeLost(session));
                    }
                }
                ClientAction::Send(session, message) => {
                    if let Some(delay) = self.line_delay(session, 1) {
                        self.queue.after(delay, Happening::NodeHears(session, message));
                    }
                }
                ClientAction::Record(record) => self.record(record),
            }
        }
    }

    /// How long something takes on a client's line towards the client (0) or the node (1), in order.
    pub(super) fn line_delay(&mut self, session: SessionId, end: usize) -> Option<u64> {
        let travel = 500 + self.rng.below(20_000);
        let now_us = self.queue.now_us();
        let not_before = self.lines.get_mut(&session)?.not_before_us.get_mut(end)?;
        let at = (now_us + travel).max(*not_before + 1);
        *not_before = at;
        Some(at - now_us)
    }

    pub(super) fn node_hears(&mut self, session: SessionId, message: ToNode) {
        let Some((id, boot)) = self.lines.get(&session).map(|line| (line.node, line.boot)) else { return };
        let node = self.node(id);
        if node.is_running() && node.boot == boot {
            self.tell_node(id, Some(boot), NodeEvent::Client(session, message));
        } else {
            self.queue.after(1_000, Happening::ClientLost(session));
        }
    }
}

/// Clients and their groups: accounts of the first four, then second devices of them.
pub(super) fn clients(plan: &Plan) -> Vec<Client> {
    let account = |number: u64| if number < 4 { number } else { number - plan.conversations };
    let of = |group: u64| (0..plan.clients).filter(move |number| number % plan.conversations == group);
    let groups: Vec<Group> = (0..plan.conversations)
        .map(|group| {
            let mut accounts: Vec<AccountId> = of(group).map(|number| AccountId(100 + account(number))).collect();
            accounts.dedup();
            Group::new(u8::try_from(group).unwrap_or(0), &accounts)
        })
        .collect();
    (0..plan.clients)
        .filter_map(|number| {
            let group = groups.get(usize::try_from(number % plan.conversations).ok()?)?;
            Some(Client::new(number, AccountId(100 + account(number)), group.clone()))
        })
        .collect()
}
