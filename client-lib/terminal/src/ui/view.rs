//! Turns what the client library tells into what the screen shows.

use std::collections::BTreeMap;

use rove_client::ids::{AccountId, Seq};
use rove_client::registry::{ConversationKind, ErrorCode, PresenceStatus, Role, UnavailableReason};
use rove_client::{
    ConnectionState, Content, ConversationSummary, Delivery, PresenceInfo, PresenceMap, ReceiptInfo, TimelineItem,
};

use super::state::{Body, Connection, Item, Mark, Presence, Row};
use super::wrap::{clean_line, cut};
use crate::explain;

/// Columns of the words by which a reply names what it replies to.
const REPLY_WORDS: usize = 60;

/// What accounts are called, as far as known.
#[derive(Debug, Clone, Default)]
pub struct Names {
    known: BTreeMap<AccountId, String>,
    asked: std::collections::BTreeSet<AccountId>,
    wanted: Vec<AccountId>,
}

impl Names {
    /// An account has this name.
    pub fn learn(&mut self, account: AccountId, name: impl Into<String>) {
        let name = name.into();
        if !name.is_empty() {
            self.known.insert(account, name);
        }
    }

    /// What to call an account. One that is not known is remembered for [`Names::wanted`].
    pub fn get(&mut self, account: AccountId) -> String {
        if let Some(name) = self.known.get(&account) {
            return name.clone();
        }
        if account != AccountId(0) && self.asked.insert(account) {
            self.wanted.push(account);
        }
        format!("#{account}")
    }

    /// Accounts to ask for, each once.
    pub fn wanted(&mut self) -> Vec<AccountId> {
        std::mem::take(&mut self.wanted)
    }

    /// Asking was in vain; it may be asked for again.
    pub fn forget(&mut self, account: AccountId) {
        self.asked.remove(&account);
    }
}

/// The connection.
pub fn connection(state: &ConnectionState, now_ms: u64) -> Connection {
    match state {
        ConnectionState::Connecting => Connection::Connecting,
        ConnectionState::Connected { rtt, .. } => {
            Connection::Connected { rtt_ms: u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX) }
        }
        ConnectionState::Disconnected { code, retry_in_ms } => {
            Connection::Waiting { why: explain::code(*code), until_ms: now_ms.saturating_add(*retry_in_ms) }
        }
        ConnectionState::Closed { code } => Connection::Closed { why: explain::code(*code) },
    }
}

/// Somebody's presence.
pub fn presence(info: PresenceInfo) -> Presence {
    if info.status == PresenceStatus::Online {
        Presence::Online
    } else {
        Presence::Offline { last_seen_ms: info.last_seen_ms }
    }
}

/// What a conversation is called.
pub fn title(summary: &ConversationSummary, names: &mut Names) -> String {
    match &summary.peer {
        Some(peer) if !peer.handle.is_empty() => peer.handle.clone(),
        Some(peer) => names.get(peer.account),
        None if summary.title.is_empty() => "(no title)".to_owned(),
        None => summary.title.clone(),
    }
}

/// Whether it is a group; unknown kinds are.
pub fn is_group(summary: &ConversationSummary) -> bool {
    summary.kind != ConversationKind::Direct
}

/// A line of the list.
pub fn row(summary: &ConversationSummary, names: &mut Names, online: &PresenceMap) -> Row {
    Row {
        id: summary.id,
        title: title(summary, names),
        group: is_group(summary),
        presence: peer_presence(summary, online),
        unread: summary.unread,
        queued: summary.queued,
    }
}

/// The presence of the other one.
pub fn peer_presence(summary: &ConversationSummary, online: &PresenceMap) -> Option<Presence> {
    summary.peer.as_ref().and_then(|peer| online.get(&peer.account)).copied().map(presence)
}

/// How far an own message has come, given how far the others are and how many they are (`None`: not known).
pub fn mark(item: &TimelineItem, receipts: &[ReceiptInfo], others: Option<usize>) -> Mark {
    if !item.mine || !matches!(item.content, Content::Text(_) | Content::Deleted) {
        return Mark::None;
    }
    match item.delivery {
        Delivery::Queued => Mark::Queued,
        Delivery::Sent => Mark::Sent,
        Delivery::Refused(code) => Mark::Failed(explain::code(code)),
        Delivery::Posted => {
            let Some(seq) = item.seq else { return Mark::Posted };
            // Only what holds for every other member is said.
            if others.is_none_or(|others| others == 0 || receipts.len() < others) {
                return Mark::Posted;
            }
            if receipts.iter().all(|receipt| receipt.read >= seq) {
                Mark::Read
            } else if receipts.iter().all(|receipt| receipt.delivered.max(receipt.read) >= seq) {
                Mark::Delivered
            } else {
                Mark::Posted
            }
        }
    }
}

