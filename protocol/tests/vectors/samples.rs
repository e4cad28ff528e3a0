//! The values that the valid vectors show: each message at least once, with small numbers where they do, so that the
//! bytes can be read, and with large ones where their encoding matters.

use bytes::Bytes;
use rove_protocol::extension::{Extension, Extensions};
use rove_protocol::ids::*;
use rove_protocol::limits;
use rove_protocol::message::*;
use rove_protocol::registry::*;
use rove_protocol::wire::List;

use crate::common::messages::*;

/// A name and why it is shown, then the bytes of a frame or of a body.
pub type Sample = (&'static str, &'static str, Vec<u8>);

fn account(id: u64) -> AccountRef {
    AccountRef { account: AccountId(id) }
}

fn alternatives() -> List<Alternative> {
    let alternative = |address: &str, region: &str| Alternative { address: address.into(), region: region.into() };
    vec![alternative("b.example:4433", "eu"), alternative("[2001:db8::3]:4433", "")].into()
}

/// Frames of streams.
pub fn stream_frames() -> Vec<Sample> {
    [control(), inbox(), conversation(), fetches()].concat()
}

fn control() -> Vec<Sample> {
    let all_methods_answered = Response { code: ErrorCode::Unsupported, ..response(2) };
    vec![
        ("Hello", "The first frame of a session.", hello().to_frame()),
        (
            "Hello, numbers at their ends",
            "A device and a version as large as their fields take.",
            Hello { device: DeviceId(u64::MAX), minor: u16::MAX, client: "ü".repeat(32), ..hello() }.to_frame(),
        ),
        ("Request", "A method and its body, which is length-prefixed.", request(1).to_frame()),
        (
            "Request of an unknown method",
            "Well formed: it is answered with Unsupported.",
            Request { id: RequestId(2), method: Method(0x7ffe), body: Bytes::new() }.to_frame(),
        ),
        ("Suspend", "The app went to the background.", suspend().to_frame()),
        (
            "Welcome",
            "The session's limits are a struct inside it, not length-prefixed.",
            Welcome { alternatives: alternatives(), ..welcome() }.to_frame(),
        ),
        (
            "Response with a body",
            "The answer to CreateDirect.",
            Response { body: conversation_info().encode_body().into(), ..response(1) }.to_frame(),
        ),
        ("Response that failed", "No body; no advice when to try again.", all_methods_answered.to_frame()),
        (
            "Response that was not possible now",
            "Try again after 1.5 seconds.",
            Response { code: ErrorCode::Busy, retry_after_ms: 1_500, ..response(3) }.to_frame(),
        ),
        ("GoAway", "Resume at the same address.", go_away().to_frame()),
        ("GoAway with alternatives", "Best first.", GoAway { alternatives: alternatives(), ..go_away() }.to_frame()),
        (
            "Closed",
            "The session ends: a newer one of the same device took over.",
            closed(ErrorCode::Replaced).to_frame(),
        ),
    ]
}

fn inbox() -> Vec<Sample> {
    let cursor = |partition, id| PartitionCursor { partition: PartitionId(partition), message_id: MessageId(id) };
    let line = InboxLine {
        conversation: CONVERSATION,
        partition: PartitionId(2),
        kind: ConversationKind::Direct,
        role: Role::Member,
        title: String::new(),
        peer: AccountId(43),
        head: Seq(9),
        last_message_id: MessageId(1 << 40),
        read: Seq(7),
        event: None,
    };
    vec![
        ("InboxOpen of a new device", "No cursors: every conversation.", inbox_open().to_frame()),
        (
            "InboxOpen",
            "One cursor for each partition seen so far.",
            InboxOpen { cursors: vec![cursor(1, 1 << 40), cursor(6, i64::MAX as u64)].into() }.to_frame(),
        ),
        ("InboxLine", "A direct conversation whose newest event is too large to come with it.", line.to_frame()),
        (
            "InboxLine with its event",
            "The body of an Event frame, length-prefixed.",
            InboxLine {
                kind: ConversationKind::Group,
                title: "Lunch".to_owned(),
                peer: AccountId(0),
                event: Some(event(9).encode_body().into()),
                ..line.clone()
            }
            .to_frame(),
        ),
        (
            "InboxLine of who is out",
            "Role None: the account left or was removed at the head it may see.",
            InboxLine { role: Role::None, kind: ConversationKind::Group, peer: AccountId(0), ..line }.to_frame(),
        ),
        ("InboxSynced", "In step, for now.", InboxSynced { version: 12 }.to_frame()),
        ("Closed", "The inbox ends.", closed(ErrorCode::GoingAway).to_frame()),
    ]
}

