//! Any pattern: it is refused, or it compiles and can be asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pulse::model::{matcher, re2};

fuzz_target!(|text: &str| {
    let (pattern, value) = text.split_once('\0').unwrap_or((text, ""));
    if re2::translate(pattern).is_ok()
        && let Ok(regex) = matcher::anchored(pattern)
    {
        regex.is_match(value);
    }
});
