//! What a Rove client decides, without a clock, a socket, a disk or a random number.

pub mod timeline;
