//! Series in memory beside those of the store.

use crate::model::Sample;
use crate::promql::{HistogramSeries, QueryError, Series};

/// Adds series to those that are there; both are sorted. Of two samples at one time the
/// stored one stays, as the store will decide.
///
/// # Errors
/// When there are more than `series_max` together.
pub(super) fn series(
    stored: &mut Vec<Series>,
    more: Vec<Series>,
    series_max: usize,
) -> Result<(), QueryError> {
    let known = stored.len();
    for new in more {
        match stored[..known].binary_search_by(|old| old.labels.cmp(&new.labels)) {
            Ok(at) => samples(&mut stored[at].samples, new.samples),
            Err(_) => stored.push(new),
        }
    }
    if stored.len() > known {
        // Two sorted runs: one pass.
        stored.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
    if stored.len() > series_max {
        return Err(QueryError::TooManySeries(series_max));
    }
    Ok(())
}

fn samples(stored: &mut Vec<Sample>, more: Vec<Sample>) {
    let last = stored.last().map(|sample| sample.t);
    if more.first().map(|sample| sample.t) > last {
        stored.extend(more);
        return;
    }
    for sample in more {
        if let Err(at) = stored.binary_search_by_key(&sample.t, |s| s.t) {
            stored.insert(at, sample);
        }
    }
}

/// As [`series`], native histograms, which are in no order. What is not later than the
/// stored ones is left out.
pub(super) fn histograms(stored: &mut Vec<HistogramSeries>, more: Vec<HistogramSeries>) {
    for new in more {
        match stored.iter_mut().find(|old| old.labels == new.labels) {
            Some(old) => {
                let last = old.samples.last().map(|s| s.t);
                let later = new.samples.into_iter().filter(|s| Some(s.t) > last);
                old.samples.extend(later);
            }
            None => stored.push(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn of(name: &str, times: &[i64], v: f64) -> Series {
        Series {
            labels: Labels::from_pairs([("__name__", name)]),
            samples: times.iter().map(|t| Sample::new(*t, v)).collect(),
        }
    }

    #[test]
    fn series_and_samples_stay_in_order_and_the_stored_one_of_two_stays() {
        let mut all = vec![of("b", &[1, 3], 1.0), of("d", &[1], 1.0)];
        let more = vec![
            of("a", &[9], 2.0),
            of("b", &[2, 3, 4], 2.0),
            of("c", &[9], 2.0),
            of("d", &[2, 3], 2.0),
        ];
        series(&mut all, more, 4).unwrap();
        let got: Vec<(&str, Vec<(i64, f64)>)> = all
            .iter()
            .map(|s| {
                let samples = s.samples.iter().map(|s| (s.t.as_ms(), s.v));
                (s.labels.metric_name(), samples.collect())
            })
            .collect();
        let want = [
            ("a", vec![(9, 2.0)]),
            ("b", vec![(1, 1.0), (2, 2.0), (3, 1.0), (4, 2.0)]),
            ("c", vec![(9, 2.0)]),
            ("d", vec![(1, 1.0), (2, 2.0), (3, 2.0)]),
        ];
        assert_eq!(got, want);
        let error = series(&mut all, vec![of("e", &[1], 1.0)], 4).unwrap_err();
        assert!(matches!(error, QueryError::TooManySeries(4)), "{error:?}");
    }
}
