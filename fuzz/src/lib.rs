//! What must hold of any bytes. The targets in `fuzz_targets` feed these functions; a failed assertion is a finding.

pub mod bodies;
#[path = "../../protocol/tests/common/carriers.rs"]
mod carriers;
pub mod frames;
pub mod messages;
pub mod sessions;
