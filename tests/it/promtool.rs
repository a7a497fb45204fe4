//! `pulse check rules` and `pulse test rules` beside the real promtool.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::broker::program;

/// Seeds of generated test files; the long mode runs more.
const SEEDS: u64 = 40;
const SEEDS_LONG: u64 = 200;

fn run(program: &Path, args: &[&str], files: &[PathBuf]) -> Output {
    Command::new(program)
        .args(args)
        .args(files)
        .output()
        .unwrap()
}

fn pulse(args: &[&str], files: &[PathBuf]) -> Output {
    run(Path::new(env!("CARGO_BIN_EXE_pulse")), args, files)
}

/// Standard error without empty lines and spaces around: what a tool complains of.
fn complaints(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

fn rules_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/rules")
}

/// The files of a folder that end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.to_str().unwrap().ends_with(end))
        .collect();
    paths.sort();
    paths
}

#[test]
fn a12_the_tests_of_the_packs_hold_in_promtool_and_in_ours() {
    let tests = files(&rules_folder().join("tests"), ".yml");
    assert!(tests.len() >= pulse::rules::packs::names().count());
    let ours = pulse(&["test", "rules"], &tests);
    assert!(ours.status.success(), "{:#?}", complaints(&ours));
    let Some(promtool) = program("promtool") else {
        return;
    };
    let theirs = run(&promtool, &["test", "rules"], &tests);
    assert!(theirs.status.success(), "{:#?}", complaints(&theirs));
}

/// The control: with every alert and record under another name, each test fails.
#[test]
fn a12_every_test_of_a_pack_fails_without_its_rules() {
    let dir = tempfile::tempdir().unwrap();
    let tests = dir.path().join("tests");
    std::fs::create_dir_all(&tests).unwrap();
    for test in files(&rules_folder().join("tests"), ".yml") {
        let pack = test.file_name().unwrap();
        let rules = std::fs::read_to_string(rules_folder().join(pack)).unwrap();
        let other = rules
            .replace("- alert: ", "- alert: Not")
            .replace("- record: ", "- record: not_");
        std::fs::write(dir.path().join(pack), other).unwrap();
        let copy = tests.join(pack);
        std::fs::copy(&test, &copy).unwrap();
        let ours = pulse(&["test", "rules"], &[copy]);
        assert_eq!(ours.status.code(), Some(1), "{pack:?}");
    }
}

#[test]
fn a11_the_packs_pass_a_strict_check() {
    let packs = files(&rules_folder(), ".yml");
    assert_eq!(packs.len(), pulse::rules::packs::names().count());
    let ours = pulse(&["check", "rules"], &packs);
    assert!(ours.status.success(), "{:#?}", complaints(&ours));
    if let Some(promtool) = program("promtool") {
        let theirs = run(&promtool, &["check", "rules"], &packs);
        assert!(theirs.status.success(), "{:#?}", complaints(&theirs));
    }
}

#[test]
fn a11_a_strict_check_refuses_what_only_vmalert_knows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.yml");
    let text = "groups:\n- name: g\n  concurrency: 4\n  eval_delay: 30s\n  rules:\n  \
                - {alert: A, expr: up, debug: true, update_entries_limit: 5}\n";
    std::fs::write(&path, text).unwrap();
    let ours = pulse(&["check", "rules"], std::slice::from_ref(&path));
    assert_eq!(ours.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ours.stderr).into_owned();
    for field in ["concurrency", "eval_delay", "debug", "update_entries_limit"] {
        assert!(
            said.contains(&format!("{field} is a field of vmalert")),
            "{said}"
        );
    }
    // The server takes the same file.
    let config = dir.path().join("c.toml");
    std::fs::write(&config, "[rules]\nrule_files = [\"r.yml\"]\n").unwrap();
    assert!(pulse(&["check"], &[config]).status.success());
}

