//! The state machine of one partition.

use std::collections::BTreeMap;

use bytes::Bytes;
use rove_protocol::ids::{AccountId, ConversationId, MessageId, PartitionId, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::Event;
use rove_protocol::registry::ErrorCode;
use rove_protocol::wire::Wire;
use xxhash_rust::xxh3::Xxh3;

use super::cache::Cache;
use super::keys::{self, GateSubject};
use super::rows::{EVENT_VERSION, GateRow, Row, event_body};
use super::{ApplyError, ConversationRow, PartitionRow, ReadError, read};
use crate::apply_version::{self, ApplyVersions};
use crate::command::{
    Actor, BatchRef, ConversationCommand, ConversationOutcome, ConversationView, Effect, Gate, Origin,
};
use crate::store::{StateRead, WriteBatch};

/// Times of entries are cut to 41 bits of milliseconds (September 2039), so that message ids stay positive in an `i64`
/// whatever a leader's clock says.
const LAST_TIME_MS: u64 = (1 << 41) - 1;

/// The largest body of an `Event` frame: the frame less its type, which is one byte.
const EVENT_BODY: usize = limits::FRAME - 1;

/// The conversations of one partition, as far as the log has been applied.
///
/// Apply entries in order, take the batch at the end of a round, write it, publish the effects, go on. The batch must be
/// written before the next entry is applied: what it holds is not remembered here. After an error the machine is of no
/// more use: it refuses further entries and gives empty batches, so that nothing half done is ever written.
#[derive(Debug)]
pub struct PartitionMachine {
    versions: ApplyVersions,
    row: PartitionRow,
    changed: bool,
    failed: bool,
    rows: Rows,
}

/// The rows in memory.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) partition: PartitionId,
    pub(super) conversations: Cache<ConversationId>,
    pub(super) members: Cache<(ConversationId, AccountId)>,
    pub(super) writers: Cache<(ConversationId, WriterId)>,
    pub(super) gates: Cache<GateSubject>,
    /// Rows of this round that never change once written: events, memberships, full pages of outcomes.
    pub(super) appended: BTreeMap<Bytes, Bytes>,
}

impl PartitionMachine {
    /// The machine of `partition` where the store left it; at entry 0 in an empty store.
    ///
    /// # Errors
    /// [`ApplyError::Read`], and [`ApplyError::ApplyVersion`] if the state is made with a version that this binary does not have.
    pub fn load(store: &impl StateRead, partition: PartitionId) -> Result<Self, ApplyError> {
        Self::load_with(store, partition, ApplyVersions::THIS)
    }

    /// The same, of a binary that has `versions` of apply.
    ///
    /// # Errors
    /// As [`PartitionMachine::load`].
    pub fn load_with(
        store: &impl StateRead,
        partition: PartitionId,
        versions: ApplyVersions,
    ) -> Result<Self, ApplyError> {
        let row = read::partition(store, partition)?
            .unwrap_or_else(|| PartitionRow { apply_version: apply_version::FIRST, ..PartitionRow::default() });
        versions.check(row.apply_version)?;
        let rows = Rows {
            partition,
            conversations: Cache::default(),
            members: Cache::default(),
            writers: Cache::default(),
            gates: Cache::default(),
            appended: BTreeMap::new(),
        };
        Ok(Self { versions, row, changed: false, failed: false, rows })
    }

    /// The last entry applied.
    pub fn applied(&self) -> u64 {
        self.row.applied
    }

    /// The version of apply that is in force after it (D8).
    pub fn apply_version(&self) -> u16 {
        self.row.apply_version
    }

    /// The chained hash of every change up to [`PartitionMachine::applied`]: equal on all replicas at the same index.
    pub fn state_hash(&self) -> u64 {
        self.row.state_hash
    }

    /// Rows that the next batch will have: a bound for how much one round applies before it writes.
    pub fn pending_rows(&self) -> usize {
        let rows = &self.rows;
        rows.appended.len()
            + rows.conversations.dirty()
            + rows.members.dirty()
            + rows.writers.dirty()
            + rows.gates.dirty()
    }

    /// Applies the committed entry at `index` and appends what happened to `effects`.
    ///
    /// Entries come one by one without holes; one that is applied already is passed over (after a restart the log plays
    /// on from before the applied index). Empty data, as a new leader's first entry or a change of the raft group has
    /// for this machine, only moves the index.
    ///
    /// # Errors
    /// [`ApplyError`]: the replica must stop. Nothing of the entry is in `effects`.
    pub fn apply(
        &mut self,
        store: &impl StateRead,
        index: u64,
        data: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), ApplyError> {
        if self.failed {
            return Err(ApplyError::Failed);
        }
        if index <= self.row.applied {
            return Ok(());
        }
        let before = effects.len();
        let result = self.apply_next(store, index, data, effects);
        if result.is_err() {
            self.failed = true;
            effects.truncate(before);
        }
        result
    }

