//! See `targets/page.rs`.
#![no_main]

#[path = "../targets/page.rs"]
mod page;

libfuzzer_sys::fuzz_target!(|data: &[u8]| page::run(data));
