//! Snapshots: who is sent one, piece by piece over a network that loses them, and how one is installed.
//!
//! The order is that of the server's shell: what was handed out before is applied, the staged state becomes current and durable, then the
//! log's reset is written. A node can crash at each step, and a transfer can be cut off at each piece.

use bytes::Bytes;
use rove_core::conversation::PartitionMachine;
use rove_core::directory::{DirectoryRead, MemoryDirectory};
use rove_core::placement::DIRECTORY;
use rove_core::replica::{GroupMember, Install, PeerMessage, Persist, StepError, node_of};
use rove_core::store::{MemoryStore, StateRead, StateStore, WriteBatch};
use rove_protocol::ids::{NodeId, PartitionId};

use super::directory::Machine;
use super::{Action, Context, Node, NodeEvent, Place, Running};
use crate::bugs::Bug;
use crate::disk::Write;
use crate::faults::Fault;
use crate::history::Record;

/// Pieces of a snapshot, more or less: enough to be cut off between them.
const PIECES: usize = 6;

/// How long a sender waits for an answer before it asks again what has arrived: the slowest network, there and back.
const ANSWER_US: u64 = 1_200_000;

/// How often it asks before it gives up, and another one is captured.
const TRIES: u32 = 3;

/// How long after the reset a node crashes that is to, at most: some entries later, before the state is flushed again.
const RESET_US: u64 = 200_000;

/// Rows of a state.
type Rows = Vec<(Bytes, Bytes)>;

/// The state of a partition, or a piece of it: rows, or the directory as a whole.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    rows: Rows,
    directory: Option<Box<MemoryDirectory>>,
}

impl State {
    /// In pieces.
    fn cut(self) -> Vec<Self> {
        let of = |rows: &[_]| Self { rows: rows.to_vec(), directory: None };
        let mut pieces: Vec<Self> = self.rows.chunks(self.rows.len() / PIECES + 1).map(of).collect();
        if self.directory.is_some() {
            pieces.extend([Self::default(), self]);
        }
        pieces
    }

    fn add(&mut self, piece: Self) {
        self.rows.extend(piece.rows);
        self.directory = piece.directory.or(self.directory.take());
    }
}

/// What nodes say to each other about one snapshot: its partition, and the name that its sender gave it.
#[derive(Debug, Clone)]
pub struct Said {
    partition: PartitionId,
    id: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// Whoever sends it begins, or goes on: what raft says with it, and how many pieces it has.
    Offer(Bytes, usize),
    /// This many pieces have arrived.
    Have(usize),
    /// The piece of this number.
    Piece(usize, State),
    /// It was taken or not needed; or refused.
    Ended(bool),
}

/// What is due on a node that sends or installs one.
#[derive(Debug, Clone, Copy)]
pub enum Due {
    /// The state is captured for this replica.
    Capture(GroupMember),
    /// An answer, if not more than this many pieces of that snapshot have arrived.
    Answer(u64, usize),
    /// Everything before it is applied, perhaps: the staged state becomes current.
    Install,
    /// It is: the log's reset may be written.
    Installed,
    /// The log has begun anew, and perhaps goes on already: a moment to crash at.
    Reset,
}

/// One on its way.
struct Outgoing {
    to: GroupMember,
    id: u64,
    message: Bytes,
    pieces: Vec<State>,
    next: usize,
    tries: u32,
}

/// One that comes in.
struct Incoming {
    from: NodeId,
    id: u64,
    message: PeerMessage,
    pieces: usize,
    have: usize,
    state: State,
}

/// Snapshots of one partition on one node.
#[derive(Default)]
pub(super) struct Snapshots {
    capturing: bool,
    outgoing: Option<Outgoing>,
    incoming: Option<Incoming>,
    /// Raft has taken it.
    staged: Option<State>,
    /// The lane has nothing to say until this is done.
    installing: Option<(Install, State, Vec<Persist>)>,
    /// The last thing to be written of a reset that was asked for.
    resetting: Option<u64>,
}

impl Snapshots {
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Whether nothing of a snapshot is left to be done here.
    pub(super) fn is_idle(&self) -> bool {
        self.outgoing.is_none() && self.staged.is_none() && self.installing.is_none()
    }
}

