//! rove-core
