//! See `targets/remote_read.rs`.
#![no_main]

#[path = "../targets/remote_read.rs"]
mod remote_read;

libfuzzer_sys::fuzz_target!(|data: &[u8]| remote_read::run(data));
