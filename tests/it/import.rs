//! `pulse import openmetrics` beside `promtool tsdb create-blocks-from openmetrics`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pulse::model::Clock;
use serde_json::Value;

use crate::broker::{free_port, program};
use crate::programs::Prometheus;
use crate::server::{Http, Server, eventually};

const DAY_S: i64 = 86_400;

/// Series, and seconds between their samples.
const SERIES: usize = 50;
const STEP_S: i64 = 120;

fn now_s() -> i64 {
    Clock::System.now().as_ms() / 1_000
}

fn import(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulse"));
    command.args(["import", "openmetrics", "--data-dir"]);
    command.arg(dir.join("data")).args(args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read all.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()];
    String::from_utf8(both.concat()).unwrap()
}

/// Imports from standard input; checks the exit code and that all of `wanted` is said.
fn check(dir: &Path, args: &[&str], text: &str, code: i32, wanted: &[&str]) {
    let output = import(dir, &[&["-"], args].concat(), text.as_bytes());
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for wanted in wanted {
        assert!(said.contains(wanted), "{wanted:?} not in {said}");
    }
}

fn verify(dir: &Path) {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_pulse"));
    let output = verify.arg("verify").arg(dir.join("data")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Three days of counters, gauges and a histogram: each series from its first to
/// its last sample, as OpenMetrics wants it.
fn history(start_s: i64) -> String {
    let mut text = String::from(
        "# HELP jobs_done Jobs \\\"done\\\".\n# TYPE jobs_done counter\n# TYPE room_celsius gauge\n\
         # UNIT room_celsius celsius\n",
    );
    let steps = 3 * DAY_S / STEP_S;
    for series in 0..SERIES {
        for step in 0..steps {
            // A gap of an hour in some, and half a second beside the others in one.
            if series % 7 == 3 && (300..330).contains(&step) {
                continue;
            }
            let t = (start_s + step * STEP_S) as f64 + if series == 5 { 0.5 } else { 0.0 };
            let n = step as f64;
            let line = match series % 3 {
                0 => format!(
                    "jobs_done_total{{worker=\"{series}\"}} {} {t} # {{id=\"{step}\"}} 1",
                    n * (series + 1) as f64
                ),
                1 => format!(
                    "room_celsius{{room=\"r {series}\",text=\"a\\\"}}#\\n\"}} {} {t}",
                    (n / 10.0).sin() * 20.0
                ),
                _ => format!("latency_seconds_bucket{{le=\"{series}\"}} {} {t}", n * 3.0),
            };
            writeln!(text, "{line}").unwrap();
        }
    }
    text + "# EOF\n"
}

async fn answer(http: &Http, url: &str, expr: &str, start_s: i64) -> Vec<Value> {
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("query", expr)
        .append_pair("start", &(start_s + 17).to_string())
        .append_pair("end", &(start_s + 3 * DAY_S).to_string())
        .append_pair("step", "601")
        .finish();
    let answer = http.get(&format!("{url}/api/v1/query_range?{query}")).await;
    let answer = answer.json();
    let result = answer["data"]["result"].as_array();
    let mut result = result.unwrap_or_else(|| panic!("{expr}: {answer}")).clone();
    result.sort_by_key(|series| series["metric"].to_string());
    result
}

#[tokio::test]
async fn an_import_answers_as_the_blocks_that_promtool_makes_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let start_s = (now_s() - 4 * DAY_S) / 7_200 * 7_200;
    let text = history(start_s);
    let file = dir.path().join("history.om");
    fs::write(&file, &text).unwrap();
    let output = import(dir.path(), &[file.to_str().unwrap()], b"");
    assert!(output.status.success(), "{}", said(&output));
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    for wanted in [
        format!("{samples} samples of {SERIES} series"),
        format!("{samples} stored, 0 there before"),
        "exemplars are left out".to_owned(),
    ] {
        assert!(
            said(&output).contains(&wanted),
            "{wanted}: {}",
            said(&output)
        );
    }
    verify(dir.path());
    // Sealed, and nothing else is left behind.
    let names = fs::read_dir(dir.path().join("data")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    let days = names.iter().filter(|name| name.starts_with("day-")).count();
    assert!((3..=4).contains(&days), "{names:?}");
    assert!(
        names.iter().all(|name| !name.starts_with("l0-")),
        "{names:?}"
    );
    assert!(
        names.iter().all(|name| !name.contains("import")),
        "{names:?}"
    );
    // Again, through gzip: nothing changes.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let again = import(dir.path(), &["-"], &gzip.finish().unwrap());
    assert!(again.status.success(), "{}", said(&again));
    let wanted = format!("0 stored, {samples} there before");
    assert!(said(&again).contains(&wanted), "{}", said(&again));
    verify(dir.path());

    let server = Server::start(dir.path(), free_port()).await;
    assert_eq!(
        server.value("count({__name__=~\".+\"} offset 2d)").await,
        Some(SERIES as f64)
    );
    let metadata = server.get("/api/v1/metadata?metric=room_celsius").await;
    let metadata = &metadata.json()["data"]["room_celsius"][0];
    assert_eq!(
        (&metadata["type"], &metadata["unit"]),
        (&"gauge".into(), &"celsius".into())
    );
    if program("promtool").is_none() || program("prometheus").is_none() {
        return;
    }
    let blocks = dir.path().join("blocks");
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &blocks])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let prometheus = Prometheus::start_on(&blocks).expect("it is installed");
    let (http, theirs) = (Http::new(), prometheus.url(""));
    eventually("Prometheus has the blocks", || async {
        let ready = http.get(&format!("{theirs}/-/ready")).await;
        (ready.status == 200).then_some(())
    })
    .await;
    // No range begins at a sample: Prometheus 2 takes that one in, 3 and we do not.
    let mut points = 0;
    for expr in [
        "jobs_done_total",
        "room_celsius",
        "latency_seconds_bucket",
        "round(rate(jobs_done_total[11m7ms]), 0.001)",
        "sum by (__name__) (count_over_time({__name__=~\".+\"}[1h7ms]))",
        "timestamp(jobs_done_total)",
        "max_over_time(room_celsius[6h7ms])",
        "count({__name__=~\"jobs_done_total|room_celsius|latency_seconds_bucket\"})",
    ] {
        let expr = expr.replace(
            "{__name__=~\".+\"}",
            "{__name__=~\"jobs_.*|room_.*|lat.*\"}",
        );
        let ours = answer(&http, &server.url(""), &expr, start_s).await;
        let want = answer(&http, &theirs, &expr, start_s).await;
        assert_eq!(ours, want, "{expr}");
        let values = want.iter().map(|s| s["values"].as_array().unwrap().len());
        points += values.sum::<usize>();
    }
    assert!(points > 30_000, "only {points} points were compared");
}

