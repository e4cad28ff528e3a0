//! The terminal chat.
//!
//! [`State`] is what is on the screen and [`render`](render::render) draws it; both are told everything, so that they are
//! tested without a terminal or a server. [`run`] connects them to a client and a terminal.

mod app;
pub mod input;
pub mod layout;
pub mod render;
mod screen;
pub mod state;
pub mod view;
pub mod wrap;

pub use app::{Look, UiError, run, run_with};
pub use state::State;

#[cfg(test)]
mod golden;
