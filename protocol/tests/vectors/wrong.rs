//! Bytes that are refused, or skipped, and why.

use bytes::Bytes;
use rove_protocol::frame::put_frame;
use rove_protocol::limits;
use rove_protocol::message::*;
use rove_protocol::registry::FrameType;
use rove_protocol::wire::put_varint;

use crate::common::messages::*;

/// A name, why it is what it is, the stream and direction it is received on, and the bytes.
#[derive(Clone)]
pub struct Wrong {
    pub name: String,
    pub why: &'static str,
    pub stream: &'static str,
    pub direction: &'static str,
    pub bytes: Vec<u8>,
}

impl Wrong {
    /// What is wrong with a message.
    pub fn of(
        message: &str,
        what: &str,
        why: &'static str,
        (stream, direction): (&'static str, &'static str),
        bytes: Vec<u8>,
    ) -> Self {
        Self { name: format!("{message}, {what}"), why, stream, direction, bytes }
    }
}

fn wrong(
    name: &'static str,
    why: &'static str,
    (stream, direction): (&'static str, &'static str),
    bytes: impl Into<Vec<u8>>,
) -> Wrong {
    Wrong { name: name.to_owned(), why, stream, direction, bytes: bytes.into() }
}

fn frame(frame_type: FrameType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(frame_type, body, &mut out);
    out
}

/// A message's frame with its body changed.
fn changed<M: Message>(message: &M, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = message.encode_body();
    change(&mut body);
    frame(M::TYPE, &body)
}

const CONTROL: (&str, &str) = ("control", "up");
const INBOX_DOWN: (&str, &str) = ("inbox", "down");
const CONVERSATION_UP: (&str, &str) = ("conversation", "up");
const CONVERSATION_DOWN: (&str, &str) = ("conversation", "down");
const FETCH: (&str, &str) = ("fetch", "up");
const DATAGRAM: (&str, &str) = ("datagram", "up");

/// The frame layer.
pub fn framing() -> Vec<Wrong> {
    let mut padded_type = vec![0x03, 0x86, 0x00];
    padded_type.push(0x02);
    let mut greased = frame(FrameType(126), b"anything");
    greased.extend(suspend().to_frame());
    vec![
        wrong(
            "a length of 4 GiB",
            "Refused as soon as the length is read: nothing is allocated for it.",
            CONTROL,
            [0xff, 0xff, 0xff, 0xff, 0x0f],
        ),
        wrong("a length one above the limit", "32,769 where 32,768 are allowed.", CONTROL, [0x81, 0x80, 0x02]),
        wrong("a length padded to two bytes", "3 is one byte, 03.", CONTROL, [0x83, 0x00, 0x06, 0x02, 0x00]),
        wrong("a length of more than 64 bits", "The tenth byte of a varint holds one bit.", CONTROL, [0xff; 10]),
        wrong("a frame of no bytes", "It has no type.", CONTROL, [0x00]),
        wrong("a type padded to two bytes", "6 is one byte, 06.", CONTROL, padded_type),
        wrong("a type of more than 32 bits", "Frame types are u32.", CONTROL, [0x05, 0x80, 0x80, 0x80, 0x80, 0x10]),
        wrong("a type that is not whole", "The frame ends inside it.", CONTROL, [0x01, 0x86]),
        wrong("the end inside a length", "The stream ends where a frame has begun.", CONTROL, [0x82]),
        wrong("the end inside a body", "The stream ends where a frame has begun.", CONTROL, [0x03, 0x06, 0x02]),
        wrong("an unknown odd frame", "Odd types are critical.", CONTROL, frame(FrameType(0x7001), b"?")),
        wrong(
            "an unknown even frame",
            "Even types are skipped, whatever is in them.",
            CONTROL,
            frame(FrameType(0x7000), &[0xff; 12]),
        ),
        wrong("a grease frame, then Suspend", "The grease is skipped.", CONTROL, greased),
        wrong("a frame of another stream", "Mark belongs on a conversation stream.", CONTROL, mark(1, 1).to_frame()),
        wrong("a frame of the other direction", "Welcome is the server's.", CONTROL, welcome().to_frame()),
        wrong(
            "a frame of datagrams on a stream",
            "Heartbeat belongs in a datagram.",
            CONTROL,
            Heartbeat { number: 1, inbox_version: 0, presence_version: 0 }.to_frame(),
        ),
        wrong(
            "a stream's frame in a datagram",
            "Suspend belongs on the control stream.",
            DATAGRAM,
            suspend().to_frame(),
        ),
        wrong("a datagram that ends inside a frame", "Nothing more will come.", DATAGRAM, [0x05, 0x40, 0x01]),
        wrong("an empty datagram", "No frames, no error.", DATAGRAM, []),
    ]
}

