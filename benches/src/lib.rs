//! What the measurements share. Micro benchmarks are in `micro/`; `rove-load` (`src/bin/`) puts load on a real server.

pub mod load;
pub mod sample;
