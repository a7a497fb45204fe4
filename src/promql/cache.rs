//! Answers of range queries, kept to be extended: a dashboard that is refreshed
//! asks for the same steps again but for the last few.
//!
//! An answer is kept with the version of the data it was computed from. Asked
//! again, the data says from what time on it has changed since, late and deleted
//! samples included; the steps before that time are taken over and the others are
//! evaluated. So an answer is never stale, and data that cannot tell what changed
//! is never cached. Queries that look at more than the past of each step (`@`,
//! negative offsets, `smoothed`, lengths computed from the query) are always
//! evaluated whole.
//!
//! One difference to a whole evaluation remains: two series whose labels became
//! the same are an error only when they meet in what is evaluated at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::ast::{Bounds, Expr, ExprKind, Selector};
use super::engine::Options;
use super::grid::Steps;
use super::length::Length;
use super::value::{Output, RangeSeries, Value};
use crate::model::{Sample, Timestamp};

/// The kept answers. The default keeps none.
#[derive(Default)]
pub struct RangeCache {
    bytes_max: usize,
    state: Mutex<State>,
}

impl std::fmt::Debug for RangeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes_max = self.bytes_max;
        f.debug_struct("RangeCache")
            .field("bytes_max", &bytes_max)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Used>,
    bytes: usize,
    /// Counts uses; the answer that was not used for longest goes first.
    uses: u64,
}

/// An answer and when it was used last.
struct Used {
    kept: Arc<Kept>,
    at: u64,
}

/// An answer.
struct Kept {
    /// Of the data, before it was read.
    version: u64,
    first: i64,
    last: i64,
    series: Vec<RangeSeries>,
    warnings: Vec<String>,
    infos: Vec<String>,
    bytes: usize,
}

/// What is known of a query before it is evaluated.
pub(super) struct Known {
    key: String,
    version: u64,
    /// The first of the steps that have to be evaluated.
    pub(super) from: i64,
    kept: Option<Arc<Kept>>,
}

/// An answer never takes more than this part of the room.
const SHARE_MAX: usize = 4;

impl RangeCache {
    /// A cache of answers of at most so many bytes; none when 0.
    pub fn new(bytes_max: usize) -> RangeCache {
        RangeCache {
            bytes_max,
            state: Mutex::default(),
        }
    }

    /// Looks a query up. `version` is that of the data now, and `changed_since`
    /// says from what time on it changed since another version. `None` when the
    /// query is not one to be kept.
    pub(super) fn look_up(
        &self,
        expr: &Expr,
        options: &Options,
        steps: Steps,
        version: u64,
        changed_since: impl Fn(u64) -> Timestamp,
    ) -> Option<Known> {
        // A single step is the case of rules and tables: nothing to gain.
        if self.bytes_max == 0 || steps.count < 2 || !looks_back_only(expr) {
            return None;
        }
        let phase = steps.start.rem_euclid(steps.step);
        let lookback = options.lookback.as_millis();
        let (step, features) = (steps.step, options.features);
        let key = format!("{step} {phase} {lookback} {features:?} {expr}");
        let mut from = steps.start;
        let mut kept = self.find(&key).filter(|kept| kept.first <= steps.start);
        if let Some(kept) = &kept {
            let changed = changed_since(kept.version).as_ms();
            let end = steps.last().saturating_add(step);
            let after = kept.last.saturating_add(step).min(end);
            from = after.min(next_step(steps, changed));
        }
        if from <= steps.start {
            (from, kept) = (steps.start, None);
        }
        Some(Known {
            key,
            version,
            from,
            kept,
        })
    }

    fn find(&self, key: &str) -> Option<Arc<Kept>> {
        let mut state = self.lock();
        state.uses += 1;
        let now = state.uses;
        let used = state.answers.get_mut(key)?;
        used.at = now;
        Some(Arc::clone(&used.kept))
    }

    /// Puts what was kept before what was evaluated, and keeps the whole.
    pub(super) fn complete(&self, known: Known, steps: Steps, mut output: Output) -> Output {
        let Value::Matrix(fresh) = output.value else {
            return output;
        };
        let series = match &known.kept {
            Some(kept) => {
                add_missing(&mut output.warnings, &kept.warnings);
                add_missing(&mut output.infos, &kept.infos);
                joined(&kept.series, (steps.start, known.from), fresh)
            }
            None => fresh,
        };
        output.value = Value::Matrix(series);
        self.keep(known, steps, &output);
        output
    }

