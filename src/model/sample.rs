//! One measured value at one time, and the staleness marker.

use super::Timestamp;

/// A value at a time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was measured.
    pub t: Timestamp,
    /// The value; every f64 is legal and keeps its bits, NaN payloads included.
    pub v: f64,
}

/// The bits of the staleness marker, as in Prometheus: a NaN with payload 2.
const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The value that says "this series ended here".
#[inline]
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `v` is the staleness marker. Any other NaN is an ordinary value.
#[inline]
pub fn is_stale_nan(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

impl Sample {
    /// A sample at `ms` milliseconds since the epoch.
    #[inline]
    pub const fn new(ms: i64, v: f64) -> Sample {
        Sample {
            t: Timestamp::from_ms(ms),
            v,
        }
    }
}

/// Equal when time and bits are equal, so NaN equals itself and 0.0 differs from -0.0.
impl PartialEq for Sample {
    fn eq(&self, other: &Sample) -> bool {
        self.t == other.t && self.v.to_bits() == other.v.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marker_is_stale() {
        assert!(is_stale_nan(stale_nan()));
        assert!(stale_nan().is_nan());
        assert!(!is_stale_nan(f64::NAN));
    }
}
