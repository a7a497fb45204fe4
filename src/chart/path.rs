//! Samples to path data: whole numbers, relative steps, gaps, few points.
//!
//! Relative whole numbers cost a browser an eighth of the time of absolute
//! decimals and half of the bytes.

use std::fmt::Write as _;

use super::scale::{WIDTH, XScale, YScale};
use crate::model::Sample;

/// A place on the canvas.
pub type Point = (i32, i32);

/// More points than the canvas has columns are not seen.
const POINTS_MAX: usize = 2400;

/// A series cut into runs without gaps, in canvas coordinates.
///
/// A gap is a distance of more than `gap_ms` or a value that is no number. When
/// there are more samples than columns, each column keeps its first, lowest,
/// highest and last value, so that no peak is lost.
pub fn runs(samples: &[Sample], x: &XScale, y: &YScale, gap_ms: i64) -> Vec<Vec<Point>> {
    let mut runs: Vec<Vec<Point>> = Vec::new();
    let mut last: Option<&Sample> = None;
    for sample in samples {
        if sample.v.is_nan() {
            last = None;
            continue;
        }
        let point = (x.x(sample.t), y.y(sample.v));
        let joined = last.is_some_and(|last| sample.t.ms_since(last.t) <= gap_ms);
        match runs.last_mut() {
            Some(run) if joined => run.push(point),
            _ => runs.push(vec![point]),
        }
        last = Some(sample);
    }
    if samples.len() > POINTS_MAX {
        for run in &mut runs {
            *run = decimated(run);
        }
    }
    runs
}

/// First, lowest, highest and last point of each column, in order.
fn decimated(run: &[Point]) -> Vec<Point> {
    let columns = WIDTH / (POINTS_MAX as f64 / 4.0);
    let column = |point: &Point| (f64::from(point.0) / columns).floor();
    let mut kept = Vec::new();
    for chunk in run.chunk_by(|a, b| column(a) == column(b)) {
        let extreme = |key: fn(&Point) -> i32| {
            let at = (0..chunk.len()).max_by_key(|i| key(&chunk[*i]));
            at.unwrap_or(0)
        };
        let mut picks = [0, extreme(|p| p.1), extreme(|p| -p.1), chunk.len() - 1];
        picks.sort_unstable();
        let mut previous = None;
        for pick in picks {
            if previous != Some(pick) {
                kept.push(chunk[pick]);
            }
            previous = Some(pick);
        }
    }
    kept
}

/// A line through the points of each run. A single point becomes a dot.
pub fn line(runs: &[Vec<Point>]) -> String {
    let mut d = String::new();
    for run in runs {
        open(&mut d, run[0]);
        follow(&mut d, run);
        if run.len() == 1 {
            d.push_str("h0");
        }
    }
    d
}

/// The same as steps: a value holds until the next one.
pub fn steps(runs: &[Vec<Point>]) -> Vec<Vec<Point>> {
    runs.iter()
        .map(|run| {
            let mut stepped = Vec::with_capacity(run.len() * 2);
            for pair in run.windows(2) {
                stepped.push(pair[0]);
                stepped.push((pair[1].0, pair[0].1));
            }
            stepped.extend(run.last());
            stepped
        })
        .collect()
}

/// The area between each run and the height `base`.
pub fn area(runs: &[Vec<Point>], base: i32) -> String {
    let mut d = String::new();
    for run in runs.iter().filter(|run| run.len() > 1) {
        open(&mut d, (run[0].0, base));
        let _ = write!(d, "V{}", run[0].1);
        follow(&mut d, run);
        let _ = write!(d, "V{base}Z");
    }
    d
}

/// The area between two lines over the same columns.
pub fn band(top: &[Point], bottom: &[Point]) -> String {
    let mut d = String::new();
    let (Some(first), Some(last)) = (top.first(), bottom.last()) else {
        return d;
    };
    open(&mut d, *first);
    follow(&mut d, top);
    let _ = write!(d, "L{} {}", last.0, last.1);
    let back: Vec<Point> = bottom.iter().rev().copied().collect();
    follow(&mut d, &back);
    d.push('Z');
    d
}

/// A dot at each point: segments without length, for round caps.
pub fn dots(runs: &[Vec<Point>]) -> String {
    let mut d = String::new();
    for (x, y) in runs.iter().flatten() {
        let _ = write!(d, "M{x} {y}h0");
    }
    d
}

