//! promtool's unit tests for rules, run by the engine that runs the rules.
//!
//! As promtool: time begins at 0 and moves by `evaluation_interval` (1 m) up to
//! the largest `eval_time`, whatever the groups' own interval; an alert is
//! expected in the evaluation before or at its time, and only when it fires; an
//! evaluation that fails ends the test. The texts are promtool's too, but those of
//! mistakes in the file itself: they are told all at once, each with its place. Owns
//! nothing; it must never touch a store.

mod cases;
mod file;
pub mod notation;
mod report;
mod series;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cases::{Case, ExprCase};
use file::{AlertTest, Span, TestFile};
use report::{Fired, Point};
use series::Value;

use super::file::Defaults;
use super::group::{Group, World};
use super::load::{self, Settings};
use super::memory::Memory;
use super::spec::GroupSpec;
use super::{file as rule_file, turn};
use crate::config::{glob, position, yaml};
use crate::model::{HistogramSample, Sample, Timestamp};
use crate::promql::{Engine, VectorSample, engine};

/// The evaluation interval of a file that names none.
const INTERVAL: Duration = Duration::from_secs(60);

/// Evaluations of one test: a month at a minute is 44,640.
const STEPS_MAX: i64 = 1_000_000;

/// What came of one test file.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What did not hold, in promtool's words; empty: everything held.
    pub failures: Vec<String>,
    /// Patterns that named no file.
    pub warnings: Vec<String>,
}

/// Runs a test file with the rule files that it names.
pub fn run(path: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(failures) = run_file(path, &mut outcome.warnings) {
        outcome.failures = failures;
    }
    outcome
}

fn run_file(path: &Path, warnings: &mut Vec<String>) -> Result<(), Vec<String>> {
    let text = load::read(path).map_err(|err| vec![format!("{err:#}")])?;
    let mut read = yaml::read::<TestFile>(&text);
    let name = path.display().to_string();
    let cases = cases::read(&name, &text, &mut read)?;
    let mut file = read.value;
    let folder = path.parent().unwrap_or(Path::new(""));
    let rule_files = rule_files(&file, folder, warnings)?;
    let order = order(&name, &text, &mut file)?;
    let interval = match file.evaluation_interval.0 {
        Duration::ZERO => INTERVAL,
        interval => interval,
    };
    let fuzzy = file.fuzzy_compare;
    let mut failures = Vec::new();
    for case in &cases {
        let test = Test {
            case,
            interval,
            fuzzy,
            rule_files: &rule_files,
            order: &order,
        };
        if let Err(found) = test.run() {
            failures.extend(found);
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures)
    }
}

/// The rule files, relative to the folder of the test file.
fn rule_files(
    file: &TestFile,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<PathBuf>, Vec<String>> {
    let mut files = Vec::new();
    for pattern in &file.rule_files {
        let pattern = folder.join(pattern).display().to_string();
        let found = glob::find(&pattern).map_err(|err| vec![err.to_string()])?;
        if found.is_empty() {
            warnings.push(format!("no file match pattern {pattern}"));
        }
        files.extend(found);
    }
    Ok(files)
}

fn order(
    file: &str,
    text: &str,
    parsed: &mut TestFile,
) -> Result<HashMap<String, usize>, Vec<String>> {
    let mut order = HashMap::new();
    let mut repeated = Vec::new();
    for (at, name) in parsed.group_eval_order.drain(..).enumerate() {
        if let Some(before) = order.insert(name.value.clone(), at) {
            let (line, column) = position(text, name.at);
            let what = "group name repeated in evaluation order";
            let (name, before) = (name.value, before + 1);
            let line = format!("{file}:{line}:{column}: {what}: {name}, it is number {before}");
            repeated.push(line);
        }
    }
    match repeated.is_empty() {
        true => Ok(order),
        false => Err(repeated),
    }
}

/// One item of `tests`.
struct Test<'a> {
    case: &'a Case,
    interval: Duration,
    fuzzy: bool,
    rule_files: &'a [PathBuf],
    order: &'a HashMap<String, usize>,
}

