//! pco as one of our forms: its wrapped format with one chunk, of one page or, in
//! long columns, of many.
//!
//! The decoder of the crate is built for hostile bytes too, but it is only ever
//! called behind a page's checksum. What it encoded is decoded again and compared
//! bit by bit before it is kept: a codec that is not ours gets no benefit of doubt.

use std::ops::Range;

use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, PagingSpec};

use super::Malformed;
use super::varint::{Reader, put_u64};

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

/// pco's form; nothing when it does not come back bit by bit.
pub(super) fn encode<T: Exact>(values: &[T], level: usize) -> Option<Vec<u8>> {
    try_encode(values, level).filter(|bytes| comes_back(values, bytes))
}

fn comes_back<T: Exact>(values: &[T], bytes: &[u8]) -> bool {
    let mut back = Vec::new();
    decode::<T>(bytes, values.len(), &mut back).is_ok() && all_same(values, &back)
}

fn all_same<T: Exact>(values: &[T], back: &[T]) -> bool {
    values.len() == back.len() && values.iter().zip(back).all(|(a, b)| a.same(*b))
}

fn try_encode<T: Exact>(values: &[T], level: usize) -> Option<Vec<u8>> {
    let file = FileCompressor::default();
    let mut chunk = file
        .chunk_compressor(values, &config(level, vec![values.len()]))
        .ok()?;
    let bytes = file.write_header(Vec::new()).ok()?;
    let bytes = chunk.write_meta(bytes).ok()?;
    chunk.write_page(0, bytes).ok()
}

fn config(level: usize, pages: Vec<usize>) -> ChunkConfig {
    ChunkConfig::default()
        .with_compression_level(level)
        .with_paging_spec(PagingSpec::Exact(pages))
}

/// The values of one page of a long column. Measured: pages of 480 cost a column of
/// 5,760 under 3 % and make a look at one hour of a day twelve times cheaper. Of a
/// sample a minute an hour is little of any page, and each page takes 15 bytes of a
/// column of some hundred: there they are longer.
fn page_values(n: usize) -> usize {
    if n > 2_880 { 480 } else { 720 }
}

/// How many values each page of a column of `n` has: the last one takes the rest.
fn page_sizes(n: usize, page_values: usize) -> impl Iterator<Item = usize> {
    (0..n)
        .step_by(page_values)
        .map(move |at| page_values.min(n - at))
}

/// Whether a column of this many values is worth more than one page.
pub(super) fn is_long(n: usize) -> bool {
    n > page_values(n) * 3 / 2
}

/// The form with many pages, each of which can be decoded alone; nothing when it
/// does not come back bit by bit.
///
/// `values in a page varint | length of each page varint.. | header, chunk | pages`
pub(super) fn encode_pages<T: Exact>(values: &[T], level: usize) -> Option<Vec<u8>> {
    try_encode_pages(values, level).filter(|bytes| {
        let mut back = Vec::new();
        let read = decode_pages(bytes, values.len(), 0..values.len(), &mut |run, _| {
            back.extend_from_slice(run);
        });
        read.is_ok() && all_same(values, &back)
    })
}

fn try_encode_pages<T: Exact>(values: &[T], level: usize) -> Option<Vec<u8>> {
    let page_values = page_values(values.len());
    let sizes: Vec<usize> = page_sizes(values.len(), page_values).collect();
    let pages = sizes.len();
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(values, &config(level, sizes)).ok()?;
    let mut body = file.write_header(Vec::new()).ok()?;
    body = chunk.write_meta(body).ok()?;
    let mut head = Vec::new();
    put_u64(page_values as u64, &mut head);
    for page in 0..pages {
        let before = body.len();
        body = chunk.write_page(page, body).ok()?;
        put_u64((body.len() - before) as u64, &mut head);
    }
    head.extend_from_slice(&body);
    Some(head)
}

/// Hands the pages that overlap `range` of a column of `n` values to `sink`, each
/// with the index of its first value; decodes no others.
pub(super) fn decode_pages<T: Exact>(
    bytes: &[u8],
    n: usize,
    range: Range<usize>,
    sink: &mut impl FnMut(&[T], usize),
) -> Result<(), Malformed> {
    let broken = |_| Malformed("pco");
    let mut reader = Reader::new(bytes);
    let page_values = reader.usize()?;
    if page_values == 0 || page_values > n.max(1) {
        return Err(Malformed("pages of another size"));
    }
    let lengths = page_sizes(n, page_values)
        .map(|_| reader.usize())
        .collect::<Result<Vec<usize>, Malformed>>()?;
    let (file, rest) = FileDecompressor::new(reader.rest()).map_err(broken)?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest).map_err(broken)?;
    let mut pages = Reader::new(rest);
    let mut values = Vec::new();
    let mut at = 0;
    for (size, len) in page_sizes(n, page_values).zip(lengths) {
        let page = pages.bytes(len)?;
        if at < range.end && at + size > range.start {
            values.clear();
            values.resize(size, T::default());
            let mut page = chunk.page_decompressor(page, size).map_err(broken)?;
            match page.read(&mut values) {
                Ok(progress) if progress.n_processed == size => sink(&values, at),
                _ => return Err(Malformed("pco")),
            }
        }
        at += size;
    }
    Ok(())
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
