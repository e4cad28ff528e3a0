//! The edge, spoken to in raw `rove/1`: a file for each kind of stream.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod control;
mod conversation;
mod datagrams;
mod early;
mod fetch;
mod first_flight;
mod inbox;
mod support;
