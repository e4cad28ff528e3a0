//! What a Rove client decides, without a clock, a socket, a disk or a random number.
//!
//! The shell (crate `rove-client`) brings what happens: frames, times (`now_ms`, from any clock that never goes back),
//! random numbers, what the store held. These modules say what to do about it:
//!
//! - [`sync`]: which seqs are held, and what an arriving one means (D3);
//! - [`outbox`]: what to send under which number, and what became of it (D1, D7);
//! - [`timeline`]: what a user sees;
//! - [`inbox`]: from where to ask for lines again after a reconnect (D10);
//! - [`streams`]: which conversations have a stream of their own;
//! - [`reconnect`], [`places`], [`heartbeat`] and [`doubt`]: when and where to try again, when a path is dead, and when another node is
//!   asked before that;
//! - [`receipts`] and [`presence`]: latest-wins merges.

pub mod doubt;
pub mod heartbeat;
pub mod inbox;
pub mod outbox;
pub mod places;
pub mod presence;
pub mod receipts;
pub mod reconnect;
pub mod streams;
pub mod sync;
pub mod timeline;
