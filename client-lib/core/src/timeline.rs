//! What a user sees of a conversation: its events in order, edits and deletions folded in, own unsent posts at the end.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use rove_protocol::ids::{AccountId, MessageId, Seq};
use rove_protocol::message::{Body, Created, Event, MemberChange, MembersChanged, SettingsChanged};
use rove_protocol::registry::{ContentType, ErrorCode, EventKind, Role, UnavailableReason};
use rove_protocol::wire::List;

use crate::outbox::Pending;

/// Names a post in the local store from the moment it is queued, before the server has given it a seq.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub u64);

impl fmt::Display for LocalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How far an own post has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In the outbox, durable on this device.
    Queued,
    /// Sent, not answered yet; sent again after a lost connection.
    Sent,
    /// In the log, durable on a majority.
    Posted,
    /// Refused for good, or cancelled ([`ErrorCode::Cancelled`]).
    Refused(ErrorCode),
}

/// What an item shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A message, in its newest version.
    Text(String),
    /// A message that was taken back.
    Deleted,
    /// The conversation was made.
    Created {
        /// A group's title.
        title: String,
        /// Its first members.
        members: Vec<(AccountId, Role)>,
    },
    /// Members came, went ([`Role::None`]) or changed role.
    MembersChanged(Vec<(AccountId, Role)>),
    /// A group's new title.
    TitleChanged(String),
    /// Seqs nobody will send any more (D3).
    Unavailable {
        /// The last of them; the item's seq is the first.
        to: Seq,
        /// Why.
        reason: UnavailableReason,
    },
    /// Something this version does not understand: it still has its place.
    Other {
        /// What it does.
        kind: EventKind,
        /// What its body is.
        content_type: ContentType,
        /// The body.
        body: Bytes,
    },
}

/// One line of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineItem {
    /// Its place in the log; `None` for an own post that is not there yet.
    pub seq: Option<Seq>,
    /// Its name in the outbox, while it is there.
    pub local: Option<LocalId>,
    /// Its name in the cluster; 0 for an own post that is not in the log yet.
    pub message_id: MessageId,
    /// When it was accepted (or, before that, queued), in milliseconds of the Unix epoch.
    pub time_ms: u64,
    /// Who did it; 0 for unavailable seqs.
    pub author: AccountId,
    /// Whether this account did it, from whichever device.
    pub mine: bool,
    /// The event it replies to; 0: none.
    pub refers_to: Seq,
    /// What it shows.
    pub content: Content,
    /// Whether an edit was folded in.
    pub edited: bool,
    /// Reactions of the accounts, in the order of the log.
    pub reactions: Vec<(AccountId, String)>,
    /// How far it has come; [`Delivery::Posted`] for everybody else's.
    pub delivery: Delivery,
}

impl TimelineItem {
    /// The text, if it is a message of text.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Seqs that will never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnavailableRange {
    /// The first.
    pub from: Seq,
    /// The last.
    pub to: Seq,
    /// Why.
    pub reason: UnavailableReason,
}

/// What a piece of timeline is made of.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The account that looks.
    pub me: AccountId,
    /// Events, ascending by seq.
    pub events: &'a [Event],
    /// Edits, deletions and reactions that refer to them, ascending by seq. Those among `events` need not be repeated.
    pub references: &'a [Event],
    /// Ranges between them, ascending.
    pub unavailable: &'a [UnavailableRange],
    /// Own posts that are not in the log yet.
    pub pending: &'a [Pending<'a>],
}

/// Whether an event of this kind is a line of its own; the others change the line they refer to.
pub fn is_line(kind: EventKind) -> bool {
    ![EventKind::Edit, EventKind::Deletion, EventKind::Reaction].contains(&kind)
}