/// A small generator: the same seed gives the same file.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let at = self.roll(of.len() as u64);
        of[usize::try_from(at).unwrap()]
    }

    fn values(&mut self) -> String {
        let mut items = Vec::new();
        for _ in 0..=self.roll(6) {
            let (a, b, n) = (self.roll(9), self.roll(5), self.roll(6) + 1);
            items.push(match self.roll(7) {
                0 => format!("{a}x{n}"),
                1 => format!("{a}+{b}x{n}"),
                2 => format!("{a}-{b}x{n}"),
                3 => format!("_x{n}"),
                4 => "stale".to_owned(),
                5 => self
                    .pick(&["NaN", "Inf", "-Inf", "_", "-3", "1e3"])
                    .to_owned(),
                _ => format!("{a}"),
            });
        }
        items.join(" ")
    }

    fn rules(&mut self) -> String {
        let mut text = "groups:\n".to_owned();
        for group in 0..=self.roll(2) {
            text += &format!("- name: g{group}\n  interval: 7s\n  rules:\n");
            for rule in 0..=self.roll(4) {
                let expr = self.pick(&[
                    "m > 3",
                    "m == 0",
                    "delta(m[3m]) > 1",
                    "sum by (a) (m)",
                    "absent(n)",
                    "m unless n",
                    "r0 > 2",
                    "count_over_time(m[2m]) < 2",
                    "ALERTS{alertstate=\"firing\"}",
                    "1 / (m - 3)",
                    "topk(1, m)",
                    "vector(time()) > 180",
                    "changes(r1[5m]) > 0",
                ]);
                if self.roll(3) == 0 {
                    text += &format!(
                        "  - {{record: r{rule}, expr: '{expr}', labels: {{g: '{group}'}}}}\n"
                    );
                    continue;
                }
                text += &format!("  - alert: A{}\n    expr: '{expr}'\n", self.roll(3));
                if self.roll(2) == 0 {
                    text += &format!("    for: {}\n", self.pick(&["1m", "2m", "150s"]));
                }
                if self.roll(4) == 0 {
                    text += &format!("    keep_firing_for: {}\n", self.pick(&["1m", "2m"]));
                }
                // None is ever empty: Prometheus then puts the template itself into ALERTS.
                let template = self.pick(&[
                    "v",
                    "a{{ $labels.a }}",
                    "{{ $value | humanize }}",
                    "{{ printf \"%.2f\" $value }}",
                    "q{{ with query \"m\" | sortByLabel \"a\" }}{{ . | first | value }}{{ end }}",
                    "{{ $externalLabels.e }}",
                ]);
                text += &format!("    labels: {{l: '{template}', r: '{rule}', g: '{group}'}}\n");
                text += "    annotations: {s: '{{ $value }} of {{ $labels }}'}\n";
            }
        }
        text
    }

    fn test(&mut self) -> String {
        let interval = self.pick(&["1m", "30s", "2m"]);
        let mut text = format!(
            "rule_files: [rules.yml]\ngroup_eval_order: [g0, g1, g2]\nevaluation_interval: {}\n",
            // Off the samples' times: windows are open on the left since Prometheus 3.
            self.pick(&["61s", "37s", "91s"])
        );
        text += &format!(
            "tests:\n- interval: {interval}\n  external_labels: {{e: x}}\n  input_series:\n"
        );
        for series in 0..=self.roll(3) {
            let name = self.pick(&["m", "m", "n"]);
            let values = self.values();
            text += &format!("  - {{series: '{name}{{a=\"{series}\"}}', values: '{values}'}}\n");
        }
        text += "  alert_rule_test:\n";
        for _ in 0..4 {
            let (at, name) = (self.roll(600), self.roll(3));
            text += &format!("  - {{eval_time: {at}s, alertname: A{name}}}\n");
        }
        text += "  promql_expr_test:\n";
        for expr in ["ALERTS", "ALERTS_FOR_STATE", "{__name__=~\"r.*\"}", "m"] {
            let at = self.roll(600);
            text += &format!("  - {{expr: '{expr}', eval_time: {at}s}}\n");
        }
        text
    }
}

/// Nothing is expected, so both tools tell everything that they computed.
#[test]
fn a12_generated_tests_give_the_same_alerts_and_values_as_promtool() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    let is_long = std::env::var_os("PULSE_TEST_LONG").is_some();
    let (mut told, mut lines) = (0, 0);
    for seed in 0..if is_long { SEEDS_LONG } else { SEEDS } {
        let dir = tempfile::tempdir().unwrap();
        let mut dice = Dice(seed * 7_919 + 1);
        let test = dir.path().join("test.yml");
        std::fs::write(dir.path().join("rules.yml"), dice.rules()).unwrap();
        std::fs::write(&test, dice.test()).unwrap();
        let files = std::slice::from_ref(&test);
        let theirs = run(&promtool, &["test", "rules"], files);
        let ours = pulse(&["test", "rules"], files);
        let (want, got) = (complaints(&theirs), complaints(&ours));
        if want != got || theirs.status.code() != ours.status.code() {
            let rules = std::fs::read_to_string(dir.path().join("rules.yml")).unwrap();
            let test = std::fs::read_to_string(&test).unwrap();
            panic!("SEED={seed}\n{rules}\n{test}\nwant {want:#?}\ngot {got:#?}");
        }
        told += usize::from(!theirs.status.success());
        lines += want.len();
    }
    // Most seeds give alerts or values, so something was compared.
    assert!(told > 25 && lines > 300, "{told} {lines}");
}

