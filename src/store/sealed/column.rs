//! The value column: lossless for every f64.

use std::ops::Range;

/// Bytes that no encoder of ours has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed column: {0}")]
pub struct Malformed(pub &'static str);

/// How long to look for the smallest form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Packed integers, else xor: about 10 ns a sample. For chunks in memory.
    Cheap,
    /// As `Cheap`, and pco for what is not decimal. For the hourly seal.
    Fast,
    /// The smallest of all forms, 100 to 200 ns a sample. For what is kept long.
    Best,
}

/// Encodes columns; keeps its buffers between calls.
#[derive(Default)]
pub struct Encoder {}

#[expect(clippy::todo, clippy::ptr_arg, unused_variables, reason = "skeleton")]
impl Encoder {
    /// Appends the column to `out`. At most 65,536 values.
    pub fn encode(&mut self, values: &[f64], effort: Effort, out: &mut Vec<u8>) {
        todo!()
    }
}

/// Appends the `n` values of a column to `out`.
///
/// # Errors
/// When the bytes are not a column of `n` values; `out` is then as before.
#[expect(clippy::todo, clippy::ptr_arg, unused_variables, reason = "skeleton")]
pub fn decode(bytes: &[u8], n: usize, out: &mut Vec<f64>) -> Result<(), Malformed> {
    todo!()
}

/// Appends the values at `range` of a column of `n` values to `out`.
///
/// # Errors
/// As [`decode`].
#[expect(clippy::todo, clippy::ptr_arg, unused_variables, reason = "skeleton")]
pub fn decode_range(
    bytes: &[u8],
    n: usize,
    range: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Malformed> {
    todo!()
}
