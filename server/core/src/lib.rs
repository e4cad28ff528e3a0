//! What a replica decides, without doing any of it.
//!
//! Nothing here has a clock, a socket, a disk, a thread or a random number: events go in, outputs come out, `now` is an
//! argument. So a simulator runs the very code that serves people, and the same log gives the same state everywhere (D8).
//!
//! - [`command`] is what a log entry says; [`conversation`] applies it to the conversations of one partition;
//! - [`directory`] is the state of partition 0: accounts, devices and tokens;
//! - [`store`] is what the state machines need of a store, with a store in memory and the suite every store must pass;
//! - [`fanout`] says who is told of an event, [`presence`] who is there, [`discovery`] which node to try first;
//! - [`replica`] drives one replica of a partition's raft group, and makes entries of what queued up; [`routing`] gets commands from
//!   the node they were proposed on to the one that leads, and [`lane`] joins the two: one partition on one node; [`life`] tells
//!   what a node says now from what it said before it was started again, or rebuilt;
//! - [`formation`] makes one cluster of empty nodes, and notices a data directory that is not what it was; [`membership`] is how its
//!   nodes change from then on;
//! - [`apply_version`] is how all of them come to apply the log in a newer way, at one index;
//! - [`placement`] says which partition a conversation lives in; [`disk`] and [`clock`] say when a node is not to lead.

pub mod apply_version;
pub mod clock;
pub mod command;
pub mod conversation;
pub mod directory;
pub mod discovery;
pub mod disk;
pub mod fanout;
pub mod formation;
pub mod lane;
pub mod life;
pub mod membership;
pub mod placement;
pub mod presence;
pub mod replica;
pub mod routing;
pub mod spreading;
pub mod store;
pub mod versioned;
