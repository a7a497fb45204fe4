//! What is written is read again; what is damaged, foreign or newer is refused.

use std::collections::HashMap;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;

type Row = (u32, i64, u64, bool);

fn write(records: &[(bool, Vec<Row>)]) -> Vec<Vec<u8>> {
    let mut states: HashMap<u32, LogState> = HashMap::new();
    let mut builder = Builder::default();
    let mut all = Vec::new();
    for (i, (reset, rows)) in records.iter().enumerate() {
        if *reset {
            builder.start_anew();
        }
        for (series, t, bits, alone) in rows {
            let log = states.entry(*series).or_default();
            builder.push(*series, *t, f64::from_bits(*bits), *alone, log);
        }
        let mut out = Vec::new();
        builder.finish(i as u64, &mut out);
        all.push(out);
    }
    all
}

fn read(records: &[Vec<u8>]) -> Result<Vec<(u32, i64, u64)>, Unreadable> {
    let mut states: HashMap<u32, LogState> = HashMap::new();
    let mut reset = 0;
    let mut all = Vec::new();
    for bytes in records {
        let mut record = Record::parse(bytes)?;
        reset += u32::from(record.resets);
        let mut others = record.rows.clone();
        while let Some(head) = record.rows.head()? {
            let log = states.entry(head.series).or_default();
            assert_eq!(others.head()?, Some(head));
            others.skip(head)?;
            let v = record.rows.value(head, reset, log)?;
            all.push((head.series, head.t, v.to_bits()));
        }
    }
    Ok(all)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec(
        (
            prop_oneof![0_u32..20, any::<u32>()],
            prop_oneof![0_i64..100, any::<i64>()],
            prop_oneof![
                any::<u64>(),
                (0_i32..50).prop_map(|i| f64::from(i).to_bits())
            ],
            any::<bool>(),
        ),
        0..60,
    )
}

proptest! {
    #[test]
    fn rows_survive(records in prop::collection::vec((any::<bool>(), rows()), 1..5)) {
        let want: Vec<_> = records
            .iter()
            .flat_map(|(_, rows)| rows.iter().map(|(r, t, v, _)| (*r, *t, *v)))
            .collect();
        prop_assert_eq!(read(&write(&records)).unwrap(), want);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(read(&[bytes.clone()]).is_err());
        // With the right hash and version the rest is still arbitrary.
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let hash = xxh3_64(&bytes);
        bytes.extend_from_slice(&hash.to_le_bytes());
        drop(read(&[bytes]));
    }

    #[test]
    fn a_changed_byte_is_seen(rows in rows(), at: prop::sample::Index, xor in 1_u8..) {
        let mut records = write(&[(true, rows)]);
        let at = at.index(records[0].len());
        records[0][at] ^= xor;
        prop_assert_eq!(read(&records), Err(Unreadable::Damaged));
    }
}

#[test]
fn unchanged_rows_cost_nothing() {
    let rows = |v: f64| (0..100).map(|r| (r, 5_000, v.to_bits(), false)).collect();
    let records = write(&[(true, rows(1.5)), (false, rows(1.5)), (false, rows(1.5))]);
    // Version, flags, sequence, frames, kind, length, count, runs, lanes, counts,
    // bits; head, time, rows; a count; hash.
    assert_eq!(records[2].len(), 11 + 1 + 2 + 1 + 1 + 8);
}

/// A record with one frame of rows behind a reset.
fn record(kind: u8, rows: &[u8]) -> Vec<u8> {
    let len = u8::try_from(rows.len()).unwrap();
    let mut bytes = vec![VERSION, 0, 7, 2, FRAME_RESET, 0, kind, len];
    bytes.extend_from_slice(rows);
    let hash = xxh3_64(&bytes);
    bytes.extend_from_slice(&hash.to_le_bytes());
    bytes
}

#[test]
fn runs_of_tokens_are_read() {
    // Series 1 to 4 at 10 are 1.5, 0, 0 and 2; series 1 at 12 is 1 and late.
    let mut rows = vec![5, 0x01 | 0x04, 20, 4, 0x41, 0x51, 30, 0x01, 0x63];
    rows.extend_from_slice(&[0x03 | (7 << 3), 4, 0x61]);
    let bits = f64::to_bits;
    let want = [
        (1, 10, bits(1.5)),
        (2, 10, 0),
        (3, 10, 0),
        (4, 10, bits(2.0)),
        (1, 12, bits(1.0)),
    ];
    assert_eq!(read(&[record(FRAME_RUNS, &rows)]).unwrap(), want);
}

#[test]
fn rows_of_the_form_before_runs_are_read() {
    // Reset; series 1 at 10 is 1.5, series 2 at 10 is 0, series 1 at 12 is late.
    let mut bytes = vec![VERSION, 0, 7, 2, FRAME_RESET, 0, FRAME_ROWS, 0, 3];
    bytes.extend_from_slice(&[0x01, 20, 0x41, 0x51, 30]);
    bytes.push(0x04);
    bytes.extend_from_slice(&[0x03 | (3 << 3), 4, 0x51, 2]);
    bytes[7] = u8::try_from(bytes.len() - 8).unwrap();
    let hash = xxh3_64(&bytes);
    bytes.extend_from_slice(&hash.to_le_bytes());
    let want = [
        (1, 10, 1.5_f64.to_bits()),
        (2, 10, 0),
        (1, 12, 1.0_f64.to_bits()),
    ];
    assert_eq!(read(&[bytes]).unwrap(), want);
}

#[test]
fn a_newer_record_is_refused_with_a_sentence() {
    let with_hash = |mut bytes: Vec<u8>| {
        let hash = xxh3_64(&bytes);
        bytes.extend_from_slice(&hash.to_le_bytes());
        Record::parse(&bytes).unwrap_err().to_string()
    };
    assert!(with_hash(vec![2, 0, 0, 0]).contains("version 2, expected 1"));
    assert!(with_hash(vec![1, 0, 0, 1, 11, 0]).contains("unknown frame kind 11"));
}
