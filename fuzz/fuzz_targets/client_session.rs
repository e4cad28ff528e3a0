//! The client's session machines against any server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rove_fuzz::sessions::check_client(data));
