//! rove-client-core
