//! See `targets/regex.rs`.
#![no_main]

#[path = "../targets/regex.rs"]
mod regex;

libfuzzer_sys::fuzz_target!(|data: &[u8]| regex::run(data));
