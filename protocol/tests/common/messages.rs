//! Ordinary messages, and the part of each that a test is about.

use bytes::Bytes;
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{
    AccountId, ConversationId, DeviceId, MessageId, NodeId, PostNo, RequestId, Seq, SessionId, WriterId,
};
use rove_protocol::limits;
use rove_protocol::message::*;
use rove_protocol::registry::{
    Anchor, ClientState, ContentType, ErrorCode, EventKind, Method, Role, StreamMode, UnavailableReason,
};
use rove_protocol::wire::List;

/// The conversation of all of them.
pub const CONVERSATION: ConversationId = ConversationId(*b"\x00\x10conversation42");

pub fn hello() -> Hello {
    Hello {
        device: DeviceId(7),
        secret: Bytes::from_static(&[0x5e; limits::SECRET]),
        minor: 0,
        state: ClientState::Foreground,
        client: "rove 0.1".to_owned(),
    }
}

pub fn welcome() -> Welcome {
    Welcome {
        session: SessionId(300),
        account: AccountId(42),
        node: NodeId(1),
        minor: 0,
        server_time_ms: 1_795_000_000_000,
        heartbeat_ms: 20_000,
        limits: Limits::default(),
        alternatives: List::default(),
    }
}

pub fn request(id: u64) -> Request {
    let body = CreateDirect { peer: AccountId(43) }.encode_body().into();
    Request { id: RequestId(id), method: Method::CreateDirect, body }
}

pub fn response(id: u64) -> Response {
    Response { id: RequestId(id), code: ErrorCode::None, retry_after_ms: 0, body: Bytes::new() }
}

pub fn suspend() -> Suspend {
    Suspend { state: ClientState::Background }
}

pub fn go_away() -> GoAway {
    GoAway { code: ErrorCode::GoingAway, deadline_ms: 10_000, alternatives: List::default() }
}

pub fn closed(code: ErrorCode) -> Closed {
    Closed { code, last_seq: Seq(0) }
}

pub fn inbox_open() -> InboxOpen {
    InboxOpen { cursors: List::default() }
}

pub fn open() -> Open {
    Open { conversation: CONVERSATION, after: Seq(0), seen: Seq(0), epoch: 0, writer: WriterId([0xa1; 16]) }
}

pub fn opened(head: u64) -> Opened {
    Opened {
        head: Seq(head),
        last_post_no: PostNo(0),
        mode: StreamMode::Live,
        epoch: 1,
        role: Role::Member,
        read: Seq(0),
        member_count: 2,
    }
}

pub fn post(number: u64) -> Post {
    Post {
        post_no: PostNo(number),
        kind: EventKind::Message,
        refers_to: Seq(0),
        content_type: ContentType::Text,
        crypto_epoch: 0,
        mentions: List::default(),
        body: Bytes::from_static(b"hello"),
        extensions: Extensions::default(),
    }
}

pub fn posted(number: u64) -> Posted {
    Posted { post_no: PostNo(number), seq: Seq(9), message_id: MessageId(1 << 40), time_ms: 1_795_000_000_000 }
}

pub fn refused(number: u64) -> Refused {
    Refused {
        post_no: PostNo(number),
        code: ErrorCode::Busy,
        consumed: false,
        expected: PostNo(number),
        retry_after_ms: 200,
    }
}

pub fn event(seq: u64) -> Event {
    Event {
        seq: Seq(seq),
        message_id: MessageId(1 << 40 | seq << 12),
        time_ms: 1_795_000_000_000,
        kind: EventKind::Message,
        author: AccountId(42),
        device: DeviceId(7),
        writer: WriterId([0xa1; 16]),
        post_no: PostNo(seq),
        refers_to: Seq(0),
        content_type: ContentType::Text,
        crypto_epoch: 0,
        mentions: List::default(),
        body: Bytes::from_static(b"hello"),
        extensions: Extensions::default(),
    }
}

pub fn unavailable(from: u64, to: u64) -> Unavailable {
    Unavailable { from: Seq(from), to: Seq(to), reason: UnavailableReason::Retention }
}

pub fn mark(delivered: u64, read: u64) -> Mark {
    Mark { delivered: Seq(delivered), read: Seq(read) }
}

pub fn receipt() -> Receipt {
    Receipt { account: AccountId(43), delivered: Seq(3), read: Seq(2) }
}

pub fn fetch(limit: u32) -> Fetch {
    Fetch { conversation: CONVERSATION, anchor: Anchor::Head, at: 0, backward: true, limit, seen: Seq(0) }
}

pub fn page(first: u64, last: u64) -> Page {
    Page { conversation: CONVERSATION, first: Seq(first), last: Seq(last), head: Seq(100) }
}
