//! What several tests share.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(unreachable_pub, clippy::cast_possible_truncation, clippy::wildcard_imports, reason = "test support")]

pub mod annotate;
pub mod carriers;
pub mod entropy;
pub mod messages;