    fn apply_next(
        &mut self,
        store: &impl StateRead,
        index: u64,
        data: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), ApplyError> {
        let expected = self.row.applied + 1;
        if index != expected {
            return Err(ApplyError::Hole { expected, got: index });
        }
        let mut hash = ChangeHash::new(self.row.state_hash, index);
        if !data.is_empty() {
            let unreadable = |error| ApplyError::Entry { index, error };
            let batch = BatchRef::decode(data).map_err(unreadable)?;
            self.row.last_time_ms = self.row.last_time_ms.max(batch.time_ms.min(LAST_TIME_MS));
            hash.time(self.row.last_time_ms);
            let (versions, rows, row) = (self.versions, &mut self.rows, &mut self.row);
            let mut applier = Applier { store, versions, rows, row, hash: &mut hash, effects };
            for envelope in batch.commands {
                let command = ConversationCommand::decode(envelope.command).map_err(unreadable)?;
                applier.command(envelope.origin, command)?;
            }
        }
        self.row.state_hash = hash.finish();
        self.row.applied = index;
        self.changed = true;
        Ok(())
    }

    /// Everything that changed since the last call, as one batch: each row once, and with them the applied index, the
    /// state hash and the last message id.
    pub fn take_batch(&mut self) -> WriteBatch {
        let mut batch = WriteBatch::default();
        if self.failed || !std::mem::take(&mut self.changed) {
            return batch;
        }
        let rows = &mut self.rows;
        batch.ops.reserve(rows.appended.len() + 8);
        for (key, value) in std::mem::take(&mut rows.appended) {
            batch.put(key, value);
        }
        rows.conversations.take(rows.partition, &mut batch);
        rows.members.take(rows.partition, &mut batch);
        rows.writers.take(rows.partition, &mut batch);
        rows.gates.take(rows.partition, &mut batch);
        batch.put(keys::partition(rows.partition), self.row.encode());
        batch
    }
}

/// What one entry does.
pub(super) struct Applier<'a, S> {
    pub(super) store: &'a S,
    pub(super) versions: ApplyVersions,
    pub(super) rows: &'a mut Rows,
    pub(super) row: &'a mut PartitionRow,
    pub(super) hash: &'a mut ChangeHash,
    pub(super) effects: &'a mut Vec<Effect>,
}

/// An event that is encoded but not in the log yet.
pub(super) struct Draft {
    seq: Seq,
    message_id: MessageId,
    hi: u64,
    row: Vec<u8>,
}

impl Draft {
    /// Whether it fits in a frame.
    pub(super) fn fits(&self) -> bool {
        self.row.len() - 1 <= EVENT_BODY
    }
}

