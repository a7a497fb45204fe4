//! See `targets/column.rs`.
#![no_main]

#[path = "../targets/column.rs"]
mod column;

libfuzzer_sys::fuzz_target!(|data: &[u8]| column::run(data));
