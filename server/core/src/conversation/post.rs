//! Posts: numbered per writer, each consumed once and answered alike for ever (D1, D7).
//!
//! What consumes a number: every decision about the next one that stands whatever happens later, accepted or refused.
//! What does not: a repeat, a number out of turn, a writer or device that may not write at all, a conversation that is
//! not there for this account. Those change nothing, so they cannot be used to fill the store either.

use bytes::Bytes;
use rove_protocol::ids::{ConversationId, DeviceId, MessageId, PostNo, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{Body, Event, Post};
use rove_protocol::registry::{ErrorCode, EventKind, Role};
use rove_protocol::wire::varint_prefix;

use super::machine::{Applier, advance};
use super::rows::{Digest, PAGE, Recorded, RecordedPost, Row, WriterPageRow, WriterRow};
use super::{MemberRow, ReadError, keys};
use crate::command::{Actor, ConversationOutcome, PostedOutcome, RefusedOutcome};
use crate::store::StateRead;

/// Critical extensions of a post that are understood. None yet; one more is a new apply version.
const KNOWN_EXTENSIONS: &[u32] = &[];

/// The last number and the device of a writer.
#[derive(Clone, Copy)]
struct Writer {
    device: DeviceId,
    last: PostNo,
}

impl<S: StateRead> Applier<'_, S> {
    pub(super) fn post(
        &mut self,
        conversation: ConversationId,
        actor: Actor,
        writer: WriterId,
        bytes: &Bytes,
    ) -> Result<ConversationOutcome, ReadError> {
        let key = (conversation, writer);
        let digest = Digest::of(bytes);
        let known = self
            .rows
            .writers
            .get(self.store, self.rows.partition, key)?
            .map(|row| Writer { device: row.device, last: row.last });
        let bound = known.filter(|writer| writer.device == actor.device);
        let last = bound.map_or(PostNo(0), |writer| writer.last);
        let refused = |post_no, code| Ok(refused(post_no, code, false, last.next()));

        let post = match Post::decode_body(bytes.clone()) {
            Ok(post) => post,
            // The edge has decoded it before; a binary that disagrees about that answers, and changes nothing.
            Err(error) => return refused(post_no_of(bytes), error.code()),
        };
        let no = post.post_no;
        if self.actor_shut(actor)? {
            return refused(no, ErrorCode::Revoked);
        }
        let Some(row) = self.rows.conversations.get(self.store, self.rows.partition, conversation)? else {
            return refused(no, ErrorCode::NotFound);
        };
        let head = row.head;
        if self.rows.members.get(self.store, self.rows.partition, (conversation, actor.account))?.is_none() {
            // Whoever was never here learns no more than that.
            return refused(no, ErrorCode::NotFound);
        }
        if known.is_some() && bound.is_none() {
            return refused(no, ErrorCode::WriterTaken);
        }
        if no <= last {
            return self.repeat(key, last, no, digest);
        }
        if no > last.next() {
            return refused(no, ErrorCode::Gap);
        }

        if let Some(code) = self.refusal(conversation, head, actor, &post)? {
            return self.refuse_for_good(key, actor, no, digest, code);
        }
        let draft = self.draft(conversation, head, event_of(actor, writer, post));
        if !draft.fits() {
            return self.refuse_for_good(key, actor, no, digest, ErrorCode::BodyTooLarge);
        }
        let time_ms = self.row.last_time_ms;
        let row = self
            .rows
            .conversations
            .get_mut(self.store, self.rows.partition, conversation)?
            .ok_or(ReadError::Inconsistent("a conversation vanished"))?;
        advance(row, &draft, time_ms);
        let posted = PostedOutcome { post_no: no, seq: row.head, message_id: row.last_message_id, time_ms };
        self.append(conversation, draft);
        self.consume(key, actor.device, RecordedPost { digest, recorded: Recorded::Posted(posted.seq) })?;
        Ok(ConversationOutcome::Posted(posted))
    }

    /// Why the next post of a writer is refused for good, if it is.
    fn refusal(
        &mut self,
        conversation: ConversationId,
        head: Seq,
        actor: Actor,
        post: &Post,
    ) -> Result<Option<ErrorCode>, ReadError> {
        if post.kind == EventKind::Void {
            return Ok(Some(ErrorCode::Cancelled));
        }
        let member = self
            .rows
            .members
            .get(self.store, self.rows.partition, (conversation, actor.account))?
            .ok_or(ReadError::Inconsistent("a member vanished"))?;
        if !member.role.may_post() {
            return Ok(Some(ErrorCode::Forbidden));
        }
        if post.extensions.refuse_critical(KNOWN_EXTENSIONS).is_err() {
            return Ok(Some(ErrorCode::CriticalExtension));
        }
        if post.body.len() > limits::BODY {
            return Ok(Some(ErrorCode::BodyTooLarge));
        }
        let refers = reference(head, member, post);
        let role = member.role;
        match refers {
            Refers::ToNothing => Ok(None),
            Refers::Wrongly(code) => Ok(Some(code)),
            Refers::To(seq) => {
                let target = self.event_prefix(conversation, seq)?;
                Ok(may_refer(post.kind, target.kind, target.author == actor.account, role).err())
            }
        }
    }

    /// The recorded outcome of a number that was consumed before.
    fn repeat(
        &mut self,
        key: (ConversationId, WriterId),
        last: PostNo,
        no: PostNo,
        digest: Digest,
    ) -> Result<ConversationOutcome, ReadError> {
        let (page, place) = ((no.0 - 1) / PAGE, ((no.0 - 1) % PAGE) as usize);
        let found = if page == last.0 / PAGE {
            let row = self.rows.writers.get(self.store, self.rows.partition, key)?;
            row.and_then(|row| row.open.get(place).copied())
        } else {
            let row = self.appended_row(&keys::writer_page(self.rows.partition, key.0, key.1, page))?;
            row.map(|row| WriterPageRow::decode(&row)).transpose()?.and_then(|row| row.outcomes.get(place).copied())
        };
        let found = found.ok_or(ReadError::Inconsistent("the outcome of a post is missing"))?;
        if found.digest != digest {
            return Ok(refused(no, ErrorCode::PostNoReused, false, last.next()));
        }
        match found.recorded {
            Recorded::Posted(seq) => {
                let event = self.event_prefix(key.0, seq)?;
                let (message_id, time_ms) = (event.message_id, event.time_ms);
                Ok(ConversationOutcome::Posted(PostedOutcome { post_no: no, seq, message_id, time_ms }))
            }
            Recorded::Refused(code) => Ok(refused(no, code, true, last.next())),
        }
    }

    fn refuse_for_good(
        &mut self,
        key: (ConversationId, WriterId),
        actor: Actor,
        no: PostNo,
        digest: Digest,
        code: ErrorCode,
    ) -> Result<ConversationOutcome, ReadError> {
        self.consume(key, actor.device, RecordedPost { digest, recorded: Recorded::Refused(code) })?;
        Ok(refused(no, code, true, no.next()))
    }

    /// Uses up the writer's next number, and binds a new writer to its device.
    fn consume(
        &mut self,
        key: (ConversationId, WriterId),
        device: DeviceId,
        post: RecordedPost,
    ) -> Result<(), ReadError> {
        let partition = self.rows.partition;
        if self.rows.writers.get(self.store, partition, key)?.is_none() {
            self.rows.writers.put(key, WriterRow { device, last: PostNo(0), open: Vec::new() });
        }
        let row = self
            .rows
            .writers
            .get_mut(self.store, partition, key)?
            .ok_or(ReadError::Inconsistent("a writer vanished"))?;
        row.last = row.last.next();
        row.open.push(post);
        let (last, device) = (row.last, row.device);
        let full = row.last.0.is_multiple_of(PAGE).then(|| std::mem::take(&mut row.open));
        self.hash.row(&[&key.0.0[..], &key.1.0[..]].concat(), &change_of_writer(last, device, post));
        if let Some(outcomes) = full {
            let page = last.0 / PAGE - 1;
            let value = WriterPageRow { outcomes }.encode();
            self.append_row(keys::writer_page(partition, key.0, key.1, page), value);
        }
        Ok(())
    }
}

