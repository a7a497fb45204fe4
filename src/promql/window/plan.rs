//! Where the windows of a series begin and end, kept for the next series.
//!
//! The series of one scrape have the same times, and so the same windows: how many
//! samples these hold, and by how much a rate is extended to their ends, is found out
//! once for all of them. To see that the times are the same costs a look at each.

use super::Windows;
use super::rate::Span;
use crate::model::Sample;

/// The windows of series with the same times.
#[derive(Default)]
pub(in super::super) struct Plan {
    /// What the windows are of, and for each what unit of time rates are.
    of: Option<(Windows, f64)>,
    times: Vec<i64>,
    rates: Vec<Extent>,
}

/// A window as a rate needs it.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// The index of the first sample.
    pub(super) low: u32,
    /// The index of the last one; not above `low` when there are fewer than two.
    pub(super) last: u32,
    /// From the first to the last sample in ms.
    pub(super) sampled: f64,
    /// How far the window reaches back before the first one, and on behind the last.
    pub(super) to_start: f64,
    pub(super) to_end: f64,
    /// By how much an increase between the samples grows when it is extended to both
    /// ends, for each unit.
    pub(super) factor: f64,
}

impl Plan {
    /// The windows of these samples, for rates of this unit.
    pub(super) fn rates(&mut self, windows: &Windows, unit: f64, samples: &[Sample]) -> &[Extent] {
        if self.of != Some((*windows, unit)) || !self.has_times(samples) {
            self.of = Some((*windows, unit));
            self.times.clear();
            self.times.extend(samples.iter().map(|s| s.t.as_ms()));
            self.rates.clear();
            self.fill(windows, unit, samples);
        }
        &self.rates
    }

    fn has_times(&self, samples: &[Sample]) -> bool {
        let first = samples.first().map(|s| s.t.as_ms());
        if self.times.len() != samples.len() || self.times.first().copied() != first {
            return false;
        }
        let pairs = self.times.iter().zip(samples);
        // Without a branch for each.
        pairs.fold(true, |same, (t, s)| same & (*t == s.t.as_ms()))
    }

    fn fill(&mut self, windows: &Windows, unit: f64, samples: &[Sample]) {
        let none = Extent {
            low: 0,
            last: 0,
            sampled: 0.0,
            to_start: 0.0,
            to_end: 0.0,
            factor: 0.0,
        };
        self.rates.reserve(windows.steps.count);
        windows.walk(samples, |w| {
            let extent = w.and_then(|w| {
                let span = Span::of(&w)?;
                let to_start = span.to_start_limited();
                Some(Extent {
                    low: u32::try_from(w.low).ok()?,
                    last: u32::try_from(w.high - 1).ok()?,
                    sampled: span.sampled(),
                    to_start,
                    to_end: span.to_end_limited(),
                    factor: span.factor(to_start, unit),
                })
            });
            self.rates.push(extent.unwrap_or(none));
        });
    }
}
