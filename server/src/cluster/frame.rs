//! What nodes say, as bytes: `length, type, body`, with the strict codec of the client protocol.
//!
//! A published body is frozen; what comes after its fields are extensions, with the rule of odd and even.

use bytes::Bytes;
use rove_core::command::{Envelope, Origin};
use rove_core::replica::PeerMessage;
use rove_core::routing::{Forward, ForwardAck};
use rove_protocol::error::DecodeError;
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{NodeId, PartitionId};
use rove_protocol::wire::{Reader, Wire, put_varint, varint_len};

use super::registry::{self, FrameType};

/// Bytes that are not a frame of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// They do not decode.
    #[error("{0}: {1}")]
    Decode(FrameType, DecodeError),
    /// A frame where another was due, or an unknown one that may not be skipped.
    #[error("{0} does not belong here")]
    Unexpected(FrameType),
    /// A field that is longer than it may be.
    #[error("{0}: more than {1} {2}")]
    Limit(FrameType, usize, &'static str),
    /// A raft message that does not parse.
    #[error("a raft message: {0}")]
    Raft(String),
}

/// Bodies: a list of fields in order.
macro_rules! bodies {
    ($( $(#[$meta:meta])* $name:ident = $frame:ident { $( $(#[$field_meta:meta])* $field:ident : $type:ty, )* } )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) struct $name { $( $(#[$field_meta])* pub(super) $field: $type, )* }

        impl Body for $name {
            const TYPE: FrameType = FrameType::$frame;
            fn put(&self, out: &mut Vec<u8>) {
                let _ = &out;
                $( Wire::put(&self.$field, out); )*
            }
            fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
                let _ = &reader;
                Ok(Self { $( $field: Wire::take(reader)?, )* })
            }
        }
    )*};
}

/// The body of a frame.
pub(super) trait Body: Sized {
    /// The frame it is the body of.
    const TYPE: FrameType;
    /// Appends its fields.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads its fields; extensions may follow.
    fn take(reader: &mut Reader) -> Result<Self, DecodeError>;

    /// The whole frame.
    fn to_frame(&self) -> Bytes {
        let mut body = Vec::new();
        self.put(&mut body);
        frame(Self::TYPE, &body)
    }

    /// Reads the body of a frame.
    fn from_body(body: Bytes) -> Result<Self, FrameError> {
        let error = |error| FrameError::Decode(Self::TYPE, error);
        let mut reader = Reader::new(body);
        let value = Self::take(&mut reader).map_err(error)?;
        Extensions::take_rest(reader).and_then(|extensions| extensions.refuse_critical(&[])).map_err(error)?;
        Ok(value)
    }
}

/// A frame from its type and its body.
pub(super) fn frame(frame_type: FrameType, body: &[u8]) -> Bytes {
    let length = varint_len(u64::from(frame_type.0)) + body.len();
    let mut out = Vec::with_capacity(length + varint_len(length as u64));
    put_varint(&mut out, length as u64);
    frame_type.0.put(&mut out);
    out.extend_from_slice(body);
    out.into()
}

bodies! {
    /// The first frame of both ends.
    Hello = HELLO {
        /// The cluster's name.
        cluster: String,
        /// Who sends it.
        node: NodeId,
        /// Its data directory.
        store: [u8; 16],
        /// How often it was started with that directory.
        incarnation: u64,
        /// The lowest version it speaks.
        lowest: u32,
        /// The highest version it speaks.
        highest: u32,
        /// The program's version, for people.
        program: String,
        /// What it knows of the cluster's formation.
        formation: Bytes,
    }
    /// What the sender knows of the cluster's formation now.
    Formation = FORMATION {
        /// Opaque here.
        formation: Bytes,
    }
    /// A delta of presence.
    Presence = PRESENCE {
        /// Opaque here.
        presence: Bytes,
    }
    /// A question.
    Call = CALL {
        /// Opaque here.
        question: Bytes,
    }
    /// Its answer.
    CallReply = CALL_REPLY {
        /// Opaque here.
        answer: Bytes,
    }
    /// What snapshot is offered.
    Header = SNAPSHOT_HEADER {
        /// Of which partition.
        partition: PartitionId,
        /// Names its content: equal ids, equal chunks.
        id: [u8; 16],
        /// Opaque here.
        meta: Bytes,
    }
    /// The receiver's answer: what it has already.
    Begin = SNAPSHOT_BEGIN {
        /// Chunks it has: the number of the one that is due.
        next: u64,
        /// Their checksum.
        digest: u64,
    }
    /// A piece.
    Chunk = SNAPSHOT_CHUNK {
        /// Its number, from 0.
        number: u64,
        /// The XXH3 of its bytes.
        checksum: u64,
        /// At most 256 KiB.
        bytes: Bytes,
    }
    /// That was all.
    End = SNAPSHOT_END {
        /// How many chunks.
        chunks: u64,
        /// The checksum of all.
        digest: u64,
    }
    /// All of it is in place.
    Done = SNAPSHOT_DONE {}
    /// It is not taken.
    Refused = SNAPSHOT_REFUSED {
        /// Why, for people.
        reason: String,
    }
}