impl Place {
    /// Everything up to this ticket is written.
    pub(super) fn persisted(&mut self, partition: PartitionId, ticket: u64, context: &mut Context<'_>) {
        self.lane.persisted(ticket);
        if self.snapshots.resetting.take_if(|resetting| *resetting <= ticket).is_some() {
            due(context.rng.below(RESET_US), partition, Due::Reset, context);
        }
    }

    /// Gives up what is sent by a node that does not lead any more.
    pub(super) fn look_after_snapshots(&mut self) {
        if !self.lane.leads() {
            self.end_outgoing(false);
        }
    }

    fn end_outgoing(&mut self, ok: bool) {
        if let Some(outgoing) = self.snapshots.outgoing.take() {
            self.lane.replica().snapshot_done(outgoing.to, ok);
        }
    }
}

fn say(to: NodeId, partition: PartitionId, id: u64, what: What, context: &mut Context<'_>) {
    context.actions.push(Action::Snapshot(to, Said { partition, id, what }));
}

fn due(delay: u64, partition: PartitionId, due: Due, context: &mut Context<'_>) {
    context.actions.push(Action::After(delay, NodeEvent::SnapshotDue(partition, due)));
}

/// All rows of a partition: their keys begin with its number.
fn rows_of(store: &MemoryStore, partition: PartitionId) -> Result<Rows, String> {
    let mut rows = Rows::new();
    let (from, to) = (partition.0.to_be_bytes(), (partition.0 + 1).to_be_bytes());
    let scanned = store.scan(&from, &to, false, &mut |key, value| {
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        true
    });
    scanned.map(|()| rows).map_err(|error| error.to_string())
}

/// Puts `rows` in the place of the partition's.
fn replace(store: &MemoryStore, partition: PartitionId, rows: &Rows) -> Result<(), String> {
    let mut batch = WriteBatch::default();
    rows_of(store, partition)?.into_iter().for_each(|(key, _)| batch.delete(key));
    for (key, value) in rows {
        batch.put(key.clone(), value.clone());
    }
    store.write(&batch).map_err(|error| error.to_string())
}

/// The last entry that a state which was staged has applied.
fn applied_in(state: &State, partition: PartitionId) -> Result<u64, String> {
    if let Some(directory) = &state.directory {
        return directory.meta().map(|meta| meta.applied).map_err(|error| error.to_string());
    }
    let store = MemoryStore::new();
    replace(&store, partition, &state.rows)?;
    PartitionMachine::load(&store, partition).map(|machine| machine.applied()).map_err(|error| error.to_string())
}

impl Running {
    /// A replica needs one. If it cannot be sent now it will be asked for again.
    pub(super) fn want_snapshot(&mut self, partition: PartitionId, to: GroupMember, context: &mut Context<'_>) {
        let Some(place) = self.places.get_mut(&partition) else { return };
        if place.snapshots.capturing || place.snapshots.outgoing.is_some() {
            return;
        }
        if place.lane.replica().group().voters.contains(&to) {
            context.fired.count(Fault::Absence);
        }
        place.snapshots.capturing = true;
        due(context.rng.between(1, 50) * 1_000, partition, Due::Capture(to), context);
    }

    fn capture(&mut self, partition: PartitionId, to: GroupMember, context: &mut Context<'_>) -> Result<(), String> {
        let Some(place) = self.places.get_mut(&partition) else { return Ok(()) };
        place.snapshots.capturing = false;
        let index = place.machine.applied();
        let replica = place.lane.replica();
        let Some(term) = replica.term_at(index) else { return Ok(()) };
        let Ok(message) = replica.snapshot_message(to, index, term) else { return Ok(()) };
        let message: Bytes = message.encode().map_err(|error| error.to_string())?.into();
        let directory = (partition == DIRECTORY).then(|| Box::new(self.directory.clone()));
        let pieces = State { rows: rows_of(&self.store, partition)?, directory }.cut();
        let id = self.next_ticket;
        self.next_ticket += 1;
        say(node_of(to), partition, id, What::Offer(message.clone(), pieces.len()), context);
        due(ANSWER_US, partition, Due::Answer(id, 0), context);
        place.snapshots.outgoing = Some(Outgoing { to, id, message, pieces, next: 0, tries: TRIES });
        Ok(())
    }