/// Makes the lines: events and unavailable ranges by seq, changes folded into what they refer to, own pending posts
/// at the end in the order they were queued.
pub fn fold(source: &Source<'_>) -> Vec<TimelineItem> {
    let mut lines: BTreeMap<Seq, TimelineItem> = BTreeMap::new();
    for event in source.events.iter().filter(|event| is_line(event.kind)) {
        lines.insert(event.seq, line(event, source.me));
    }
    let mut changes: BTreeMap<Seq, &Event> = BTreeMap::new();
    for event in source.events.iter().chain(source.references).filter(|event| !is_line(event.kind)) {
        changes.insert(event.seq, event);
    }
    for event in changes.into_values() {
        if let Some(target) = lines.get_mut(&event.refers_to) {
            apply(target, event.kind, event.author, &event.body);
        }
    }
    for range in source.unavailable {
        let content = Content::Unavailable { to: range.to, reason: range.reason };
        lines.insert(range.from, bare(Some(range.from), AccountId(0), content));
    }
    let mut tail = Vec::new();
    for pending in source.pending {
        if pending.seq.is_some_and(|seq| lines.contains_key(&seq)) {
            continue;
        }
        if is_line(pending.draft.kind) {
            tail.push(pending_line(pending, source.me));
        } else if !matches!(pending.delivery, Delivery::Refused(_))
            && let Some(target) = lines.get_mut(&pending.draft.refers_to)
        {
            apply(target, pending.draft.kind, source.me, &pending.draft.body);
        }
    }
    lines.into_values().chain(tail).collect()
}

fn bare(seq: Option<Seq>, author: AccountId, content: Content) -> TimelineItem {
    TimelineItem {
        seq,
        local: None,
        message_id: MessageId(0),
        time_ms: 0,
        author,
        mine: false,
        refers_to: Seq(0),
        content,
        edited: false,
        reactions: Vec::new(),
        delivery: Delivery::Posted,
    }
}

fn line(event: &Event, me: AccountId) -> TimelineItem {
    TimelineItem {
        message_id: event.message_id,
        time_ms: event.time_ms,
        mine: event.author == me,
        refers_to: event.refers_to,
        ..bare(Some(event.seq), event.author, content(event.kind, event.content_type, &event.body))
    }
}

fn pending_line(pending: &Pending<'_>, me: AccountId) -> TimelineItem {
    let draft = pending.draft;
    TimelineItem {
        local: Some(pending.local),
        time_ms: pending.created_ms,
        mine: true,
        refers_to: draft.refers_to,
        delivery: pending.delivery,
        ..bare(pending.seq, me, content(draft.kind, draft.content_type, &draft.body))
    }
}

/// What an event shows. What does not decode is shown as what it is: bytes of a kind.
fn content(kind: EventKind, content_type: ContentType, body: &Bytes) -> Content {
    let other = || Content::Other { kind, content_type, body: body.clone() };
    match (kind, content_type) {
        (EventKind::Message, ContentType::Text) => {
            std::str::from_utf8(body).map_or_else(|_| other(), |text| Content::Text(text.to_owned()))
        }
        (EventKind::Created, _) => Created::decode_body(body.clone()).map_or_else(
            |_| other(),
            |created| Content::Created { title: created.title, members: roles(&created.members) },
        ),
        (EventKind::MembersChanged, _) => MembersChanged::decode_body(body.clone())
            .map_or_else(|_| other(), |changed| Content::MembersChanged(roles(&changed.changes))),
        (EventKind::SettingsChanged, _) => SettingsChanged::decode_body(body.clone())
            .map_or_else(|_| other(), |changed| Content::TitleChanged(changed.title)),
        _ => other(),
    }
}

fn roles(changes: &List<MemberChange>) -> Vec<(AccountId, Role)> {
    changes.iter().map(|change| (change.account, change.role)).collect()
}

