//! The world: nodes, the network between them, clients, and time. One event after the other.

mod ending;
mod faults;
mod gates;
mod lines;
mod members;
mod stops;

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use rove_core::membership::MemberMap;
use rove_core::routing::{Forward, ForwardAck};
use rove_protocol::ids::{NodeId, PartitionId};
use xxhash_rust::xxh3::Xxh3;

use crate::checker::{Checker, Violation};
use crate::client::Client;
use crate::disk::Crash;
use crate::faults::{Fault, Fired};
use crate::history::{History, Record, Stamped};
use crate::nemesis::{Cure, Nemesis};
use crate::network::{Arrival, Network};
use crate::node::{Action, Context, FOUNDERS, NODES, Node, NodeEvent};
use crate::options::{Options, Plan};
use crate::rng::Rng;
use crate::wire::{SessionId, ToClient, ToNode};
use gates::Gates;
use lines::{Line, clients};

/// How often connections are looked after.
const LINKS_EVERY_US: u64 = 20_000;

/// When everything is to be well after the last fault: some ten elections, and the queues of all clients.
const HEAL_WITHIN_US: u64 = 20_000_000;

/// How long clients go on posting after the last fault.
const POST_ON_US: u64 = 3_000_000;

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// To a node; if a boot is given, only if it is still that one.
    Node(NodeId, Option<u64>, NodeEvent),
    /// Something sent on the connection of this epoch.
    Stream(NodeId, NodeId, u64, Item),
    /// Perhaps what waits on the path can go on.
    Unblocked(NodeId, NodeId),
    Links,
    Restart(NodeId),
    /// A node hears who the nodes are.
    Told(NodeId, Arc<MemberMap>),
    Fault,
    Cure(Cure),
    ClientWake(usize),
    ClientHears(SessionId, ToClient),
    ClientLost(SessionId),
    NodeHears(SessionId, ToNode),
    NodeLost(SessionId),
}

/// What travels on a connection between nodes.
#[derive(Debug, Clone)]
enum Item {
    Forward(Forward),
    Ack(ForwardAck),
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it was told.
    pub options: Options,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Faults that did something.
    pub fired: Fired,
    /// A hash of everything that happened, in order.
    pub trace: u64,
    /// Events, and microseconds of virtual time.
    pub events: u64,
    /// Microseconds of virtual time.
    pub virtual_us: u64,
    /// Posts that were acknowledged.
    pub acknowledged: u64,
    /// Times a node said that it leads from now on.
    pub elections: u64,
    /// How everything was at the end.
    pub end: String,
}

/// Everything.
pub struct World {
    options: Options,
    plan: Plan,
    rng: Rng,
    queue: crate::queue::Queue<Happening>,
    nodes: Vec<Node>,
    network: Network,
    /// Who the nodes are; and what has changed, as long as the groups do not follow it.
    map: Arc<MemberMap>,
    change: Option<Fault>,
    /// The map that an operator wants, until the directory has it.
    wanted: Option<MemberMap>,
    /// Who is suspended.
    gates: Gates,
    /// When an operator says again what is not done.
    again_us: u64,
    /// Arrived, but the path is blocked.
    held: BTreeMap<(NodeId, NodeId), VecDeque<(u64, Item)>>,
    /// What happens to nodes that stand still.
    deferred: BTreeMap<NodeId, Vec<(Option<u64>, NodeEvent)>>,
    clients: Vec<Client>,
    lines: BTreeMap<SessionId, Line>,
    nemesis: Nemesis,
    fired: Fired,
    checker: Checker,
    history: Option<History>,
    trace: Xxh3,
    next_name: u64,
    applied_anywhere: BTreeMap<PartitionId, u64>,
    healed: bool,
    active: bool,
    events: u64,
    acknowledged: u64,
    elections: u64,
}

