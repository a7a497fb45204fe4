//! The query scripts of `tests/promql`: series, queries, expected values.
//!
//! The language is the one of Prometheus' own query tests, so a case can be
//! taken to either side. A case is data; adding one needs no Rust.
//!
//! ```text
//! load 5m
//!   metric{label="value"} 0 1+2x3 _x2 NaN stale -Inf
//! eval instant at 10m sum(metric)
//!   {} 3
//! eval range from 0 to 10m step 5m metric
//!   metric{label="value"} 0 1 3
//! eval instant at 5m sum(
//!   expect fail unexpected end of input
//! clear
//! ```

mod coverage;
mod engine;
pub(crate) mod memory;
pub(crate) mod script;

use std::path::Path;

use pulse::promql::Engine;
use script::Script;

/// Fewer would mean that a file got lost.
const EVALS_MIN: usize = 700;

#[test]
fn every_script_holds() {
    let mut evals = 0;
    let mut failures = Vec::new();
    for (name, script) in scripts() {
        evals += script.queries().count();
        let failed = script.run(&engine_for(&name)).into_iter();
        failures.extend(failed.map(|failure| format!("{name}:{failure}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(evals >= EVALS_MIN, "only {evals} evals");
}

/// All scripts with the names of their files.
pub(crate) fn scripts() -> Vec<(String, Script)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promql");
    let paths = std::fs::read_dir(&dir).unwrap();
    let paths = paths.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|ext| ext == "test"));
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let script = Script::parse(&text).unwrap_or_else(|err| panic!("{name}:{err}"));
        (name, script)
    };
    paths.map(read).collect()
}

/// A file about a part of the language that is off by default switches it on.
fn engine_for(name: &str) -> Engine {
    let mut engine = Engine::default();
    engine.options.features.delayed_name_removal = name.starts_with("delayed_names");
    engine
}

/// The runner itself notices what is wrong.
#[test]
fn wrong_expectations_fail() {
    let setup =
        "load 1m\n  a{x=\"1\"} 1 2 3\n  a{x=\"2\"} 4 5 6\n  h {{sum:1 count:1 buckets:[1]}}\n";
    for wrong in [
        "eval instant at 0 a\n  a{x=\"1\"} 1\n",
        "eval instant at 0 a{x=\"1\"}\n  a{x=\"1\"} 2\n",
        "eval instant at 0 a{x=\"1\"}\n  b{x=\"1\"} 1\n",
        "eval instant at 0 a{x=\"1\"}\n  a{x=\"1\"} NaN\n",
        "eval instant at 0 sort_desc(a)\n  expect ordered\n  a{x=\"1\"} 1\n  a{x=\"2\"} 4\n",
        "eval instant at 0 a\n  expect fail\n",
        "eval instant at 0 sum(a[5m])\n  {} 1\n",
        "eval instant at 0 sum(a[5m])\n  expect fail msg: something else\n",
        "eval range from 0 to 2m step 1m a{x=\"1\"}\n  a{x=\"1\"} 1 2 4\n",
        "eval range from 0 to 2m step 1m a{x=\"1\"}\n  a{x=\"1\"} 1 2 _\n",
        "eval instant at 0 quantile(2, a)\n  expect no_warn\n  {} +Inf\n",
        "eval instant at 0 sum(a)\n  expect warn\n  {} 5\n",
        "eval instant at 0 1\n  2\n",
        "eval instant at 0 h\n  h {{sum:1 count:1 buckets:[2]}}\n",
        "eval instant at 0 h\n  h {{sum:1 count:1 buckets:[1] counter_reset_hint:gauge}}\n",
        "eval instant at 0 h\n  h 1\n",
        "eval instant at 0 a{x=\"1\"}\n  a{x=\"1\"} {{count:1}}\n",
    ] {
        let script = Script::parse(&format!("{setup}{wrong}")).unwrap();
        assert_eq!(script.run(&Engine::default()).len(), 1, "{wrong}");
    }
}