fn apply(target: &mut TimelineItem, kind: EventKind, author: AccountId, body: &Bytes) {
    let text = || std::str::from_utf8(body).ok().map(str::to_owned);
    match kind {
        // Only the author's own; the server holds to the same rule, but an old log may not.
        EventKind::Edit if author == target.author && matches!(target.content, Content::Text(_)) => {
            if let Some(text) = text() {
                target.content = Content::Text(text);
                target.edited = true;
            }
        }
        // By the author or an admin: that was decided when it was accepted.
        EventKind::Deletion => {
            target.content = Content::Deleted;
            target.reactions.clear();
        }
        EventKind::Reaction => {
            if let Some(text) = text() {
                // An empty one takes the account's reactions back.
                if text.is_empty() {
                    target.reactions.retain(|(account, _)| *account != author);
                } else if !target.reactions.contains(&(author, text.clone())) {
                    target.reactions.push((author, text));
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use rove_protocol::extension::Extensions;
    use rove_protocol::ids::{DeviceId, PostNo, WriterId};

    use super::*;
    use crate::outbox::Draft;

    const ME: AccountId = AccountId(1);
    const BOB: AccountId = AccountId(2);

    fn event(seq: u64, author: AccountId, kind: EventKind, refers_to: u64, text: &str) -> Event {
        Event {
            seq: Seq(seq),
            message_id: MessageId(seq * 10),
            time_ms: seq * 1_000,
            kind,
            author,
            device: DeviceId(1),
            writer: WriterId([1; 16]),
            post_no: PostNo(seq),
            refers_to: Seq(refers_to),
            content_type: ContentType::Text,
            crypto_epoch: 0,
            mentions: List::default(),
            body: Bytes::copy_from_slice(text.as_bytes()),
            extensions: Extensions::default(),
        }
    }

    fn texts(items: &[TimelineItem]) -> Vec<String> {
        items.iter().map(|item| format!("{:?}", item.content)).collect()
    }

    #[test]
    fn edits_reactions_and_deletions_are_folded_in_wherever_they_are() {
        let events = [
            event(1, BOB, EventKind::Message, 0, "helo"),
            event(2, BOB, EventKind::Message, 0, "secret"),
            event(3, ME, EventKind::Edit, 1, "not his to edit"),
            event(4, BOB, EventKind::Edit, 1, "hello"),
        ];
        let later = [event(9, ME, EventKind::Reaction, 1, "+1"), event(10, BOB, EventKind::Deletion, 2, "")];
        let items = fold(&Source { me: ME, events: &events, references: &later, unavailable: &[], pending: &[] });
        assert_eq!(items.len(), 2);
        assert_eq!((items[0].text(), items[0].edited, items[0].mine), (Some("hello"), true, false));
        assert_eq!(items[0].reactions, [(ME, "+1".to_owned())]);
        assert_eq!(items[1].content, Content::Deleted);
    }

    #[test]
    fn own_pending_posts_come_last_and_unavailable_seqs_have_their_place() {
        let draft = Draft::text(EventKind::Message, Seq(0), "soon");
        let edit = Draft::text(EventKind::Edit, Seq(5), "mine, edited");
        let refused = Draft::text(EventKind::Deletion, Seq(5), "");
        let view =
            |local, draft, delivery| Pending { local: LocalId(local), draft, created_ms: 7, delivery, seq: None };
        let pending = [
            view(1, &draft, Delivery::Queued),
            view(2, &edit, Delivery::Sent),
            view(3, &refused, Delivery::Refused(ErrorCode::Forbidden)),
        ];
        let range = UnavailableRange { from: Seq(1), to: Seq(4), reason: UnavailableReason::NotMember };
        let events = [event(5, ME, EventKind::Message, 0, "mine")];
        let items =
            fold(&Source { me: ME, events: &events, references: &[], unavailable: &[range], pending: &pending });
        assert_eq!(
            texts(&items),
            ["Unavailable { to: Seq(4), reason: NotMember }", "Text(\"mine, edited\")", "Text(\"soon\")"]
        );
        assert_eq!((items[2].local, items[2].seq, items[2].mine), (Some(LocalId(1)), None, true));
    }

    #[test]
    fn a_posted_post_is_shown_once_when_its_event_is_there() {
        let draft = Draft::text(EventKind::Message, Seq(0), "x");
        let pending = [Pending {
            local: LocalId(1),
            draft: &draft,
            created_ms: 7,
            delivery: Delivery::Posted,
            seq: Some(Seq(5)),
        }];
        let events = [event(5, ME, EventKind::Message, 0, "x")];
        let with = fold(&Source { me: ME, events: &events, references: &[], unavailable: &[], pending: &pending });
        let without = fold(&Source { me: ME, events: &[], references: &[], unavailable: &[], pending: &pending });
        assert_eq!((with.len(), without.len()), (1, 1));
        assert_eq!(without[0].seq, Some(Seq(5)));
    }

    #[test]
    fn an_unknown_kind_keeps_its_place_as_a_line() {
        let events = [event(1, BOB, EventKind(900), 0, "?")];
        let items = fold(&Source { me: ME, events: &events, references: &[], unavailable: &[], pending: &[] });
        assert!(matches!(&items[0].content, Content::Other { kind: EventKind(900), .. }));
    }
}