    /// No answer has come, or one has meanwhile.
    fn answer_due(&mut self, partition: PartitionId, id: u64, before: usize, context: &mut Context<'_>) {
        let Some(place) = self.places.get_mut(&partition) else { return };
        let Some(outgoing) = place.snapshots.outgoing.as_mut().filter(|outgoing| outgoing.id == id) else { return };
        if outgoing.next == before {
            if outgoing.tries == 0 {
                place.end_outgoing(false);
                return;
            }
            outgoing.tries -= 1;
            let offer = What::Offer(outgoing.message.clone(), outgoing.pieces.len());
            say(node_of(outgoing.to), partition, id, offer, context);
        }
        due(ANSWER_US, partition, Due::Answer(id, outgoing.next), context);
    }

    /// Something arrives, of a snapshot that is sent or received here. `cut`: the next piece that is sent is lost.
    pub(super) fn snapshot_said(
        &mut self,
        from: NodeId,
        said: Said,
        cut: &mut bool,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        let Said { partition, id, what } = said;
        let Some(place) = self.places.get_mut(&partition) else { return Ok(()) };
        match what {
            What::Offer(message, pieces) => place.offered(from, partition, id, (&message, pieces), context),
            What::Piece(number, state) => return place.piece(from, partition, id, (number, state), context),
            What::Have(have) => {
                let outgoing = place.snapshots.outgoing.as_mut();
                let Some(outgoing) = outgoing.filter(|outgoing| outgoing.id == id) else { return Ok(()) };
                outgoing.next = have;
                let Some(state) = outgoing.pieces.get(have) else { return Ok(()) };
                if have > 0 && std::mem::take(cut) {
                    context.fired.count(Fault::SnapshotCut);
                } else {
                    say(from, partition, id, What::Piece(have, state.clone()), context);
                }
            }
            What::Ended(ok) => {
                if place.snapshots.outgoing.as_ref().is_some_and(|outgoing| outgoing.id == id) {
                    place.end_outgoing(ok);
                }
            }
        }
        Ok(())
    }

    /// Raft has let go of its log for the staged state: what it wants written waits until that is durable.
    pub(super) fn begin_install(
        &mut self,
        partition: PartitionId,
        install: Install,
        persists: Vec<Persist>,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        let place = self.places.get_mut(&partition).ok_or("a snapshot of no partition")?;
        let staged = place.snapshots.staged.take().ok_or("there is no staged state to install")?;
        place.snapshots.installing = Some((install, staged, persists));
        due(context.rng.between(500, 20_000), partition, Due::Install, context);
        Ok(())
    }
}

impl Place {
    fn offered(
        &mut self,
        from: NodeId,
        partition: PartitionId,
        id: u64,
        (message, pieces): (&Bytes, usize),
        context: &mut Context<'_>,
    ) {
        let known = self.snapshots.incoming.as_ref().filter(|incoming| (incoming.from, incoming.id) == (from, id));
        let have = known.map_or(0, |incoming| incoming.have);
        if known.is_none() {
            let Ok(message) = PeerMessage::decode(message) else { return };
            let state = State::default();
            self.snapshots.incoming = Some(Incoming { from, id, message, pieces, have, state });
        }
        say(from, partition, id, What::Have(have), context);
    }

    fn piece(
        &mut self,
        from: NodeId,
        partition: PartitionId,
        id: u64,
        (number, piece): (usize, State),
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        let due = |incoming: &&mut Incoming| (incoming.from, incoming.id, incoming.have) == (from, id, number);
        let Some(incoming) = self.snapshots.incoming.as_mut().filter(due) else { return Ok(()) };
        incoming.state.add(piece);
        incoming.have += 1;
        if incoming.have < incoming.pieces {
            say(from, partition, id, What::Have(incoming.have), context);
            return Ok(());
        }
        let Some(Incoming { message, state, .. }) = self.snapshots.incoming.take() else { return Ok(()) };
        let ok = self.received(from, partition, message, state)?;
        say(from, partition, id, What::Ended(ok), context);
        Ok(())
    }

