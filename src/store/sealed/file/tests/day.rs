//! A day's file, rewritten from its hours.

use super::*;

/// A day of 60 series at 60 s, rewritten from its hours and one late lot.
pub(super) fn write_day(dir: &Path) -> (std::path::PathBuf, Vec<SealedSeries>) {
    let hours = open(&dir.join("hours"));
    let day = |ref_id: u32, hour: i64| -> Vec<Sample> {
        let jitter = move |i: i64| {
            if ref_id.is_multiple_of(3) {
                (i * 37) % 150
            } else {
                0
            }
        };
        let times = (hour * 60..hour * 60 + 60).map(move |i| i * 60_000 + jitter(i));
        let mut all = samples(times, ref_id);
        for sample in &mut all {
            match ref_id % 5 {
                0 => sample.v = f64::from(ref_id),
                1 => sample.v = sample.v.sqrt(),
                _ => {}
            }
        }
        if ref_id == 7 && hour == 3 {
            all[5].v = stale_nan();
            all[6].v = -0.0;
            all[7].v = f64::from_bits(0x7ff8_0000_dead_beef);
        }
        all
    };
    let mut order: Vec<u32> = (0..60).collect();
    order.sort_by_key(|ref_id| (ref_id % 10, *ref_id));
    let series = |samples: &dyn Fn(u32) -> Vec<Sample>| -> Vec<SealedSeries> {
        order
            .iter()
            .map(|&ref_id| SealedSeries {
                ref_id,
                metric_sym: ref_id % 10,
                group: ref_id / 4,
                samples: samples(ref_id),
            })
            .collect()
    };
    for hour in 0..24u32 {
        let window = WINDOW_S + hour * 3_600;
        let seqs = CommitSeq(u64::from(hour))..=CommitSeq(u64::from(hour) + 1);
        let lot = series(&|ref_id| day(ref_id, hour.into()));
        hours
            .write_generation(window, seqs, lot, labels_of)
            .unwrap();
    }
    let late = |ref_id: u32| samples([60_001, 60_002], ref_id);
    let lot = series(&late);
    write(&hours, lot).unwrap();
    let wanted = series(&|ref_id| {
        let mut all: Vec<Sample> = (0..24).flat_map(|hour| day(ref_id, hour)).collect();
        all.extend(late(ref_id));
        all.sort_by_key(|sample| sample.t);
        all.dedup_by_key(|sample| sample.t);
        all
    });
    let path = dir.join("day-20260101.redb");
    let merged = crate::store::sealed::Merged::of(
        vec![&hours],
        |ref_id| ref_id / 4,
        || std::ops::ControlFlow::<()>::Continue(()),
    );
    let disk = Arc::default();
    SealedFile::write_day(
        &path,
        CACHE,
        &backends(&disk),
        (7, WINDOW_S),
        &hours.covered(),
        merged.unwrap(),
        labels_of,
    )
    .unwrap();
    (path, wanted)
}

pub(super) fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
    samples
        .iter()
        .map(|s| (s.t.as_ms(), s.v.to_bits()))
        .collect()
}

pub(super) fn check_day(path: &Path, wanted: &[SealedSeries]) {
    let file = open_frozen(path).unwrap();
    file.verify().unwrap();
    assert_eq!(file.generations().len(), 1);
    assert_eq!(file.covered().len(), 25);
    for s in wanted {
        let key = (s.metric_sym, s.ref_id);
        assert_eq!(bits(&read_one(&file, key).unwrap()), bits(&s.samples));
        let (start, end) = (WINDOW_MS + 36_000_000, WINDOW_MS + 39_600_000);
        let hour = read_all(&file, &[key], start, end).unwrap().remove(0);
        let range = start..=end;
        let within = s.samples.iter().filter(|s| range.contains(&s.t.as_ms()));
        assert_eq!(bits(&hour), bits(&within.copied().collect::<Vec<_>>()));
    }
    for (ref_id, _, labels) in file.series().unwrap() {
        assert_eq!(labels, labels_of(ref_id));
    }
}

#[test]
fn a_rewritten_day_has_every_bit_of_its_hours() {
    let dir = tempfile::tempdir().unwrap();
    let (path, wanted) = write_day(dir.path());
    check_day(&path, &wanted);
    assert!(write(&open_frozen(&path).unwrap(), hour(1)).is_err());
    let before = std::fs::read(&path).unwrap();
    check_day(&path, &wanted);
    assert_eq!(
        std::fs::read(&path).unwrap(),
        before,
        "reading writes nothing"
    );
}

/// Every region of a day's file: whatever bit is wrong, no answer is.
#[test]
fn flipped_bits_of_a_day_never_change_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (path, wanted) = write_day(dir.path());
    let targets: Vec<_> = wanted.iter().map(|s| (s.metric_sym, s.ref_id)).collect();
    let wanted: Vec<_> = wanted.iter().map(|s| bits(&s.samples)).collect();
    let raw = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let len = raw.metadata().unwrap().len();
    let mut noticed = 0;
    // A byte of each sixteenth of each block of 4 KiB.
    for at in (0..len).step_by(256).map(|at| at + at / 256 % 251) {
        let mut byte = [0];
        raw.read_exact_at(&mut byte, at).unwrap();
        raw.write_all_at(&[byte[0] ^ (1 << (at % 8))], at).unwrap();
        let answer = std::panic::catch_unwind(|| {
            let file = open_frozen(&path).ok()?;
            read_all(&file, &targets, i64::MIN, i64::MAX).ok()
        });
        match answer {
            Ok(Some(found)) => {
                let found: Vec<_> = found.iter().map(|samples| bits(samples)).collect();
                assert!(found == wanted, "byte {at}");
            }
            _ => noticed += 1,
        }
        raw.write_all_at(&byte, at).unwrap();
    }
    assert!(noticed > 100, "control: {noticed} flips hit something");
}
