//! Decoding the bodies of requests, answers and system events.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rove_fuzz::bodies::check(data));