/// A bar of this width between each point and the height `base`.
pub fn bars(runs: &[Vec<Point>], base: i32, width: i32) -> String {
    let width = width.max(1);
    let mut d = String::new();
    for (x, y) in runs.iter().flatten() {
        let _ = write!(d, "M{} {base}V{y}h{width}V{base}Z", x - width / 2);
    }
    d
}

fn open(d: &mut String, at: Point) {
    let _ = write!(d, "M{} {}", at.0, at.1);
}

/// Relative steps from the first point to all others; level ones are joined.
fn follow(d: &mut String, run: &[Point]) {
    if run.len() < 2 {
        return;
    }
    d.push('l');
    let mut at = run[0];
    for (i, point) in run.iter().enumerate().skip(1) {
        let level = point.1 == at.1 && run.get(i + 1).is_some_and(|next| next.1 == at.1);
        if level {
            continue;
        }
        let (dx, dy) = (point.0 - at.0, point.1 - at.1);
        if !d.ends_with('l') && dx >= 0 {
            d.push(' ');
        }
        let _ = write!(d, "{dx}");
        if dy >= 0 {
            d.push(' ');
        }
        let _ = write!(d, "{dy}");
        at = *point;
    }
}

#[cfg(test)]
mod tests {
    use super::super::scale::Spread;
    use super::*;
    use crate::model::Timestamp;

    fn scales(span_ms: i64) -> (XScale, YScale) {
        let x = XScale {
            start: Timestamp::from_ms(0),
            end: Timestamp::from_ms(span_ms),
        };
        let y = YScale {
            min: 0.0,
            max: 10.0,
            spread: Spread::Linear,
        };
        (x, y)
    }

    fn sample(t: i64, v: f64) -> Sample {
        Sample {
            t: Timestamp::from_ms(t),
            v,
        }
    }

    fn runs_of(pairs: &[(i64, f64)]) -> Vec<Vec<Point>> {
        let (x, y) = scales(100);
        let samples: Vec<Sample> = pairs.iter().map(|(t, v)| sample(*t, *v)).collect();
        runs(&samples, &x, &y, 15)
    }

    #[test]
    fn a_line_is_relative_and_whole() {
        let runs = runs_of(&[(0, 0.0), (10, 5.0), (20, 4.0)]);
        assert_eq!(line(&runs), "M0 1000l240-500 240 100");
    }

    #[test]
    fn a_gap_starts_again_and_a_lone_point_is_a_dot() {
        let runs = runs_of(&[(0, 0.0), (10, 5.0), (50, 1.0), (60, f64::NAN), (70, 2.0)]);
        assert_eq!(line(&runs), "M0 1000l240-500M1200 900h0M1680 800h0");
    }

    #[test]
    fn level_stretches_are_one_segment() {
        let runs = runs_of(&[(0, 1.0), (10, 1.0), (20, 1.0), (30, 2.0)]);
        assert_eq!(line(&runs), "M0 900l480 0 240-100");
    }

    #[test]
    fn areas_steps_bars_and_dots() {
        let runs = runs_of(&[(0, 1.0), (10, 2.0)]);
        assert_eq!(area(&runs, 1000), "M0 1000V900l240-100V1000Z");
        assert_eq!(line(&steps(&runs)), "M0 900l240 0 0-100");
        assert_eq!(dots(&runs), "M0 900h0M240 800h0");
        assert_eq!(
            bars(&runs, 1000, 100),
            "M-50 1000V900h100V1000ZM190 1000V800h100V1000Z"
        );
        assert_eq!(
            band(&runs[0], &[(0, 1000), (240, 1000)]),
            "M0 900l240-100L240 1000l-240 0Z"
        );
    }

    #[test]
    fn decimation_keeps_every_peak() {
        let (x, y) = scales(100_000);
        let samples: Vec<Sample> = (0..100_000)
            .map(|t| sample(t, if t == 54_321 { 9.0 } else { 1.0 }))
            .collect();
        let runs = runs(&samples, &x, &y, 15);
        assert_eq!(runs.len(), 1);
        assert!(runs[0].len() <= 2400, "{}", runs[0].len());
        assert!(runs[0].iter().any(|p| p.1 == 100));
    }
}
