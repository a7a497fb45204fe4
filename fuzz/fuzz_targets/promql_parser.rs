//! See `targets/promql_parser.rs`.
#![no_main]

#[path = "../targets/promql_parser.rs"]
mod promql_parser;

libfuzzer_sys::fuzz_target!(|data: &[u8]| promql_parser::run(data));
