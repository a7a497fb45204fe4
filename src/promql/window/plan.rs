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
    rates: Rates,
}

/// Windows as rates need them. What is looked at for every step of every series lies
/// together.
#[derive(Default)]
pub(super) struct Rates {
    pub(super) extents: Vec<Extent>,
    pub(super) gaps: Vec<Gaps>,
    /// The least of all that are sampled, and the most that one reaches back.
    sampled_min: f64,
    to_start_max: f64,
}

/// What of a window lies between samples.
#[derive(Clone, Copy, Default)]
pub(super) struct Extent {
    /// The index of the first sample.
    pub(super) low: u32,
    /// The index of the last one; not above `low` when there are fewer than two.
    pub(super) last: u32,
    /// By how much an increase between the samples grows when it is extended to both
    /// ends, for each unit.
    pub(super) factor: f64,
}

/// How a window lies around its samples.
#[derive(Clone, Copy, Default)]
pub(super) struct Gaps {
    /// From the first to the last sample in ms.
    pub(super) sampled: f64,
    /// How far the window reaches back before the first one, and on behind the last.
    pub(super) to_start: f64,
    pub(super) to_end: f64,
}

impl Rates {
    /// Whether no window reaches back to where a counter was zero that rose from `first`
    /// by `increase` over all of them.
    pub(super) fn begin_above_zero(&self, first: f64, increase: f64) -> bool {
        first >= 0.0 && self.sampled_min * first >= self.to_start_max * increase
    }

    fn push(&mut self, extent: Extent, gaps: Gaps) {
        if extent.last > extent.low {
            self.sampled_min = self.sampled_min.min(gaps.sampled);
            self.to_start_max = self.to_start_max.max(gaps.to_start);
        }
        self.extents.push(extent);
        self.gaps.push(gaps);
    }

    fn clear(&mut self) {
        self.extents.clear();
        self.gaps.clear();
        (self.sampled_min, self.to_start_max) = (f64::INFINITY, 0.0);
    }
}

impl Plan {
    /// The windows of these samples, for rates of this unit.
    pub(super) fn rates(&mut self, windows: &Windows, unit: f64, samples: &[Sample]) -> &Rates {
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
        // Without a branch for each, and with what the processor does for several.
        let apart = |any: i64, (t, s): (&i64, &Sample)| any | (*t ^ s.t.as_ms());
        pairs.fold(0, apart) == 0
    }

    fn fill(&mut self, windows: &Windows, unit: f64, samples: &[Sample]) {
        windows.walk(samples, |w| {
            let of_window = w.and_then(|w| {
                let span = Span::of(&w)?;
                let to_start = span.to_start_limited();
                let extent = Extent {
                    low: u32::try_from(w.low).ok()?,
                    last: u32::try_from(w.high - 1).ok()?,
                    factor: span.factor(to_start, unit),
                };
                let gaps = Gaps {
                    sampled: span.sampled(),
                    to_start,
                    to_end: span.to_end_limited(),
                };
                Some((extent, gaps))
            });
            let (extent, gaps) = of_window.unwrap_or_default();
            self.rates.push(extent, gaps);
        });
    }
}