#[test]
fn a_mistake_anywhere_stores_nothing_and_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let t = now_s() - 600;
    for (text, wanted) in [
        (format!("a 1 {t}\n"), "-:2: expected \"# EOF\" at the end"),
        (
            "a 1\n# EOF\n".to_owned(),
            "-:1: expected a time in seconds behind the value",
        ),
        (
            format!("a 1 {t}\nb{{c=\"d\" 1 {t}\n# EOF\n"),
            "-:2: expected a closing brace",
        ),
        (
            format!("a 1 {t}\na x {t}\n# EOF\n"),
            "-:2: expected a value, found \"x\"",
        ),
        (
            format!("# EOF\na 1 {t}\n"),
            "-:2: expected nothing behind \"# EOF\"",
        ),
        (
            format!("a{{b=\"1\",b=\"2\"}} 1 {t}\n# EOF\n"),
            "-:1: expected each label once",
        ),
        (
            format!("# TYPE a untyped\na 1 {t}\n# EOF\n"),
            "-:1: expected a metric type",
        ),
    ] {
        check(dir.path(), &[], &text, 1, &[wanted, "nothing is stored"]);
    }
    let long = format!("a{{b=\"{}\"}} 1 {t}\n# EOF\n", "x".repeat(1 << 20));
    check(
        dir.path(),
        &[],
        &long,
        1,
        &["-:1: expected a line of at most 1 MiB"],
    );
    let other = format!("a{{tenant_id=\"b\"}} 1 {t}\n# EOF\n");
    let args = ["--tenant", "acme"];
    check(
        dir.path(),
        &args,
        &other,
        1,
        &["-:1: expected tenant acme, found \"b\""],
    );
    let bad = import(dir.path(), &["-"], b"a\xff 1 2\n");
    assert!(said(&bad).contains("-:1: expected UTF-8"), "{}", said(&bad));
    let cut = import(dir.path(), &["-"], &[0x1f, 0x8b, 8, 0, 0]);
    assert_eq!(cut.status.code(), Some(1), "{}", said(&cut));
    let none = import(dir.path(), &["/nowhere/history.om"], b"");
    assert!(
        said(&none).contains("cannot read /nowhere/history.om"),
        "{}",
        said(&none)
    );
    // The first mistake is the one that counts, and a store without samples is whole.
    let good = format!("a 1 {t}\n# EOF\n");
    check(dir.path(), &[], &good, 0, &["1 stored, 0 there before"]);
    verify(dir.path());
}

#[test]
fn samples_that_are_left_out_are_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let now = now_s();
    let old = now - 40 * DAY_S;
    let text = format!(
        "a 1 {old}\na 2 {}\na 3 {now}\na 4 {now}\na 5 {}000\n# EOF\n",
        old + 1,
        now
    );
    let wanted = [
        "5 samples of 1 series",
        "1 stored, 0 there before",
        "2 refused: older than the retention",
        "1 refused: in the future",
        "1 refused: another value is stored at the same time",
        "The retention is 30 days",
        "Times are seconds",
    ];
    check(dir.path(), &[], &text, 1, &wanted);
    // Years come in when they are to be kept.
    let years = ["--storage.tsdb.retention.time", "20y"];
    let old = now - 15 * 365 * DAY_S;
    let text = format!("a 1 {old}\na 2 {}\n# EOF\n", old + 400 * DAY_S);
    check(dir.path(), &years, &text, 0, &["2 stored, 0 there before"]);
    check(dir.path(), &years, &text, 0, &["0 stored, 2 there before"]);
    // Limits hold here as well.
    fs::write(
        dir.path().join("c.toml"),
        "[limits]\nlabels_max = 2\nseries_per_tenant_max = 3\n",
    )
    .unwrap();
    let config = dir.path().join("c.toml");
    let args = ["--config", config.to_str().unwrap()];
    let text = format!(
        "b{{c=\"1\",d=\"1\"}} 1 {now}\nb{{c=\"1\"}} 1 {now}\nb{{c=\"2\"}} 1 {now}\nb{{c=\"3\"}} 1 {now}\n# EOF\n"
    );
    let wanted = [
        "2 stored",
        "1 refused: more or longer labels",
        "1 refused: more series than [limits] series_max or series_per_tenant_max",
    ];
    check(dir.path(), &args, &text, 1, &wanted);
    verify(dir.path());
}

#[tokio::test]
async fn a_directory_in_use_is_refused_with_the_holders_pid() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let text = format!("a 1 {}\n# EOF\n", now_s());
    check(
        dir.path(),
        &[],
        &text,
        1,
        &[&format!("is in use by process {}", server.pid())],
    );
    assert_eq!(server.query("a").await.as_array().unwrap().len(), 0);
}
