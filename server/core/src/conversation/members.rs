//! Conversations and who is in them.
//!
//! The rules of a group: admins add and remove members and read-only members and change between the two; owners make and
//! unmake admins and owners; anyone may lower himself or leave. A group with members has an owner: the last one neither
//! leaves nor steps down while others are in it, unless the same request makes another one. When the only member leaves,
//! the group is empty for good. A direct conversation never changes.
//!
//! A request is done whole or not at all. What is already so is passed over; if nothing is left, nothing is appended.

use std::collections::BTreeSet;

use bytes::Bytes;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, MessageId, PostNo, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{Body, Created, Event, MemberChange, MembersChanged};
use rove_protocol::registry::{ContentType, ConversationKind, ErrorCode, EventKind, Role};
use rove_protocol::wire::List;

use super::machine::{Applier, advance, failed, view};
use super::rows::{EARLIER_STAYS, MembershipRow, Row};
use super::{ConversationRow, MemberRow, ReadError, keys};
use crate::command::{Actor, ConversationOutcome, Effect};
use crate::store::StateRead;

/// One member's change of role.
#[derive(Clone, Copy)]
struct Change {
    account: AccountId,
    old: Role,
    new: Role,
}

/// A count while changes of it are gathered: it may pass through what it must not end at.
struct Count {
    before: u32,
    more: u32,
    fewer: u32,
}

impl Count {
    fn of(before: u32) -> Self {
        Self { before, more: 0, fewer: 0 }
    }

    /// One that counted, or not, now does, or not.
    fn change(&mut self, counted: bool, counts: bool) {
        self.more += u32::from(counts && !counted);
        self.fewer += u32::from(counted && !counts);
    }

    fn end(&self) -> Result<u32, ReadError> {
        (self.before + self.more)
            .checked_sub(self.fewer)
            .ok_or(ReadError::Inconsistent("a group counts too few members"))
    }
}

