//! The server's session machines against any client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rove_fuzz::sessions::check_server(data));
