//! Rules while the store takes no samples: the disk is full, or refuses transactions.
//! And rules after the clock stepped forward, which leaves all samples behind.
//!
//! Queries still see what is in the store, but nothing new comes in. Two things follow.
//! What a rule does not find any more may only be late, so nothing resolves until
//! samples have come in again for the lookback ([`Sight::is_blind`]). And the metrics
//! that say what is wrong are not in the store: they are gathered here and kept in
//! memory for a quarter of an hour, so that a rule on `pulse_store_failing` can fire.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::memory::Memory;
use super::merge;
use crate::codec::exposition::{for_each_sample, scraped_labels};
use crate::model::{Matcher, Sample, Timestamp};
use crate::promql::{HistogramSeries, QueryError, Queryable, SelectHints, Series};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::HOST_PREFIX;

/// How long own metrics are kept.
const KEEP_MS: i64 = 15 * 60_000;

/// How often they are gathered at most.
const GATHER_EVERY_MS: i64 = 10_000;

/// What the rules can rely on when they look at the store.
pub(super) struct Sight {
    store: Store,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the store last took no samples, or the clock stepped forward.
    last_blind: Option<Timestamp>,
    /// How far the clock was stepped when we looked last.
    stepped_ms: Option<i64>,
    gathered_at: Option<Timestamp>,
    own: Arc<Memory>,
}

impl Sight {
    /// Nothing is gathered yet.
    pub(super) fn new(store: Store, metrics: Arc<Metrics>) -> Sight {
        Sight {
            store,
            metrics,
            state: Mutex::default(),
        }
    }

    /// Whether samples may be missing that will still come: `Some` with our own
    /// metrics. Gathers them, so call it off the runtime. `instance` is the label, and
    /// `stepped_ms` what [`crate::model::Clock::stepped_ms`] says.
    pub(super) fn blind(
        &self,
        (now, stepped_ms): (Timestamp, i64),
        lookback: Duration,
        instance: &str,
    ) -> Option<Arc<Memory>> {
        let takes_samples = self.store.takes_samples();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !takes_samples {
            state.last_blind = Some(now);
            state.gather(&self.metrics, now, instance);
        }
        let before = state.stepped_ms.replace(stepped_ms);
        if before.is_some_and(|before| stepped_ms > before) {
            state.last_blind = Some(now);
        }
        let lookback = i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX);
        // A clock that was set back must not blind us for long.
        let since = state.last_blind.map(|last| now.ms_since(last).abs());
        if since.is_some_and(|since| since < lookback) {
            return Some(Arc::clone(&state.own));
        }
        *state = State {
            stepped_ms: state.stepped_ms,
            ..State::default()
        };
        None
    }
}

impl State {
    fn gather(&mut self, metrics: &Metrics, now: Timestamp, instance: &str) {
        let age = self.gathered_at.map(|at| now.ms_since(at));
        if age.is_some_and(|age| (0..GATHER_EVERY_MS).contains(&age)) {
            return;
        }
        self.gathered_at = Some(now);
        let own = Arc::make_mut(&mut self.own);
        own.forget_before(now.minus_ms(KEEP_MS));
        for family in metrics.gather() {
            let is_host = family.name().starts_with(HOST_PREFIX);
            let job = if is_host { "node" } else { "pulse" };
            for metric in family.get_metric() {
                for_each_sample(&family, metric, |sample| {
                    let labels = scraped_labels(job, instance, &family, metric, &sample);
                    own.push(&labels, Sample::new(now.as_ms(), sample.value));
                });
            }
        }
    }
}

/// The store with our own metrics beside it.
pub(super) struct Beside<'a> {
    pub(super) base: &'a dyn Queryable,
    pub(super) own: &'a Memory,
}

impl Queryable for Beside<'_> {
    fn select(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        let mut series = self.base.select(start, end, matchers, hints)?;
        let own = self.own.select(start, end, matchers, hints)?;
        merge::series(&mut series, own, hints.series_max)?;
        Ok(series)
    }

    fn histograms(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<HistogramSeries>, QueryError> {
        self.base.histograms(start, end, matchers, hints)
    }
}
