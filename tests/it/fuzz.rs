//! The fuzz targets of `fuzz/`, fed with mutated seeds: no nightly compiler, and no
//! guidance by coverage. An input that fails is printed, and fails again when it is
//! added to the seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

#[path = "../../fuzz/targets/column.rs"]
mod column;
#[path = "../../fuzz/targets/page.rs"]
mod page;
#[path = "../../fuzz/targets/promql_engine.rs"]
mod promql_engine;
#[path = "../../fuzz/targets/promql_parser.rs"]
mod promql_parser;
#[path = "../../fuzz/targets/regex.rs"]
mod regex;
#[path = "../../fuzz/targets/remote_read.rs"]
mod remote_read;
#[path = "../../fuzz/targets/remote_write.rs"]
mod remote_write;
#[path = "../../fuzz/targets/text.rs"]
mod text;

/// Inputs of a target, in the long mode the time for it.
const INPUTS: usize = 4_000;
const LONG: Duration = Duration::from_secs(60);

/// An input grows no longer than this.
const BYTES_MAX: usize = 4_096;

/// Words of PromQL that are put in as a whole.
const WORDS: [&str; 46] = [
    "a",
    "b",
    "h",
    "c",
    "{x=\"1\"}",
    "[1m]",
    "[30s:15s]",
    " offset 15s",
    " @ end()",
    " anchored",
    " smoothed",
    "rate(",
    "increase(",
    "histogram_quantile(0.5, ",
    "histogram_fraction(0, 1, ",
    "sum(",
    "avg by (x) (",
    "topk(2, ",
    "quantile(0.5, ",
    "count_values(\"v\", ",
    "limitk(1, ",
    "label_replace(",
    "\"$1\"",
    "absent(",
    "sort(",
    "info(",
    "max_over_time(",
    "predict_linear(",
    ")",
    ", 1)",
    " + ",
    " - ",
    " * ",
    " / ",
    " ^ ",
    " % ",
    " </ ",
    " >/ ",
    " == bool ",
    " and ",
    " or ",
    " unless ",
    " on (x) ",
    " group_left (le) ",
    " fill (0) ",
    "min_of(1, step())",
];

/// A small generator of numbers; the same seed gives the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap();
        usize::try_from(self.next() % bound).unwrap()
    }
}

/// Feeds a target until enough inputs or, in the long mode, enough time has gone by.
fn feed(name: &str, run: fn(&[u8]), seeds: &[Vec<u8>], words: &[&str]) {
    let long = std::env::var_os("PULSE_TEST_LONG").is_some();
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = if long {
        u64::try_from(time.unwrap().as_nanos()).unwrap() | 1
    } else {
        0x9e37_79b9_7f4a_7c15
    };
    let mut random = Random(seed);
    let (begun, mut count) = (Instant::now(), 0);
    for seed in seeds {
        one(name, run, seed);
    }
    while count < INPUTS || long && begun.elapsed() < LONG {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(6) {
            mutate(&mut input, seeds, words, &mut random);
        }
        input.truncate(BYTES_MAX);
        one(name, run, &input);
        count += 1;
    }
    crate::broker::say(&format!("{name}: {count} inputs in {:?}", begun.elapsed()));
}

fn one(name: &str, run: fn(&[u8]), input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(input)));
    assert!(
        outcome.is_ok(),
        "{name} fails on b\"{}\"",
        input.escape_ascii()
    );
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let len = random.below(16).min(input.len() - at);
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
        2 => drop(input.drain(at..at + len)),
        3 => {
            let bytes = random.next().to_le_bytes();
            input.splice(at..at, bytes[..random.below(9)].iter().copied());
        }
        4 => {
            let copy = input[at..at + len].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, copy);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ if !words.is_empty() => {
            let word = words[random.below(words.len())].bytes();
            input.splice(at..at + len / 4, word);
        }
        _ => input.extend_from_slice(&random.next().to_le_bytes()),
    }
}

/// The queries of all scripts.
fn queries() -> Vec<Vec<u8>> {
    let scripts = crate::promql_scripts::scripts();
    let queries = scripts.iter().flat_map(|(_, script)| script.queries());
    queries
        .map(|(query, _)| query.as_bytes().to_vec())
        .collect()
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn arbitrary_queries_are_parsed_and_answered() {
    let queries = queries();
    assert!(queries.len() > 500);
    feed("promql_parser", promql_parser::run, &queries, &WORDS);
    feed("promql_engine", promql_engine::run, &queries, &WORDS);
}

#[test]
fn arbitrary_patterns_compile_or_are_refused() {
    let seeds = bytes(&[
        "a.*b\0aXb",
        "(?i:x|y)+?\0XY",
        "[[:alpha:]]{2,5}\0abc",
        "\\pL\\x{1F600}\0a",
        "(?P<n>a)\0a",
        "^(?s:.)$\0\n",
        "\\Qa.b\\E\0a.b",
    ]);
    feed(
        "regex",
        regex::run,
        &seeds,
        &["(?", "{1000}", "[^", "\\b", "|", "*?", "\\C", "(?U)"],
    );
}

#[test]
fn arbitrary_expositions_are_read() {
    let seeds = bytes(&[
        "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"\\\"\\n\"} 1 1000\n",
        "{\"a.b\",\"c.d\"=\"e\"} NaN\nb -Inf\r\n",
    ]);
    feed(
        "text",
        text::run,
        &seeds,
        &["{", "}", "\"", "\\", "# TYPE ", " 1e400", "__name__", "\t"],
    );
}

#[test]
fn arbitrary_messages_are_read() {
    // A series with a label and a sample; a question; a histogram.
    let write =
        b"\x0a\x18\x0a\x0a\x0a\x01a\x12\x05value\x12\x0a\x09\0\0\0\0\0\0\xf0\x3f\x10".to_vec();
    let read =
        b"\x0a\x10\x08\x01\x10\x05\x1a\x0a\x08\x02\x12\x01a\x1a\x03b.c\x12\x02\x01\0".to_vec();
    let h = b"\x08\x07\x19\0\0\0\0\0\0\x16\x40\x20\0\x30\x02\x5a\x04\x08\0\x10\x02\x62\x02\x02\x02\x78\x05".to_vec();
    let seeds = [write, read, h];
    feed("remote_write", remote_write::run, &seeds, &[]);
    feed("remote_read", remote_read::run, &seeds, &[]);
}

#[test]
fn arbitrary_bytes_are_no_columns_and_no_pages() {
    let mut seeds: Vec<Vec<u8>> = (0..4_u8)
        .map(|mode| [&[mode][..], &[0; 96]].concat())
        .collect();
    seeds.push((0..=255).collect());
    feed("column", column::run, &seeds, &[]);
    feed("page", page::run, &seeds, &[]);
}
