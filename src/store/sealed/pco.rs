//! pco as one of our forms: its wrapped format with one chunk of one page.
//!
//! The decoder of the crate is built for hostile bytes too, but it is only ever
//! called behind a page's checksum. What it encoded is decoded again and compared
//! bit by bit before it is kept: a codec that is not ours gets no benefit of doubt.

use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, PagingSpec};

use super::Malformed;

/// A number whose bits can be compared.
pub(super) trait Exact: Number + Default + Copy {
    fn same(self, other: Self) -> bool;
}

impl Exact for i64 {
    fn same(self, other: i64) -> bool {
        self == other
    }
}

impl Exact for f64 {
    fn same(self, other: f64) -> bool {
        self.to_bits() == other.to_bits()
    }
}

/// Replaces `out[start..]` by pco's form of the values when that is smaller; says
/// whether it did.
pub(super) fn encode_if_smaller<T: Exact>(
    values: &[T],
    level: usize,
    start: usize,
    out: &mut Vec<u8>,
) -> bool {
    match encode(values, level) {
        Some(bytes) if bytes.len() < out.len() - start => {
            out.truncate(start);
            out.extend_from_slice(&bytes);
            true
        }
        _ => false,
    }
}

/// pco's form; nothing when it does not come back bit by bit.
pub(super) fn encode<T: Exact>(values: &[T], level: usize) -> Option<Vec<u8>> {
    try_encode(values, level).filter(|bytes| comes_back(values, bytes))
}

fn comes_back<T: Exact>(values: &[T], bytes: &[u8]) -> bool {
    let mut back = Vec::new();
    decode::<T>(bytes, values.len(), &mut back).is_ok()
        && values.iter().zip(&back).all(|(a, b)| a.same(*b))
}

fn try_encode<T: Exact>(values: &[T], level: usize) -> Option<Vec<u8>> {
    let file = FileCompressor::default();
    let config = ChunkConfig::default()
        .with_compression_level(level)
        .with_paging_spec(PagingSpec::Exact(vec![values.len()]));
    let mut chunk = file.chunk_compressor(values, &config).ok()?;
    let bytes = file.write_header(Vec::new()).ok()?;
    let bytes = chunk.write_meta(bytes).ok()?;
    chunk.write_page(0, bytes).ok()
}

/// Appends `n` numbers to `out`.
pub(super) fn decode<T: Exact>(bytes: &[u8], n: usize, out: &mut Vec<T>) -> Result<(), Malformed> {
    let broken = |_| Malformed("pco");
    let (file, rest) = FileDecompressor::new(bytes).map_err(broken)?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest).map_err(broken)?;
    let mut page = chunk.page_decompressor(rest, n).map_err(broken)?;
    let start = out.len();
    out.resize(start + n, T::default());
    match page.read(&mut out[start..]) {
        Ok(progress) if progress.n_processed == n => Ok(()),
        _ => {
            out.truncate(start);
            Err(Malformed("pco"))
        }
    }
}