/// A list with this count, whatever is in it.
fn list(count: u64, items: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_varint(&mut body, count);
    body.extend_from_slice(items);
    frame(FrameType::InboxOpen, &body)
}

/// Values and extensions.
pub fn values() -> Vec<Wrong> {
    [plain_values(), lists(), extensions()].concat()
}

fn plain_values() -> Vec<Wrong> {
    vec![
        wrong("a field padded to two bytes", "2 is one byte, 02.", CONTROL, frame(FrameType::Suspend, &[0x82, 0x00])),
        wrong(
            "a field above its type",
            "A client state is a u32.",
            CONTROL,
            frame(FrameType::Suspend, &[0x80, 0x80, 0x80, 0x80, 0x10]),
        ),
        wrong(
            "a minor version above its type",
            "It is a u16.",
            CONTROL,
            changed(&hello(), |body| {
                body.splice(34..35, [0x80, 0x80, 0x04]);
            }),
        ),
        wrong(
            "a boolean of two",
            "Only 0 and 1 are booleans.",
            CONVERSATION_DOWN,
            changed(&refused(1), |body| body[2] = 2),
        ),
        wrong(
            "an option tag of two",
            "Only 0 and 1 are tags.",
            INBOX_DOWN,
            changed(&line(), |body| *body.last_mut().unwrap() = 2),
        ),
        wrong(
            "a text that is not UTF-8",
            "The client's name.",
            CONTROL,
            changed(&hello(), |body| *body.last_mut().unwrap() = 0xff),
        ),
        wrong(
            "a byte string longer than the frame",
            "Refused before anything is allocated.",
            CONVERSATION_UP,
            changed(&post(1), |body| {
                body.truncate(6);
                body.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
            }),
        ),
    ]
}

fn lists() -> Vec<Wrong> {
    vec![
        wrong(
            "a list of more items than the frame has",
            "The count is only the sender's word.",
            ("inbox", "up"),
            list(3, &[]),
        ),
        wrong(
            "a list of more items than the limit",
            "1,025 where 1,024 are allowed.",
            ("inbox", "up"),
            list(1_025, &[]),
        ),
        wrong(
            "a list item that ends inside a field",
            "The item's own length cuts it off.",
            ("inbox", "up"),
            list(1, &[1, 2]),
        ),
        wrong(
            "an unknown even extension in a list item",
            "Kept with the item.",
            ("inbox", "up"),
            list(1, &[4, 1, 5, 2, 0]),
        ),
        wrong(
            "an unknown odd extension in a list item",
            "Critical there too.",
            ("inbox", "up"),
            list(1, &[4, 1, 5, 3, 0]),
        ),
    ]
}

fn extensions() -> Vec<Wrong> {
    let mut too_many = suspend().encode_body();
    for id in 0..=limits::EXTENSIONS {
        put_varint(&mut too_many, id as u64 * 2);
        too_many.push(0);
    }
    vec![
        wrong("extensions that descend", "4 before 2.", CONTROL, changed(&suspend(), |body| body.extend([4, 0, 2, 0]))),
        wrong("an extension twice", "Ids are unique.", CONTROL, changed(&suspend(), |body| body.extend([2, 0, 2, 0]))),
        wrong("seventeen extensions", "At most sixteen.", CONTROL, frame(FrameType::Suspend, &too_many)),
        wrong(
            "an extension longer than the frame",
            "Its length passes the end.",
            CONTROL,
            changed(&suspend(), |body| body.extend([2, 9, 1])),
        ),
        wrong(
            "an unknown even extension",
            "Skipped; encoded again it is not there.",
            CONTROL,
            changed(&suspend(), |body| body.extend([2, 1, 9])),
        ),
        wrong(
            "a grease extension",
            "Skipped like any other unknown even one.",
            CONTROL,
            changed(&suspend(), |body| body.extend([126, 0])),
        ),
        wrong("an unknown odd extension", "Critical.", CONTROL, changed(&suspend(), |body| body.extend([3, 0]))),
        wrong(
            "extensions of a post that descend",
            "They are kept, but must be well formed.",
            CONVERSATION_UP,
            changed(&post(1), |body| body.extend([4, 0, 2, 0])),
        ),
    ]
}

fn line() -> InboxLine {
    InboxLine {
        conversation: CONVERSATION,
        partition: rove_protocol::ids::PartitionId(2),
        kind: rove_protocol::registry::ConversationKind::Direct,
        role: rove_protocol::registry::Role::Member,
        title: String::new(),
        peer: rove_protocol::ids::AccountId(43),
        head: rove_protocol::ids::Seq(9),
        last_message_id: rove_protocol::ids::MessageId(1 << 40),
        read: rove_protocol::ids::Seq(7),
        event: None,
    }
}