impl World {
    /// The world of these options, at the beginning.
    pub fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let plan = Plan::of(&options, &mut rng);
        let clients = clients(&plan);
        let map = members::founded(plan.partitions);
        let blank = gates::directory(&clients);
        let mut world = Self {
            options,
            rng,
            queue: crate::queue::Queue::default(),
            nodes: NODES.iter().map(|id| Node::new(*id, &map, &blank, options.bug)).collect(),
            network: Network::new(plan.latency_us),
            map,
            change: None,
            wanted: None,
            gates: Gates::default(),
            again_us: 0,
            held: BTreeMap::new(),
            deferred: BTreeMap::new(),
            clients,
            lines: BTreeMap::new(),
            nemesis: Nemesis::new(plan.faults),
            fired: Fired::default(),
            checker: Checker::default(),
            history: None,
            trace: Xxh3::new(),
            next_name: 0,
            applied_anywhere: BTreeMap::new(),
            healed: false,
            active: true,
            events: 0,
            acknowledged: 0,
            elections: 0,
            plan,
        };
        for at in 0..world.clients.len() {
            let record = world.clients[at].introduce();
            world.record(record);
            world.queue.after(world.rng.below(100_000), Happening::ClientWake(at));
        }
        for id in FOUNDERS {
            world.queue.after(0, Happening::Restart(id));
        }
        world.queue.after(0, Happening::Links);
        let first_fault = 1_000_000 + world.rng.below(world.plan.fault_every_us);
        world.queue.after(first_fault, Happening::Fault);
        world
    }

    /// Keeps the history as well, to be read or written elsewhere.
    #[must_use]
    pub fn keeping_history(mut self) -> Self {
        self.history = Some(History::default());
        self
    }

    /// Runs to the end: with faults, then without.
    pub fn run(mut self) -> (Report, Option<History>) {
        while self.events < self.options.steps && !self.checker.has_failed() {
            self.step();
        }
        if !self.checker.has_failed() {
            self.heal();
            let begun_us = self.queue.now_us();
            while self.queue.now_us() < begun_us + HEAL_WITHIN_US && !self.checker.has_failed() {
                self.active = self.queue.now_us() < begun_us + POST_ON_US;
                self.step();
                if !self.active && self.is_settled() {
                    self.record(Record::Settled);
                    break;
                }
            }
            self.read_everything();
        }
        let end = self.describe();
        let report = Report {
            end,
            options: self.options,
            violations: self.checker.finish(),
            fired: self.fired,
            trace: self.trace.digest(),
            events: self.events,
            virtual_us: self.queue.now_us(),
            acknowledged: self.acknowledged,
            elections: self.elections,
        };
        (report, self.history)
    }

    fn record(&mut self, record: Record) {
        let at_us = self.queue.now_us();
        at_us.hash(&mut self.trace);
        record.hash(&mut self.trace);
        if matches!(record, Record::PostEnded { end: crate::history::PostEnd::Posted(_), .. }) {
            self.acknowledged += 1;
        }
        self.elections += u64::from(matches!(record, Record::Leads { .. }));
        self.checker.observe(at_us, &record);
        if let Some(history) = &mut self.history {
            history.records.push(Stamped { at_us, record });
        }
    }

    fn step(&mut self) {
        let Some(happening) = self.queue.advance() else { return };
        self.events += 1;
        self.queue.now_us().hash(&mut self.trace);
        std::mem::discriminant(&happening).hash(&mut self.trace);
        match happening {
            Happening::Node(node, boot, event) => self.tell_node(node, boot, event),
            Happening::Stream(from, to, epoch, item) => {
                self.held.entry((from, to)).or_default().push_back((epoch, item));
                self.deliver(from, to);
            }
            Happening::Unblocked(from, to) => self.deliver(from, to),
            Happening::Links => self.look_after_links(),
            Happening::Restart(node) => self.restart(node),
            Happening::Told(node, map) => self.told(node, map),
            Happening::Fault => {
                if !self.healed {
                    self.fault();
                    let every = self.plan.fault_every_us;
                    self.queue.after(every / 4 + self.rng.below(every * 3 / 2), Happening::Fault);
                }
            }
            Happening::Cure(cure) => {
                if !self.healed {
                    self.cure(cure);
                }
            }
            Happening::ClientWake(at) => {
                self.with_client(at, Client::wake);
                let every = self.plan.post_every_us;
                self.queue.after(every / 2 + self.rng.below(every + 1), Happening::ClientWake(at));
            }
            Happening::ClientHears(session, message) => {
                if let Some(at) = self.lines.get(&session).filter(|line| line.heard).map(|line| line.client) {
                    self.with_client(at, |client, context| client.hear(session, message, context));
                }
            }
            Happening::ClientLost(session) => {
                if let Some(line) = self.lines.remove(&session).filter(|line| line.heard) {
                    self.with_client(line.client, |client, context| client.lost(session, context));
                }
            }
            Happening::NodeHears(session, message) => self.node_hears(session, message),
            Happening::NodeLost(session) => {
                if let Some(line) = self.lines.remove(&session) {
                    self.tell_node(line.node, Some(line.boot), NodeEvent::SessionGone(session));
                }
            }
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[Self::place_of(id)]
    }

    /// Where a node is among all that there may be.
    fn place_of(id: NodeId) -> usize {
        NODES.iter().position(|node| *node == id).unwrap_or(0)
    }

    fn tell_node(&mut self, id: NodeId, boot: Option<u64>, event: NodeEvent) {
        let node = self.node(id);
        if !node.is_running() || boot.is_some_and(|boot| boot != node.boot) {
            return;
        }
        if node.paused {
            self.deferred.entry(id).or_default().push((boot, event));
            return;
        }
        self.with_node(id, |node, context| node.handle(event, context));
    }

    /// Does something with a node, and then what it wants done.
    fn with_node(&mut self, id: NodeId, work: impl FnOnce(&mut Node, &mut Context<'_>)) {
        let at = Self::place_of(id);
        let mut context = Context {
            now_us: self.queue.now_us(),
            rng: &mut self.rng,
            plan: &self.plan,
            bug: self.options.bug,
            fired: &mut self.fired,
            applied_anywhere: &mut self.applied_anywhere,
            actions: Vec::new(),
        };
        work(&mut self.nodes[at], &mut context);
        let actions = context.actions;
        let boot = self.nodes[at].boot;
        for action in actions {
            self.act(id, boot, action);
        }
    }

    fn act(&mut self, id: NodeId, boot: u64, action: Action) {
        match action {
            Action::Raft(to, bytes) => self.send_raft(id, to, &bytes),
            Action::Forward(to, forward) => self.send_ordered(id, to, Item::Forward(forward)),
            Action::Ack(to, ack) => self.send_ordered(id, to, Item::Ack(ack)),
            Action::Client(session, message) => {
                if let Some(delay) = self.line_delay(session, 0) {
                    self.queue.after(delay, Happening::ClientHears(session, message));
                }
            }
            Action::After(delay, event) => self.queue.after(delay, Happening::Node(id, Some(boot), event)),
            Action::Record(record) => {
                let gone = matches!(record, Record::Quarantined { .. });
                self.record(record);
                if gone {
                    self.gone(id);
                }
            }
            Action::Snapshot(to, said) => {
                for delay in self.network.datagram(id, to, &mut self.rng, &mut self.fired) {
                    self.queue.after(delay, Happening::Node(to, None, NodeEvent::Snapshot(id, said.clone())));
                }
            }
            Action::Members(map) => self.applied_map(id, map),
            Action::Gates(gates) => self.see_gates(&gates),
            Action::GatesDone(number) => self.see_gates_done(number),
            Action::Crash(step) => self.crash_in_install(id, step),
            Action::FailStop => {
                self.fired.count(Fault::SyncFailure);
                self.crash(id, Crash::Power, false);
                self.restart_later(id);
            }
        }
    }

    fn send_raft(&mut self, from: NodeId, to: NodeId, bytes: &Bytes) {
        for delay in self.network.datagram(from, to, &mut self.rng, &mut self.fired) {
            self.queue.after(delay, Happening::Node(to, None, NodeEvent::Peer(from, bytes.clone())));
        }
    }

    fn send_ordered(&mut self, from: NodeId, to: NodeId, item: Item) {
        if self.rng.chance(self.network.weather.stale) {
            // As if it had been on an older connection, or sent twice.
            self.fired.count(Fault::StaleForward);
            let event = arrival(from, item.clone());
            self.queue.after(self.rng.below(3_000_000), Happening::Node(to, None, event));
        }
        let now_us = self.queue.now_us();
        if let Some((delay, epoch)) = self.network.ordered(now_us, from, to, &mut self.rng, &mut self.fired) {
            self.queue.after(delay, Happening::Stream(from, to, epoch, item));
        }
    }

    /// Delivers what has come over the connection, unless the path is blocked.
    fn deliver(&mut self, from: NodeId, to: NodeId) {
        while let Some((epoch, _)) = self.held.get(&(from, to)).and_then(VecDeque::front) {
            let arrival_now = self.network.arrives(from, to, *epoch);
            if arrival_now == Arrival::Later {
                self.queue.after(LINKS_EVERY_US, Happening::Unblocked(from, to));
                return;
            }
            let item = self.held.get_mut(&(from, to)).and_then(VecDeque::pop_front);
            if let Some((_, item)) = item.filter(|_| arrival_now == Arrival::Now) {
                self.tell_node(to, None, arrival(from, item));
            }
        }
    }

    fn look_after_links(&mut self) {
        let running: Vec<NodeId> = self.nodes.iter().filter(|node| node.is_running()).map(|node| node.id).collect();
        for made in self.network.look_after_connections(self.queue.now_us(), &running) {
            self.tell_node(made.one, None, NodeEvent::LinkUp(made.other));
            self.tell_node(made.other, None, NodeEvent::LinkUp(made.one));
        }
        self.look_after_members();
        self.look_after_gates();
        self.queue.after(LINKS_EVERY_US, Happening::Links);
    }
}

fn arrival(from: NodeId, item: Item) -> NodeEvent {
    match item {
        Item::Forward(forward) => NodeEvent::Forward(from, forward),
        Item::Ack(ack) => NodeEvent::Ack(from, ack),
    }
}
