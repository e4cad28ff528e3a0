//! The limits of single fields, by the numbers of the specification.
#![allow(clippy::wildcard_imports, clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::messages::*;
use rove_protocol::error::DecodeError;
use rove_protocol::extension::{Extension, Extensions};
use rove_protocol::ids::{AccountId, ConversationId, MessageId, PartitionId, PostTag, Seq};
use rove_protocol::limits;
use rove_protocol::message::*;
use rove_protocol::registry::{ConversationKind, PresenceStatus, Role};
use rove_protocol::wire::List;

/// What a receiver makes of a value.
fn received<B: Body>(body: &B) -> Result<B, DecodeError> {
    B::decode_body(body.encode_body().into())
}

fn is_malformed<B: Body + std::fmt::Debug>(body: &B) -> bool {
    received(body).is_err_and(|error| error == DecodeError::OutOfRange)
}

/// A list of `count` copies.
fn list<T: Clone>(item: T, count: usize) -> List<T> {
    vec![item; count].into()
}

#[test]
fn rove_3_7_3_a_session_is_offered_no_less_than_the_registry_says() {
    let offered = Limits::default();
    assert_eq!((offered.frame as usize, offered.body as usize), (limits::FRAME, limits::BODY));
    assert_eq!(usize::from(offered.conversation_streams), limits::CONVERSATION_STREAMS);
    assert_eq!(usize::from(offered.fetch_streams), limits::FETCH_STREAMS);
    assert_eq!(usize::from(offered.unanswered_posts), limits::UNANSWERED_POSTS);
    assert_eq!(usize::from(offered.requests), limits::REQUESTS_IN_FLIGHT);
}

#[test]
fn rove_4_1_1_a_secret_is_32_bytes() {
    let with = |length| Hello { secret: Bytes::from(vec![7; length]), ..hello() };
    assert!(received(&with(32)).is_ok());
    assert!(is_malformed(&with(31)) && is_malformed(&with(33)) && is_malformed(&with(0)));
}

#[test]
fn rove_4_1_2_a_clients_name_is_at_most_64_bytes() {
    let with = |client: String| Hello { client, ..hello() };
    assert!(received(&with("x".repeat(64))).is_ok());
    assert!(is_malformed(&with("x".repeat(65))));
    assert!(is_malformed(&with("ü".repeat(33))), "bytes count, not letters");
}

#[test]
fn rove_4_2_1_an_event_in_a_line_is_at_most_1024_bytes() {
    let with = |length: usize| InboxLine {
        conversation: CONVERSATION,
        partition: PartitionId(1),
        kind: ConversationKind::Direct,
        role: Role::Member,
        title: String::new(),
        peer: AccountId(43),
        head: Seq(1),
        last_message_id: MessageId(1),
        read: Seq(0),
        event: Some(Bytes::from(vec![0; length])),
    };
    assert!(received(&with(limits::INLINE_EVENT)).is_ok());
    assert!(is_malformed(&with(limits::INLINE_EVENT + 1)));
}

#[test]
fn rove_4_3_1_an_unavailable_range_is_one() {
    assert!(received(&unavailable(1, 1)).is_ok() && received(&unavailable(1, u64::MAX)).is_ok());
    assert!(is_malformed(&unavailable(0, 1)) && is_malformed(&unavailable(2, 1)));
}

#[test]
fn rove_4_3_2_post_numbers_begin_at_1() {
    assert!(received(&post(1)).is_ok());
    assert!(is_malformed(&post(0)));
}

#[test]
fn rove_4_3_3_a_post_mentions_at_most_64() {
    let with = |count| Post { mentions: list(AccountRef { account: AccountId(1) }, count), ..post(1) };
    assert!(received(&with(limits::MENTIONS)).is_ok());
    assert!(is_malformed(&with(limits::MENTIONS + 1)));
}

#[test]
fn rove_4_3_4_a_body_above_the_limit_can_be_read_and_so_refused_by_itself() {
    let large = Post { body: Bytes::from(vec![0; limits::BODY + 1]), ..post(1) };
    assert_eq!(received(&large), Ok(large));
}

#[test]
fn a_full_post_and_its_event_fit_a_frame() {
    let mentions = || list(AccountRef { account: AccountId(u64::MAX) }, limits::MENTIONS);
    let body = Bytes::from(vec![0; limits::BODY]);
    assert!(Post { mentions: mentions(), body: body.clone(), ..post(u64::MAX) }.to_frame().len() < limits::FRAME);
    assert!(Event { mentions: mentions(), body, ..event(u64::MAX) }.to_frame().len() < limits::FRAME);
}

#[test]
fn a_hello_fits_the_frames_before_welcome() {
    let long = Hello { client: "x".repeat(limits::CLIENT_NAME), ..hello() };
    assert!(long.to_frame().len() < limits::FRAME_BEFORE_WELCOME);
}

#[test]
fn rove_4_3_5_what_is_read_is_held() {
    assert!(received(&mark(3, 3)).is_ok());
    assert!(is_malformed(&mark(3, 4)));
}

