//! The names of things. Newtypes, so that they never mix.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::DecodeError;
use crate::wire::{Reader, Wire};

/// Shards of the cluster, fixed for ever: a conversation's shard is the first 12 bits of its id.
pub const SHARDS: u16 = 4_096;

macro_rules! int_id {
    ($(#[$meta:meta])* $name:ident($type:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $type);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // With the width and fill that were asked for.
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
                <$type>::take(reader).map(Self)
            }
        }
    };
}

macro_rules! bytes_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl std::str::FromStr for $name {
            type Err = hex::FromHexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
                <[u8; 16]>::take(reader).map(Self)
            }
        }
    };
}

int_id! {
    /// A person or a bot. 0 is nobody.
    AccountId(u64)
}
int_id! {
    /// One device of an account. 0 is none.
    DeviceId(u64)
}
int_id! {
    /// One authenticated connection, unique on its node.
    SessionId(u64)
}
int_id! {
    /// A server of the cluster. 0 is none.
    NodeId(u64)
}
int_id! {
    /// A place in a conversation's log: 1, 2, 3, … without holes. 0 is before the first.
    Seq(u64)
}
int_id! {
    /// The number of a post of one writer in one conversation: 1, 2, 3, … 0 is before the first.
    PostNo(u64)
}
int_id! {
    /// A slice of the conversations, one of [`SHARDS`].
    ShardId(u16)
}
int_id! {
    /// A Raft group. 0 is the directory; the others hold shards.
    PartitionId(u16)
}
int_id! {
    /// Names an event in the whole cluster and rises with time within a partition (D10). 0 is before the first.
    MessageId(u64)
}
int_id! {
    /// Pairs an answer with its request; the client's choice, unique among its unanswered requests.
    RequestId(u64)
}
bytes_id! {
    /// A conversation: 128 bits derived from who made it, so that making it twice makes it once.
    ConversationId
}
bytes_id! {
    /// One incarnation of a client's local store (D1): random, and minted anew whenever the store may be a copy.
    WriterId
}
bytes_id! {
    /// A post, whichever writer and number it goes out under: random, minted when it is queued, the same for ever. By it
    /// a store that was put back from an old copy finds in the log what it still has queued.
    PostTag
}

impl Seq {
    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl PostNo {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl MessageId {
    /// Bits below the time part: the shard.
    pub const SHARD_BITS: u32 = 12;
    /// Bits of the counter within a millisecond, between the milliseconds and the shard.
    pub const COUNTER_BITS: u32 = 10;

    /// The id of an event, given the partition's last time part (D10): `hi = max(last + 1, ms << 10)`, and that `hi`.
    ///
    /// 41 bits of milliseconds, 10 of counter, 12 of shard: positive in an `i64` until September 2039.
    #[must_use]
    pub fn mint(last_hi: u64, now_ms: u64, shard: ShardId) -> (Self, u64) {
        let hi = (last_hi + 1).max(now_ms << Self::COUNTER_BITS);
        (Self((hi << Self::SHARD_BITS) | u64::from(shard.0 & (SHARDS - 1))), hi)
    }

    /// The smallest id an event stamped at `ms` could have, to look events up by date.
    #[must_use]
    pub const fn at_or_after(ms: u64) -> Self {
        Self(ms << (Self::COUNTER_BITS + Self::SHARD_BITS))
    }

    /// The millisecond of the time part (of the Unix epoch; a burst may have pushed it ahead of the clock).
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> (Self::COUNTER_BITS + Self::SHARD_BITS)
    }

    /// The shard the event lives in.
    #[must_use]
    pub const fn shard(self) -> ShardId {
        ShardId((self.0 & 0xfff) as u16)
    }
}

impl ConversationId {
    /// The one direct conversation of two accounts, whichever asks.
    #[must_use]
    pub fn direct(one: AccountId, other: AccountId) -> Self {
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        Self::derive(b"rove/1 direct", &[&low.0.to_be_bytes(), &high.0.to_be_bytes()])
    }

    /// The group that `creator` made under `nonce`.
    #[must_use]
    pub fn group(creator: AccountId, nonce: [u8; 16]) -> Self {
        Self::derive(b"rove/1 group", &[&creator.0.to_be_bytes(), &nonce])
    }

    /// SHA-256 of the parts, cut to 16 bytes; the label keeps the two kinds apart.
    fn derive(label: &[u8], parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(label);
        for part in parts {
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// The shard it lives in: its first 12 bits.
    #[must_use]
    pub const fn shard(self) -> ShardId {
        ShardId(u16::from_be_bytes([self.0[0], self.0[1]]) >> 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_conversation_is_the_same_from_both_sides() {
        let (alice, bob) = (AccountId(7), AccountId(9));
        assert_eq!(ConversationId::direct(alice, bob), ConversationId::direct(bob, alice));
        assert_ne!(ConversationId::direct(alice, bob), ConversationId::direct(alice, alice));
    }

    #[test]
    fn message_ids_rise_within_a_millisecond_and_when_the_clock_goes_back() {
        let (first, hi) = MessageId::mint(0, 1_000, ShardId(5));
        let (second, hi) = MessageId::mint(hi, 1_000, ShardId(5));
        let (third, _) = MessageId::mint(hi, 900, ShardId(4_095));
        assert!(first < second && second < third);
        assert_eq!((first.millis(), first.shard()), (1_000, ShardId(5)));
        assert_eq!(third.shard(), ShardId(4_095));
    }

    #[test]
    fn message_ids_are_positive_in_an_i64_up_to_the_last_millisecond_of_41_bits() {
        let (id, _) = MessageId::mint(0, (1 << 41) - 1, ShardId(4_095));
        assert!(i64::try_from(id.0).is_ok());
    }

    #[test]
    fn ids_read_back_from_their_text() {
        let id = ConversationId::group(AccountId(1), [3; 16]);
        assert_eq!(id.to_string().parse::<ConversationId>().unwrap(), id);
        assert!("xyz".parse::<ConversationId>().is_err());
    }
}
