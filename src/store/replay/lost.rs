//! What of the log cannot be read: which commits, where, and of what times.
//!
//! A damaged record costs its samples and those of the records behind it up to the next
//! one that leans on none. Their numbers are known, as numbers have no gaps over both
//! logs. Their times are known as far as their runs can be read; for a record that
//! cannot be read at all, the neighbours say about when it was: a sample that came late
//! may be missing at another time.
//!
//! A record at the end of all that is damaged, with no trace of another behind it, is a
//! commit that was cut off.

use std::path::{Path, PathBuf};

use super::super::appended::Broken;
use super::super::wal::Record;
use crate::telemetry::Metrics;

/// Commits one behind the other whose samples cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct Lost {
    /// The first commit.
    pub(in crate::store) first: u64,
    /// The last one.
    pub(in crate::store) last: u64,
    /// About the times of their samples, in ms, closed.
    pub(in crate::store) times: (i64, i64),
    /// How many of the commits are damaged or missing; others lean on them.
    pub(in crate::store) damaged: u64,
    /// The samples in those that lean on them.
    leaning_samples: u64,
    /// The files and places of damaged records, where their frames were found.
    pub(in crate::store) places: Vec<(PathBuf, u64)>,
}

impl Lost {
    /// What was in a log file that is gone, behind commit `last` and its time.
    pub(in crate::store) fn file(path: &Path, last: u64, newest: i64) -> Lost {
        Lost {
            first: last + 1,
            last: last + 1,
            times: (newest, i64::MAX),
            damaged: 1,
            leaning_samples: 0,
            places: vec![(path.to_owned(), 0)],
        }
    }

    /// Counts it, and names it in the log.
    pub(in crate::store) fn tell(&self, metrics: &Metrics) {
        metrics.store.checksum_failures.inc_by(self.damaged);
        let Lost { first, last, .. } = *self;
        let (from_ms, to_ms) = self.times;
        for (path, offset) in &self.places {
            tracing::error!(path = %path.display(), offset, "damaged log record");
        }
        tracing::error!(
            first,
            last,
            damaged = self.damaged,
            leaning_samples = self.leaning_samples,
            from_ms,
            to_ms,
            "log records are missing or damaged, their samples are left out"
        );
    }
}

/// Follows the records as they are read.
pub(super) struct Watch {
    /// What is lost is not older, as far as its neighbours say.
    floor: i64,
    /// The last record that was read.
    before: Vec<u8>,
    open: Option<Lost>,
    lost: Vec<Lost>,
}

impl Watch {
    /// Up to `floor`, in ms, all is sealed.
    pub(super) fn new(floor: i64) -> Watch {
        Watch {
            floor,
            before: Vec::new(),
            open: None,
            lost: Vec::new(),
        }
    }

    /// Notes that the commits from `first` up to but not `next` are not there.
    pub(super) fn missing(&mut self, first: u64, next: u64) {
        if first >= next {
            return;
        }
        let (before, floor) = (&self.before, self.floor);
        let lost = self.open.get_or_insert_with(|| Lost {
            first,
            last: 0,
            times: times_of(before).unwrap_or((floor, floor)),
            damaged: 0,
            leaning_samples: 0,
            places: Vec::new(),
        });
        lost.last = next - 1;
        lost.damaged += next - first;
    }

    /// Whether the rows of a record can be decoded.
    pub(super) fn reads(&mut self, seq: u64, record: &Record<'_>, bytes: &[u8]) -> bool {
        if let Some(lost) = &mut self.open {
            let (from, to) = times_in(record).unwrap_or(lost.times);
            lost.times = (lost.times.0.min(from), lost.times.1.max(to));
            if !record.resets {
                lost.last = seq;
                lost.leaning_samples += record.rows.count();
                return record.rows.count() == 0;
            }
            self.lost.extend(self.open.take());
        }
        self.before.clear();
        self.before.extend_from_slice(bytes);
        true
    }

    /// All that is lost, with the places of damaged records.
    pub(super) fn finish(mut self, broken: &[Broken]) -> Vec<Lost> {
        if let Some(mut lost) = self.open {
            // Nothing says how far it goes.
            lost.times.1 = i64::MAX;
            self.lost.push(lost);
        }
        for lost in &mut self.lost {
            let seqs = lost.first..=lost.last;
            let inside = broken.iter().filter(|broken| seqs.contains(&broken.seq));
            lost.places = inside.map(|b| (b.path.clone(), b.at)).collect();
        }
        self.lost
    }
}

fn times_of(record: &[u8]) -> Option<(i64, i64)> {
    times_in(&Record::parse(record).ok()?)
}

/// The earliest and the latest time of a record's rows, which show without values.
fn times_in(record: &Record<'_>) -> Option<(i64, i64)> {
    let mut rows = record.rows.clone();
    let mut times: Option<(i64, i64)> = None;
    while let Ok(Some(row)) = rows.head() {
        let (from, to) = times.unwrap_or((row.t, row.t));
        times = Some((from.min(row.t), to.max(row.t)));
        rows.skip(row).ok()?;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::super::super::wal::{Builder, LogState};
    use super::*;

    fn record(t: i64, resets: bool) -> Vec<u8> {
        let (mut log, mut bytes) = (Builder::default(), Vec::new());
        if resets {
            log.start_anew();
        }
        log.push(1, t, 1.0, false, &mut LogState::default());
        log.push(1, t + 5, 1.0, false, &mut LogState::default());
        log.finish(0, &mut bytes);
        bytes
    }

    /// Which of these records can be decoded: number, time, whether it is a reset; and
    /// what is lost.
    fn check(records: &[(u64, i64, bool)], torn: Option<u64>) -> (Vec<u64>, Vec<Lost>) {
        let (mut watch, mut last, mut read) = (Watch::new(0), 0, Vec::new());
        for (seq, t, resets) in records {
            let bytes = record(*t, *resets);
            watch.missing(last + 1, *seq);
            last = *seq;
            if watch.reads(*seq, &Record::parse(&bytes).unwrap(), &bytes) {
                read.push(*seq);
            }
        }
        if let Some(torn) = torn {
            watch.missing(last + 1, torn);
        }
        let at = |seq| Broken {
            seq,
            path: "hot-00.log".into(),
            at: seq * 512,
        };
        (read, watch.finish(&[at(4), at(9)]))
    }

    #[test]
    fn what_leans_on_a_missing_record_is_lost_with_it() {
        let records = [
            (1, 100, true),
            (2, 200, false),
            (5, 500, false),
            (6, 600, true),
            (7, 700, false),
        ];
        let (read, lost) = check(&records, None);
        assert_eq!(read, [1, 2, 6, 7]);
        let want = Lost {
            first: 3,
            last: 5,
            times: (200, 605),
            damaged: 2,
            leaning_samples: 2,
            places: vec![("hot-00.log".into(), 4 * 512)],
        };
        assert_eq!(lost, [want]);
    }

    #[test]
    fn one_torn_record_at_the_end_is_none_and_two_are_a_loss() {
        let records = [(1, 100, true), (2, 200, true)];
        assert_eq!(check(&records, None).1, []);
        assert_eq!(check(&records, Some(3)).1, []);
        let lost = &check(&records, Some(5)).1[0];
        assert_eq!((lost.first, lost.last, lost.damaged), (3, 4, 2));
        assert_eq!(lost.times, (200, i64::MAX));
    }
}
