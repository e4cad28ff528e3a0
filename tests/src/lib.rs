//! rove-tests
