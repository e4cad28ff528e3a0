//! Pieces of work whose cost is measured twice: in time by criterion (`micro/`), and in instructions by `rove-instructions`.
//!
//! They are what the server and the client library do for one message, with nothing around it, and panic if something else comes of
//! them than what is meant: the cost of a refusal says nothing about that of a post.

mod fan_out;
mod frames;
mod partition;

pub use fan_out::FanOut;
pub use frames::decode_all;
pub use partition::{MANY, Partition};