    fn keep(&self, known: Known, steps: Steps, output: &Output) {
        let Value::Matrix(series) = &output.value else {
            return;
        };
        // What cannot be read today may be read after a repair.
        if output.is_incomplete {
            return;
        }
        // They are rare, and their size would have to be counted.
        if series.iter().any(|s| !s.histograms.is_empty()) {
            return;
        }
        let one = |s: &RangeSeries| size_of::<RangeSeries>() + size_of_val(&s.samples[..]);
        let bytes = known.key.len() + series.iter().map(one).sum::<usize>();
        if bytes > self.bytes_max / SHARE_MAX {
            return;
        }
        let kept = Kept {
            version: known.version,
            first: steps.start,
            last: steps.last(),
            series: series.clone(),
            warnings: output.warnings.clone(),
            infos: output.infos.clone(),
            bytes,
        };
        self.lock().insert(known.key, kept, self.bytes_max);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, key: String, kept: Kept, bytes_max: usize) {
        self.uses += 1;
        self.bytes += kept.bytes;
        let used = Used {
            kept: Arc::new(kept),
            at: self.uses,
        };
        if let Some(old) = self.answers.insert(key, used) {
            self.bytes -= old.kept.bytes;
        }
        while self.bytes > bytes_max {
            let oldest = self.answers.iter().min_by_key(|(_, used)| used.at);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            let gone = self.answers.remove(&key).expect("it was just found");
            self.bytes -= gone.kept.bytes;
        }
    }
}

/// The first step that is not before `t`, which may lie after the last one.
fn next_step(steps: Steps, t: i64) -> i64 {
    if t <= steps.start {
        return steps.start;
    }
    let past = t.saturating_sub(steps.start);
    let whole = past / steps.step + i64::from(past % steps.step != 0);
    steps.start.saturating_add(whole.saturating_mul(steps.step))
}

fn add_missing(texts: &mut Vec<String>, more: &[String]) {
    for text in more {
        if !texts.contains(text) {
            texts.push(text.clone());
        }
    }
}

/// The kept samples in `from..until` and after them the fresh ones, series by
/// series; both lists are sorted by labels.
fn joined(
    kept: &[RangeSeries],
    (from, until): (i64, i64),
    fresh: Vec<RangeSeries>,
) -> Vec<RangeSeries> {
    let mut all: Vec<RangeSeries> = Vec::with_capacity(kept.len().max(fresh.len()));
    let mut fresh = fresh.into_iter().peekable();
    for old in kept {
        while let Some(new) = fresh.next_if(|new| new.labels < old.labels) {
            all.push(new);
        }
        let mut joined = RangeSeries {
            labels: old.labels.clone(),
            samples: within(&old.samples, from, until).to_vec(),
            histograms: Vec::new(),
        };
        if let Some(new) = fresh.next_if(|new| new.labels == old.labels) {
            joined.samples.extend(new.samples);
            joined.histograms = new.histograms;
        }
        if !joined.samples.is_empty() || !joined.histograms.is_empty() {
            all.push(joined);
        }
    }
    all.extend(fresh);
    all
}

fn within(samples: &[Sample], from: i64, until: i64) -> &[Sample] {
    let start = samples.partition_point(|s| s.t.as_ms() < from);
    let end = samples.partition_point(|s| s.t.as_ms() < until);
    &samples[start..end.max(start)]
}

