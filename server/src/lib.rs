//! rove-server
