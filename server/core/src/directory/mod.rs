//! The directory: accounts, their devices and their tokens, and who the nodes of the cluster are, as one replicated relational state
//! (partition 0).
//!
//! A [`DirectoryMachine`] applies the directory's log to whatever stands behind [`DirectoryTx`]: SQLite on a node, a
//! few maps in the tests. It is closed (D8): it reads only the rows, the command and the entry's time. Everything that
//! needs a clock, randomness or work happens before the proposal, at the node that was asked: handles are normalised,
//! passwords hashed, secrets drawn, and the command carries only what was made of them. So no secret is ever in the
//! log, in the state or in a snapshot, and every replica arrives at the same rows and the same state hash.
//!
//! What other partitions must know (D9) becomes a row of the outbox in the same transaction as the change. A node
//! carries each row, in the order of its number, into every partition as a [`Gate`](crate::command::Gate), and proposes
//! [`DirectoryCommand::GateDone`] when all have applied it.

mod command;
pub mod contract;
mod error;
mod handle;
mod machine;
mod memory;
mod rows;
mod store;

pub use command::{Credentials, DirectoryCommand, DirectoryEffect, DirectoryOutcome, NewDevice, NewToken};
pub use error::DirectoryError;
pub use handle::{Handle, HandleError};
pub use machine::DirectoryMachine;
pub use memory::MemoryDirectory;
pub use rows::{
    AccessTokenRow, AccountRow, AccountState, DeviceRow, Digest, FamilyId, IdempotencyRow, Meta, OutboxRow,
    RefreshTokenRow,
};
pub use store::{DirectoryRead, DirectoryStore, DirectoryTx};

/// How long after its first use a refresh token may be used again because the reply was lost, in milliseconds: a
/// client's longest time-out for one request and a retry, with a margin.
pub const REFRESH_GRACE_MS: u64 = 60_000;
/// How long an idempotency key is remembered, in milliseconds: longer than any client retries one request.
pub const IDEMPOTENCY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Devices of one account that are not revoked. People own a handful; scripts that sign in again and again need a bound.
pub const DEVICES: usize = 100;
/// Expired rows of each kind removed for each command that is applied: more than any command adds, so that the tables
/// stay as small as what lives, and few enough that no entry becomes slow.
pub const PURGED_PER_COMMAND: usize = 16;
