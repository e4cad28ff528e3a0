//! What the directory keeps.

use std::fmt;

use rove_protocol::ids::{AccountId, DeviceId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::apply_version;
use crate::command::Gate;

/// SHA-256 of a secret, a token or an idempotency key: 256 random bits need no slow hash, and what is stored opens
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `secret`.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// The digest of several parts, each with its length, so that no two lists are the same bytes.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for Digest {
    /// Four bytes: enough to tell two apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, ..] = self.0;
        write!(f, "Digest({first:02x}{second:02x}{third:02x}{fourth:02x}…)")
    }
}

/// The line of refresh tokens that began with one sign-in. Unique in the directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FamilyId(pub u64);

/// Whether an account may do anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountState {
    /// It may.
    #[default]
    Active,
    /// An operator stopped it.
    Suspended,
}

/// A person or a bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Its id.
    pub id: AccountId,
    /// Its handle as it is shown.
    pub handle: String,
    /// Its handle as it is compared; unique.
    pub handle_key: String,
    /// The name it shows; may be empty.
    pub name: String,
    /// Argon2id, as a PHC string.
    pub password_hash: String,
    /// Whether it may do anything.
    pub state: AccountState,
    /// When it signed up, in milliseconds of the Unix epoch.
    pub created_ms: u64,
}

/// One device of an account. Rows stay after revocation, so that a revoked device is told so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Its id.
    pub id: DeviceId,
    /// Whose it is.
    pub account: AccountId,
    /// What its owner sees in the list; may be empty.
    pub name: String,
    /// The digest of the secret it shows in `Hello`.
    pub secret: Digest,
    /// When it signed in, in milliseconds of the Unix epoch.
    pub created_ms: u64,
    /// When it was revoked.
    pub revoked_ms: Option<u64>,
}

/// A short-lived token for the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenRow {
    /// The digest of the token.
    pub token: Digest,
    /// Who may use it.
    pub account: AccountId,
    /// From where.
    pub device: DeviceId,
    /// It dies with this family.
    pub family: FamilyId,
    /// From when it is of no use, in milliseconds of the Unix epoch.
    pub expires_ms: u64,
}

/// A token that is exchanged for new ones, once. Used ones stay until they expire, so that a second use is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTokenRow {
    /// The digest of the token.
    pub token: Digest,
    /// Who may use it.
    pub account: AccountId,
    /// From where.
    pub device: DeviceId,
    /// It dies with this family.
    pub family: FamilyId,
    /// From when it is of no use, in milliseconds of the Unix epoch.
    pub expires_ms: u64,
    /// When it was used or replaced.
    pub used_ms: Option<u64>,
    /// What it was exchanged for; none if it was replaced because its reply was lost.
    pub successor: Option<Digest>,
}

/// What a request with an idempotency key did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// The digest of the key and of what it belongs to.
    pub key: Digest,
    /// The account it made or found.
    pub account: AccountId,
    /// The device it made.
    pub device: DeviceId,
    /// Until when it is remembered, in milliseconds of the Unix epoch.
    pub expires_ms: u64,
}

/// Something every other partition has to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Rises by one; partitions apply gates in this order and each once.
    pub number: u64,
    /// What they are told.
    pub gate: Gate,
}

/// The directory's own counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The last applied index.
    pub applied: u64,
    /// The chain over every change up to it.
    pub state_hash: u64,
    /// The last time an entry was stamped with, in milliseconds of the Unix epoch: the directory's clock.
    pub time_ms: u64,
    /// The last account id given.
    pub last_account: u64,
    /// The last device id given.
    pub last_device: u64,
    /// The last family id given.
    pub last_family: u64,
    /// The last gate number given.
    pub last_gate: u64,
    /// The version of apply that is in force (D8). In the chain of hashes it is where it was raised, not with the others here: so
    /// the chain is what it was before there was any other version.
    #[serde(skip)]
    pub apply_version: u16,
}

impl Default for Meta {
    /// Of an empty directory.
    fn default() -> Self {
        Self {
            applied: 0,
            state_hash: 0,
            time_ms: 0,
            last_account: 0,
            last_device: 0,
            last_family: 0,
            last_gate: 0,
            apply_version: apply_version::FIRST,
        }
    }
}
