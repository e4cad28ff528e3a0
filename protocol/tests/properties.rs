//! What holds for every message, whatever its fields, and for any bytes at all.

#![allow(clippy::wildcard_imports, clippy::unwrap_used, reason = "every message is meant; a test may panic")]

mod common;

use std::fmt::Debug;

use bytes::Bytes;
use common::carriers::{CARRIERS, again};
use common::entropy::{Entropy, Make};
use proptest::prelude::*;
use rove_protocol::error::DecodeError;
use rove_protocol::extension::Extensions;
use rove_protocol::frame::{FrameDecoder, RawFrame, datagram_frames, put_frame};
use rove_protocol::limits;
use rove_protocol::message::*;
use rove_protocol::registry::{FrameType, is_grease};
use rove_protocol::wire::{Reader, put_varint};

/// Enough for the largest message that [`Make`] makes to differ everywhere.
fn entropy() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..64), prop::collection::vec(any::<u8>(), 0..1_500)]
}

/// Calls a macro with every body; those whose extensions are kept with them are marked so.
macro_rules! every_body {
    ($call:ident) => {
        $call! {
            hello: Hello, welcome: Welcome, go_away: GoAway, suspend: Suspend, alternative: Alternative,
            request: Request, response: Response, create_direct: CreateDirect, create_group: CreateGroup,
            change_members: ChangeMembers, get_conversation: GetConversation, member_info: MemberInfo,
            conversation_info: ConversationInfo, handle_ref: HandleRef, account_ref: AccountRef,
            account_info: AccountInfo, find_accounts: FindAccounts, get_accounts: GetAccounts, accounts: Accounts,
            watch: Watch, partition_cursor: PartitionCursor, inbox_open: InboxOpen, inbox_line: InboxLine,
            inbox_synced: InboxSynced, open: Open, opened: Opened, unavailable: Unavailable, mark: Mark,
            receipt: Receipt, closed: Closed, posted: Posted, refused: Refused, member_change: MemberChange,
            created: Created, members_changed: MembersChanged, settings_changed: SettingsChanged, fetch: Fetch,
            page: Page, heartbeat: Heartbeat, heartbeat_ack: HeartbeatAck, presence_item: PresenceItem,
            presence: Presence, typing: Typing,
        }
    };
}

/// The value reads back from its own bytes, and those are postcard's.
fn round_trips<T: Body + Make + PartialEq + Debug + serde::Serialize>(entropy: &[u8]) -> Result<(), TestCaseError> {
    let value = T::make(&mut Entropy::new(entropy));
    let body = value.encode_body();
    prop_assert_eq!(&body, &postcard::to_allocvec(&value).unwrap());
    prop_assert_eq!(T::decode_body(body.into()), Ok(value));
    Ok(())
}

/// An unknown extension after the value is skipped if its id is even and refused if it is odd.
fn takes_extensions<T: Body + Make + PartialEq + Debug>(
    entropy: &[u8],
    id: u32,
    bytes: &[u8],
) -> Result<(), TestCaseError> {
    let value = T::make(&mut Entropy::new(entropy));
    let mut body = value.encode_body();
    put_extension(&mut body, id, bytes);
    let expected = if id.is_multiple_of(2) { Ok(value) } else { Err(DecodeError::CriticalExtension(id)) };
    prop_assert_eq!(T::decode_body(body.into()), expected);
    Ok(())
}

/// No proper prefix of a value's bytes is a value: a cut message is noticed.
fn is_not_a_prefix<T: Body + Make + PartialEq + Debug>(entropy: &[u8], cut: usize) -> Result<(), TestCaseError> {
    let mut body = T::make(&mut Entropy::new(entropy)).encode_body();
    if body.is_empty() {
        return Ok(());
    }
    body.truncate(cut % body.len());
    prop_assert_eq!(T::decode_body(body.into()), Err(DecodeError::Truncated));
    Ok(())
}

