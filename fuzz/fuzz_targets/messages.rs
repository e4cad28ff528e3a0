//! Decoding every message in every direction.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rove_fuzz::messages::check(data));
