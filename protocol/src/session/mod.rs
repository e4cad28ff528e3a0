//! Which frame is legal when.
