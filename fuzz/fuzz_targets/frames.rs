//! Cutting bytes into frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rove_fuzz::frames::check(data));
