//! `rove`: the terminal chat, and the client for scripts.
//!
//! Everything here speaks through [`rove_client`]'s public API, like any other app. The parts that decide something are
//! plain functions over plain values, tested without a server: [`ui::state`] and [`ui::layout`] (what is on the screen),
//! [`replay::irc`] (what was said) and [`replay::verify`] (whether everybody received it).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program answers on its standard streams")]

pub mod cli;
pub mod demo;
pub mod explain;
pub mod group;
pub mod replay;
pub mod ui;
