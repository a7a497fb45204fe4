//! The timestamp column, shared by all series that were read at the same times.
//!
//! | tag | form | body |
//! |---|---|---|
//! | 0 | exact schedule | first varint, step varint |
//! | 1 | schedule and residuals | first, step in 2^-16 ms, inner tag u8, integers |
//! | 2 | no schedule | first, inner tag u8, integers: distances to the first |
//!
//! All numbers are zigzag varints; the integers are in the smallest form of
//! [`super::ints`]. The schedule of form 1 begins at the first time
//! and has the slope of the line of least squares or the commonest step, whichever
//! comes out smaller; a fraction of a millisecond in the step keeps a slow drift out
//! of the residuals.

use super::column::{Malformed, VALUES_MAX};
use super::ints::{self, IntEncoder, Pco};
use super::varint::{Reader, put_i64};

const EXACT: u8 = 0;
const SCHEDULE: u8 = 1;
const FREE: u8 = 2;

const STEP_FRACTION_BITS: u32 = 16;
const PCO_LEVEL: usize = 8;

/// Appends the column of these milliseconds, which must ascend, to `out`. At
/// most 65,536. Without pco: of devices that send each minute an hour's columns took
/// nine tenths of the seal's time with it.
pub fn encode(times: &[i64], out: &mut Vec<u8>) {
    encode_with(times, Pco::Never, out);
}

/// The same for a day's file, smaller and slower: 0.1 to 0.3 us a timestamp, once for
/// each group of series.
pub(super) fn encode_of_day(times: &[i64], out: &mut Vec<u8>) {
    encode_with(times, Pco::WholeOrCoded(PCO_LEVEL), out);
}

fn encode_with(times: &[i64], pco: Pco, out: &mut Vec<u8>) {
    assert!(times.len() <= VALUES_MAX, "BUG: too many times");
    debug_assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    let first = times.first().copied().unwrap_or(0);
    let step = times.get(1).map_or(0, |second| second.wrapping_sub(first));
    if (2..times.len()).all(|i| times[i].wrapping_sub(times[i - 1]) == step) {
        out.push(EXACT);
        put_i64(first, out);
        put_i64(step, out);
        return;
    }
    let mut best = encode_free(times, first, pco);
    for step in candidate_steps(times) {
        let column = encode_schedule(times, first, step, pco);
        if column.len() < best.len() {
            best = column;
        }
    }
    out.extend_from_slice(&best);
}

fn encode_free(times: &[i64], first: i64, pco: Pco) -> Vec<u8> {
    let mut column = vec![FREE];
    put_i64(first, &mut column);
    put_ints(
        times.iter().map(|t| t.wrapping_sub(first)),
        pco,
        &mut column,
    );
    column
}

fn encode_schedule(times: &[i64], first: i64, step: i64, pco: Pco) -> Vec<u8> {
    let mut column = vec![SCHEDULE];
    put_i64(first, &mut column);
    put_i64(step, &mut column);
    let planned = |(i, t): (usize, &i64)| t.wrapping_sub(scheduled(first, step, i));
    put_ints(times.iter().enumerate().map(planned), pco, &mut column);
    column
}

/// Steps in 2^-16 ms: that of the line through all times, and the middle one.
fn candidate_steps(times: &[i64]) -> [i64; 2] {
    let mut steps: Vec<i64> = times
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect();
    let middle = steps.len() / 2;
    let (_, median, _) = steps.select_nth_unstable(middle);
    [slope(times), median.wrapping_shl(STEP_FRACTION_BITS)]
}

/// The slope of the line of least squares. One through the first and the last time
/// would be tilted by their jitter, which then adds to that of all others: a tenth of
/// the column of a device that sends each minute, give or take 150 ms.
#[expect(
    clippy::cast_possible_truncation,
    reason = "it saturates; any step will do"
)]
fn slope(times: &[i64]) -> i64 {
    let center = (times.len() - 1) as f64 / 2.0;
    let (mut product, mut square) = (0.0, 0.0);
    for (i, t) in times.iter().enumerate() {
        let x = i as f64 - center;
        product += x * t.wrapping_sub(times[0]) as f64;
        square += x * x;
    }
    (product / square * f64::from(1 << STEP_FRACTION_BITS)).round() as i64
}

/// Where the schedule has its entry `index`. Wraps; the same on both sides.
fn scheduled(first: i64, step: i64, index: usize) -> i64 {
    let ahead = step.wrapping_mul(index as i64) >> STEP_FRACTION_BITS;
    first.wrapping_add(ahead)
}

fn put_ints(numbers: impl Iterator<Item = i64>, pco: Pco, column: &mut Vec<u8>) {
    let numbers: Vec<i64> = numbers.collect();
    let mut body = Vec::new();
    let tag = IntEncoder::default().encode(&numbers, pco, &mut body);
    column.push(tag);
    column.extend_from_slice(&body);
}

/// The first time of a column that is not empty.
///
/// # Errors
/// When the bytes are none.
pub fn first(bytes: &[u8]) -> Result<i64, Malformed> {
    let mut reader = Reader::new(bytes);
    reader.byte()?;
    reader.i64()
}

