//! The answer to remote_read as a stream of chunks, which is a tenth of the size of
//! samples and can be taken series by series.
//!
//! ```text
//! ChunkedReadResponse { repeated ChunkedSeries chunked_series = 1; int64 query_index = 2 }
//! ChunkedSeries       { repeated Label labels = 1; repeated Chunk chunks = 2 }
//! Chunk               { int64 min_time_ms = 1; int64 max_time_ms = 2; Encoding type = 3; bytes data = 4 }
//! ```
//!
//! Each message is a frame: its length as a varint, the CRC-32C of its bytes, its
//! bytes. A frame has chunks of one series only; a long series has several frames.
//! Readers merge streams, so series come sorted by their labels.

use super::chunk::{Chunk, chunks};
use super::protobuf::write;
use crate::model::{HistogramSample, Labels, Sample};

/// What the stream is called.
pub const CONTENT_TYPE: &str =
    "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// A frame ends when its chunks have so many bytes, as Prometheus' does.
const FRAME_BYTES: usize = 1 << 20;
/// Frames are handed on in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

/// The answer to one question, growing series by series in any order.
#[derive(Debug)]
pub struct ChunkedResult {
    query: i64,
    series: Vec<(Labels, Vec<u8>)>,
    size: usize,
}

impl ChunkedResult {
    /// The answer to the question at this place of the request.
    pub fn new(query: usize) -> ChunkedResult {
        ChunkedResult {
            query: i64::try_from(query).unwrap_or(i64::MAX),
            series: Vec::new(),
            size: 0,
        }
    }

    /// Adds a series with floats, native histograms or both.
    pub fn push(&mut self, labels: &Labels, samples: &[Sample], native: &[HistogramSample]) {
        let mut head = Vec::new();
        write::labels(&mut head, &mut labels.iter());
        let (mut frames, mut series) = (Vec::new(), head.clone());
        chunks(samples, native, |chunk| {
            if series.len() >= FRAME_BYTES {
                self.frame(&series, &mut frames);
                series.clone_from(&head);
            }
            write_chunk(&mut series, &chunk);
        });
        self.frame(&series, &mut frames);
        self.size += frames.len();
        self.series.push((labels.clone(), frames));
    }

    fn frame(&self, series: &[u8], out: &mut Vec<u8>) {
        let mut message = Vec::with_capacity(series.len() + 16);
        write::bytes(&mut message, 1, series);
        write::int(&mut message, 2, self.query);
        write::varint(out, message.len() as u64);
        out.extend_from_slice(&crc32c(&message).to_be_bytes());
        out.extend_from_slice(&message);
    }

    /// How many bytes it has so far.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The frames in the order of the series, a few in a piece.
    pub fn into_pieces(mut self) -> impl Iterator<Item = Vec<u8>> {
        self.series.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut left = self.series.into_iter().map(|(_, frames)| frames);
        std::iter::from_fn(move || {
            let mut piece = left.next()?;
            while piece.len() < PIECE_BYTES {
                let Some(frames) = left.next() else { break };
                piece.extend_from_slice(&frames);
            }
            Some(piece)
        })
    }
}

fn write_chunk(series: &mut Vec<u8>, chunk: &Chunk) {
    let mut message = Vec::with_capacity(chunk.data.len() + 32);
    write::int(&mut message, 1, chunk.min_time);
    write::int(&mut message, 2, chunk.max_time);
    write::int(&mut message, 3, chunk.kind as i64);
    write::bytes(&mut message, 4, &chunk.data);
    write::bytes(series, 2, &message);
}

/// The CRC with Castagnoli's polynomial, a byte at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let at = (crc ^ u32::from(*byte)).to_le_bytes()[0];
        TABLE[usize::from(at)] ^ crc >> 8
    };
    !bytes.iter().fold(!0, step)
}

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut at = 0_u32;
    while at < 256 {
        let mut crc = at;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[at as usize] = crc;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::protobuf::{Fields, Value};

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C, and 32 zero bytes of RFC 3720.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    /// The messages of a stream whose checksums are right.
    fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
        let mut messages = Vec::new();
        while !stream.is_empty() {
            let mut fields = Fields(stream);
            let len = usize::try_from(fields.varint().unwrap()).unwrap();
            let (crc, rest) = fields.0.split_first_chunk::<4>().unwrap();
            let (message, rest) = rest.split_at(len);
            assert_eq!(u32::from_be_bytes(*crc), crc32c(message));
            messages.push(message);
            stream = rest;
        }
        messages
    }

    /// The first label's value, the number of chunks and the question of a message.
    fn described(message: &[u8]) -> (String, usize, u64) {
        let (mut value, mut count, mut query) = (String::new(), 0, 0);
        let mut fields = Fields(message);
        while let Some((number, field)) = fields.next().unwrap() {
            match (number, field) {
                (1, Value::Bytes(series)) => {
                    let mut fields = Fields(series);
                    while let Some((number, Value::Bytes(bytes))) = fields.next().unwrap() {
                        match number {
                            1 => {
                                value =
                                    String::from_utf8(bytes[bytes.len() - 1..].to_vec()).unwrap()
                            }
                            _ => count += 1,
                        }
                    }
                }
                (2, Value::Varint(number)) => query = number,
                other => panic!("{other:?}"),
            }
        }
        (value, count, query)
    }

    #[test]
    fn series_are_sorted_and_long_ones_have_several_frames() {
        let mut result = ChunkedResult::new(3);
        // Values without anything in common: 120 take nearly 960 bytes.
        let long: Vec<Sample> = (0..150_000_u32)
            .map(|i| Sample::new(i64::from(i), f64::from(i).sin()))
            .collect();
        for (name, samples) in [("b", &long[..]), ("a", &long[..121])] {
            result.push(&Labels::from_pairs([("l", name)]), samples, &[]);
        }
        let size = result.size();
        let stream: Vec<u8> = result.into_pieces().flatten().collect();
        assert_eq!(stream.len(), size);
        let all: Vec<_> = messages(&stream).into_iter().map(described).collect();
        assert_eq!(all[0], ("a".to_owned(), 2, 3));
        assert!(all.len() > 2 && all[1..].iter().all(|(name, ..)| name == "b"));
        assert_eq!(
            all[1..].iter().map(|(_, count, _)| count).sum::<usize>(),
            1_250
        );
    }

    #[test]
    fn nothing_selected_is_an_empty_stream() {
        assert_eq!(ChunkedResult::new(0).into_pieces().count(), 0);
    }
}
