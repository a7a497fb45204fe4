//! The timestamp column.

use super::column::Malformed;

/// Appends the column of these milliseconds, which must ascend, to `out`. At most 65,536.
#[expect(clippy::todo, clippy::ptr_arg, unused_variables, reason = "skeleton")]
pub fn encode(times: &[i64], out: &mut Vec<u8>) {
    todo!()
}

/// Appends the `n` times of a column to `out`.
///
/// # Errors
/// When the bytes are not a column of `n` ascending times; `out` is then as before.
#[expect(clippy::todo, clippy::ptr_arg, unused_variables, reason = "skeleton")]
pub fn decode(bytes: &[u8], n: usize, out: &mut Vec<i64>) -> Result<(), Malformed> {
    todo!()
}
