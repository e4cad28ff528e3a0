//! The messages that are measured: 200 bytes of text, as a chat has them, and nothing out of the ordinary beside it.

use bytes::Bytes;
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{AccountId, DeviceId, MessageId, PostNo, Seq, ShardId, WriterId};
use rove_protocol::message::{Event, Post};
use rove_protocol::registry::{ContentType, EventKind};
use rove_protocol::wire::List;

/// Bytes of a message's text: the size that the peers were measured with.
pub const TEXT: usize = 200;

/// When the samples were written, in milliseconds of the Unix epoch: any recent time has as many bytes.
pub const TIME_MS: u64 = 1_790_000_000_000;

/// [`TEXT`] bytes of ASCII text.
pub fn text() -> Bytes {
    Bytes::from("the quick brown fox jumps over the lazy dog, ".bytes().cycle().take(TEXT).collect::<Vec<_>>())
}

/// A writer's `number`th post.
pub fn post(number: u64) -> Post {
    Post {
        post_no: PostNo(number),
        kind: EventKind::Message,
        refers_to: Seq(0),
        content_type: ContentType::Text,
        crypto_epoch: 0,
        mentions: List::default(),
        body: text(),
        extensions: Extensions::default(),
    }
}

/// The event at `seq`.
pub fn event(seq: u64) -> Event {
    let (message_id, _) = MessageId::mint(0, TIME_MS + seq, ShardId(17));
    Event {
        seq: Seq(seq),
        message_id,
        time_ms: TIME_MS + seq,
        kind: EventKind::Message,
        author: AccountId(1_000),
        device: DeviceId(2_000),
        writer: WriterId([7; 16]),
        post_no: PostNo(seq),
        refers_to: Seq(0),
        content_type: ContentType::Text,
        crypto_epoch: 0,
        mentions: List::default(),
        body: text(),
        extensions: Extensions::default(),
    }
}
