//! See `targets/promql_engine.rs`.
#![no_main]

#[path = "../targets/promql_engine.rs"]
mod promql_engine;

libfuzzer_sys::fuzz_target!(|data: &[u8]| promql_engine::run(data));