impl Test<'_> {
    fn run(&self) -> Result<(), Vec<String>> {
        let mut memory = self.input();
        let mut groups = self.groups()?;
        let settings = self.settings();
        let mut alert_tests: BTreeMap<Span, Vec<&AlertTest>> = BTreeMap::new();
        for test in &self.case.alerts {
            alert_tests.entry(test.eval_time).or_default().push(test);
        }
        let step = Span(self.interval).ms().max(1);
        let end = self.end();
        if end / step > STEPS_MAX {
            return Err(vec![format!("more than {STEPS_MAX} evaluations")]);
        }
        let mut failures = Vec::new();
        let mut due = alert_tests.into_iter().peekable();
        let mut ms = 0;
        while ms <= end {
            let ts = Timestamp::from_ms(ms);
            memory.show_till(ts);
            let errors = evaluate(&mut groups, ts, &settings, &mut memory);
            if !errors.is_empty() {
                failures.extend(errors);
                return Err(failures);
            }
            while let Some((_, tests)) = due.next_if(|(at, _)| at.ms() < ms + step) {
                for test in tests {
                    failures.extend(self.check_alerts(test, &groups));
                }
            }
            ms += step;
        }
        let exprs = self.case.exprs.iter();
        failures.extend(exprs.filter_map(|test| self.check_expr(test, &settings, &memory)));
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures)
        }
    }

    fn input(&self) -> Memory {
        let interval = match self.case.interval.ms() {
            0 => Span(self.interval).ms(),
            ms => ms,
        };
        let mut memory = Memory::default();
        for (labels, values) in &self.case.input {
            let mut ms = 0;
            for value in values {
                match value {
                    Some(Value::Float(v)) => memory.push(labels, Sample::new(ms, *v)),
                    Some(Value::Native(h)) => {
                        let (t, h) = (Timestamp::from_ms(ms), Arc::new(h.clone()));
                        memory.push_histogram(labels, HistogramSample { t, h });
                    }
                    None => {}
                }
                ms += interval;
            }
        }
        memory
    }

    /// The groups in the order of their evaluation, which is the files' but for
    /// those that `group_eval_order` names.
    fn groups(&self) -> Result<Vec<Group>, Vec<String>> {
        let defaults = Defaults::every(self.interval);
        let mut specs: Vec<GroupSpec> = Vec::new();
        let mut failures = Vec::new();
        for path in self.rule_files {
            let name = path.display().to_string();
            let text = load::read(path).map_err(|err| vec![format!("{err:#}")])?;
            match rule_file::parse_lenient(&name, &text, defaults) {
                Ok(parsed) => specs.extend(parsed.groups),
                Err(errors) => failures.extend(errors.iter().map(ToString::to_string)),
            }
        }
        if !failures.is_empty() {
            return Err(failures);
        }
        let place = |spec: &GroupSpec| self.order.get(spec.name.as_str()).copied();
        specs.sort_by_key(|spec| place(spec).unwrap_or(usize::MAX));
        let fresh = |spec| Group::restore(Arc::new(spec), None, |_| Vec::new());
        Ok(specs.into_iter().map(fresh).collect())
    }

    fn settings(&self) -> Settings {
        Settings {
            engine: Engine {
                options: engine::Options {
                    subquery_step: self.interval,
                    ..engine::Options::default()
                },
                ..Engine::default()
            },
            external_labels: self.case.external_labels.clone(),
            external_url: self.case.external_url.clone(),
            instance: String::new(),
            timeout: Duration::MAX,
            for_grace_period: Duration::ZERO,
            for_outage_tolerance: Duration::ZERO,
            resend_delay: INTERVAL,
        }
    }

    /// The largest time that is asked for, in milliseconds.
    fn end(&self) -> i64 {
        let alerts = self.case.alerts.iter().map(|test| test.eval_time);
        let exprs = self.case.exprs.iter().map(|test| test.at);
        alerts.chain(exprs).max().unwrap_or_default().ms()
    }

    fn check_alerts(&self, test: &AlertTest, groups: &[Group]) -> Option<String> {
        let mut got = Vec::new();
        for group in groups {
            got.extend(group.firing(&test.alertname).map(|(labels, annotations)| {
                Fired {
                    labels: labels
                        .iter()
                        .map(|(n, v)| (n.to_owned(), v.to_owned()))
                        .collect(),
                    annotations: annotations.clone(),
                }
            }));
        }
        let expected = test.exp_alerts.iter().map(|alert| {
            let mut labels = alert.exp_labels.clone();
            labels.insert("alertname".to_owned(), test.alertname.clone());
            Fired {
                labels,
                annotations: alert.exp_annotations.clone(),
            }
        });
        let mut expected: Vec<Fired> = expected.collect();
        got.sort_unstable();
        expected.sort_unstable();
        (got != expected).then(|| report::alerts(&self.case.name, test, &expected, &got))
    }

    fn check_expr(&self, test: &ExprCase, settings: &Settings, memory: &Memory) -> Option<String> {
        let mut got = match ask(test, settings, memory) {
            Ok(got) => got,
            Err(why) => {
                let (expr, at) = (report::quoted(&test.text), test.at);
                return Some(format!("    expr: {expr}, time: {at}, err: {why}"));
            }
        };
        got.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        let mut both = got.iter().zip(&test.want);
        let holds = got.len() == test.want.len() && both.all(|(a, b)| a.equals(b, self.fuzzy));
        (!holds).then(|| report::samples(test, &got))
    }
}

/// Evaluates every group once; gives the errors of their rules.
fn evaluate(
    groups: &mut [Group],
    ts: Timestamp,
    settings: &Settings,
    memory: &mut Memory,
) -> Vec<String> {
    let cancel = Arc::new(AtomicBool::new(false));
    let mut errors = Vec::new();
    for group in groups {
        let world = World {
            data: memory,
            settings,
            stepped_ms: 0,
            is_blind: false,
            cancel: &cancel,
        };
        let evaluation = group.evaluate(ts, &world);
        memory.take(evaluation);
        errors.extend(group.errors().map(|(name, error)| {
            let at = report::go_duration(ts.as_ms());
            format!("    rule: {name}, time: {at}, err: {error}")
        }));
    }
    errors
}

/// The elements of a test's expression.
fn ask(test: &ExprCase, settings: &Settings, memory: &Memory) -> Result<Vec<Point>, String> {
    let cancel = Arc::new(AtomicBool::new(false));
    let world = World {
        data: memory,
        settings,
        stepped_ms: 0,
        is_blind: false,
        cancel: &cancel,
    };
    let at = Timestamp::from_ms(test.at.ms());
    let elements = turn::elements(&world, memory, &test.expr, at)?.0;
    let point = |element: VectorSample| Point {
        labels: element.labels,
        v: element.v,
        histogram: element.histogram,
    };
    Ok(elements.into_iter().map(point).collect())
}
