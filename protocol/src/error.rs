//! What can be wrong with what a peer sent, and the one map from that to the wire's codes.

use crate::registry::{ErrorCode, FrameType};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value, or a length passes their end.
    #[error("the bytes end inside a value")]
    Truncated,
    /// A varint in a longer form than needed.
    #[error("a varint is longer than needed")]
    NotCanonical,
    /// A number too large for its field, a boolean or option tag that is neither 0 nor 1.
    #[error("a value is out of the range of its field")]
    OutOfRange,
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// Bytes after the end of something that cannot be extended.
    #[error("bytes after the end")]
    TrailingBytes,
    /// Extension ids that do not ascend.
    #[error("extension ids do not ascend")]
    ExtensionOrder,
    /// More extensions than [`crate::limits::EXTENSIONS`].
    #[error("too many extensions")]
    TooManyExtensions,
    /// An unknown extension with an odd id.
    #[error("unknown critical extension {0:#x}")]
    CriticalExtension(u32),
    /// A frame longer than the receiver takes.
    #[error("a frame of {length} bytes where {limit} are allowed")]
    FrameTooLarge {
        /// What its length prefix says.
        length: u64,
        /// What is allowed.
        limit: usize,
    },
    /// An unknown frame of an odd type.
    #[error("unknown critical frame {0}")]
    UnknownFrame(FrameType),
    /// A known frame on a stream that does not carry it.
    #[error("{0} does not belong on this stream")]
    FrameUnexpected(FrameType),
}

impl DecodeError {
    /// The code the connection is closed with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated
            | Self::OutOfRange
            | Self::NotUtf8
            | Self::TrailingBytes
            | Self::ExtensionOrder
            | Self::TooManyExtensions => ErrorCode::Malformed,
            Self::NotCanonical => ErrorCode::NotCanonical,
            Self::CriticalExtension(_) => ErrorCode::CriticalExtension,
            Self::FrameTooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::UnknownFrame(_) => ErrorCode::UnknownFrame,
            Self::FrameUnexpected(_) => ErrorCode::FrameUnexpected,
        }
    }
}

/// A peer that broke the rules: the connection is closed with [`Violation::code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that do not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A frame that is right in itself, but not now.
    #[error("{frame} is not allowed {when}")]
    OutOfState {
        /// The frame.
        frame: FrameType,
        /// The state of the stream, as in "before Hello".
        when: &'static str,
    },
    /// More of something than was agreed.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// A reply to something that was never asked.
    #[error("{frame} answers {number}, which is not outstanding")]
    Unasked {
        /// The frame.
        frame: FrameType,
        /// The request id or post number it names.
        number: u64,
    },
    /// Seqs that do not follow on each other.
    #[error("seq {got} where {expected} was due")]
    SeqOrder {
        /// The seq that was due.
        expected: u64,
        /// The seq that came.
        got: u64,
    },
    /// The first stream is not the control stream, or a second one is.
    #[error("a stream of type {stream_type:#x} is not allowed here")]
    StreamUnexpected {
        /// The type of the stream.
        stream_type: u64,
    },
    /// Nothing, or half of something, for too long.
    #[error("{what} did not arrive in time")]
    Timeout {
        /// What was awaited.
        what: &'static str,
    },
}

impl Violation {
    /// The code the connection is closed with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Decode(error) => error.code(),
            Self::OutOfState { .. } | Self::Unasked { .. } | Self::SeqOrder { .. } | Self::StreamUnexpected { .. } => {
                ErrorCode::FrameUnexpected
            }
            Self::Limit { .. } => ErrorCode::LimitExceeded,
            Self::Timeout { .. } => ErrorCode::Timeout,
        }
    }
}