impl<S: StateRead> Applier<'_, S> {
    pub(super) fn create_direct(&mut self, actor: Actor, peer: AccountId) -> Result<ConversationOutcome, ReadError> {
        if self.actor_shut(actor)? {
            return Ok(failed(ErrorCode::Revoked));
        }
        // A conversation with oneself would have one member; a group does that.
        if !is_account(actor.account) || !is_account(peer) || peer == actor.account {
            return Ok(failed(ErrorCode::InvalidArgument));
        }
        let id = ConversationId::direct(actor.account, peer);
        if let Some(row) = self.rows.conversations.get(self.store, self.rows.partition, id)? {
            return Ok(view(id, row));
        }
        let peers = [actor.account.min(peer), actor.account.max(peer)];
        let members = peers.map(|account| (account, Role::Member)).to_vec();
        Ok(self.create(id, actor.account, ConversationKind::Direct, String::new(), peers, members))
    }

    pub(super) fn create_group(
        &mut self,
        actor: Actor,
        nonce: [u8; 16],
        title: String,
        members: Vec<(AccountId, Role)>,
    ) -> Result<ConversationOutcome, ReadError> {
        if self.actor_shut(actor)? {
            return Ok(failed(ErrorCode::Revoked));
        }
        let id = ConversationId::group(actor.account, nonce);
        let partition = self.rows.partition;
        if let Some(row) = self.rows.conversations.get(self.store, partition, id)? {
            let found = view(id, row);
            let member = self.rows.members.get(self.store, partition, (id, actor.account))?;
            return Ok(if member.is_some_and(MemberRow::is_member) { found } else { failed(ErrorCode::Forbidden) });
        }
        if members.len() > limits::MEMBERS_PER_REQUEST {
            return Ok(failed(ErrorCode::LimitExceeded));
        }
        let mut seen = BTreeSet::from([actor.account]);
        let sound = |(account, role): &(AccountId, Role)| {
            is_account(*account) && is_role(*role) && *role != Role::None && seen.insert(*account)
        };
        if !is_account(actor.account) || title.len() > limits::TITLE || !members.iter().all(sound) {
            return Ok(failed(ErrorCode::InvalidArgument));
        }
        let mut all = Vec::with_capacity(members.len() + 1);
        all.push((actor.account, Role::Owner));
        all.extend(members);
        Ok(self.create(id, actor.account, ConversationKind::Group, title, [AccountId(0); 2], all))
    }

    /// Makes a conversation that is not there, with its first event.
    fn create(
        &mut self,
        id: ConversationId,
        creator: AccountId,
        kind: ConversationKind,
        title: String,
        peers: [AccountId; 2],
        members: Vec<(AccountId, Role)>,
    ) -> ConversationOutcome {
        let created = Created { kind, title, members: list(&members) };
        let event = system_event(EventKind::Created, creator, created.encode_body());
        let draft = self.draft(id, Seq(0), event);
        let mut row = ConversationRow {
            kind,
            title: created.title,
            head: Seq(0),
            last_message_id: MessageId(0),
            last_event_time_ms: 0,
            member_count: count(&members, |_| true),
            owner_count: count(&members, |role| role == Role::Owner),
            peers,
        };
        advance(&mut row, &draft, self.row.last_time_ms);
        let first = row.head;
        let found = view(id, &row);
        self.hash_counts(id, &row);
        self.rows.conversations.put(id, row);
        self.append(id, draft);
        for (account, role) in &members {
            let read = if *account == creator { first } else { Seq(0) };
            let member = MemberRow { role: *role, joined: first, left: None, read, earlier: Vec::new() };
            self.put_new_member(id, *account, member);
        }
        self.effects.push(Effect::Members { conversation: id, changes: members });
        found
    }

    pub(super) fn change_members(
        &mut self,
        actor: Actor,
        id: ConversationId,
        changes: Vec<(AccountId, Role)>,
    ) -> Result<ConversationOutcome, ReadError> {
        let partition = self.rows.partition;
        if self.actor_shut(actor)? {
            return Ok(failed(ErrorCode::Revoked));
        }
        let Some(own) = self.rows.members.get(self.store, partition, (id, actor.account))?.map(|row| row.role) else {
            return Ok(failed(ErrorCode::NotFound));
        };
        let Some(row) = self.rows.conversations.get(self.store, partition, id)? else {
            return Ok(failed(ErrorCode::NotFound));
        };
        if own == Role::None {
            return Ok(failed(ErrorCode::Forbidden));
        }
        if changes.len() > limits::MEMBERS_PER_REQUEST {
            return Ok(failed(ErrorCode::LimitExceeded));
        }
        let mut seen = BTreeSet::new();
        let sound =
            |(account, role): &(AccountId, Role)| is_account(*account) && is_role(*role) && seen.insert(*account);
        if row.kind == ConversationKind::Direct || changes.is_empty() || !changes.iter().all(sound) {
            return Ok(failed(ErrorCode::InvalidArgument));
        }

        let (mut members, mut owners) = (Count::of(row.member_count), Count::of(row.owner_count));
        let (head, unchanged) = (row.head, view(id, row));
        let mut effective = Vec::with_capacity(changes.len());
        for (account, new) in changes {
            let old = self.rows.members.get(self.store, partition, (id, account))?.map_or(Role::None, |row| row.role);
            let change = Change { account, old, new };
            if old == new {
                continue;
            }
            if !may_change(actor.account, own, change) {
                return Ok(failed(ErrorCode::Forbidden));
            }
            members.change(old != Role::None, new != Role::None);
            owners.change(old == Role::Owner, new == Role::Owner);
            effective.push(change);
        }
        if effective.is_empty() {
            return Ok(unchanged);
        }
        let (members, owners) = (members.end()?, owners.end()?);
        if owners == 0 && members > 0 {
            return Ok(failed(ErrorCode::Forbidden));
        }
        if members > limits::MEMBERS {
            return Ok(failed(ErrorCode::TooManyMembers));
        }
        self.commit_changes(actor.account, id, head, &effective, (members, owners))
    }

    /// Appends the event and changes the rows. Everything has been checked.
    fn commit_changes(
        &mut self,
        author: AccountId,
        id: ConversationId,
        head: Seq,
        changes: &[Change],
        (members, owners): (u32, u32),
    ) -> Result<ConversationOutcome, ReadError> {
        let partition = self.rows.partition;
        let roles: Vec<(AccountId, Role)> = changes.iter().map(|change| (change.account, change.new)).collect();
        let body = MembersChanged { changes: list(&roles) }.encode_body();
        let draft = self.draft(id, head, system_event(EventKind::MembersChanged, author, body));
        let time_ms = self.row.last_time_ms;
        let row = self
            .rows
            .conversations
            .get_mut(self.store, partition, id)?
            .ok_or(ReadError::Inconsistent("a conversation vanished"))?;
        advance(row, &draft, time_ms);
        (row.member_count, row.owner_count) = (members, owners);
        let (seq, found) = (row.head, view(id, row));
        let counts = counts(row);
        self.hash.row(&id.0, &counts);
        self.append(id, draft);
        for change in changes {
            self.commit_change(id, seq, change)?;
        }
        self.effects.push(Effect::Members { conversation: id, changes: roles });
        Ok(found)
    }

    fn commit_change(&mut self, id: ConversationId, seq: Seq, change: &Change) -> Result<(), ReadError> {
        let partition = self.rows.partition;
        let key = (id, change.account);
        let before_join = Seq(seq.0.saturating_sub(1));
        if self.rows.members.get(self.store, partition, key)?.is_none() {
            let row = MemberRow { role: change.new, joined: seq, left: None, read: before_join, earlier: Vec::new() };
            self.put_new_member(id, change.account, row);
            return Ok(());
        }
        let row = self
            .rows
            .members
            .get_mut(self.store, partition, key)?
            .ok_or(ReadError::Inconsistent("a member vanished"))?;
        if let Some(left) = row.left.take() {
            row.earlier.push((row.joined, left));
            if row.earlier.len() > EARLIER_STAYS {
                row.earlier.remove(0);
            }
            row.joined = seq;
            row.read = row.read.max(before_join);
        }
        row.role = change.new;
        row.left = (change.new == Role::None).then_some(seq);
        self.hash.row(&keys::member(partition, id, change.account), &row.encode());
        Ok(())
    }

    /// A member who was never here before.
    fn put_new_member(&mut self, id: ConversationId, account: AccountId, row: MemberRow) {
        let partition = self.rows.partition;
        self.hash.row(&keys::member(partition, id, account), &row.encode());
        self.rows.members.put((id, account), row);
        self.append_row(keys::membership(partition, account, id), MembershipRow.encode());
    }

    pub(super) fn mark_read(
        &mut self,
        id: ConversationId,
        account: AccountId,
        read: Seq,
    ) -> Result<ConversationOutcome, ReadError> {
        let partition = self.rows.partition;
        if self.account_shut(account)? {
            return Ok(failed(ErrorCode::Revoked));
        }
        let Some(row) = self.rows.conversations.get(self.store, partition, id)? else {
            return Ok(failed(ErrorCode::NotFound));
        };
        // A receipt never passes the head (I11).
        let read = read.min(row.head);
        let Some(member) = self.rows.members.get(self.store, partition, (id, account))? else {
            return Ok(failed(ErrorCode::NotFound));
        };
        if !member.is_member() {
            return Ok(failed(ErrorCode::Forbidden));
        }
        if read > member.read
            && let Some(member) = self.rows.members.get_mut(self.store, partition, (id, account))?
        {
            member.read = read;
            self.hash.row(&keys::member(partition, id, account), &read.0.to_le_bytes());
            self.effects.push(Effect::Read { conversation: id, account, read });
        }
        Ok(ConversationOutcome::Done)
    }

    fn hash_counts(&mut self, id: ConversationId, row: &ConversationRow) {
        self.hash.row(&id.0, &counts(row));
    }
}

