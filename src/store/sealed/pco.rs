//! pco as one of our forms: its wrapped format with one chunk, of one page or, in
//! long columns, of many.
//!
//! The decoder of the crate is built for hostile bytes too, but it is only ever
//! called behind a page's checksum. What it encoded is decoded again and compared
//! bit by bit before it is kept: a codec that is not ours gets no benefit of doubt.

use std::cell::Cell;
use std::ops::Range;

use pco::data_types::Number;
use pco::wrapped::{ChunkDecompressor, FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DecompressorScratch, PagingSpec};

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
    sink: &mut dyn FnMut(&[T], usize),
) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    let page_values = reader.usize()?;
    if page_values == 0 || page_values > n.max(1) {
        return Err(Malformed("pages of another size"));
    }
    let mut lengths = reader;
    let (mut from, mut to) = (0_usize, 0_usize);
    for (at, size) in page_sizes(n, page_values).enumerate() {
        let (first, len) = (at * page_values, reader.usize()?);
        if first < range.end {
            to = to.saturating_add(len);
        }
        if first + size <= range.start {
            from = to;
        }
    }
    let (file, rest) = FileDecompressor::new(reader.rest()).map_err(broken)?;
    let (chunk, rest) = file.chunk_decompressor::<T, _>(rest).map_err(broken)?;
    let wanted = rest.get(from..to).ok_or(Malformed("pco cut short"))?;
    with_scratch(|scratch| {
        let Scratch { padded, pco } = scratch;
        let mut pages = pad(wanted, padded);
        let mut values = vec![T::default(); page_values];
        for (at, size) in page_sizes(n, page_values).enumerate() {
            let (first, len) = (at * page_values, lengths.usize()?);
            if first >= range.end || first + size <= range.start {
                continue;
            }
            let (left, values) = (pages.len(), &mut values[..size]);
            pages = read_page(&chunk, pages, values, pco)?;
            if left - pages.len() != len {
                return Err(Malformed("pco page of another length"));
            }
            sink(values, first);
        }
        Ok(())
    })
}

/// Appends `n` numbers to `out`.
pub(super) fn decode<T: Exact>(bytes: &[u8], n: usize, out: &mut Vec<T>) -> Result<(), Malformed> {
    let (file, rest) = FileDecompressor::new(bytes).map_err(broken)?;
    let (chunk, rest) = file.chunk_decompressor::<T, _>(rest).map_err(broken)?;
    let start = out.len();
    let done = with_scratch(|scratch| {
        let Scratch { padded, pco } = scratch;
        let page = pad(rest, padded);
        out.resize(start + n, T::default());
        let after = read_page(&chunk, page, &mut out[start..], pco)?;
        if after.len() < PADDING {
            return Err(Malformed("pco cut short"));
        }
        Ok(())
    });
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn broken<E>(_: E) -> Malformed {
    Malformed("pco")
}

/// Fills `values` with the next page; gives what is behind it.
fn read_page<'p, T: Exact>(
    chunk: &ChunkDecompressor<T>,
    bytes: &'p [u8],
    values: &mut [T],
    scratch: &mut DecompressorScratch,
) -> Result<&'p [u8], Malformed> {
    let mut page = chunk
        .page_decompressor_with_scratch(bytes, values.len(), scratch)
        .map_err(broken)?;
    match page.read(values) {
        Ok(progress) if progress.n_processed == values.len() => Ok(page.into_src()),
        _ => Err(Malformed("pco")),
    }
}

/// With fewer bytes than the longest batch may have the decoder copies what there is
/// into a buffer of 9 KiB that it first fills with zeros, for every page: a tenth of
/// its time. So it gets some more, of which it makes nothing.
const PADDING: usize = 4_700;

/// What decoding needs besides the bytes; each thread has its own.
#[derive(Default)]
struct Scratch {
    padded: Vec<u8>,
    pco: DecompressorScratch,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

fn with_scratch<R>(with: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let result = with(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

/// The bytes, and [`PADDING`] behind them, whatever it holds.
fn pad<'p>(bytes: &[u8], padded: &'p mut Vec<u8>) -> &'p [u8] {
    let len = bytes.len() + PADDING;
    if padded.len() < len {
        padded.resize(len, 0);
    }
    padded[..bytes.len()].copy_from_slice(bytes);
    &padded[..len]
}