/// The items of a conversation. Posts that the user cancelled are gone.
pub fn items(
    timeline: &[TimelineItem],
    names: &mut Names,
    receipts: &[ReceiptInfo],
    others: Option<usize>,
) -> Vec<Item> {
    let texts: BTreeMap<Seq, &TimelineItem> = timeline.iter().filter_map(|item| Some((item.seq?, item))).collect();
    let shown = timeline.iter().filter(|item| item.delivery != Delivery::Refused(ErrorCode::Cancelled));
    shown
        .map(|item| Item {
            seq: item.seq,
            local: item.local,
            time_ms: item.time_ms,
            author: names.get(item.author),
            mine: item.mine,
            body: body(item, names),
            mark: mark(item, receipts, others),
            reply_to: (item.refers_to > Seq(0)).then(|| reply_words(texts.get(&item.refers_to).copied(), names)),
            edited: item.edited,
            reactions: reactions(item),
        })
        .collect()
}

fn reply_words(to: Option<&TimelineItem>, names: &mut Names) -> String {
    match to.and_then(|item| Some((item.author, item.text()?))) {
        Some((author, text)) => cut(&clean_line(&format!("{}: {text}", names.get(author))), REPLY_WORDS, "…"),
        None => "an earlier message".to_owned(),
    }
}

fn reactions(item: &TimelineItem) -> Vec<(String, usize)> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for (_, reaction) in &item.reactions {
        match counted.iter_mut().find(|(seen, _)| seen == reaction) {
            Some((_, count)) => *count += 1,
            None => counted.push((reaction.clone(), 1)),
        }
    }
    counted
}

fn body(item: &TimelineItem, names: &mut Names) -> Body {
    let author = if item.author == AccountId(0) { String::new() } else { names.get(item.author) };
    Body::Notice(match &item.content {
        Content::Text(text) => return Body::Text(text.clone()),
        Content::Deleted => format!("{author} took a message back"),
        Content::Created { title, members } => {
            let with: Vec<AccountId> =
                members.iter().map(|(account, _)| *account).filter(|account| *account != item.author).collect();
            let what = if title.is_empty() { "this conversation".to_owned() } else { format!("the group \"{title}\"") };
            if with.is_empty() {
                format!("{author} made {what}")
            } else {
                format!("{author} made {what} with {}", people(&with, names))
            }
        }
        Content::MembersChanged(changes) => members_changed(&author, item.author, changes, names),
        Content::TitleChanged(title) => format!("{author} called this group \"{title}\""),
        Content::Unavailable { to, reason } => {
            let count = to.0.saturating_sub(item.seq.unwrap_or(*to).0) + 1;
            let why = match *reason {
                UnavailableReason::Retention => "no longer kept by the server",
                UnavailableReason::NotMember => "from when you were not a member",
                _ => "not shown",
            };
            if count == 1 { format!("1 message {why}") } else { format!("{count} messages {why}") }
        }
        Content::Other { kind, .. } => {
            format!("{author} did something this version does not know ({kind}): update rove")
        }
    })
}

fn members_changed(author: &str, by: AccountId, changes: &[(AccountId, Role)], names: &mut Names) -> String {
    let of = |wanted: fn(Role) -> bool| -> Vec<AccountId> {
        changes.iter().filter(|(_, role)| wanted(*role)).map(|(account, _)| *account).collect()
    };
    let (came, gone) = (of(|role| role != Role::None), of(|role| role == Role::None));
    let mut parts = Vec::new();
    if !came.is_empty() {
        parts.push(format!("added {}", people(&came, names)));
    }
    if gone == [by] {
        parts.push("left".to_owned());
    } else if !gone.is_empty() {
        parts.push(format!("removed {}", people(&gone, names)));
    }
    format!("{author} {}", parts.join(" and "))
}

