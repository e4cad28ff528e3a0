//! rove-terminal
