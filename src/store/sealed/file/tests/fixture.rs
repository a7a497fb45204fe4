//! Files of earlier versions: every later version must read them.

use super::day::{check_day, write_day};
use super::*;

const NAME: &str = "tests/data/v1/l0-20260101.redb";

fn series(late: bool) -> Vec<SealedSeries> {
    let times = |from: i64, to: i64| (from..to).map(|i| i * 15_000 + i % 3);
    let one = |ref_id: u32, metric_sym: u32, samples: Vec<Sample>| SealedSeries {
        ref_id,
        metric_sym,
        group: ref_id / 4,
        samples,
    };
    if late {
        return vec![one(2, 1, samples([7, 8, 9], 77))];
    }
    let map = |seed: u32, f: &dyn Fn(usize, f64) -> f64| {
        let mut all = samples(times(0, 240), seed);
        for (i, sample) in all.iter_mut().enumerate() {
            sample.v = f(i, sample.v);
        }
        all
    };
    let mut sum = 0.0;
    let mut counter = samples(times(0, 240), 5);
    for sample in &mut counter {
        sum += sample.v.floor();
        sample.v = sum;
    }
    counter[239].v = stale_nan();
    vec![
        one(1, 1, map(1, &|_, _| 21.5)),
        one(2, 1, samples(times(0, 240), 2)),
        one(3, 1, samples(times(100, 240), 3)),
        one(4, 1, counter),
        one(5, 2, map(4, &|i, _| i as f64 * 512.0)),
        one(6, 2, map(5, &|i, _| (i as f64 / 40.0).sin())),
        one(7, 2, map(6, &|_, v| v.sqrt())[..40].to_vec()),
        one(
            8,
            2,
            map(7, &|i, _| if i % 2 == 0 { -0.0 } else { f64::NAN }),
        ),
        one(9, 3, samples((0..9_000).map(|i| i * 400), 9)),
    ]
}

fn write_fixture(path: &Path) {
    let _ = std::fs::remove_file(path);
    let file = open(path);
    for late in [false, true] {
        write(&file, series(late)).unwrap();
    }
    drop(file);
    Database::open(path).unwrap().compact().unwrap();
}

fn check(path: &Path) {
    let file = open_frozen(path).unwrap();
    file.verify().unwrap();
    assert_eq!(file.generations().len(), 2);
    assert_eq!(
        file.generations()[1].commit_seqs,
        CommitSeq(5)..=CommitSeq(9)
    );
    let late = series(true).remove(0).samples;
    for s in series(false) {
        let mut wanted = s.samples;
        if s.ref_id == 2 {
            wanted.extend_from_slice(&late);
            wanted.sort_by_key(|sample| sample.t);
        }
        assert_eq!(read_one(&file, (s.metric_sym, s.ref_id)).unwrap(), wanted);
    }
    for (ref_id, _, labels) in file.series().unwrap() {
        assert_eq!(labels, labels_of(ref_id));
    }
}

/// `PULSE_WRITE_FIXTURE=hours` writes the file anew; only right before a version
/// is first released.
#[test]
fn the_file_of_version_1_is_readable() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(NAME);
    if std::env::var_os("PULSE_WRITE_FIXTURE").is_some_and(|which| which == "hours") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_fixture(&path);
    }
    check(&path);
}

/// A file of a rewritten day in each format that there was; the one of this
/// version is written with `PULSE_WRITE_FIXTURE=day`, as the other one.
#[test]
fn day_files_of_every_format_are_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (fresh, wanted) = write_day(dir.path());
    for format in [2, 3, tables::FORMAT_DAY] {
        let name = format!("tests/data/v1/day-format-{format}.redb");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let write = std::env::var_os("PULSE_WRITE_FIXTURE").is_some_and(|which| which == "day");
        if write && format == tables::FORMAT_DAY {
            std::fs::copy(&fresh, &path).unwrap();
        }
        let file = open_frozen(&path).unwrap();
        let read = file.begin_read_here().unwrap();
        let [found] = super::super::open::load_stat(&read, tables::STAT_FORMAT).unwrap_or_default();
        assert_eq!(found, format);
        drop((read, file));
        check_day(&path, &wanted);
    }
}

#[test]
fn what_this_version_writes_passes_the_same_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_fixture(&path);
    check(&path);
}
