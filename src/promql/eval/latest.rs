//! What an instant selector sees of a series.

use super::super::grid::{Element, Steps, absent};
use super::super::window::Edge;
use crate::model::{HistogramSample, Sample, Timestamp, is_stale_nan};

/// Appends the latest sample of each step. Each is seen for as long as `reach` says
/// for its time.
pub(super) fn latest(
    samples: &[Sample],
    steps: Steps,
    reach: impl Fn(i64) -> i64,
    times: bool,
    cells: &mut Vec<f64>,
) {
    let mut seen = Edge::default();
    for i in 0..steps.count {
        let t = steps.time(i);
        let value = match samples[..seen.move_to(samples, t)].last() {
            // The lookback is open on the left, as every window.
            Some(s) if s.t.as_ms() > t.saturating_sub(reach(s.t.as_ms())) && !is_stale_nan(s.v) => {
                if times {
                    s.t.as_secs_f64()
                } else {
                    s.v
                }
            }
            _ => absent(),
        };
        cells.push(value);
    }
}

/// The latest sample of either kind at a time; of two at the same, the number.
pub(super) fn latest_mixed(
    samples: &[Sample],
    native: &[HistogramSample],
    t: i64,
    lookback: i64,
    times: bool,
) -> Element {
    let float = samples[..samples.partition_point(|s| s.t.as_ms() <= t)].last();
    let native = native[..native.partition_point(|s| s.t.as_ms() <= t)].last();
    let fresh = |at: Timestamp| at.as_ms() > t.saturating_sub(lookback);
    match (float, native) {
        (Some(s), n) if n.is_none_or(|n| n.t <= s.t) => {
            if !fresh(s.t) || is_stale_nan(s.v) {
                Element::Absent
            } else {
                Element::Float(if times { s.t.as_secs_f64() } else { s.v })
            }
        }
        (_, Some(n)) if fresh(n.t) => {
            if times {
                Element::Float(n.t.as_secs_f64())
            } else {
                Element::Histogram(n.h.clone())
            }
        }
        _ => Element::Absent,
    }
}
