//! Any text: the parser answers, and what it prints parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pulse::promql::parse;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(expr) => {
            assert_eq!(parse(&expr.to_string()).as_ref(), Ok(&expr), "{text}");
            assert_eq!(parse(&expr.pretty()).as_ref(), Ok(&expr), "{text}");
        }
        Err(error) => assert!(text.get(error.span).is_some(), "{text}"),
    }
});