/// A few names, and how many others.
fn people(accounts: &[AccountId], names: &mut Names) -> String {
    const NAMED: usize = 3;
    let mut text = accounts.iter().take(NAMED).map(|account| names.get(*account)).collect::<Vec<_>>().join(", ");
    if accounts.len() > NAMED {
        let others = accounts.len() - NAMED;
        let plural = if others == 1 { "" } else { "s" };
        text = format!("{text} and {others} other{plural}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rove_client::ids::MessageId;

    fn own(delivery: Delivery, seq: Option<u64>) -> TimelineItem {
        TimelineItem {
            seq: seq.map(Seq),
            local: None,
            message_id: MessageId(0),
            time_ms: 0,
            author: AccountId(1),
            mine: true,
            refers_to: Seq(0),
            content: Content::Text("hi".into()),
            edited: false,
            reactions: Vec::new(),
            delivery,
        }
    }

    fn receipt(account: u64, delivered: u64, read: u64) -> ReceiptInfo {
        ReceiptInfo { account: AccountId(account), delivered: Seq(delivered), read: Seq(read) }
    }

    #[test]
    fn a_mark_says_only_what_holds_for_every_other_member() {
        let item = own(Delivery::Posted, Some(5));
        assert_eq!(mark(&item, &[], Some(1)), Mark::Posted);
        assert_eq!(mark(&item, &[receipt(2, 5, 4)], Some(1)), Mark::Delivered);
        assert_eq!(mark(&item, &[receipt(2, 5, 5)], Some(1)), Mark::Read);
        assert_eq!(mark(&item, &[receipt(2, 5, 5)], Some(2)), Mark::Posted, "the third one has not said anything");
        assert_eq!(mark(&item, &[receipt(2, 5, 5), receipt(3, 5, 0)], Some(2)), Mark::Delivered);
        assert_eq!(mark(&item, &[receipt(2, 5, 5)], None), Mark::Posted);
        assert_eq!(mark(&item, &[receipt(2, 0, 5)], Some(1)), Mark::Read, "read implies delivered");
    }

    #[test]
    fn pending_and_refused_posts_say_so() {
        assert_eq!(mark(&own(Delivery::Queued, None), &[], Some(1)), Mark::Queued);
        assert_eq!(mark(&own(Delivery::Sent, None), &[], Some(1)), Mark::Sent);
        let refused = own(Delivery::Refused(ErrorCode::Forbidden), None);
        assert_eq!(mark(&refused, &[], Some(1)), Mark::Failed("not a member, or not allowed to".into()));
        let mut names = Names::default();
        let cancelled = own(Delivery::Refused(ErrorCode::Cancelled), None);
        assert_eq!(items(&[cancelled], &mut names, &[], Some(1)), []);
    }

    #[test]
    fn who_is_not_known_is_asked_for_once() {
        let mut names = Names::default();
        assert_eq!(names.get(AccountId(7)), "#7");
        assert_eq!(names.get(AccountId(7)), "#7");
        assert_eq!(names.wanted(), [AccountId(7)]);
        assert!(names.wanted().is_empty());
        names.learn(AccountId(7), "bob");
        assert_eq!(names.get(AccountId(7)), "bob");
    }

    #[test]
    fn what_happened_is_told_in_words() {
        let mut names = Names::default();
        for (account, name) in [(1, "ada"), (2, "bo"), (3, "cy"), (4, "di"), (5, "ed")] {
            names.learn(AccountId(account), name);
        }
        let role = |account| (AccountId(account), Role::Member);
        let mut tell = |content| match body(&TimelineItem { content, ..own(Delivery::Posted, Some(3)) }, &mut names) {
            Body::Notice(text) | Body::Text(text) => text,
        };
        let members = vec![role(1), role(2), role(3), role(4), role(5)];
        assert_eq!(
            tell(Content::Created { title: "tea".into(), members }),
            "ada made the group \"tea\" with bo, cy, di and 1 other"
        );
        assert_eq!(
            tell(Content::MembersChanged(vec![role(2), (AccountId(3), Role::None)])),
            "ada added bo and removed cy"
        );
        assert_eq!(tell(Content::MembersChanged(vec![(AccountId(1), Role::None)])), "ada left");
        assert_eq!(
            tell(Content::Unavailable { to: Seq(9), reason: UnavailableReason::NotMember }),
            "7 messages from when you were not a member"
        );
    }
}
