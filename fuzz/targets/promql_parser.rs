//! Any text: the parser answers, and what it prints parses to the same.
use pulse::promql::parse;

/// One input; bytes that are no text are replaced.
pub(crate) fn run(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    match parse(text) {
        Ok(expr) => {
            assert_eq!(parse(&expr.to_string()).as_ref(), Ok(&expr), "{text}");
            assert_eq!(parse(&expr.pretty()).as_ref(), Ok(&expr), "{text}");
        }
        Err(error) => assert!(text.get(error.span).is_some(), "{text}"),
    }
}