impl<S: StateRead> Applier<'_, S> {
    fn command(&mut self, origin: Origin, command: ConversationCommand) -> Result<(), ApplyError> {
        let outcome = match command {
            ConversationCommand::Post { conversation, actor, writer, post } => {
                self.post(conversation, actor, writer, &post)?
            }
            ConversationCommand::CreateDirect { actor, peer } => self.create_direct(actor, peer)?,
            ConversationCommand::CreateGroup { actor, nonce, title, members } => {
                self.create_group(actor, nonce, title, members)?
            }
            ConversationCommand::ChangeMembers { actor, conversation, changes } => {
                self.change_members(actor, conversation, changes)?
            }
            ConversationCommand::MarkRead { conversation, account, read } => {
                self.mark_read(conversation, account, read)?
            }
            ConversationCommand::Gate { gate: Gate::ApplyVersion(version), .. } => self.raise(version)?,
            ConversationCommand::Gate { number, gate } => self.gate(number, &gate)?,
        };
        if origin.ticket != 0 {
            self.effects.push(Effect::Answer { origin, outcome });
        }
        Ok(())
    }

    /// From the next command on everything is done as `version` does it. It is not lowered, so that a repeat changes nothing.
    fn raise(&mut self, version: u16) -> Result<ConversationOutcome, ApplyError> {
        if version > self.row.apply_version {
            self.versions.check(version)?;
            self.row.apply_version = version;
            self.hash.row(&keys::partition(self.rows.partition), &version.to_be_bytes());
        }
        Ok(ConversationOutcome::Done)
    }

    fn gate(&mut self, number: u64, gate: &Gate) -> Result<ConversationOutcome, ReadError> {
        let Some((subject, shut)) = keys::gate_subject(gate) else { return Ok(ConversationOutcome::Done) };
        let newest = self.rows.gates.get(self.store, self.rows.partition, subject)?.map_or(0, |row| row.number);
        if number > newest {
            let row = GateRow { number, shut };
            self.hash.row(&keys::gate(self.rows.partition, subject), &row.encode());
            self.rows.gates.put(subject, row);
        }
        Ok(ConversationOutcome::Done)
    }

    fn shut(&mut self, subject: GateSubject) -> Result<bool, ReadError> {
        Ok(self.rows.gates.get(self.store, self.rows.partition, subject)?.is_some_and(|row| row.shut))
    }

    /// Whether the account is shut out of this partition.
    pub(super) fn account_shut(&mut self, account: AccountId) -> Result<bool, ReadError> {
        self.shut((keys::GATE_ACCOUNT, account.0))
    }

    /// Whether the account or its device is shut out of this partition.
    pub(super) fn actor_shut(&mut self, actor: Actor) -> Result<bool, ReadError> {
        Ok(self.account_shut(actor.account)? || self.shut((keys::GATE_DEVICE, actor.device.0))?)
    }

    /// Encodes the next event of a conversation whose head is `head`; its seq, name and time are filled in here.
    pub(super) fn draft(&self, conversation: ConversationId, head: Seq, mut event: Event) -> Draft {
        let (message_id, hi) = MessageId::mint(self.row.last_hi, self.row.last_time_ms, conversation.shard());
        event.seq = head.next();
        event.message_id = message_id;
        event.time_ms = self.row.last_time_ms;
        // Fixed fields and their lengths take less than 128 bytes unless there are mentions or extensions.
        let mut row = Vec::with_capacity(event.body.len() + 128);
        row.push(EVENT_VERSION);
        event.put(&mut row);
        Draft { seq: event.seq, message_id, hi, row }
    }

    /// Puts an event into the log. `conversation`'s row is moved on by [`advance`], which the caller does.
    pub(super) fn append(&mut self, conversation: ConversationId, draft: Draft) {
        self.row.last_hi = draft.hi;
        let key = Bytes::from(keys::event(self.rows.partition, conversation, draft.seq));
        let value = Bytes::from(draft.row);
        self.hash.row(&key, &value);
        self.effects.push(Effect::Event {
            conversation,
            seq: draft.seq,
            message_id: draft.message_id,
            body: value.slice(1..),
        });
        self.rows.appended.insert(key, value);
    }

    /// Adds a row that never changes.
    pub(super) fn append_row(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.hash.row(&key, &value);
        self.rows.appended.insert(key.into(), value.into());
    }

    /// A row that never changes, from this round or from the store.
    pub(super) fn appended_row(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        match self.rows.appended.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None => Ok(self.store.get(key)?),
        }
    }

    /// The beginning of an event that must be there.
    pub(super) fn event_prefix(&self, conversation: ConversationId, seq: Seq) -> Result<read::EventPrefix, ReadError> {
        let row = self
            .appended_row(&keys::event(self.rows.partition, conversation, seq))?
            .ok_or(ReadError::Inconsistent("an event is missing"))?;
        read::EventPrefix::of(&event_body(&row)?)
    }
}

/// Moves a conversation's row on to a new event.
pub(super) fn advance(row: &mut ConversationRow, draft: &Draft, time_ms: u64) {
    row.head = draft.seq;
    row.last_message_id = draft.message_id;
    row.last_event_time_ms = time_ms;
}

/// A conversation as it is told to whoever asked for it.
pub(super) fn view(conversation: ConversationId, row: &ConversationRow) -> ConversationOutcome {
    ConversationOutcome::Conversation(ConversationView {
        conversation,
        kind: row.kind,
        title: row.title.clone(),
        head: row.head,
        member_count: row.member_count,
    })
}

/// Nothing was changed.
pub(super) fn failed(code: ErrorCode) -> ConversationOutcome {
    ConversationOutcome::Failed(code)
}

/// The hash of an entry's changes, chained to the hash before it.
///
/// What is hashed of a change determines the row it makes: events, members, gates and memberships whole; of the rows
/// that every post changes, what was added to them. So equal hashes mean equal rows, and no row is encoded only to be
/// hashed.
pub(super) struct ChangeHash(Xxh3);

impl ChangeHash {
    fn new(before: u64, index: u64) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&before.to_le_bytes());
        hash.update(&index.to_le_bytes());
        Self(hash)
    }

    fn time(&mut self, time_ms: u64) {
        self.0.update(&time_ms.to_le_bytes());
    }

    /// A row, or what was added to it.
    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) {
        self.0.update(&(key.len() as u64).to_le_bytes());
        self.0.update(key);
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
    }

    fn finish(self) -> u64 {
        self.0.digest()
    }
}
