//! Series on top of each other, absolutely or as shares of the whole.

use crate::model::{Sample, Timestamp};

/// How series are put on top of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stacking {
    /// Values add up.
    Normal,
    /// Values are shares of the sum of all.
    Percent,
}

/// One series of a stack: the upper and lower end at each time of the stack.
pub struct Layer {
    /// Upper ends.
    pub top: Vec<Sample>,
    /// Lower ends, at the same times.
    pub bottom: Vec<Sample>,
}

/// Stacks series. All layers have the same times; a missing value counts as
/// nothing. Negative values go down from zero, apart from the positive ones.
pub fn stack(series: &[&[Sample]], stacking: Stacking) -> Vec<Layer> {
    let mut times: Vec<Timestamp> = series.iter().flat_map(|s| s.iter()).map(|s| s.t).collect();
    times.sort_unstable();
    times.dedup();
    let columns: Vec<Vec<f64>> = series.iter().map(|s| column(s, &times)).collect();
    let totals: Vec<f64> = (0..times.len())
        .map(|i| columns.iter().map(|c| c[i].abs()).sum())
        .collect();
    let mut up = vec![0.0; times.len()];
    let mut down = vec![0.0; times.len()];
    columns
        .into_iter()
        .map(|column| {
            let mut layer = Layer {
                top: Vec::with_capacity(times.len()),
                bottom: Vec::with_capacity(times.len()),
            };
            for (i, t) in times.iter().enumerate() {
                let value = match stacking {
                    Stacking::Normal => column[i],
                    Stacking::Percent if totals[i] > 0.0 => column[i] / totals[i],
                    Stacking::Percent => 0.0,
                };
                let pile = if value < 0.0 {
                    &mut down[i]
                } else {
                    &mut up[i]
                };
                layer.bottom.push(Sample { t: *t, v: *pile });
                *pile += value;
                layer.top.push(Sample { t: *t, v: *pile });
            }
            layer
        })
        .collect()
}

/// The values at these times, 0 where there is none. Both are in time order.
fn column(samples: &[Sample], times: &[Timestamp]) -> Vec<f64> {
    let mut rest = samples.iter().peekable();
    times
        .iter()
        .map(|t| match rest.next_if(|sample| sample.t == *t) {
            Some(sample) if sample.v.is_finite() => sample.v,
            _ => 0.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pairs: &[(i64, f64)]) -> Vec<Sample> {
        let sample = |(t, v): &(i64, f64)| Sample {
            t: Timestamp::from_ms(*t),
            v: *v,
        };
        pairs.iter().map(sample).collect()
    }

    fn tops(stacking: Stacking) -> Vec<Vec<f64>> {
        let a = samples(&[(0, 1.0), (10, 2.0)]);
        let b = samples(&[(0, 3.0), (20, 4.0)]);
        stack(&[&a, &b], stacking)
            .iter()
            .map(|layer| layer.top.iter().map(|s| s.v).collect())
            .collect()
    }

    #[test]
    fn layers_add_up_and_missing_counts_as_nothing() {
        assert_eq!(tops(Stacking::Normal), [[1.0, 2.0, 0.0], [4.0, 2.0, 4.0]]);
    }

    #[test]
    fn shares_end_at_one() {
        assert_eq!(tops(Stacking::Percent), [[0.25, 1.0, 0.0], [1.0, 1.0, 1.0]]);
    }

    #[test]
    fn negative_values_hang_below_zero() {
        let a = samples(&[(0, 5.0)]);
        let b = samples(&[(0, -2.0)]);
        let layers = stack(&[&a, &b], Stacking::Normal);
        assert_eq!((layers[1].bottom[0].v, layers[1].top[0].v), (0.0, -2.0));
    }
}