    /// Everything is there: raft decides. Whether it was not refused.
    fn received(
        &mut self,
        from: NodeId,
        partition: PartitionId,
        message: PeerMessage,
        state: State,
    ) -> Result<bool, String> {
        if message.snapshot_index() != Some(applied_in(&state, partition)?) {
            return Err("a snapshot is not what it is said to be".to_owned());
        }
        if self.snapshots.staged.is_some() {
            return Ok(false);
        }
        match self.lane.step_snapshot(from, message) {
            Ok(taken) => {
                self.snapshots.staged = Some(state).filter(|_| taken);
                Ok(true)
            }
            Err(StepError::Message(_)) => Ok(false),
            Err(StepError::Quarantine(reason)) => Err(reason.to_string()),
        }
    }
}

impl Node {
    pub(super) fn snapshot_due(
        &mut self,
        partition: PartitionId,
        step: Due,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        let Some(running) = &mut self.running else { return Ok(()) };
        match step {
            Due::Capture(to) => return running.capture(partition, to, context),
            Due::Answer(id, before) => running.answer_due(partition, id, before, context),
            Due::Install => return self.install(partition, context),
            Due::Installed => self.installed(partition, context),
            Due::Reset => {
                self.crashes_at(Fault::CrashAfterReset, context);
            }
        }
        Ok(())
    }

    /// Makes the staged state current and durable, and everything that was written before it.
    fn install(&mut self, partition: PartitionId, context: &mut Context<'_>) -> Result<(), String> {
        let Some(place) = self.running.as_ref().and_then(|running| running.places.get(&partition)) else {
            return Ok(());
        };
        if !place.committed.is_empty() {
            due(1_000, partition, Due::Install, context);
            return Ok(());
        }
        if self.crashes_at(Fault::CrashBeforeInstall, context) {
            return Ok(());
        }
        self.flush()?;
        let Some(running) = &mut self.running else { return Ok(()) };
        let Some(place) = running.places.get_mut(&partition) else { return Ok(()) };
        let Some((install, staged, _)) = &place.snapshots.installing else { return Ok(()) };
        let (install, staged) = (install.clone(), staged.clone());
        if let Some(directory) = &staged.directory {
            self.install_directory(directory, context)?;
        } else {
            replace(&self.flushed, partition, &staged.rows)?;
            replace(&running.store, partition, &staged.rows)?;
            let machine = PartitionMachine::load(&running.store, partition).map_err(|error| error.to_string())?;
            place.machine = Machine::Conversations(Box::new(machine));
        }
        self.installed.insert(partition, install.clone());
        let Some(running) = &mut self.running else { return Ok(()) };
        let Some(place) = running.places.get(&partition) else { return Ok(()) };
        let (index, term, state) = (install.index, install.term, place.machine.state_hash());
        context.record(Record::Installed { node: self.id, partition, index, term, state });
        due(context.rng.between(100, 5_000), partition, Due::Installed, context);
        running.serve(partition, context)
    }

    /// The state is there: the log begins anew.
    fn installed(&mut self, partition: PartitionId, context: &mut Context<'_>) {
        if self.crashes_at(Fault::CrashBeforeReset, context) {
            return;
        }
        let place = self.running.as_mut().and_then(|running| running.places.get_mut(&partition));
        let Some(place) = place else { return };
        let Some((_, _, persists)) = place.snapshots.installing.take() else { return };
        place.snapshots.resetting = persists.last().map(|persist| persist.ticket);
        for mut persist in persists {
            if context.bug == Some(Bug::InstallKeepsLog) {
                persist.reset = None;
            }
            self.disk.ask(Write::Persist(partition, persist));
        }
    }

    /// Whether the node is to crash at this step.
    fn crashes_at(&mut self, step: Fault, context: &mut Context<'_>) -> bool {
        let crashes = self.crash_at == Some(step);
        if crashes {
            context.actions.push(Action::Crash(step));
        }
        crashes
    }
}
