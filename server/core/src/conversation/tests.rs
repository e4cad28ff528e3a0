//! The state machine, tried as a story: alice, bob and carol write, join and leave.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::type_complexity,
    reason = "small numbers of a test's own"
)]

mod closed;
mod gates;
mod groups;
mod model;
mod posting;
mod reading;
mod receipts;
mod support;
