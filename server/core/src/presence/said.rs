//! What nodes tell each other of who is online, and of who types.
//!
//! A node speaks of its own sessions only. Each statement but a question is about the set of accounts that have one, as it was at a
//! [`Stamp`]; so whoever hears them in any order keeps to the newest, and two that have the same stamp cannot contradict each other.
//! What was lost shows in the next [`Said::Digest`], and is asked for with [`Said::Want`].

use rove_protocol::ids::{AccountId, ConversationId};
use rove_protocol::limits;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Accounts in one [`Said::Page`]: with ten bytes at most for each, 40 KiB of the 64 KiB that a message may have.
pub const PAGE_ACCOUNTS: usize = 4_096;
/// Accounts that came, and as many that went, in one [`Said::News`]: with thirty bytes at most for both, 60 KiB.
pub const NEWS_ACCOUNTS: usize = 2_000;

/// Which state of a node's sessions is spoken of: the higher is the newer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Rises with each start of the node.
    pub incarnation: u64,
    /// Rises with each account that comes or goes.
    pub version: u64,
}

/// Stands for a set of accounts: two sets that differ have the same with a chance of one in 2⁶⁴.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    count: u64,
    /// Of the accounts' hashes. A sum, so that coming and going costs one hash.
    sum: u64,
}

impl Digest {
    pub(super) fn add(&mut self, account: AccountId) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(xxh3_64(&account.0.to_le_bytes()));
    }

    pub(super) fn remove(&mut self, account: AccountId) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(xxh3_64(&account.0.to_le_bytes()));
    }
}

/// Somebody types, for members whose sessions are at the node it is told to. The node it comes from has checked that they may be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypingSaid {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub account: AccountId,
    /// Or has stopped.
    pub typing: bool,
    /// For whom.
    pub members: Vec<AccountId>,
}

/// What one node tells another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// These accounts have changed, and are now like this.
    News {
        /// When.
        stamp: Stamp,
        /// They are online.
        came: Vec<AccountId>,
        /// They are not, and when they were last, in milliseconds of the Unix epoch.
        went: Vec<(AccountId, u64)>,
    },
    /// All accounts that are online, in short.
    Digest {
        /// When.
        stamp: Stamp,
        /// Of them.
        digest: Digest,
    },
    /// Asks for the accounts from this one on.
    Want {
        /// The first.
        from: AccountId,
    },
    /// Of the accounts `from` to `to`, both included, exactly these are online.
    Page {
        /// When.
        stamp: Stamp,
        /// The first.
        from: AccountId,
        /// The last.
        to: AccountId,
        /// Ascending.
        online: Vec<AccountId>,
    },
    /// Somebody types.
    Typing(TypingSaid),
}

/// Why bytes say nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaidError {
    /// They are cut short, or of a kind that this program does not know.
    #[error("not understood: {0}")]
    Malformed(#[from] postcard::Error),
    /// It has more than there may be.
    #[error("it is too long")]
    TooLong,
    /// A page that is not ascending, or has an account that does not belong to it.
    #[error("the page is not in order")]
    Disordered,
}

impl Said {
    /// The state of the node that a statement is about.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::News { stamp, .. } | Self::Digest { stamp, .. } | Self::Page { stamp, .. } => Some(*stamp),
            Self::Want { .. } | Self::Typing(_) => None,
        }
    }

    /// Its bytes, 64 KiB at most.
    pub fn encode(&self) -> Vec<u8> {
        // Only a value that serde cannot describe fails, and this is numbers.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// What the bytes say. Anything after it is a later version's.
    ///
    /// # Errors
    /// [`SaidError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SaidError> {
        let (said, _) = postcard::take_from_bytes::<Self>(bytes)?;
        match &said {
            Self::News { came, went, .. } if came.len() > NEWS_ACCOUNTS || went.len() > NEWS_ACCOUNTS => {
                Err(SaidError::TooLong)
            }
            Self::Page { online, .. } if online.len() > PAGE_ACCOUNTS => Err(SaidError::TooLong),
            Self::Page { from, to, online, .. } => {
                let ascending = online.windows(2).all(|pair| pair[0] < pair[1]);
                let within = from <= to && online.iter().all(|account| from <= account && account <= to);
                if ascending && within { Ok(said) } else { Err(SaidError::Disordered) }
            }
            Self::Typing(typing) if typing.members.len() > limits::TYPING_MEMBERS as usize => Err(SaidError::TooLong),
            _ => Ok(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = Stamp { incarnation: u64::MAX, version: u64::MAX };

    fn accounts(count: usize) -> Vec<AccountId> {
        (0..count).map(|back| AccountId(u64::MAX - (count - back) as u64)).collect()
    }

    fn page(from: u64, to: u64, online: &[u64]) -> Said {
        let online = online.iter().map(|id| AccountId(*id)).collect();
        Said::Page { stamp: STAMP, from: AccountId(from), to: AccountId(to), online }
    }

    #[test]
    fn the_largest_messages_fit_and_read_back() {
        let all = accounts(PAGE_ACCOUNTS);
        let news = accounts(NEWS_ACCOUNTS);
        let went = news.iter().map(|account| (*account, u64::MAX)).collect();
        for said in [
            Said::Page { stamp: STAMP, from: AccountId(0), to: AccountId(u64::MAX), online: all },
            Said::News { stamp: STAMP, came: news, went },
        ] {
            let bytes = said.encode();
            assert!(bytes.len() <= 64 * 1_024, "{} bytes", bytes.len());
            assert_eq!(Said::decode(&bytes), Ok(said));
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let typing = TypingSaid {
            conversation: ConversationId([1; 16]),
            account: AccountId(1),
            typing: true,
            members: accounts(101),
        };
        for (said, error) in [
            (page(0, 9, &[2, 1]), SaidError::Disordered),
            (page(0, 9, &[2, 2]), SaidError::Disordered),
            (page(3, 9, &[2]), SaidError::Disordered),
            (page(0, 9, &[10]), SaidError::Disordered),
            (page(9, 0, &[]), SaidError::Disordered),
            (Said::News { stamp: STAMP, came: accounts(NEWS_ACCOUNTS + 1), went: Vec::new() }, SaidError::TooLong),
            (Said::Typing(typing), SaidError::TooLong),
        ] {
            assert_eq!(Said::decode(&said.encode()), Err(error), "{said:?}");
        }
        assert_eq!(Said::decode(&page(0, 9, &[1, 9]).encode()), Ok(page(0, 9, &[1, 9])));
    }

    proptest! {
        #[test]
        fn no_bytes_harm_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Said::decode(&bytes);
        }
    }
}