fn put_extension(out: &mut Vec<u8>, id: u32, bytes: &[u8]) {
    put_varint(out, u64::from(id));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

macro_rules! body_properties {
    ($($name:ident: $type:ident,)*) => {
        $(mod $name {
            use super::*;
            proptest! {
                #![proptest_config(ProptestConfig::with_cases(64))]
                #[test]
                fn round_trips_and_is_postcard(entropy in entropy()) {
                    round_trips::<$type>(&entropy)?;
                }
                #[test]
                fn skips_unknown_even_extensions_and_refuses_odd_ones(entropy in entropy(), id: u32, bytes in prop::collection::vec(any::<u8>(), 0..20)) {
                    takes_extensions::<$type>(&entropy, id, &bytes)?;
                }
                #[test]
                fn is_noticed_when_cut(entropy in entropy(), cut: usize) {
                    is_not_a_prefix::<$type>(&entropy, cut)?;
                }
            }
        })*
    };
}
every_body!(body_properties);

proptest! {
    #[test]
    fn posts_and_events_keep_their_extensions_even_critical_ones(entropy in entropy()) {
        let post = Post::make(&mut Entropy::new(&entropy));
        prop_assert_eq!(Post::decode_body(post.encode_body().into()), Ok(post));
        let event = Event::make(&mut Entropy::new(&entropy));
        prop_assert_eq!(Event::decode_body(event.encode_body().into()), Ok(event));
    }

    #[test]
    fn posts_and_events_without_extensions_are_postcard(entropy in entropy()) {
        let mut post = Post::make(&mut Entropy::new(&entropy));
        post.extensions = Extensions::default();
        prop_assert_eq!(post.encode_body(), postcard::to_allocvec(&post).unwrap());
        let mut event = Event::make(&mut Entropy::new(&entropy));
        event.extensions = Extensions::default();
        prop_assert_eq!(event.encode_body(), postcard::to_allocvec(&event).unwrap());
    }

    #[test]
    fn unknown_extensions_of_list_items_are_kept_if_even_and_refused_if_odd(account in 0u64..1 << 40, id: u32) {
        let mut item = AccountRef { account: rove_protocol::ids::AccountId(account) }.encode_body();
        put_extension(&mut item, id, b"kept");
        let mut body = vec![1];
        put_varint(&mut body, item.len() as u64);
        body.extend_from_slice(&item);
        let watch = Watch::decode_body(body.clone().into());
        if id % 2 == 0 {
            let watch = watch.unwrap();
            prop_assert_eq!(watch.accounts.iter().next().unwrap().account.0, account);
            prop_assert_eq!(watch.encode_body(), body);
        } else {
            prop_assert_eq!(watch, Err(DecodeError::CriticalExtension(id)));
        }
    }
}

/// Any type, mostly known ones.
fn frame_type() -> impl Strategy<Value = FrameType> {
    prop_oneof![
        8 => prop::sample::select(FrameType::ALL.iter().map(|(known, ..)| *known).collect::<Vec<_>>()),
        1 => any::<u32>().prop_map(FrameType),
    ]
}

/// Bytes that look like bodies more often than chance would have it: mostly small numbers.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0u8..8, 1 => any::<u8>()];
    prop_oneof![prop::collection::vec(byte, 0..120), prop::collection::vec(any::<u8>(), 0..400)]
}

/// Makes a frame's type and body out of entropy.
type MakeFrame = fn(&[u8]) -> (FrameType, Vec<u8>);

