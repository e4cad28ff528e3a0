//! What must hold of any bytes. The targets in `fuzz_targets` feed these functions; a failed assertion is a finding.

pub mod bodies;
pub mod frames;
pub mod messages;
pub mod sessions;
