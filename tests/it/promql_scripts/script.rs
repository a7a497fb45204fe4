//! The script language: reading and running it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pulse::model::{
    Histogram, HistogramSample, Labels, Sample, Timestamp, duration, is_stale_nan, stale_nan,
};
use pulse::promql::{Engine, HistogramSeries, Output, RangeSeries, Series, Value, parse};

use super::memory::{Memory, labels};
use pulse::rules::unit::notation as native;

/// Values may differ by this much, relative to the larger.
const TOLERANCE: f64 = 1e-6;

/// The commands of a file with their line numbers.
pub(crate) struct Script {
    commands: Vec<(usize, Command)>,
}

enum Command {
    Clear,
    Load(Vec<(Series, HistogramSeries)>),
    Eval(Eval),
}

struct Eval {
    query: String,
    when: When,
    expect: Expect,
}

enum When {
    At(i64),
    Range { start: i64, end: i64, step: i64 },
}

#[derive(Default)]
struct Expect {
    fail: Option<String>,
    ordered: bool,
    warn: Option<bool>,
    info: Option<bool>,
    /// A text that some warning or info contains.
    noted: Vec<String>,
    rows: Vec<Row>,
}

/// One expected line.
struct Row {
    /// `None` for a bare number or text.
    labels: Option<Labels>,
    text: String,
    values: Vec<Column>,
}

/// A value of a series; `None` is a gap.
type Column = Option<Number>;

#[derive(Clone, Debug)]
enum Number {
    Float(f64),
    Native(Arc<Histogram>),
}

impl Script {
    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Script, String> {
        let mut commands = Vec::new();
        let lines: Vec<&str> = text.lines().collect();
        let mut at = 0;
        while at < lines.len() {
            let number = at + 1;
            let line = without_comment(lines[at]);
            at += 1;
            if line.trim().is_empty() {
                continue;
            }
            let from = at;
            while at < lines.len() && is_body(lines[at]) {
                at += 1;
            }
            let body: Vec<&str> = lines[from..at]
                .iter()
                .map(|line| without_comment(line).trim())
                .filter(|line| !line.is_empty())
                .collect();
            let command = command(line.trim(), &body).map_err(|err| format!("{number}: {err}"))?;
            commands.push((number, command));
        }
        Ok(Script { commands })
    }

    /// The queries, each with whether a value is expected of it.
    pub(crate) fn queries(&self) -> impl Iterator<Item = (&str, bool)> {
        let commands = self.commands.iter();
        commands.filter_map(|(_, command)| match command {
            Command::Eval(eval) => Some((eval.query.as_str(), !eval.expect.rows.is_empty())),
            Command::Clear | Command::Load(_) => None,
        })
    }

    /// Runs all commands; says what did not hold.
    pub(crate) fn run(&self, engine: &Engine) -> Vec<String> {
        let mut memory = Memory::default();
        let mut failures = Vec::new();
        for (line, command) in &self.commands {
            match command {
                Command::Clear => memory = Memory::default(),
                Command::Load(all) => all.iter().for_each(|(floats, native)| {
                    memory.add(floats.clone());
                    memory.add_histograms(native.clone());
                }),
                Command::Eval(eval) => {
                    if let Err(failure) = eval.run(engine, &memory) {
                        failures.push(format!("{line}: {}: {failure}", eval.query));
                    }
                }
            }
        }
        failures
    }
}

/// Lines that belong to the command above are indented.
fn is_body(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with([' ', '\t']) || line.starts_with('#')
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return &line[..at],
            (None, '"' | '\'' | '`') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    line
}

fn command(line: &str, body: &[&str]) -> Result<Command, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "clear" => Ok(Command::Clear),
        "load" => {
            let step = ms(rest.trim())?;
            let series: Result<_, String> = body.iter().map(|line| loaded(line, step)).collect();
            Ok(Command::Load(series?))
        }
        "eval" => Ok(Command::Eval(eval(rest, body)?)),
        _ => Err(format!("unknown command {word:?}")),
    }
}

/// `metric{...} 1 2+3x4 _`
fn loaded(line: &str, step: i64) -> Result<(Series, HistogramSeries), String> {
    let (metric, values) = split_labels(line)?;
    let mut floats = Series {
        labels: labels(metric)?,
        samples: Vec::new(),
    };
    let mut native = HistogramSeries {
        labels: floats.labels.clone(),
        samples: Vec::new(),
    };
    for (i, value) in values_of(values)?.into_iter().enumerate() {
        let ms = step * i as i64;
        match value {
            Some(Number::Float(v)) => floats.samples.push(Sample::new(ms, v)),
            Some(Number::Native(h)) => native.samples.push(HistogramSample {
                t: Timestamp::from_ms(ms),
                h,
            }),
            None => {}
        }
    }
    Ok((floats, native))
}

/// Splits after the label set.
fn split_labels(line: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    let mut escaped = false;
    let mut depth = 0;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' if !quoted => depth += 1,
            '}' if !quoted => depth -= 1,
            ' ' | '\t' if !quoted && depth == 0 => return Ok((&line[..at], &line[at..])),
            _ => {}
        }
    }
    Err(format!("no values in {line:?}"))
}

