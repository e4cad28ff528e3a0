//! One replica of one partition: a pure driver around raft.
//!
//! The only folder that sees the `raft` crate. A [`Replica`] is told what happened (a tick, a proposal, a peer's message, an entry
//! persisted, applied, made durable) and answers with [`Outputs`]: what to persist, what to send, what to apply. It follows raft's
//! asynchronous path, so that many rounds may be on their way to the disk at once:
//!
//! 1. [`Outputs::persist`] goes to the log, in order; the replica already reads its entries from memory;
//! 2. [`Outputs::messages`] may be sent at once: what must wait for the disk is held back here until
//! 3. [`Replica::persisted`] says the disk has it, which also moves the commit index of a leader;
//! 4. [`Outputs::committed`] is committed *and* persisted here: apply it, then say [`Replica::applied`];
//! 5. when the applied state is durable, [`Replica::state_durable`] says how much of the log may go.
//!
//! Who is in the group changes through the log ([`Replica::propose_members`]); a replica that joins, or is too far behind, gets a state
//! instead of entries ([`Outputs::snapshots_wanted`], [`Replica::snapshot_message`], [`Replica::step_snapshot`],
//! [`Outputs::install`]); a read that must see everything asks first how far that is ([`Replica::read_index`]).
//!
//! The raft crate panics where its log contradicts what it is told. Here that is a [`ReplicaError`]: such a replica is quarantined,
//! it does not vote. The checks come before the crate gets to see the contradiction.
//!
//! Pure but for one thing: the crate draws election time-outs from the thread's random numbers. A simulation passes
//! [`ReplicaConfig::election_ticks`] of one value only.

pub mod batcher;
mod config;
mod driver;
mod error;
mod memory_log;
mod message;
mod outputs;
#[cfg(test)]
mod tests;

pub(crate) use config::HEARTBEAT_TICKS;
pub use config::{GroupMember, ReplicaConfig, member_of, node_of, rebuild_of};
pub use driver::Replica;
pub use driver::members::MemberChange;
pub use error::{MembersError, MessageError, ProposeError, ReplicaError, SnapshotError, StepError};
pub use memory_log::{Recovered, Truncated};
pub use message::PeerMessage;
pub use outputs::{Committed, Group, Install, Membership, Outputs, Persist, Progress, ReplicaRole, ReplicaStatus};
// For the storage of the log only.
pub use raft::eraftpb::{ConfState, Entry as LogEntry, HardState};
