//! Value and timestamp columns: what was encoded comes back bit by bit, and no
//! bytes make the decoders panic, run away or hand out more than was asked for.

use pulse::store::sealed::column::{Effort, Encoder, VALUES_MAX, decode, decode_range};
use pulse::store::sealed::times;

/// One input.
pub(crate) fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    match mode % 4 {
        0 => round_trip(rest, f64::from_bits),
        // Decimals, which most series are.
        1 => round_trip(rest, |word| (word % 100_000) as f64 / 10.0),
        2 => ascending_times(rest),
        _ => hostile(rest),
    }
}

fn words(data: &[u8]) -> impl Iterator<Item = u64> {
    let (words, _) = data.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

fn round_trip(data: &[u8], value: impl Fn(u64) -> f64) {
    let values: Vec<f64> = words(data).map(value).take(VALUES_MAX).collect();
    let n = values.len();
    for effort in [Effort::Cheap, Effort::Fast, Effort::Best] {
        let mut column = Vec::new();
        Encoder::default().encode(&values, effort, &mut column);
        for range in [0..n, n / 3..n, n / 4..n / 2] {
            let mut back = Vec::new();
            decode_range(&column, n, range.clone(), &mut back).expect("our own column");
            let same = back
                .iter()
                .zip(&values[range.clone()])
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && back.len() == range.len());
        }
    }
}

fn ascending_times(data: &[u8]) {
    let mut t = 0i64;
    let times: Vec<i64> = words(data)
        .map_while(|step| {
            t = t.checked_add((step >> 2).cast_signed().checked_add(1)?)?;
            Some(t)
        })
        .collect();
    let mut column = Vec::new();
    times::encode(&times, &mut column);
    let mut back = Vec::new();
    times::decode(&column, times.len(), &mut back).expect("our own column");
    assert_eq!(back, times);
}

fn hostile(data: &[u8]) {
    let Some((n, bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let n = usize::from(u16::from_le_bytes(*n));
    let mut values = Vec::new();
    match decode(bytes, n, &mut values) {
        Ok(()) => assert_eq!(values.len(), n),
        Err(_) => assert!(values.is_empty()),
    }
    let mut millis = Vec::new();
    match times::decode(bytes, n, &mut millis) {
        Ok(()) => assert!(millis.len() == n && millis.windows(2).all(|pair| pair[0] < pair[1])),
        Err(_) => assert!(millis.is_empty()),
    }
}