/// What is hashed of a writer's row: all that one post changes of it.
fn change_of_writer(last: PostNo, device: DeviceId, post: RecordedPost) -> [u8; 40] {
    let (tag, value) = match post.recorded {
        Recorded::Posted(seq) => (0u64, seq.0),
        Recorded::Refused(code) => (1, u64::from(code.0)),
    };
    let mut bytes = [0; 40];
    for (part, number) in bytes.chunks_exact_mut(8).zip([last.0, device.0, tag, value, post.digest.as_u64()]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// What a post refers to, as far as it can be said without reading it.
enum Refers {
    ToNothing,
    To(Seq),
    Wrongly(ErrorCode),
}

fn reference(head: Seq, member: &MemberRow, post: &Post) -> Refers {
    let must_be_read = match post.kind {
        EventKind::Message => false,
        EventKind::Edit | EventKind::Deletion | EventKind::Reaction => true,
        // Only the server says who came and went.
        EventKind::Created | EventKind::MembersChanged | EventKind::SettingsChanged => {
            return Refers::Wrongly(ErrorCode::InvalidArgument);
        }
        _ => return Refers::Wrongly(ErrorCode::Unsupported),
    };
    match post.refers_to {
        Seq(0) if must_be_read => Refers::Wrongly(ErrorCode::InvalidArgument),
        Seq(0) => Refers::ToNothing,
        // An event that is not there and one that may not be seen are alike.
        seq if seq > head || !member.may_see(seq) => Refers::Wrongly(ErrorCode::InvalidArgument),
        seq if must_be_read => Refers::To(seq),
        _ => Refers::ToNothing,
    }
}

/// Messages are edited by their author and reacted to by anyone; messages and reactions are taken back by their author
/// or by who manages the group.
fn may_refer(kind: EventKind, target: EventKind, own: bool, role: Role) -> Result<(), ErrorCode> {
    let (fits, allowed) = match kind {
        EventKind::Edit => (target == EventKind::Message, own),
        EventKind::Deletion => {
            (target == EventKind::Message || target == EventKind::Reaction, own || role.may_manage())
        }
        _ => (target == EventKind::Message, true),
    };
    if !fits {
        return Err(ErrorCode::InvalidArgument);
    }
    if allowed { Ok(()) } else { Err(ErrorCode::Forbidden) }
}

/// The event a post becomes; seq, name and time follow.
fn event_of(actor: Actor, writer: WriterId, post: Post) -> Event {
    Event {
        seq: Seq(0),
        message_id: MessageId(0),
        time_ms: 0,
        kind: post.kind,
        author: actor.account,
        device: actor.device,
        writer,
        post_no: post.post_no,
        refers_to: post.refers_to,
        content_type: post.content_type,
        crypto_epoch: post.crypto_epoch,
        mentions: post.mentions,
        body: post.body,
        extensions: post.extensions,
    }
}

fn refused(post_no: PostNo, code: ErrorCode, consumed: bool, expected: PostNo) -> ConversationOutcome {
    ConversationOutcome::Refused(RefusedOutcome { post_no, code, consumed, expected })
}

/// The number of a post that does not decode, if so much of it does: the first field.
fn post_no_of(bytes: &[u8]) -> PostNo {
    PostNo(varint_prefix(bytes).ok().flatten().map_or(0, |(value, _)| value))
}