#[test]
fn rove_4_4_1_a_page_is_of_1_to_512_seqs() {
    assert!(received(&fetch(1)).is_ok() && received(&fetch(512)).is_ok());
    assert!(is_malformed(&fetch(0)) && is_malformed(&fetch(513)));
}

#[test]
fn rove_4_5_1_presence_has_at_most_256_items() {
    let item = PresenceItem {
        account: AccountId(1),
        status: PresenceStatus::Online,
        incarnation: 1,
        version: 1,
        last_seen_ms: 0,
    };
    let with = |count| Presence { items: list(item.clone(), count), version: 1 };
    assert!(received(&with(limits::WATCHED_ACCOUNTS)).is_ok());
    assert!(is_malformed(&with(limits::WATCHED_ACCOUNTS + 1)));
}

#[test]
fn rove_4_6_1_a_title_is_at_most_256_bytes() {
    let with = |length| CreateGroup { nonce: [0; 16], title: "x".repeat(length), members: List::default() };
    assert!(received(&with(limits::TITLE)).is_ok());
    assert!(is_malformed(&with(limits::TITLE + 1)));
}

#[test]
fn rove_4_6_2_a_request_names_at_most_500_members() {
    let member = MemberChange { account: AccountId(1), role: Role::Member };
    let create = |count| CreateGroup { nonce: [0; 16], title: String::new(), members: list(member.clone(), count) };
    let change = |count| ChangeMembers { conversation: CONVERSATION, changes: list(member.clone(), count) };
    let most = limits::MEMBERS_PER_REQUEST;
    assert!(received(&create(most)).is_ok() && received(&change(most)).is_ok());
    assert!(is_malformed(&create(most + 1)) && is_malformed(&change(most + 1)));
}

#[test]
fn rove_4_6_3_a_request_names_at_most_256_accounts() {
    let account = AccountRef { account: AccountId(1) };
    let get = |count| GetAccounts { accounts: list(account.clone(), count) };
    let watch = |count| Watch { accounts: list(account.clone(), count) };
    let find = |count| FindAccounts { handles: list(HandleRef { handle: "bob".to_owned() }, count) };
    assert!(received(&get(256)).is_ok() && received(&watch(256)).is_ok() && received(&find(256)).is_ok());
    assert!(is_malformed(&get(257)) && is_malformed(&watch(257)) && is_malformed(&find(257)));
}

#[test]
fn rove_2_2_1_a_list_has_at_most_1024_items() {
    let cursor = PartitionCursor { partition: PartitionId(1), message_id: MessageId(1) };
    let with = |count| InboxOpen { cursors: list(cursor.clone(), count) };
    assert!(received(&with(limits::LIST_ITEMS)).is_ok());
    assert!(is_malformed(&with(limits::LIST_ITEMS + 1)));
}

#[test]
fn rove_2_5_5_the_extensions_of_a_post_are_kept_byte_for_byte() {
    let extension = |id, value: &'static [u8]| Extension { id, value: Bytes::from_static(value) };
    let extensions = Extensions::new(vec![extension(9, b"critical"), extension(2, b"")]).unwrap();
    let post = received(&Post { extensions: extensions.clone(), ..post(1) }).unwrap();
    assert_eq!(post.extensions, extensions);
    let event = Event { extensions: post.extensions, ..event(1) };
    assert!(event.encode_body().ends_with(b"\x02\x00\x09\x08critical"));
    assert_eq!(received(&event), Ok(event));
}

#[test]
fn rove_4_9_1_a_tag_is_16_bytes_and_anything_else_is_none() {
    let tag = PostTag(*b"sixteen bytes it");
    let tagged = received(&Post { extensions: Extensions::with_tag(Some(tag)), ..post(1) }).unwrap();
    assert!(tagged.encode_body().ends_with(b"\x02\x10sixteen bytes it"));
    assert_eq!(Event { extensions: tagged.extensions, ..event(1) }.extensions.tag(), Some(tag));
    assert_eq!(Extensions::with_tag(None), Extensions::default());
    for value in [&b""[..], b"fifteen bytes i", b"seventeen bytes i"] {
        let extension = Extension { id: 2, value: Bytes::copy_from_slice(value) };
        let other = received(&Post { extensions: Extensions::new(vec![extension]).unwrap(), ..post(1) }).unwrap();
        assert_eq!(other.extensions.tag(), None, "{value:?}: read all the same, and kept");
    }
}

#[test]
fn rove_6_1_1_ids_of_conversations_are_derived_from_who_made_them() {
    let direct = ConversationId::direct(AccountId(300), AccountId(42));
    assert_eq!(direct.to_string(), "aacd797e2814baacbda107ff4fd9b1be");
    let group = ConversationId::group(AccountId(42), [0x11; 16]);
    assert_eq!(group.to_string(), "11607f38a4a2aa467de0e77e6e0d317a");
    assert_eq!(direct.shard().0, u16::from_str_radix(&direct.to_string()[..3], 16).unwrap());
}