/// The series notation; `None` is a gap.
fn values_of(text: &str) -> Result<Vec<Column>, String> {
    let mut values = Vec::new();
    for item in native::items(text) {
        repeated(item, &mut values).ok_or_else(|| format!("bad value {item:?}"))?;
    }
    Ok(values)
}

/// `5`, `_`, `_x3`, `5x3` (four times), `5+2x3` (5 7 9 11), `5-2x3`, `stale`.
fn repeated(item: &str, values: &mut Vec<Column>) -> Option<()> {
    if item.starts_with("{{") {
        let all = native::repeated(item)?.into_iter();
        values.extend(all.map(|h| Some(Number::Native(h.into()))));
        return Some(());
    }
    if item == "stale" {
        values.push(Some(Number::Float(stale_nan())));
        return Some(());
    }
    if let Ok(v) = item.parse() {
        values.push(Some(Number::Float(v)));
        return Some(());
    }
    let (start, count) = match item.rsplit_once('x') {
        Some((start, count)) => (start, count.parse::<u32>().ok()?),
        None => (item, 0),
    };
    if start == "_" {
        let gaps = count.max(1) as usize;
        values.extend(std::iter::repeat_n(None, gaps));
        return Some(());
    }
    let sign = start[1..].rfind(['+', '-']).map(|at| at + 1);
    let sign = sign.filter(|at| !start[..*at].ends_with(['e', 'E']));
    let (first, delta) = match sign {
        Some(at) => (start[..at].parse().ok()?, start[at..].parse().ok()?),
        None => (start.parse().ok()?, 0.0),
    };
    let mut v: f64 = first;
    for _ in 0..=count {
        values.push(Some(Number::Float(v)));
        v += delta;
    }
    Some(())
}

fn eval(rest: &str, body: &[&str]) -> Result<Eval, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (when, taken) = match words.as_slice() {
        ["instant", "at", t, ..] => (When::At(ms(t)?), 3),
        ["range", "from", start, "to", end, "step", step, ..] => {
            let range = When::Range {
                start: ms(start)?,
                end: ms(end)?,
                step: ms(step)?,
            };
            (range, 7)
        }
        _ => return Err(format!("bad eval {rest:?}")),
    };
    let mut query = rest;
    for word in &words[..taken] {
        query = query
            .trim_start()
            .strip_prefix(word)
            .expect("taken in order");
    }
    Ok(Eval {
        query: query.trim().to_owned(),
        when,
        expect: expect(body)?,
    })
}

fn expect(body: &[&str]) -> Result<Expect, String> {
    let mut expect = Expect::default();
    for line in body {
        let Some(what) = line.strip_prefix("expect ") else {
            expect.rows.push(row(line)?);
            continue;
        };
        let (word, message) = what.split_once(' ').unwrap_or((what, ""));
        let message = message
            .trim()
            .strip_prefix("msg:")
            .unwrap_or(message)
            .trim();
        match word {
            "fail" => expect.fail = Some(message.to_owned()),
            "ordered" => expect.ordered = true,
            "warn" => expect.warn = Some(true),
            "no_warn" => expect.warn = Some(false),
            "info" => expect.info = Some(true),
            "no_info" => expect.info = Some(false),
            _ => return Err(format!("unknown expectation {word:?}")),
        }
        if word != "fail" && !message.is_empty() {
            expect.noted.push(message.to_owned());
        }
    }
    Ok(expect)
}

fn row(line: &str) -> Result<Row, String> {
    let bare = || Row {
        labels: None,
        text: line.to_owned(),
        values: values_of(line).unwrap_or_default(),
    };
    if line.starts_with('"') || values_of(line).is_ok() {
        return Ok(bare());
    }
    let (metric, values) = split_labels(line)?;
    Ok(Row {
        labels: Some(labels(metric)?),
        text: String::new(),
        values: values_of(values)?,
    })
}

/// A duration or a number of seconds, possibly negative.
fn ms(text: &str) -> Result<i64, String> {
    let (sign, size) = match text.strip_prefix('-') {
        Some(size) => (-1, size),
        None => (1, text),
    };
    if let Ok(seconds) = size.parse::<f64>() {
        return Ok(sign * Timestamp::from_secs_f64(seconds).as_ms());
    }
    let ms = duration::parse_ms(size).map_err(|err| err.to_string())?;
    Ok(sign * i64::try_from(ms).expect("durations fit"))
}

impl Eval {
    fn run(&self, engine: &Engine, memory: &Memory) -> Result<(), String> {
        let output = match (self.output(engine, memory), &self.expect.fail) {
            (Ok(output), None) => output,
            (Err(err), None) => return Err(err),
            (Ok(output), Some(_)) => return Err(format!("did not fail: {output:?}")),
            (Err(err), Some(want)) if err.contains(want) => return Ok(()),
            (Err(err), Some(want)) => return Err(format!("failed with {err:?}, not {want:?}")),
        };
        self.notes(&output)?;
        self.value(&output.value)
    }

