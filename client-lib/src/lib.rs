//! rove-client