/// A message's bytes, a few of them changed.
fn damaged() -> impl Strategy<Value = (FrameType, Vec<u8>)> {
    fn of<T: Message + Make>(entropy: &[u8]) -> (FrameType, Vec<u8>) {
        (T::TYPE, T::make(&mut Entropy::new(entropy)).encode_body())
    }
    let kinds: &[MakeFrame] = &[
        of::<Hello>,
        of::<Welcome>,
        of::<Request>,
        of::<Response>,
        of::<GoAway>,
        of::<Suspend>,
        of::<InboxOpen>,
        of::<InboxLine>,
        of::<InboxSynced>,
        of::<Open>,
        of::<Opened>,
        of::<Event>,
        of::<Unavailable>,
        of::<Post>,
        of::<Posted>,
        of::<Refused>,
        of::<Mark>,
        of::<Receipt>,
        of::<Closed>,
        of::<Fetch>,
        of::<Page>,
        of::<Heartbeat>,
        of::<HeartbeatAck>,
        of::<Presence>,
        of::<Typing>,
    ];
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (prop::sample::select(kinds), entropy(), damage).prop_map(|(make, entropy, damage)| {
        let (frame_type, mut body) = make(&entropy);
        for (at, byte) in damage {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        (frame_type, body)
    })
}

/// Whatever decodes is encoded to the same bytes again, but for unknown even extensions at its end.
fn decodes_to_itself(carrier: usize, frame_type: FrameType, body: &[u8]) -> Result<(), TestCaseError> {
    let mut frame = Vec::new();
    put_frame(frame_type, body, &mut frame);
    let Ok(Some(again)) = again(carrier, RawFrame { frame_type, body: Bytes::copy_from_slice(body) }) else {
        return Ok(());
    };
    if again == frame {
        return Ok(());
    }
    let mut decoder = FrameDecoder::new(usize::MAX);
    decoder.feed(&again);
    let again = decoder.next_frame().unwrap().unwrap();
    prop_assert_eq!(again.frame_type, frame_type);
    prop_assert!(body.starts_with(&again.body));
    let skipped = Extensions::take_rest(Reader::new(Bytes::copy_from_slice(&body[again.body.len()..]))).unwrap();
    prop_assert!(!skipped.is_empty() && skipped.iter().all(|extension| extension.id % 2 == 0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_body_decodes_to_itself_or_is_refused(carrier in 0..CARRIERS, frame_type in frame_type(), body in body()) {
        decodes_to_itself(carrier, frame_type, &body)?;
    }

    #[test]
    fn a_damaged_message_decodes_to_itself_or_is_refused((frame_type, body) in damaged()) {
        for carrier in 0..CARRIERS {
            decodes_to_itself(carrier, frame_type, &body)?;
        }
    }

    #[test]
    fn unknown_frames_are_skipped_if_even_and_refused_if_odd_on_every_stream(number: u32, body in body()) {
        let frame_type = FrameType(number);
        prop_assume!(frame_type.name().is_none());
        let expected = if number % 2 == 0 { Ok(None) } else { Err(DecodeError::UnknownFrame(frame_type)) };
        for carrier in 0..CARRIERS {
            let frame = RawFrame { frame_type, body: Bytes::copy_from_slice(&body) };
            prop_assert_eq!(again(carrier, frame), expected.clone());
        }
    }

    #[test]
    fn grease_frames_are_skipped_on_every_stream_and_in_datagrams(n in 1u32..1 << 25, body in body()) {
        let frame_type = FrameType(62 + 64 * n);
        prop_assert!(is_grease(u64::from(frame_type.0)));
        let mut bytes = Vec::new();
        put_frame(frame_type, &body, &mut bytes);
        let frames = datagram_frames(bytes.clone().into()).unwrap();
        prop_assert_eq!(frames.len(), 1);
        let mut decoder = FrameDecoder::new(limits::FRAME);
        decoder.feed(&bytes);
        prop_assert_eq!(decoder.next_frame(), Ok(frames.first().cloned()));
        for carrier in 0..CARRIERS {
            prop_assert_eq!(again(carrier, frames[0].clone()), Ok(None));
        }
    }

    #[test]
    fn a_frame_known_elsewhere_is_refused(carrier in 0..CARRIERS, entropy in entropy()) {
        // `Response` goes down the control stream alone, whatever is in it.
        let body = Response::make(&mut Entropy::new(&entropy)).encode_body();
        let frame = RawFrame { frame_type: FrameType::Response, body: body.into() };
        let expected = if carrier == 1 { None } else { Some(DecodeError::FrameUnexpected(FrameType::Response)) };
        prop_assert_eq!(again(carrier, frame).err(), expected);
    }
}
