//! Values out of bytes: the same bytes are the same value, and fewer or smaller bytes a smaller value, so that proptest
//! shrinks what it finds. Every field is listed, so that a new field or message cannot be forgotten here; the same list
//! makes the annotations of byte vectors.

use super::annotate::{Annotate, Fields};
use bytes::Bytes;
use rove_protocol::extension::{Extension, Extensions};
use rove_protocol::ids::{
    AccountId, ConversationId, DeviceId, MessageId, NodeId, PartitionId, PostNo, RequestId, Seq, SessionId, WriterId,
};
use rove_protocol::limits;
use rove_protocol::message::*;
use rove_protocol::registry::{
    Anchor, ClientState, ContentType, ConversationKind, ErrorCode, EventKind, Method, PresenceStatus, Role, StreamMode,
    UnavailableReason,
};
use rove_protocol::wire::{List, Wire};

/// Bytes to make values of; zeroes after the last.
pub struct Entropy<'a> {
    rest: &'a [u8],
}

impl<'a> Entropy<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number from `low` to `high`: small ones, large ones and both ends.
    pub fn int(&mut self, low: u64, high: u64) -> u64 {
        let raw = match self.byte() % 8 {
            0..=3 => u64::from(self.byte()),
            4 => u64::from(self.byte()) << (self.byte() % 57),
            5 => return high,
            _ => (0..8).fold(0, |value, _| value << 8 | u64::from(self.byte())),
        };
        match (high - low).checked_add(1) {
            Some(size) => low + raw % size,
            None => raw,
        }
    }

    pub fn bytes(&mut self, low: usize, high: usize) -> Bytes {
        let length = self.int(low as u64, high as u64) as usize;
        (0..length).map(|_| self.byte()).collect()
    }

    /// A text of at most `high` bytes.
    pub fn text(&mut self, high: usize) -> String {
        let wanted = self.int(0, high as u64) as usize;
        let mut text = String::new();
        while text.len() < wanted {
            let letter = ['a', 'Z', ' ', '\u{0}', 'ü', '京', '🦀', '\u{10ffff}'][usize::from(self.byte() % 8)];
            if text.len() + letter.len_utf8() > high {
                break;
            }
            text.push(letter);
        }
        text
    }

    pub fn list<T: Make + Wire>(&mut self, high: usize) -> List<T> {
        let length = self.int(0, high.min(6) as u64);
        (0..length).map(|_| T::make(self)).collect()
    }

    pub fn extensions(&mut self) -> Extensions {
        let count = self.int(0, 3) as u32;
        let extensions = (0..count)
            .map(|index| Extension { id: index * 61 + u32::from(self.byte() % 60), value: self.bytes(0, 40) });
        Extensions::new(extensions.collect()).unwrap()
    }
}

