//! Three nodes as one, in one thread: a deterministic simulation of a cluster around the real core, and the checker of what must hold.
//!
//! A run is decided by its [`options::Options`], above all by a seed: the same options give the same run, event by event. Virtual time
//! passes from event to event, so hours of faults take seconds.
//!
//! - [`world`] holds everything together: [`node`]s (the real lanes, replicas and state machines), the [`network`] between them, a
//!   [`disk`] and a state store under each, [`client`]s (the real outbox and cursors) above them;
//! - [`faults`] and [`nemesis`]: what goes wrong, and when. Safety is checked throughout; then everything heals, and liveness is;
//! - [`history`] is what a watcher writes down, [`checker`] and [`invariants`] judge it. They know nothing of the simulation: the
//!   history of a real cluster is judged by the same code;
//! - [`bugs`] are planted to see whether the checker finds them; [`batch`] runs many seeds and shrinks what fails.

pub mod batch;
pub mod bugs;
pub mod checker;
pub mod client;
pub mod disk;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod options;
pub mod queue;
pub mod rng;
pub mod wire;
pub mod world;