/// What is hashed of a conversation's row: the rest of it follows from its events.
fn counts(row: &ConversationRow) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&row.member_count.to_le_bytes());
    bytes[4..].copy_from_slice(&row.owner_count.to_le_bytes());
    bytes
}

/// Whether `actor`, who is in the group as `own`, may make this change.
fn may_change(actor: AccountId, own: Role, change: Change) -> bool {
    if change.account == actor && change.new < change.old {
        return true;
    }
    own == Role::Owner || (own.may_manage() && !change.old.may_manage() && !change.new.may_manage())
}

/// Whether the number is an account's: 0 is nobody, and the last one is kept free as the end of ranges.
fn is_account(account: AccountId) -> bool {
    account.0 != 0 && account.0 != u64::MAX
}

/// Whether the role is one that can be given.
fn is_role(role: Role) -> bool {
    role <= Role::Owner
}

/// How many members there are with such a role; a request names few.
fn count(members: &[(AccountId, Role)], such: impl Fn(Role) -> bool) -> u32 {
    members.iter().map(|(_, role)| u32::from(such(*role))).sum()
}

fn list(members: &[(AccountId, Role)]) -> List<MemberChange> {
    members.iter().map(|(account, role)| MemberChange { account: *account, role: *role }).collect()
}

/// An event that a request made, not a post; seq, name and time follow.
fn system_event(kind: EventKind, author: AccountId, body: Vec<u8>) -> Event {
    Event {
        seq: Seq(0),
        message_id: MessageId(0),
        time_ms: 0,
        kind,
        author,
        device: DeviceId(0),
        writer: WriterId::default(),
        post_no: PostNo(0),
        refers_to: Seq(0),
        content_type: ContentType::System,
        crypto_epoch: 0,
        mentions: List::default(),
        body: Bytes::from(body),
        extensions: rove_protocol::extension::Extensions::default(),
    }
}
