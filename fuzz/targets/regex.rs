//! Any pattern: it is refused, or it compiles and can be asked.
use pulse::model::{matcher, re2};

/// One input; bytes that are no text are replaced.
pub(crate) fn run(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    let (pattern, value) = text.split_once('\0').unwrap_or((text, ""));
    if re2::translate(pattern).is_ok()
        && let Ok(regex) = matcher::anchored(pattern)
    {
        regex.is_match(value);
    }
}