/// A value made of entropy.
pub trait Make: Sized {
    fn make(entropy: &mut Entropy<'_>) -> Self;
}

macro_rules! make_int {
    ($($type:ident),*) => {$(
        impl Make for $type {
            fn make(entropy: &mut Entropy<'_>) -> Self {
                entropy.int(0, u64::from($type::MAX)) as $type
            }
        }
    )*};
}
make_int!(u16, u32, u64);

impl Make for bool {
    fn make(entropy: &mut Entropy<'_>) -> Self {
        entropy.byte() % 2 == 1
    }
}

impl<const N: usize> Make for [u8; N] {
    fn make(entropy: &mut Entropy<'_>) -> Self {
        std::array::from_fn(|_| entropy.byte())
    }
}

macro_rules! make_newtype {
    ($($type:ident),*) => {$(
        impl Make for $type {
            fn make(entropy: &mut Entropy<'_>) -> Self {
                $type(Make::make(entropy))
            }
        }
    )*};
}
make_newtype!(AccountId, DeviceId, SessionId, NodeId, Seq, PostNo, PartitionId, MessageId, RequestId);
make_newtype!(ConversationId, WriterId);
make_newtype!(Anchor, ClientState, ContentType, ConversationKind, ErrorCode, EventKind, Method, PresenceStatus, Role);
make_newtype!(StreamMode, UnavailableReason);

macro_rules! fields {
    ($type:ident { $($field:ident),* }) => {
        impl Fields for $type {
            fn fields(&self) -> Vec<serde_json::Value> {
                vec![$( self.$field.field(stringify!($field)), )*]
            }
        }
    };
}

macro_rules! make_struct {
    ($($type:ident { $($field:ident $(= |$entropy:ident| $value:expr)?),* $(,)? })*) => {
        $(impl Make for $type {
            fn make(entropy: &mut Entropy<'_>) -> Self {
                $( let $field = make_struct!(@ entropy $(, $entropy, $value)?); )*
                $type { $($field),* }
            }
        }
        fields! { $type { $($field),* } })*
    };
    (@ $source:ident) => { Make::make($source) };
    (@ $source:ident, $entropy:ident, $value:expr) => {{ let $entropy = &mut *$source; $value }};
}

make_struct! {
    Hello {
        device, secret = |e| e.bytes(limits::SECRET, limits::SECRET), minor, state,
        client = |e| e.text(limits::CLIENT_NAME),
    }
    Limits { frame, body, conversation_streams, fetch_streams, unanswered_posts, requests }
    Alternative { address = |e| e.text(80), region = |e| e.text(20) }
    Welcome {
        session, account, node, minor, server_time_ms, heartbeat_ms, limits, alternatives = |e| e.list(6),
    }
    GoAway { code, deadline_ms, alternatives = |e| e.list(6) }
    Suspend { state }
    Request { id, method, body = |e| e.bytes(0, 300) }
    Response { id, code, retry_after_ms, body = |e| e.bytes(0, 300) }
    CreateDirect { peer }
    CreateGroup { nonce, title = |e| e.text(limits::TITLE), members = |e| e.list(limits::MEMBERS_PER_REQUEST) }
    ChangeMembers { conversation, changes = |e| e.list(limits::MEMBERS_PER_REQUEST) }
    GetConversation { conversation, after }
    MemberInfo { account, role }
    ConversationInfo {
        conversation, kind, title = |e| e.text(300), head, member_count, members = |e| e.list(6),
    }
    HandleRef { handle = |e| e.text(limits::HANDLE) }
    AccountRef { account }
    AccountInfo { account, handle = |e| e.text(limits::HANDLE), name = |e| e.text(limits::TITLE) }
    FindAccounts { handles = |e| e.list(limits::ACCOUNTS_PER_REQUEST) }
    GetAccounts { accounts = |e| e.list(limits::ACCOUNTS_PER_REQUEST) }
    Accounts { accounts = |e| e.list(limits::ACCOUNTS_PER_REQUEST) }
    Watch { accounts = |e| e.list(limits::WATCHED_ACCOUNTS) }
    PartitionCursor { partition, message_id }
    InboxOpen { cursors = |e| e.list(6) }
    InboxLine {
        conversation, partition, kind, role, title = |e| e.text(limits::TITLE), peer, head, last_message_id, read,
        event = |e| bool::make(e).then(|| e.bytes(0, limits::INLINE_EVENT)),
    }
    InboxSynced { version }
    Open { conversation, after, seen, epoch, writer }
    Opened { head, last_post_no, mode, epoch, role, read, member_count }
    Receipt { account, delivered, read }
    Closed { code, last_seq }
    Post {
        post_no = |e| PostNo(e.int(1, u64::MAX)), kind, refers_to, content_type, crypto_epoch,
        mentions = |e| e.list(limits::MENTIONS), body = |e| e.bytes(0, 2_000), extensions = |e| e.extensions(),
    }
    Posted { post_no, seq, message_id, time_ms }
    Refused { post_no, code, consumed, expected, retry_after_ms }
    Event {
        seq, message_id, time_ms, kind, author, device, writer, post_no, refers_to, content_type, crypto_epoch,
        mentions = |e| e.list(limits::MENTIONS), body = |e| e.bytes(0, 2_000), extensions = |e| e.extensions(),
    }
    MemberChange { account, role }
    Created { kind, title = |e| e.text(limits::TITLE), members = |e| e.list(6) }
    MembersChanged { changes = |e| e.list(6) }
    SettingsChanged { title = |e| e.text(limits::TITLE) }
    Fetch {
        conversation, anchor, at, backward, limit = |e| e.int(1, u64::from(limits::PAGE_EVENTS)) as u32, seen,
    }
    Page { conversation, first, last, head }
    Heartbeat { number, inbox_version, presence_version }
    HeartbeatAck { number, inbox_version, presence_version }
    PresenceItem { account, status, incarnation, version, last_seen_ms }
    Presence { items = |e| e.list(limits::WATCHED_ACCOUNTS), version }
    Typing { conversation, account, typing }
}

fields! { Unavailable { from, to, reason } }
fields! { Mark { delivered, read } }

impl Make for Unavailable {
    fn make(entropy: &mut Entropy<'_>) -> Self {
        let from = entropy.int(1, u64::MAX);
        Self { from: Seq(from), to: Seq(entropy.int(from, u64::MAX)), reason: Make::make(entropy) }
    }
}

impl Make for Mark {
    fn make(entropy: &mut Entropy<'_>) -> Self {
        let delivered = entropy.int(0, u64::MAX);
        Self { delivered: Seq(delivered), read: Seq(entropy.int(0, delivered)) }
    }
}
