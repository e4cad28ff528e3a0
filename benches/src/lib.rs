//! rove-benches