fn extensions(all: &[(u32, &'static [u8])]) -> Extensions {
    let all = all.iter().map(|(id, value)| Extension { id: *id, value: Bytes::from_static(value) });
    Extensions::new(all.collect()).unwrap()
}

const TAG: &[u8] = b"\xe1\x07\x5b\xd4\x9a\x30\xc8\x6f\x12\xb7\x44\xee\x03\x95\x7a\xd8";

fn conversation() -> Vec<Sample> {
    vec![
        ("Open of a new client", "Nothing held, nothing told.", open().to_frame()),
        (
            "Open that resumes",
            "Events after 300; the client has been told of 305, so a replica behind that waits.",
            Open { after: Seq(300), seen: Seq(305), epoch: 1, ..open() }.to_frame(),
        ),
        ("Post", "A message of text.", post(1).to_frame()),
        (
            "Post that replies and mentions",
            "Mentions are a list: each item is length-prefixed.",
            Post {
                post_no: PostNo(2),
                refers_to: Seq(300),
                mentions: vec![account(43), account(300)].into(),
                ..post(2)
            }
            .to_frame(),
        ),
        (
            "Post with extensions",
            "Kept as they are, the critical one too: it is the server that refuses the post, not the stream.",
            Post { extensions: extensions(&[(4, b"hi"), (9, b"")]), ..post(3) }.to_frame(),
        ),
        (
            "Post with a tag",
            "Sixteen random bytes, the same whatever writer and number the post goes out under.",
            Post { extensions: extensions(&[(2, TAG)]), ..post(5) }.to_frame(),
        ),
        (
            "Post that is void",
            "A cancelled post uses up its number.",
            Post { kind: EventKind::Void, content_type: ContentType::None, body: Bytes::new(), ..post(4) }.to_frame(),
        ),
        ("Mark", "Holds 9, has shown 7.", mark(9, 7).to_frame()),
        ("Opened", "Three hundred events so far.", opened(300).to_frame()),
        ("Event", "A message.", event(9).to_frame()),
        (
            "Event made by a request",
            "No device, no writer, no post number; the body is the struct Created.",
            Event {
                kind: EventKind::Created,
                device: DeviceId(0),
                writer: WriterId([0; 16]),
                post_no: PostNo(0),
                content_type: ContentType::System,
                body: created().encode_body().into(),
                ..event(1)
            }
            .to_frame(),
        ),
        (
            "Event with extensions",
            "Those of its post, verbatim; a reader that does not know them keeps its cursor moving.",
            Event { extensions: extensions(&[(4, b"hi"), (64, b"\x01\x02")]), ..event(10) }.to_frame(),
        ),
        (
            "Event with a tag",
            "That of its post: whoever has a post of this tag queued knows that it is in the log.",
            Event { extensions: extensions(&[(2, TAG)]), ..event(12) }.to_frame(),
        ),
        (
            "Event with a tag of another length",
            "Fifteen bytes are no tag: the event is read like one without.",
            Event { extensions: extensions(&[(2, &TAG[..15])]), ..event(13) }.to_frame(),
        ),
        (
            "Event of an unknown kind",
            "Counted, and shown as a line that is not understood.",
            Event { kind: EventKind(0x77), ..event(11) }.to_frame(),
        ),
        ("Unavailable", "Seqs 1 to 40 were dropped by retention.", unavailable(1, 40).to_frame()),
        ("Posted", "Durable.", posted(2).to_frame()),
        ("Refused for now", "Nothing is used up; try again in 200 ms.", refused(3).to_frame()),
        (
            "Refused for good",
            "The number is used up.",
            Refused {
                code: ErrorCode::Forbidden,
                consumed: true,
                expected: PostNo(4),
                retry_after_ms: 0,
                ..refused(3)
            }
            .to_frame(),
        ),
        (
            "Refused because of a gap",
            "Go back to post 2.",
            Refused { code: ErrorCode::Gap, expected: PostNo(2), retry_after_ms: 0, ..refused(5) }.to_frame(),
        ),
        ("Receipt", "Account 43 holds 3 and has read 2.", receipt().to_frame()),
        (
            "Closed",
            "The replica is behind what the client has been told.",
            Closed { code: ErrorCode::Behind, last_seq: Seq(300) }.to_frame(),
        ),
    ]
}

fn fetches() -> Vec<Sample> {
    vec![
        ("Fetch of the newest", "The last 50 before the end.", fetch(50).to_frame()),
        (
            "Fetch from a date",
            "Up to 512 from the first event of that millisecond on.",
            Fetch { anchor: Anchor::Time, at: 1_795_000_000_000, backward: false, ..fetch(limits::PAGE_EVENTS) }
                .to_frame(),
        ),
        ("Event", "The same bytes as on a conversation stream.", event(9).to_frame()),
        (
            "Unavailable",
            "Before the account joined.",
            Unavailable { reason: UnavailableReason::NotMember, ..unavailable(1, 8) }.to_frame(),
        ),
        ("Page", "Seqs 1 to 9 of 100.", page(1, 9).to_frame()),
        ("Page that is empty", "There is nothing there.", page(0, 0).to_frame()),
        ("Closed", "There is no such conversation for this account.", closed(ErrorCode::NotFound).to_frame()),
    ]
}

/// Datagrams.
pub fn datagrams() -> Vec<Sample> {
    let heartbeat = Heartbeat { number: 300, inbox_version: 12, presence_version: 4 };
    let ack = HeartbeatAck { number: 300, inbox_version: 13, presence_version: 4 };
    let item = |account, status, last_seen_ms| PresenceItem {
        account: AccountId(account),
        status,
        incarnation: 5,
        version: 130,
        last_seen_ms,
    };
    let items = vec![item(43, PresenceStatus::Online, 0), item(44, PresenceStatus::Offline, 1_795_000_000_000)];
    let typing = |account| Typing { conversation: CONVERSATION, account: AccountId(account), typing: true };
    vec![
        ("Heartbeat", "The client is there.", heartbeat.to_frame()),
        ("Heartbeat and Typing", "Frames share a datagram.", [heartbeat.to_frame(), typing(0).to_frame()].concat()),
        ("HeartbeatAck", "The inbox went on to 13: the client has lost a line.", ack.to_frame()),
        (
            "Presence",
            "One is online, one was last seen at a time.",
            Presence { items: items.into(), version: 4 }.to_frame(),
        ),
        ("Typing, to the others", "The server says who.", typing(43).to_frame()),
    ]
}

fn member(account: u64, role: Role) -> MemberChange {
    MemberChange { account: AccountId(account), role }
}

fn created() -> Created {
    Created {
        kind: ConversationKind::Group,
        title: "Lunch".to_owned(),
        members: vec![member(42, Role::Owner), member(43, Role::Member)].into(),
    }
}

fn conversation_info() -> ConversationInfo {
    ConversationInfo {
        conversation: CONVERSATION,
        kind: ConversationKind::Direct,
        title: String::new(),
        head: Seq(1),
        member_count: 2,
        members: List::default(),
    }
}

/// Bodies without a frame of their own: the struct's name first.
pub fn bodies() -> Vec<Sample> {
    let handle = |handle: &str| HandleRef { handle: handle.into() };
    let info = |account, handle: &str, name: &str| AccountInfo {
        account: AccountId(account),
        handle: handle.into(),
        name: name.into(),
    };
    let listed = vec![
        MemberInfo { account: AccountId(42), role: Role::Owner },
        MemberInfo { account: AccountId(43), role: Role::Member },
    ];
    vec![
        ("CreateDirect", "With account 300.", CreateDirect { peer: AccountId(300) }.encode_body()),
        (
            "CreateGroup",
            "The creator is not among the members.",
            CreateGroup { nonce: [0x11; 16], title: "Lunch".into(), members: vec![member(43, Role::Member)].into() }
                .encode_body(),
        ),
        (
            "ChangeMembers",
            "One comes, one goes.",
            ChangeMembers {
                conversation: CONVERSATION,
                changes: vec![member(44, Role::Admin), member(43, Role::None)].into(),
            }
            .encode_body(),
        ),
        (
            "GetConversation",
            "With the members after account 42.",
            GetConversation { conversation: CONVERSATION, after: AccountId(42) }.encode_body(),
        ),
        (
            "FindAccounts",
            "Two handles.",
            FindAccounts { handles: vec![handle("bob"), handle("zoë")].into() }.encode_body(),
        ),
        (
            "GetAccounts",
            "Two accounts.",
            GetAccounts { accounts: vec![account(43), account(300)].into() }.encode_body(),
        ),
        ("Watch", "Nobody any more.", Watch { accounts: List::default() }.encode_body()),
        (
            "ConversationInfo",
            "With a page of members.",
            ConversationInfo { members: listed.into(), ..conversation_info() }.encode_body(),
        ),
        (
            "Accounts",
            "Those that there are.",
            Accounts { accounts: vec![info(43, "bob", "Bob"), info(44, "zoë", "")].into() }.encode_body(),
        ),
        ("Created", "The body of seq 1.", created().encode_body()),
        (
            "MembersChanged",
            "One was removed.",
            MembersChanged { changes: vec![member(43, Role::None)].into() }.encode_body(),
        ),
        ("SettingsChanged", "A new title.", SettingsChanged { title: "Dinner".into() }.encode_body()),
    ]
}