    fn output(&self, engine: &Engine, memory: &Memory) -> Result<Output, String> {
        let expr = parse(&self.query).map_err(|err| err.to_string())?;
        let cancel = Arc::new(AtomicBool::new(false));
        let t = Timestamp::from_ms;
        let output = match self.when {
            When::At(at) => engine.instant(memory, &expr, t(at), &cancel),
            When::Range { start, end, step } => {
                let step = Duration::from_millis(step.unsigned_abs());
                engine.range(memory, &expr, t(start), t(end), step, &cancel)
            }
        };
        output.map_err(|err| err.to_string())
    }

    fn notes(&self, output: &Output) -> Result<(), String> {
        let kinds = [
            ("warning", self.expect.warn, &output.warnings),
            ("info", self.expect.info, &output.infos),
        ];
        for (kind, want, got) in kinds {
            if want.is_some_and(|want| want == got.is_empty()) {
                return Err(format!("{kind}s: {got:?}"));
            }
        }
        for want in &self.expect.noted {
            let mut all = output.warnings.iter().chain(&output.infos);
            if !all.any(|note| note.contains(want)) {
                return Err(format!("nothing says {want:?}: {output:?}"));
            }
        }
        Ok(())
    }

    fn value(&self, value: &Value) -> Result<(), String> {
        let rows = &self.expect.rows;
        match value {
            Value::Scalar { v, .. } => match rows.as_slice() {
                [row] if row.labels.is_none() => compare(&row.values, &[Some(Number::Float(*v))]),
                _ => Err(format!("got the scalar {v}")),
            },
            Value::String { v, .. } => match rows.as_slice() {
                [row] if row.text == format!("{v:?}") => Ok(()),
                _ => Err(format!("got the string {v:?}")),
            },
            Value::Vector { samples, .. } => {
                let got = samples
                    .iter()
                    .map(|s| {
                        let native = s.histogram.clone().map(Number::Native);
                        let value = native.unwrap_or(Number::Float(s.v));
                        (s.labels.clone(), vec![Some(value)])
                    })
                    .collect();
                self.rows(got)
            }
            Value::Matrix(series) => {
                let got = series
                    .iter()
                    .map(|s| (s.labels.clone(), self.columns(s)))
                    .collect();
                self.rows(got)
            }
        }
    }

    /// The samples at the steps of the query; for an instant query, as they come.
    fn columns(&self, series: &RangeSeries) -> Vec<Column> {
        let floats = series.samples.iter().map(|s| (s.t, Number::Float(s.v)));
        let native = series.histograms.iter();
        let native = native.map(|s| (s.t, Number::Native(s.h.clone())));
        let mut samples: Vec<(Timestamp, Number)> = floats.chain(native).collect();
        samples.sort_by_key(|(t, _)| *t);
        let When::Range { start, step, .. } = self.when else {
            return samples.into_iter().map(|(_, v)| Some(v)).collect();
        };
        let mut columns = Vec::new();
        for (t, v) in samples {
            let offset = t.as_ms() - start;
            assert_eq!(offset % step, 0, "a sample off the steps: {t:?}");
            let at = usize::try_from(offset / step).expect("not before the start");
            columns.resize(at, None);
            columns.push(Some(v));
        }
        columns
    }

    fn rows(&self, got: Vec<(Labels, Vec<Column>)>) -> Result<(), String> {
        let rows = &self.expect.rows;
        if got.len() != rows.len() {
            return Err(format!("{} series, not {}: {got:?}", got.len(), rows.len()));
        }
        for (i, row) in rows.iter().enumerate() {
            let labels = row.labels.as_ref().ok_or("a line without labels")?;
            let at = got.iter().position(|(l, _)| l == labels);
            let at = at.ok_or_else(|| format!("no {labels} in {got:?}"))?;
            if self.expect.ordered && at != i {
                return Err(format!("{labels} is at {at}, not at {i}"));
            }
            let mut want = row.values.clone();
            while want.last().is_some_and(Option::is_none) {
                want.pop();
            }
            compare(&want, &got[at].1).map_err(|err| format!("{labels}: {err}"))?;
        }
        Ok(())
    }
}

fn compare(want: &[Column], got: &[Column]) -> Result<(), String> {
    let same = want.len() == got.len() && want.iter().zip(got).all(|(w, g)| equal(w, g));
    if same {
        Ok(())
    } else {
        Err(format!("got {got:?}, not {want:?}"))
    }
}

fn equal(a: &Column, b: &Column) -> bool {
    match (a, b) {
        (Some(Number::Native(a)), Some(Number::Native(b))) => native::same(a, b),
        (Some(Number::Float(a)), Some(Number::Float(b))) => {
            let (a, b) = (*a, *b);
            a == b
                || a.is_nan() && b.is_nan() && !is_stale_nan(b)
                || (a - b).abs() < TOLERANCE * a.abs().max(b.abs())
        }
        (a, b) => a.is_none() && b.is_none(),
    }
}