/// Limits of single fields.
pub fn limits_of_fields() -> Vec<Wrong> {
    let secret = |length| Hello { secret: Bytes::from(vec![0x5e; length]), ..hello() }.to_frame();
    let mentions = (0..=limits::MENTIONS as u64).map(|id| AccountRef { account: rove_protocol::ids::AccountId(id) });
    let presence = || PresenceItem {
        account: rove_protocol::ids::AccountId(1),
        status: rove_protocol::registry::PresenceStatus::Online,
        incarnation: 1,
        version: 1,
        last_seen_ms: 0,
    };
    let items = std::iter::repeat_with(presence).take(limits::WATCHED_ACCOUNTS + 1).collect();
    vec![
        wrong("a secret of 31 bytes", "A secret is 32 bytes.", CONTROL, secret(31)),
        wrong("a secret of 33 bytes", "A secret is 32 bytes.", CONTROL, secret(33)),
        wrong(
            "a client name of 65 bytes",
            "At most 64.",
            CONTROL,
            Hello { client: "x".repeat(65), ..hello() }.to_frame(),
        ),
        wrong("post number 0", "Numbers begin at 1.", CONVERSATION_UP, post(0).to_frame()),
        wrong(
            "65 mentions",
            "At most 64.",
            CONVERSATION_UP,
            Post { mentions: mentions.collect(), ..post(1) }.to_frame(),
        ),
        wrong(
            "a mark that has read more than it holds",
            "What is read is held.",
            CONVERSATION_UP,
            mark(1, 2).to_frame(),
        ),
        wrong(
            "an unavailable range that ends before it begins",
            "from <= to.",
            CONVERSATION_DOWN,
            unavailable(5, 4).to_frame(),
        ),
        wrong("an unavailable range from 0", "Seqs begin at 1.", CONVERSATION_DOWN, unavailable(0, 4).to_frame()),
        wrong("a fetch of 0 seqs", "At least 1.", FETCH, fetch(0).to_frame()),
        wrong("a fetch of 513 seqs", "At most 512.", FETCH, fetch(limits::PAGE_EVENTS + 1).to_frame()),
        wrong(
            "an inbox line with an event of 1,025 bytes",
            "At most 1,024.",
            INBOX_DOWN,
            InboxLine { event: Some(Bytes::from(vec![0; limits::INLINE_EVENT + 1])), ..line() }.to_frame(),
        ),
        wrong(
            "presence of 257 accounts",
            "A session watches at most 256.",
            ("datagram", "down"),
            Presence { items, version: 1 }.to_frame(),
        ),
    ]
}

/// Bodies that have no frame: the struct's name, then as the others.
pub fn bodies() -> Vec<(&'static str, Wrong)> {
    let title = "x".repeat(limits::TITLE + 1);
    let member =
        || MemberChange { account: rove_protocol::ids::AccountId(1), role: rove_protocol::registry::Role::Member };
    let members = |count| std::iter::repeat_with(member).take(count).collect();
    let account = || AccountRef { account: rove_protocol::ids::AccountId(1) };
    let body = |name, why, bytes: Vec<u8>| wrong(name, why, ("body", "up"), bytes);
    vec![
        ("CreateDirect", body("no bytes", "The peer is missing.", Vec::new())),
        ("CreateDirect", body("an unknown odd extension", "Critical in bodies too.", vec![43, 3, 0])),
        ("CreateDirect", body("an unknown even extension", "Skipped.", vec![43, 2, 1, 9])),
        (
            "CreateGroup",
            body(
                "a title of 257 bytes",
                "At most 256.",
                CreateGroup { nonce: [0; 16], title, members: members(0) }.encode_body(),
            ),
        ),
        (
            "ChangeMembers",
            body(
                "501 changes",
                "At most 500.",
                ChangeMembers { conversation: CONVERSATION, changes: members(limits::MEMBERS_PER_REQUEST + 1) }
                    .encode_body(),
            ),
        ),
        (
            "GetAccounts",
            body(
                "257 accounts",
                "At most 256.",
                GetAccounts {
                    accounts: std::iter::repeat_with(account).take(limits::ACCOUNTS_PER_REQUEST + 1).collect(),
                }
                .encode_body(),
            ),
        ),
        (
            "Watch",
            body(
                "257 accounts",
                "At most 256.",
                Watch { accounts: std::iter::repeat_with(account).take(limits::WATCHED_ACCOUNTS + 1).collect() }
                    .encode_body(),
            ),
        ),
    ]
}
