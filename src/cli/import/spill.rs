//! Samples apart by day, in a file without a name.
//!
//! The file stands in the data directory, where the room has to be anyway, and is
//! unlinked when it is made, so nothing is left of an import that was killed. It
//! holds 16 bytes a sample. What is not written yet is bounded, and so is what is
//! read at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;

/// The length of a day in ms.
const DAY_MS: i64 = 86_400_000;

/// Hours of a day.
pub(super) const HOURS: usize = 24;

const HOUR_MS: u32 = 3_600_000;

/// Bytes of one sample: series, ms within the day, value.
const RECORD: usize = 16;

/// What is in memory at once, of all days together.
const BUFFER_BYTES_MAX: usize = 32 << 20;

/// The samples of a text, by day.
pub(super) struct Spill {
    file: File,
    /// By days since the epoch.
    days: BTreeMap<i64, Day>,
    buffered: usize,
    buffered_max: usize,
    written: u64,
}

/// One day.
#[derive(Default)]
struct Day {
    buffer: Vec<u8>,
    /// Where in the file the others are, and how many bytes.
    chunks: Vec<(u64, usize)>,
    hours: [u64; HOURS],
}

/// A sample on its way.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Record {
    /// Its place in the list of series.
    pub(super) series: u32,
    /// Its time.
    pub(super) t_ms: i64,
    /// Its value.
    pub(super) v: f64,
}

impl Spill {
    /// An empty one in this directory.
    pub(super) fn new(dir: &Path) -> anyhow::Result<Spill> {
        let path = dir.join(format!("import-{}.tmp", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|file| std::fs::remove_file(&path).map(|()| file))
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Spill {
            file,
            days: BTreeMap::new(),
            buffered: 0,
            buffered_max: BUFFER_BYTES_MAX,
            written: 0,
        })
    }

    /// Adds a sample whose time is not before 1970.
    ///
    /// # Errors
    /// When the disk is full.
    pub(super) fn push(&mut self, record: Record) -> io::Result<()> {
        let day = self.days.entry(record.t_ms.div_euclid(DAY_MS)).or_default();
        let ms = record.t_ms.rem_euclid(DAY_MS);
        let ms = u32::try_from(ms).expect("a day is far below 2^32 ms");
        day.hours[(ms / HOUR_MS) as usize] += 1;
        day.buffer.extend_from_slice(&record.series.to_le_bytes());
        day.buffer.extend_from_slice(&ms.to_le_bytes());
        day.buffer
            .extend_from_slice(&record.v.to_bits().to_le_bytes());
        self.buffered += RECORD;
        match self.buffered < self.buffered_max {
            true => Ok(()),
            false => self.flush(),
        }
    }

    /// Writes what is in memory.
    fn flush(&mut self) -> io::Result<()> {
        for day in self.days.values_mut().filter(|day| !day.buffer.is_empty()) {
            let buffer = std::mem::take(&mut day.buffer);
            self.file.write_all_at(&buffer, self.written)?;
            day.chunks.push((self.written, buffer.len()));
            self.written += buffer.len() as u64;
        }
        self.buffered = 0;
        Ok(())
    }

    /// The days that have samples, in order, with how many each of their hours has.
    pub(super) fn days(&self) -> Vec<(i64, [u64; HOURS])> {
        self.days.iter().map(|(day, of)| (*day, of.hours)).collect()
    }

    /// A walk over a day, in the order in which its samples came.
    pub(super) fn walk(&self, day: i64) -> Walk<'_> {
        Walk {
            file: &self.file,
            of: &self.days[&day],
            start_ms: day * DAY_MS,
            chunk: 0,
            read: 0,
            bytes: Vec::new(),
            at: 0,
        }
    }
}

/// Reads a day in pieces of at most [`Walk::PIECE`].
pub(super) struct Walk<'a> {
    file: &'a File,
    of: &'a Day,
    start_ms: i64,
    chunk: usize,
    /// Of the chunk.
    read: usize,
    bytes: Vec<u8>,
    at: usize,
}

impl Walk<'_> {
    const PIECE: usize = RECORD << 14;

    /// Reads on; says whether there is more.
    fn refill(&mut self) -> io::Result<bool> {
        self.at = 0;
        let Some((start, len)) = self.of.chunks.get(self.chunk).copied() else {
            self.bytes.clear();
            // What was never written comes last, once.
            if self.chunk == self.of.chunks.len() {
                self.bytes.extend_from_slice(&self.of.buffer);
                self.chunk += 1;
            }
            return Ok(!self.bytes.is_empty());
        };
        let piece = (len - self.read).min(Walk::PIECE);
        self.bytes.resize(piece, 0);
        let from = start + self.read as u64;
        self.file.read_exact_at(&mut self.bytes, from)?;
        self.read += piece;
        if self.read == len {
            (self.chunk, self.read) = (self.chunk + 1, 0);
        }
        Ok(true)
    }

    fn record(&self, bytes: &[u8]) -> Record {
        let word = |at: usize| bytes[at..at + 4].try_into().expect("four bytes");
        let v = bytes[8..RECORD].try_into().expect("eight bytes");
        Record {
            series: u32::from_le_bytes(word(0)),
            t_ms: self.start_ms + i64::from(u32::from_le_bytes(word(4))),
            v: f64::from_bits(u64::from_le_bytes(v)),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        if self.at == self.bytes.len() {
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(err) => return Some(Err(err)),
            }
        }
        let record = self.record(&self.bytes[self.at..self.at + RECORD]);
        self.at += RECORD;
        Some(Ok(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(i: u32) -> Record {
        Record {
            series: i % 7,
            t_ms: i64::from(i) * 7_919_000 % (40 * DAY_MS),
            v: f64::from_bits(u64::from(i) << 40),
        }
    }

    #[test]
    fn every_sample_comes_back_in_its_day_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path()).unwrap();
        spill.buffered_max = 1_000 * RECORD;
        let all: Vec<Record> = (0..12_345).map(record).collect();
        for record in &all {
            spill.push(*record).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(spill.written > 0 && spill.buffered > 0);
        let days = spill.days();
        assert_eq!(days.len(), 40);
        let mut count = 0;
        for (day, hours) in days {
            let got: Vec<Record> = spill.walk(day).map(Result::unwrap).collect();
            let of_day = |record: &&Record| record.t_ms.div_euclid(DAY_MS) == day;
            let want: Vec<Record> = all.iter().filter(of_day).copied().collect();
            assert_eq!(got, want);
            assert_eq!(hours.iter().sum::<u64>(), want.len() as u64);
            count += want.len();
        }
        assert_eq!(count, all.len());
    }

    #[test]
    fn a_day_larger_than_a_piece_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path()).unwrap();
        let n = u32::try_from(Walk::PIECE / RECORD * 2 + 5).unwrap();
        let at = |series: u32| Record {
            series,
            t_ms: i64::from(series),
            v: 0.5,
        };
        for i in 0..n {
            spill.push(at(i)).unwrap();
        }
        spill.flush().unwrap();
        let got: Vec<Record> = spill.walk(0).map(Result::unwrap).collect();
        assert_eq!(got, (0..n).map(at).collect::<Vec<_>>());
    }
}