/// Appends the `n` times of a column to `out`.
///
/// # Errors
/// When the bytes are not a column of `n` ascending times; `out` is then as before.
pub fn decode(bytes: &[u8], n: usize, out: &mut Vec<i64>) -> Result<(), Malformed> {
    if n > VALUES_MAX {
        return Err(Malformed("count out of bounds"));
    }
    let start = out.len();
    let done = decode_form(bytes, n, out).and_then(|ascend| {
        if ascend && out.len() - start == n {
            Ok(())
        } else {
            Err(Malformed("times do not ascend"))
        }
    });
    if done.is_err() {
        out.truncate(start);
    }
    done
}

/// Says whether the times ascend.
fn decode_form(bytes: &[u8], n: usize, out: &mut Vec<i64>) -> Result<bool, Malformed> {
    let mut reader = Reader::new(bytes);
    let tag = reader.byte()?;
    let first = reader.i64()?;
    let start = out.len();
    let step = match tag {
        EXACT | SCHEDULE => reader.i64()?,
        FREE => 0,
        _ => return Err(Malformed("unknown form of times")),
    };
    if tag == EXACT {
        let at = |i: usize| first.wrapping_add(step.wrapping_mul(i as i64));
        out.extend((0..n).map(at));
        // Mostly one look at the step is enough.
        let ahead = step.checked_mul(n as i64);
        let in_order = step > 0 && ahead.is_some_and(|ahead| first.checked_add(ahead).is_some());
        return Ok(in_order || out[start..].is_sorted_by(|a, b| a < b));
    }
    let inner = reader.byte()?;
    let (mut last, mut falls, mut ahead) = (i64::MIN, 0_usize, 0_i64);
    ints::decode(inner, reader.rest(), n, 0..n, &mut |run| {
        let at = out.len();
        out.extend_from_slice(run);
        // Numbers of its own stay in registers.
        let (mut before, mut fell, mut planned) = (last, falls, ahead);
        for time in &mut out[at..] {
            let residual = *time;
            *time = first
                .wrapping_add(planned >> STEP_FRACTION_BITS)
                .wrapping_add(residual);
            planned = planned.wrapping_add(step);
            fell += usize::from(*time <= before);
            before = *time;
        }
        (last, falls, ahead) = (before, fell, planned);
    })?;
    // The least time there is is not above what it was compared with.
    let least = out.get(start).is_some_and(|first| *first == i64::MIN);
    Ok(falls == usize::from(least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What an hour's column takes and a day's; both come back.
    fn sizes(times: &[i64]) -> [usize; 2] {
        [encode, encode_of_day].map(|encode| {
            let mut bytes = Vec::new();
            encode(times, &mut bytes);
            let mut back = vec![7];
            decode(&bytes, times.len(), &mut back).unwrap();
            assert_eq!(&back[1..], times);
            bytes.len()
        })
    }

    fn check(times: &[i64]) -> usize {
        sizes(times)[0]
    }

    fn scrapes(n: i64, jitter: i64) -> Vec<i64> {
        let noise = |i: i64| (i * 7_919 + i * i * 31) % (2 * jitter + 1) - jitter;
        let start = 1_700_000_000_000;
        (0..n).map(|i| start + i * 15_000 + noise(i)).collect()
    }

    #[test]
    fn an_exact_schedule_costs_a_few_bytes() {
        assert!(check(&scrapes(480, 0)) <= 10);
        assert!(check(&[5]) <= 3);
        assert!(check(&[]) <= 3);
    }

    #[test]
    fn a_missed_scrape_costs_a_few_bytes_more() {
        let mut times = scrapes(240, 0);
        times.remove(100);
        assert!(check(&times) <= 25, "{}", check(&times));
    }

    #[test]
    fn jitter_costs_its_own_bits() {
        let [hour, day] = sizes(&scrapes(480, 1));
        assert!(
            hour <= 480 * 3 / 8 + 20 && day <= 480 * 2 / 8 + 20,
            "{hour} and {day}"
        );
        let drifting: Vec<i64> = (0..480).map(|i| i * 15_000 + i * 2 / 5).collect();
        assert!(check(&drifting) <= 480 / 8 + 20);
    }

    #[test]
    fn the_ends_of_time_survive() {
        check(&[i64::MIN, 0, i64::MAX]);
        check(&[i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX]);
    }

    #[test]
    fn times_that_do_not_ascend_are_refused() {
        let mut bytes = vec![EXACT];
        put_i64(5, &mut bytes);
        put_i64(0, &mut bytes);
        assert!(decode(&bytes, 2, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn any_ascending_times_come_back(
            times in prop::collection::btree_set(any::<i64>(), 0..300),
        ) {
            check(&times.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn steps_with_gaps_come_back(
            steps in prop::collection::vec(1i64..100_000, 1..600),
            start in -1_000_000_000_000i64..2_000_000_000_000,
        ) {
            let mut t = start;
            let times: Vec<i64> = steps.iter().map(|step| (t += step, t).1).collect();
            check(&times);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            n in 0usize..1_000,
        ) {
            let mut out = vec![7];
            if decode(&bytes, n, &mut out).is_err() {
                prop_assert_eq!(out, vec![7]);
            }
        }
    }
}
