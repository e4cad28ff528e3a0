//! The bytes of each frame: pinned, cut off, and too large.

use super::super::frame::*;
use super::super::io::LinkError;
use super::super::registry::{self, FrameType};
use super::*;
use rove_protocol::error::DecodeError;

/// Type and body of a frame.
fn split(frame: &Bytes) -> (FrameType, Bytes) {
    let mut decoder = rove_protocol::frame::FrameDecoder::new(frame.len());
    decoder.feed(frame);
    let raw = decoder.next_frame().unwrap().unwrap();
    (FrameType(raw.frame_type.0), raw.body)
}

/// A frame reads back, and cut off anywhere it is an error; it has exactly these bytes.
fn pinned<B: Body + PartialEq + std::fmt::Debug>(value: &B, bytes: &[u8]) {
    let frame = value.to_frame();
    assert_eq!(frame[..], *bytes, "{value:?}");
    let (frame_type, body) = split(&frame);
    assert_eq!(frame_type, B::TYPE);
    assert_eq!(B::from_body(body.clone()).as_ref(), Ok(value));
    for cut in 0..body.len() {
        let error = B::from_body(body.slice(..cut)).unwrap_err();
        assert!(matches!(error, FrameError::Decode(..)), "{error}");
    }
    // What is unknown behind the fields: an even extension is skipped, an odd one is not.
    let with = |extension: [u8; 2]| Bytes::from([&body[..], &extension].concat());
    assert_eq!(B::from_body(with([2, 0])).as_ref(), Ok(value));
    let critical = B::from_body(with([3, 0])).unwrap_err();
    assert_eq!(critical, FrameError::Decode(B::TYPE, DecodeError::CriticalExtension(3)));
}

fn hello() -> Hello {
    Hello {
        cluster: "chat".to_owned(),
        node: NodeId(1),
        store: [9; 16],
        incarnation: 300,
        lowest: 1,
        highest: 2,
        program: "0.1".to_owned(),
        formation: Bytes::from_static(&[7]),
    }
}

#[test]
fn the_bytes_of_every_frame_are_pinned() {
    let hello_bytes = [&[33, 1, 4][..], b"chat", &[1], &[9; 16], &[0xac, 2, 1, 2, 3], b"0.1", &[1, 7]].concat();
    pinned(&hello(), &hello_bytes);
    let some = Bytes::from_static(b"ab");
    pinned(&Formation { formation: some.clone() }, &[4, 2, 2, b'a', b'b']);
    pinned(&Presence { presence: some.clone() }, &[4, 4, 2, b'a', b'b']);
    pinned(&Call { question: some.clone() }, &[4, 9, 2, b'a', b'b']);
    pinned(&CallReply { answer: some.clone() }, &[4, 11, 2, b'a', b'b']);
    let header = Header { partition: PartitionId(5), id: [8; 16], meta: some.clone() };
    pinned(&header, &[&[21, 13, 5][..], &[8; 16], &[2, b'a', b'b']].concat());
    pinned(&Begin { next: 1, digest: 128 }, &[4, 15, 1, 0x80, 1]);
    pinned(&Chunk { number: 3, checksum: 4, bytes: some }, &[6, 17, 3, 4, 2, b'a', b'b']);
    pinned(&End { chunks: 3, digest: 4 }, &[3, 19, 3, 4]);
    pinned(&Done {}, &[1, 21]);
    pinned(&Refused { reason: "no".to_owned() }, &[4, 23, 2, b'n', b'o']);
    pinned(&ForwardAck { partition: PartitionId(3), term: 4, next: 9 }, &[4, 7, 3, 4, 9]);
    let one = Forward { envelopes: forward(6).envelopes[..1].to_vec(), ..forward(6) };
    pinned(&one, &[&[16, 5, 3, 4, 2, 6, 1, 2, 6, 7][..], b"command"].concat());
}

#[test]
fn raft_messages_are_pairs_of_partition_and_bytes() {
    let messages = vec![(PartitionId(0), message(1, 2, 3, 0)), (PartitionId(300), message(1, 2, 3, 10))];
    let (frames, left_out) = raft_frames(messages.iter(), 1_000);
    assert_eq!((frames.len(), left_out), (1, 0));
    let (frame_type, body) = split(&frames[0]);
    let encoded = messages[0].1.encode().unwrap();
    assert_eq!(body[..2 + encoded.len()], [&[0, u8::try_from(encoded.len()).unwrap()], &encoded[..]].concat());
    assert_eq!((frame_type, read_raft(body.clone())), (FrameType::RAFT, Ok(messages.clone())));
    for cut in 1..body.len() {
        // Cut between two messages it is whole.
        let whole = cut == 2 + encoded.len();
        assert_eq!(read_raft(body.slice(..cut)).is_ok(), whole, "{cut}");
    }
    let rubbish = Bytes::from_static(&[0, 3, 0xff, 0xff, 0xff]);
    assert!(matches!(read_raft(rubbish), Err(FrameError::Raft(_))));
}