#[test]
fn every_mistake_of_form_in_a_test_file_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.yml");
    let text = "rule_file: [r.yml]\ntests:\n- interval: 1q\n  input_sries: []\n  alert_rule_test:\n  - alertnme: A\n";
    std::fs::write(&path, text).unwrap();
    let ours = pulse(&["test", "rules"], std::slice::from_ref(&path));
    assert_eq!(ours.status.code(), Some(1));
    let told = String::from_utf8_lossy(&ours.stderr) + String::from_utf8_lossy(&ours.stdout);
    for begin in [
        "t.yml:1:1: unknown field `rule_file`",
        "t.yml:3:3: interval: not a valid duration",
        "t.yml:4:3: unknown field `input_sries`",
        "t.yml:6:5: unknown field `alertnme`",
    ] {
        assert!(told.contains(begin), "{begin} in\n{told}");
    }
}

/// A mistake in a test file is one in both tools.
#[test]
fn a12_test_files_are_refused_where_promtool_refuses_them() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("r.yml"), "groups: []\n").unwrap();
    let path = dir.path().join("t.yml");
    let one = |item: &str| format!("rule_files: [r.yml]\ntests:\n- interval: 1m\n  {item}\n");
    let mut refused = 0;
    let texts = [
        one("input_series: [{series: 'a', values: '1'}]"),
        one("input_series: [{series: 'a{', values: '1'}]"),
        one("input_series: [{series: 'a', values: '1x'}]"),
        one("input_series: [{series: 'a', values: '1+2'}]"),
        one("input_sries: []"),
        one("alert_rule_test: [{eval_time: 1m}]"),
        one("alert_rule_test: [{eval_time: 1q, alertname: A}]"),
        one("alert_rule_test: [{eval_time: 1m, alertname: A}]"),
        one("promql_expr_test: [{expr: 'a +', eval_time: 1m}]"),
        one(
            "promql_expr_test: [{expr: 'a', eval_time: 1m, exp_samples: [{labels: 'a{', value: 1}]}]",
        ),
        one("promql_expr_test: [{expr: 'vector(1)', eval_time: 1m, exp_samples: [{value: 1}]}]"),
        one(
            "promql_expr_test: [{expr: 'vector(1)', eval_time: 1m, exp_samples: [{labels: '{}', value: 1}]}]",
        ),
        one(
            "promql_expr_test: [{expr: '1', eval_time: 1m, exp_samples: [{labels: '{}', value: 1}]}]",
        ),
        one(
            "promql_expr_test: [{expr: 'vector(NaN)', eval_time: 0, exp_samples: [{labels: '{}', value: .nan}]}]",
        ),
        "group_eval_order: [a, a]\nrule_files: [r.yml]\n".to_owned(),
        "rule_files: [none.yml]\n".to_owned(),
        "rule_files: text\n".to_owned(),
        "tests: [1]\n".to_owned(),
    ];
    for text in texts {
        std::fs::write(&path, &text).unwrap();
        let files = std::slice::from_ref(&path);
        let theirs = run(&promtool, &["test", "rules"], files);
        let ours = pulse(&["test", "rules"], files);
        let said = (complaints(&theirs), complaints(&ours));
        assert_eq!(
            theirs.status.code(),
            ours.status.code(),
            "{text}\n{said:#?}"
        );
        refused += usize::from(!theirs.status.success());
    }
    assert!((9..18).contains(&refused), "{refused}");
}

/// The rules for many tenants over 501 of them, one more than follow singly.
#[test]
fn r0_31_the_scaling_pack_sums_501_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let rules = rules_folder().join("scaling.yml");
    std::fs::copy(rules, dir.path().join("scaling.yml")).unwrap();
    let mut text = "rule_files: [scaling.yml]\ntests:\n- input_series:\n".to_owned();
    for tenant in 0..501 {
        text += &format!(
            "  - {{series: 'pulse_ingest_messages_total{{tenant_id=\"t{tenant}\", result=\"accepted\"}}', values: '0+60x10'}}\n"
        );
    }
    text += "  promql_expr_test:\n  \
             - {expr: 'count(tenant:pulse_ingest_messages:rate5m)', eval_time: 10m, exp_samples: [{labels: '{}', value: 501}]}\n  \
             - {expr: 'pulse_ingest_messages:rate5m', eval_time: 10m, exp_samples: [{labels: 'pulse_ingest_messages:rate5m', value: 501}]}\n  \
             - {expr: 'count(topk(10, tenant:pulse_ingest_messages:rate5m))', eval_time: 10m, exp_samples: [{labels: '{}', value: 10}]}\n";
    let test = dir.path().join("test.yml");
    std::fs::write(&test, text).unwrap();
    let ours = pulse(&["test", "rules"], &[test]);
    assert!(ours.status.success(), "{:#?}", complaints(&ours));
}
