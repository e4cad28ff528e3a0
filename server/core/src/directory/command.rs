//! What the directory can be asked to do, and what it says. Commands are on disk: variants and fields are only added at
//! the end, and a change of meaning is a new variant.

use rove_protocol::ids::{AccountId, DeviceId};
use rove_protocol::registry::ErrorCode;
use serde::{Deserialize, Serialize};

use super::handle::Handle;
use super::rows::Digest;
use crate::command::{Actor, CommandError, Origin};
use crate::membership::MemberMap;
use crate::versioned;

/// The version every command begins with on disk.
const VERSION: u8 = 1;

/// A new token: its digest and how long it is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// The digest of the token.
    pub token: Digest,
    /// From the entry's time on, in milliseconds.
    pub lifetime_ms: u64,
}

/// What a device gets when it signs in, as digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Of the secret for `Hello`.
    pub secret: Digest,
    /// For the HTTP API.
    pub access: NewToken,
    /// For new tokens.
    pub refresh: NewToken,
}

/// A device that signs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDevice {
    /// What its owner will see in the list; may be empty.
    pub name: String,
    /// What it gets.
    pub credentials: Credentials,
}

/// One change of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryCommand {
    /// A new account and its first device. Answered with [`DirectoryOutcome::SignedIn`],
    /// [`DirectoryOutcome::Repeated`] or [`ErrorCode::NameTaken`].
    SignUp {
        /// Its handle, normalised.
        handle: Handle,
        /// The name it shows.
        name: String,
        /// Argon2id, as a PHC string.
        password_hash: String,
        /// Its first device.
        device: NewDevice,
        /// The digest of the idempotency key, the method and the handle.
        idempotency: Option<Digest>,
    },
    /// A new device of an account whose password was just verified. Answered with [`DirectoryOutcome::SignedIn`],
    /// [`ErrorCode::Unauthenticated`], [`ErrorCode::Revoked`] (suspended) or [`ErrorCode::LimitExceeded`].
    AddDevice {
        /// The account.
        account: AccountId,
        /// The hash the password was verified against: it must still be the account's.
        verified: String,
        /// The device.
        device: NewDevice,
        /// The digest of the idempotency key, the method and the handle.
        idempotency: Option<Digest>,
    },
    /// New credentials for a device whose sign-up was repeated, after its password was verified. The earlier ones,
    /// which nobody received, stop working. Answered with [`DirectoryOutcome::SignedIn`].
    Reissue {
        /// The account.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// The hash the password was verified against.
        verified: String,
        /// What it gets.
        credentials: Credentials,
    },
    /// Exchanges a refresh token. Answered with [`DirectoryOutcome::Refreshed`], [`ErrorCode::Unauthenticated`] or
    /// [`ErrorCode::Revoked`].
    RotateRefresh {
        /// The digest of the token that was shown.
        presented: Digest,
        /// The new access token.
        access: NewToken,
        /// The new refresh token.
        refresh: NewToken,
    },
    /// Ends a device for good. Answered with [`DirectoryOutcome::Gated`], [`DirectoryOutcome::Done`] if it had ended
    /// before, [`ErrorCode::NotFound`] if the actor has no such device, or [`ErrorCode::Revoked`] if the actor ended.
    RevokeDevice {
        /// Who asks: any device of the same account, itself included (log-out).
        actor: Actor,
        /// The device to end.
        device: DeviceId,
    },
    /// Stops an account. Answered like [`DirectoryCommand::RevokeDevice`].
    SuspendAccount {
        /// The account.
        account: AccountId,
    },
    /// Lets a stopped account go on. Answered like [`DirectoryCommand::RevokeDevice`].
    RestoreAccount {
        /// The account.
        account: AccountId,
    },
    /// Every partition has applied the gates up to this number. Answered with [`DirectoryOutcome::Done`].
    GateDone {
        /// The number of the newest of them.
        number: u64,
    },
    /// Changes who the nodes of the cluster are. Answered with [`DirectoryOutcome::Done`], or [`DirectoryOutcome::Overtaken`] if it does
    /// not follow the map there is.
    ChangeMembers {
        /// The next map, as a whole.
        map: MemberMap,
    },
    /// From here on entries are applied as `version` does, in the directory and, by a gate, in every partition (D8). Answered with
    /// [`DirectoryOutcome::Gated`], with [`DirectoryOutcome::Done`] if it is in force already, or with [`DirectoryOutcome::Overtaken`]
    /// if the members are not those that were looked at.
    RaiseApplyVersion {
        /// The version, which every member was heard to have.
        version: u16,
        /// The version of the map with those members; 0 if there is none.
        members: u64,
    },
}

impl DirectoryCommand {
    /// The bytes in an [`Envelope`](crate::command::Envelope).
    pub fn encode(&self) -> Vec<u8> {
        versioned::encode(VERSION, self)
    }

    /// Whether it is taken below the reserve of the disk ([`disk`](crate::disk)): what the cluster itself needs, and what ends or stops
    /// somebody, of which there is never much. Nobody signs up or in.
    pub fn may_use_reserve(&self) -> bool {
        match self {
            Self::GateDone { .. }
            | Self::ChangeMembers { .. }
            | Self::RaiseApplyVersion { .. }
            | Self::RevokeDevice { .. }
            | Self::SuspendAccount { .. }
            | Self::RestoreAccount { .. } => true,
            Self::SignUp { .. } | Self::AddDevice { .. } | Self::Reissue { .. } | Self::RotateRefresh { .. } => false,
        }
    }

    /// Reads what [`DirectoryCommand::encode`] wrote.
    ///
    /// # Errors
    /// [`CommandError::Command`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        versioned::decode(VERSION, bytes).map_err(CommandError::Command)
    }
}

/// What became of a command. Not on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryOutcome {
    /// The device is signed in with the credentials of the command.
    SignedIn {
        /// Whose it is.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// A sign-up with this idempotency key has made this account and device before. If the password is the account's,
    /// [`DirectoryCommand::Reissue`] gives it new credentials.
    Repeated {
        /// What was made.
        account: AccountId,
        /// Its device.
        device: DeviceId,
    },
    /// The tokens of the command are good.
    Refreshed {
        /// Whose.
        account: AccountId,
        /// From where.
        device: DeviceId,
    },
    /// Done here, and everywhere once this gate has left the outbox.
    Gated {
        /// The gate's number.
        number: u64,
    },
    /// Done.
    Done,
    /// Nothing was changed (but a family of tokens may have been ended).
    Failed(ErrorCode),
    /// Nothing was changed: the map of members is another one by now. Make the change anew from that.
    Overtaken,
}

/// What the machine says while applying, in order. To be acted on after the transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryEffect {
    /// Tell who asked.
    Answer {
        /// Who asked.
        origin: Origin,
        /// What became of it.
        outcome: DirectoryOutcome,
    },
    /// End the sessions of this device: it was revoked, or its account suspended.
    DeviceRevoked(DeviceId),
    /// The outbox has a new row.
    OutboxGrew,
    /// Every gate up to this number has left the outbox.
    GatesDone(u64),
    /// The nodes of the cluster are these now.
    Members(MemberMap),
    /// This version of apply is in force now.
    ApplyVersion(u16),
}
