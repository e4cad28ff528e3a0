//! The Rove server: the shell that does the core's I/O, as a library and the `rove-server` binary.
//!
//! - [`edge`] speaks `rove/1` with clients, [`http`] serves the stateless API;
//! - [`node`] runs the replicas: it turns commands into log entries, log entries into state, state into answers and events;
//! - [`cluster`] carries what nodes say to each other;
//! - [`membership`] is who the nodes are, and changing that;
//! - [`nodes`] is the cluster as this node sees it, [`leaving`] how its sessions and leaders go elsewhere, [`admin`] what its operator
//!   asks;
//! - [`storage`] keeps the raft log, the conversation state and the directory on disk;
//! - [`release`] is what nodes of different releases differ in;
//! - [`tls`] has the certificate and the configurations made from it;
//! - [`cli`] wires everything and drains it.

pub mod admin;
pub mod cli;
pub mod cluster;
pub mod edge;
mod expiry;
pub mod http;
pub mod leaving;
pub mod membership;
pub mod node;
pub mod nodes;
mod panics;
pub mod release;
pub mod storage;
pub mod tls;