#[test]
fn raft_messages_that_do_not_fit_one_frame_are_in_several() {
    let messages: Vec<_> = (0..10).map(|partition| (PartitionId(partition), message(1, 2, 3, 300))).collect();
    let (frames, left_out) = raft_frames(messages.iter(), 1_000);
    assert!(left_out == 0 && frames.len() == 4, "{}", frames.len());
    let back: Vec<_> = frames.iter().flat_map(|frame| read_raft(split(frame).1).unwrap()).collect();
    assert_eq!(back, messages);
    assert!(frames.iter().all(|frame| split(frame).1.len() < 1_000));
    let large = [(PartitionId(1), message(1, 2, 3, 2_000)), (PartitionId(2), message(1, 2, 3, 0))];
    let (frames, left_out) = raft_frames(large.iter(), 1_000);
    assert_eq!((frames.len(), left_out), (1, 1));
}

#[test]
fn fields_that_are_too_long_are_refused() {
    let limits = [
        Hello { cluster: "c".repeat(64), ..hello() },
        Hello { program: "p".repeat(65), ..hello() },
        Hello { formation: vec![0; registry::FORMATION_BYTES + 1].into(), ..hello() },
    ];
    for hello in limits {
        let (_, body) = split(&hello.to_frame());
        assert!(matches!(Hello::read(body), Err(FrameError::Limit(..))));
    }
    let longest = Hello {
        cluster: "c".repeat(63),
        program: "p".repeat(64),
        formation: vec![0; registry::FORMATION_BYTES].into(),
        node: NodeId(u64::MAX),
        incarnation: u64::MAX,
        ..hello()
    };
    let frame = longest.to_frame();
    assert!(frame.len() < registry::CONTROL_FRAME);
    assert_eq!(Hello::read(split(&frame).1), Ok(longest));
}

#[test]
fn a_list_is_not_believed_to_be_as_long_as_it_says() {
    // 4,097 commands, and 2^32 of them.
    for count in [&[0x81, 0x20][..], &[0x80, 0x80, 0x80, 0x80, 0x10]] {
        let body = Bytes::from([&[3, 4, 2, 6], count].concat());
        assert_eq!(Forward::from_body(body), Err(FrameError::Decode(FrameType::FORWARD, DecodeError::OutOfRange)));
    }
    let body = Bytes::from_static(&[3, 4, 2, 6, 0xff, 0x1f]);
    assert_eq!(Forward::from_body(body), Err(FrameError::Decode(FrameType::FORWARD, DecodeError::Truncated)));
}

#[test]
fn frames_fit_the_limits_of_their_streams() {
    let chunk = Chunk { number: u64::MAX, checksum: u64::MAX, bytes: vec![0; registry::CHUNK_BYTES].into() };
    assert!(chunk.to_frame().len() <= registry::CHUNK_BYTES + registry::AROUND);
    let header = Header { partition: PartitionId(9), id: [0; 16], meta: vec![0; registry::SNAPSHOT_META_BYTES].into() };
    assert!(header.to_frame().len() <= registry::CHUNK_BYTES);
    let call = Call { question: vec![0; registry::CALL_BYTES].into() };
    assert!(call.to_frame().len() <= registry::CALL_BYTES + registry::AROUND);
    let reason = Refused { reason: "r".repeat(registry::REASON_BYTES) };
    assert!(reason.to_frame().len() <= registry::REASON_BYTES + registry::AROUND);
    // The largest raft message there may be has a frame to itself.
    let largest = message(1, 2, 3, 3 * 1_024 * 1_024 - 64);
    let (frames, left_out) = raft_frames([(PartitionId(256), largest)].iter(), registry::APPEND_FRAME);
    assert_eq!((frames.len(), left_out), (1, 0));
}

#[test]
fn every_error_closes_with_a_code_of_its_kind() {
    use super::super::registry::CloseCode;
    let code = |error: LinkError| error.close_code();
    assert_eq!(code(LinkError::TooLarge { length: 9, limit: 1 }), CloseCode::TOO_LARGE);
    assert_eq!(code(FrameError::Unexpected(FrameType::CALL).into()), CloseCode::UNEXPECTED);
    assert_eq!(code(FrameError::Raft(String::new()).into()), CloseCode::MALFORMED);
    assert_eq!(code(LinkError::Timeout("it")), CloseCode::TIMEOUT);
}
