//! The binary `rove`.
fn main() {}
