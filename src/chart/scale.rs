//! From values and times to places on the canvas.

use crate::model::Timestamp;

/// The canvas' width in units.
pub const WIDTH: f64 = 2400.0;
/// The canvas' height in units.
pub const HEIGHT: f64 = 1000.0;

/// How values are spread over the height.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Spread {
    /// Evenly.
    #[default]
    Linear,
    /// By their logarithm to this base.
    Log(f64),
}

/// The value axis: what lies at the bottom and at the top.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct YScale {
    /// The value at the bottom.
    pub min: f64,
    /// The value at the top; always above `min`.
    pub max: f64,
    /// How values are spread.
    pub spread: Spread,
}

impl YScale {
    /// How far up a value lies: 0 is the bottom, 1 the top; outside of that when
    /// it is not on the axis.
    pub fn fraction(&self, value: f64) -> f64 {
        match self.spread {
            Spread::Linear => (value - self.min) / (self.max - self.min),
            Spread::Log(_) => {
                let low = self.min.max(f64::MIN_POSITIVE).log10();
                let high = self.max.log10();
                (value.max(f64::MIN_POSITIVE).log10() - low) / (high - low)
            }
        }
    }

    /// The canvas coordinate, kept within one height around the canvas, so that
    /// what leaves the axis is cut off by the edge and not by a wrong number.
    pub fn y(&self, value: f64) -> i32 {
        let fraction = self.fraction(value).clamp(-1.0, 2.0);
        units(HEIGHT * (1.0 - fraction))
    }
}

/// The time axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XScale {
    /// The time at the left edge.
    pub start: Timestamp,
    /// The time at the right edge; after `start`.
    pub end: Timestamp,
}

impl XScale {
    /// How far to the right a time lies: 0 to 1.
    pub fn fraction(&self, t: Timestamp) -> f64 {
        let span = self.end.ms_since(self.start).max(1);
        t.ms_since(self.start) as f64 / span as f64
    }

    /// The canvas coordinate.
    pub fn x(&self, t: Timestamp) -> i32 {
        units(WIDTH * self.fraction(t).clamp(-1.0, 2.0))
    }
}

/// A canvas coordinate as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    reason = "callers clamp to a few canvases; a cast of NaN gives 0"
)]
pub fn units(value: f64) -> i32 {
    value.round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_far_outside_stay_near_the_canvas() {
        let scale = YScale {
            min: 0.0,
            max: 1.0,
            spread: Spread::Linear,
        };
        assert_eq!(scale.y(0.0), 1000);
        assert_eq!(scale.y(1.0), 0);
        assert_eq!(scale.y(1e300), -1000);
        assert_eq!(scale.y(f64::NAN), 0);
    }

    #[test]
    fn a_logarithmic_axis_gives_each_power_the_same_room() {
        let scale = YScale {
            min: 1.0,
            max: 100.0,
            spread: Spread::Log(10.0),
        };
        assert_eq!(scale.y(10.0), 500);
        assert_eq!(scale.y(0.0), 2000);
    }
}
