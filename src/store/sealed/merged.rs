//! The series of several files as one sequence: what the rewrite of a day reads.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::file::{Error, SealedFile, SealedSeries};
use super::read::Room;
use crate::model::Sample;

/// About how many samples are in memory at once: 4 MiB.
const STEP_SAMPLES: usize = 1 << 18;

/// The most series of one step.
const STEP_SERIES_MAX: usize = 512;

/// Walks the series of some files in the order of their keys, and merges their
/// samples. Of two samples at one time that of the file named first stays.
pub struct Merged<'a, G, P> {
    files: Vec<&'a SealedFile>,
    keys: Vec<(u32, u32)>,
    /// Where series that cannot be read are counted; without it they end the walk.
    lost: Option<&'a Cell<Short>>,
    at: usize,
    step: usize,
    ready: std::vec::IntoIter<SealedSeries>,
    group_of: G,
    pause: P,
}

/// What could not be read of some files.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    /// Series of a file of which something is missing.
    pub series: u64,
    /// The earliest and the latest time of the windows where it is, in ms.
    pub times: (i64, i64),
}

impl Default for Short {
    fn default() -> Short {
        Short {
            series: 0,
            times: (i64::MAX, i64::MIN),
        }
    }
}

/// Why the walk ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Ended<B> {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] Error),
    /// The caller wanted no more.
    #[error("stopped")]
    Stopped(B),
}

impl<'a, G, P, B> Merged<'a, G, P>
where
    G: FnMut(u32) -> u32,
    P: FnMut() -> ControlFlow<B>,
{
    /// A walk over all series of the files. `pause` is called between steps of
    /// some thousand samples, and may do other work or end the walk.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of(files: Vec<&'a SealedFile>, group_of: G, pause: P) -> Result<Self, Error> {
        let mut keys = Vec::new();
        for file in &files {
            keys.extend(file.series_keys()?);
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Merged::new(files, keys, None, group_of, pause))
    }

    /// A walk over these series, which must ascend, that leaves out what cannot be
    /// read and counts it in `lost`: series of a file. A series loses no more than its
    /// samples in the hours whose page is damaged.
    pub fn salvaging(
        files: Vec<&'a SealedFile>,
        keys: Vec<(u32, u32)>,
        lost: &'a Cell<Short>,
        group_of: G,
        pause: P,
    ) -> Self {
        Merged::new(files, keys, Some(lost), group_of, pause)
    }

    fn new(
        files: Vec<&'a SealedFile>,
        keys: Vec<(u32, u32)>,
        lost: Option<&'a Cell<Short>>,
        group_of: G,
        pause: P,
    ) -> Self {
        Merged {
            files,
            keys,
            lost,
            at: 0,
            step: 16,
            ready: Vec::new().into_iter(),
            group_of,
            pause,
        }
    }

    /// The samples of the series from `at` to `end`.
    fn read(&self, end: usize) -> Result<Vec<Vec<Sample>>, Error> {
        let keys = &self.keys[self.at..end];
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); keys.len()];
        for file in &self.files {
            let before = self.lost.map(|lost| (lost, samples.clone()));
            let read = file.read(keys, i64::MIN, i64::MAX, Room::of(usize::MAX), &mut samples);
            match (read, before) {
                (Ok(()), _) => {}
                (Err(err), None) => return Err(err),
                (Err(_), Some((lost, before))) => {
                    samples = before;
                    for (key, samples) in keys.iter().zip(&mut samples) {
                        let (always, room) = ((i64::MIN, i64::MAX), Room::of(usize::MAX));
                        if let Some((from, to)) = file.salvage(*key, always, room, samples)? {
                            let Short { series, times } = lost.get();
                            let times = (times.0.min(from), times.1.max(to));
                            let series = series + 1;
                            lost.set(Short { series, times });
                        }
                    }
                }
            }
        }
        Ok(samples)
    }

    fn read_step(&mut self) -> Result<(), Ended<B>> {
        if let ControlFlow::Break(reason) = (self.pause)() {
            return Err(Ended::Stopped(reason));
        }
        let end = self.keys.len().min(self.at + self.step);
        let samples = self.read(end)?;
        let keys = &self.keys[self.at..end];
        let count: usize = samples.iter().map(Vec::len).sum();
        let group_of = &mut self.group_of;
        let series = keys
            .iter()
            .zip(samples)
            .map(|(&(metric_sym, ref_id), samples)| SealedSeries {
                ref_id,
                metric_sym,
                group: group_of(ref_id),
                samples,
            });
        self.ready = series.collect::<Vec<_>>().into_iter();
        self.at = end;
        // Towards the wanted size, at most four times as many as before.
        let wanted = self.step * STEP_SAMPLES / count.max(1);
        self.step = wanted.clamp(1, (self.step * 4).min(STEP_SERIES_MAX));
        Ok(())
    }
}

impl<G, P, B> Iterator for Merged<'_, G, P>
where
    G: FnMut(u32) -> u32,
    P: FnMut() -> ControlFlow<B>,
{
    type Item = Result<SealedSeries, Ended<B>>;

    fn next(&mut self) -> Option<Result<SealedSeries, Ended<B>>> {
        loop {
            if let Some(series) = self.ready.next() {
                return Some(Ok(series));
            }
            if self.at == self.keys.len() {
                return None;
            }
            if let Err(err) = self.read_step() {
                self.at = self.keys.len();
                return Some(Err(err));
            }
        }
    }
}