/// Whether the value at a step depends on nothing later than the step, and not on
/// where the query begins and ends.
fn looks_back_only(expr: &Expr) -> bool {
    let past = |offset: &Length| offset.ms >= 0 && !offset.depends_on_query();
    let selects_past = |selector: &Selector| {
        past(&selector.offset) && selector.at.is_none() && selector.bounds != Bounds::Smoothed
    };
    match &expr.kind {
        ExprKind::Number(_) => true,
        // Has no value over time.
        ExprKind::String(_) => true,
        ExprKind::Selector(selector) => selects_past(selector),
        ExprKind::Matrix(matrix) => {
            selects_past(&matrix.selector) && !matrix.range.depends_on_query()
        }
        ExprKind::Subquery(subquery) => {
            past(&subquery.offset)
                && subquery.at.is_none()
                && !subquery.range.depends_on_query()
                && !subquery.step.as_ref().is_some_and(Length::depends_on_query)
                && looks_back_only(&subquery.expr)
        }
        ExprKind::Call(call) => call.args.iter().all(looks_back_only),
        ExprKind::Aggregate(aggregate) => {
            aggregate.param.as_ref().is_none_or(looks_back_only) && looks_back_only(&aggregate.expr)
        }
        ExprKind::Binary(binary) => looks_back_only(&binary.lhs) && looks_back_only(&binary.rhs),
        ExprKind::Unary(unary) => looks_back_only(&unary.expr),
        ExprKind::Paren(inner) => looks_back_only(inner),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::queryable::{QueryError, Queryable, SelectHints, Series};
    use super::super::{Engine, parse};
    use super::*;
    use crate::model::{Labels, Matcher};

    /// Three series, and the earliest time of each change.
    #[derive(Default)]
    struct Memory {
        samples: [std::collections::BTreeMap<i64, f64>; 3],
        changes: Vec<i64>,
    }

    impl Memory {
        fn write(&mut self, series: usize, t: i64, v: f64) {
            self.samples[series].insert(t, v);
            self.changes.push(t);
        }
    }

    impl Queryable for Memory {
        fn select(
            &self,
            start: Timestamp,
            end: Timestamp,
            matchers: &[Matcher],
            _hints: &SelectHints,
        ) -> Result<Vec<Series>, QueryError> {
            let series = |(i, samples): (usize, &std::collections::BTreeMap<i64, f64>)| Series {
                labels: Labels::from_pairs([("__name__", "a"), ("i", &i.to_string())]),
                samples: samples
                    .range(start.as_ms()..=end.as_ms())
                    .map(|(t, v)| Sample::new(*t, *v))
                    .collect(),
            };
            let all = self.samples.iter().enumerate().map(series);
            let wanted = |s: &Series| {
                !s.samples.is_empty() && matchers.iter().all(|m| m.matches_labels(&s.labels))
            };
            Ok(all.filter(wanted).collect())
        }

        fn version(&self) -> Option<u64> {
            Some(self.changes.len() as u64)
        }

        fn changed_since(&self, version: u64) -> Timestamp {
            let since = &self.changes[usize::try_from(version).unwrap()..];
            since
                .iter()
                .min()
                .map_or(Timestamp::MAX, |t| Timestamp::from_ms(*t))
        }
    }

    fn ask(engine: &Engine, data: &Memory, query: &str, (start, steps): (i64, i64)) -> Output {
        let expr = parse(query).unwrap();
        let cancel = Arc::new(AtomicBool::new(false));
        let times = [start, start + steps * 10 + 3].map(Timestamp::from_ms);
        let step = Duration::from_millis(10);
        engine
            .range(data, &expr, times[0], times[1], step, &cancel)
            .unwrap()
    }

    const QUERIES: [&str; 7] = [
        "a",
        "sum(a)",
        "count_over_time(a[50ms])",
        "a{i=\"1\"} + on() group_left vector(time())",
        "max_over_time(sum(a)[60ms:20ms]) or a offset 30ms",
        "a @ end()",
        "a offset -20ms",
    ];

    #[derive(Clone, Debug)]
    enum Act {
        Write(usize, i64, f64),
        Ask(usize, i64, i64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..3usize, 0..600i64, 0.0..9.0f64).prop_map(|(i, t, v)| Act::Write(i, t, v.round())),
            // Steps of the same phase mostly, so that answers meet again.
            (0..QUERIES.len(), 0..30i64, 0..40i64).prop_map(|(q, start, steps)| Act::Ask(
                q,
                start * 10 + i64::from(start == 7),
                steps
            )),
        ]
    }

    proptest! {
        #[test]
        fn an_answer_with_the_cache_is_the_one_without(acts in prop::collection::vec(act(), 1..120)) {
            let mut data = Memory::default();
            let fresh = Engine::default();
            let cached = Engine {
                cache: Arc::new(RangeCache::new(20_000)),
                ..Engine::default()
            };
            for act in acts {
                match act {
                    Act::Write(series, t, v) => data.write(series, t, v),
                    Act::Ask(query, start, steps) => {
                        let want = ask(&fresh, &data, QUERIES[query], (start, steps));
                        let got = ask(&cached, &data, QUERIES[query], (start, steps));
                        prop_assert_eq!(got.value, want.value, "{}", QUERIES[query]);
                    }
                }
            }
            prop_assert!(cached.cache.lock().bytes <= 20_000);
        }
    }

    #[test]
    fn only_new_steps_are_evaluated() {
        let mut data = Memory::default();
        for t in 0..100 {
            data.write(0, t * 10, 1.0);
        }
        let engine = Engine {
            cache: Arc::new(RangeCache::new(1 << 20)),
            ..Engine::default()
        };
        let read = |data: &Memory, range| ask(&engine, data, "rate(a[20ms])", range).samples_read;
        assert_eq!(read(&data, (0, 90)), 91);
        assert_eq!(read(&data, (100, 80)), 0, "the same steps but the first");
        data.write(0, 1_000, 2.0);
        assert_eq!(
            read(&data, (100, 91)),
            11,
            "the steps from 910 with their windows"
        );
        data.write(0, 505, 2.0);
        assert!(read(&data, (100, 91)) > 40, "a late sample");
    }
}
