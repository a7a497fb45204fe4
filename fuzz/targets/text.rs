//! Arbitrary text as a Prometheus exposition: nothing panics, every error names a
//! line that exists, and a series that is read can be written and read again.
use pulse::codec::text::{Line, Reader, series};
use pulse::model::Labels;

/// One input; bytes that are no text are replaced.
pub(crate) fn run(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    let lines = text.split('\n').count();
    let mut reader = Reader::new(text);
    loop {
        match reader.next_line() {
            Ok(None) => break,
            Ok(Some(Line::Sample(sample))) => check(sample.series),
            Ok(Some(_)) => {}
            Err(err) => assert!((1..=lines).contains(&err.line)),
        }
    }
}

fn check(text: &str) {
    let mut pairs = Vec::new();
    if series(text, &mut pairs).is_err() {
        return;
    }
    let labels = Labels::from_pairs(pairs.iter().map(|(name, value)| (&**name, &**value)));
    let quoted: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{}={}", quote(name), quote(value)))
        .collect();
    let written = format!("{{{}}}", quoted.join(","));
    let mut again = Vec::new();
    if labels.metric_name().is_empty() {
        return;
    }
    series(&written, &mut again).expect("what is written can be read");
    assert_eq!(Labels::from_pairs(again), labels);
}

fn quote(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('\n', "\\n"))
}