impl Hello {
    /// Reads one, and checks the lengths of what it has.
    pub(super) fn read(body: Bytes) -> Result<Self, FrameError> {
        let hello = Self::from_body(body)?;
        within(FrameType::HELLO, hello.cluster.len(), registry::NAME_BYTES, "bytes of a cluster's name")?;
        within(FrameType::HELLO, hello.program.len(), registry::PROGRAM_BYTES, "bytes of a program's version")?;
        within(FrameType::HELLO, hello.formation.len(), registry::FORMATION_BYTES, "bytes of formation state")?;
        Ok(hello)
    }
}

/// Refuses what is more than it may be.
pub(super) fn within(frame_type: FrameType, found: usize, limit: usize, what: &'static str) -> Result<(), FrameError> {
    if found > limit { Err(FrameError::Limit(frame_type, limit, what)) } else { Ok(()) }
}

/// Raft messages as frames of at most `limit` bytes, usually one; and how many messages were left out because they do not fit any.
pub(super) fn raft_frames<'a>(
    messages: impl Iterator<Item = &'a (PartitionId, PeerMessage)>,
    limit: usize,
) -> (Vec<Bytes>, u64) {
    let (mut frames, mut body, mut left_out) = (Vec::new(), Vec::new(), 0);
    // The type's own byte.
    let room = limit - varint_len(u64::from(FrameType::RAFT.0));
    for (partition, message) in messages {
        let Ok(bytes) = message.encode() else {
            left_out += 1;
            continue;
        };
        let length = varint_len(u64::from(partition.0)) + varint_len(bytes.len() as u64) + bytes.len();
        if length > room {
            left_out += 1;
            continue;
        }
        if body.len() + length > room {
            frames.push(frame(FrameType::RAFT, &body));
            body.clear();
        }
        partition.put(&mut body);
        put_varint(&mut body, bytes.len() as u64);
        body.extend_from_slice(&bytes);
    }
    if !body.is_empty() {
        frames.push(frame(FrameType::RAFT, &body));
    }
    (frames, left_out)
}

/// Reads the body of [`raft_frames`]: pairs up to the end.
pub(super) fn read_raft(body: Bytes) -> Result<Vec<(PartitionId, PeerMessage)>, FrameError> {
    let error = |error| FrameError::Decode(FrameType::RAFT, error);
    let mut reader = Reader::new(body);
    let mut messages = Vec::new();
    while reader.remaining() > 0 {
        let partition = PartitionId::take(&mut reader).map_err(error)?;
        let bytes = Bytes::take(&mut reader).map_err(error)?;
        let message = PeerMessage::decode(&bytes).map_err(|error| FrameError::Raft(error.to_string()))?;
        messages.push((partition, message));
    }
    Ok(messages)
}

impl Body for Forward {
    const TYPE: FrameType = FrameType::FORWARD;

    fn put(&self, out: &mut Vec<u8>) {
        self.partition.put(out);
        self.term.put(out);
        self.oldest.put(out);
        self.first.put(out);
        put_varint(out, self.envelopes.len() as u64);
        for Envelope { origin, command } in &self.envelopes {
            origin.node.put(out);
            origin.ticket.put(out);
            command.put(out);
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (partition, term) = (Wire::take(reader)?, Wire::take(reader)?);
        let (oldest, first) = (Wire::take(reader)?, Wire::take(reader)?);
        let count = reader.varint(registry::FORWARD_COMMANDS as u64)?;
        // Not reserved up front: the count is the sender's word.
        let mut envelopes = Vec::new();
        for _ in 0..count {
            let origin = Origin { node: Wire::take(reader)?, ticket: Wire::take(reader)? };
            envelopes.push(Envelope { origin, command: Wire::take(reader)? });
        }
        Ok(Self { partition, term, oldest, first, envelopes })
    }
}

impl Body for ForwardAck {
    const TYPE: FrameType = FrameType::FORWARD_ACK;

    fn put(&self, out: &mut Vec<u8>) {
        self.partition.put(out);
        self.term.put(out);
        self.next.put(out);
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { partition: Wire::take(reader)?, term: Wire::take(reader)?, next: Wire::take(reader)? })
    }
}
