//! Sequences of integers in the smallest of eight forms.
//!
//! | tag | form | body |
//! |---|---|---|
//! | 0 | all equal | first |
//! | 1 | constant step | first, step |
//! | 2 | packed steps | first, blocks of the `n - 1` steps |
//! | 3 | packed steps of steps | first, first step, blocks of the other `n - 2` |
//! | 4 | packed values | blocks of the `n` values |
//! | 5 | prefix code | [`super::coded`] |
//! | 20 | pco | pco's wrapped format: header, chunk, one page |
//! | 22 | pco, long | many pages, each decoded alone: [`super::pco::encode_pages`] |
//!
//! `first` and steps are zigzag varints, blocks are those of [`super::intpack`].
//! All arithmetic wraps, so every sequence has every form.
//!
//! pco takes twice as long to decode as a prefix code, and that twice as long as packed
//! blocks, so of what is kept long the quicker form may be a few per cent larger.

use std::ops::Range;

use super::intpack::{self, BLOCK, Plan};
use super::varint::{Reader, put_i64};
use super::{Malformed, coded, pco};

pub(super) const CONST: u8 = 0;
pub(super) const CONST_STEP: u8 = 1;
pub(super) const STEPS: u8 = 2;
pub(super) const STEPS2: u8 = 3;
pub(super) const VALUES: u8 = 4;
pub(super) const CODED: u8 = 5;
pub(super) const PCO: u8 = 20;
pub(super) const PCO_PAGES: u8 = 22;

/// Below this many numbers pco's own head costs more than it saves.
pub(super) const PCO_MIN: usize = 32;

/// Below this many numbers a prefix code is not worth its table.
const CODED_MIN: usize = 64;

/// Whether to try pco, with which level, and whether long sequences get pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pco {
    Never,
    /// In one page, or a prefix code.
    WholeOrCoded(usize),
    /// Pages where it is long, or a prefix code.
    PagesOrCoded(usize),
}

/// Encodes sequences; keeps its buffers.
#[derive(Default)]
pub(super) struct IntEncoder {
    steps: Vec<i64>,
    steps2: Vec<i64>,
    plans: [Vec<Plan>; 3],
}

impl IntEncoder {
    /// Appends the body of the smallest form to `out` and says its tag.
    pub(super) fn encode(&mut self, values: &[i64], pco: Pco, out: &mut Vec<u8>) -> u8 {
        let Some((&first, rest)) = values.split_first() else {
            put_i64(0, out);
            return CONST;
        };
        if rest.iter().all(|value| *value == first) {
            put_i64(first, out);
            return CONST;
        }
        steps_of(values, &mut self.steps);
        let step = self.steps[0];
        if self.steps.iter().all(|other| *other == step) {
            put_i64(first, out);
            put_i64(step, out);
            return CONST_STEP;
        }
        steps_of(&self.steps, &mut self.steps2);
        let start = out.len();
        let tag = self.encode_packed(values, out);
        let (other_tag, other) = match pco {
            _ if values.len() < PCO_MIN => return tag,
            Pco::PagesOrCoded(level) if pco::is_long(values.len()) => {
                (PCO_PAGES, pco::encode_pages(values, level))
            }
            Pco::PagesOrCoded(level) | Pco::WholeOrCoded(level) => {
                (PCO, pco::encode(values, level))
            }
            Pco::Never => return tag,
        };
        let packed = out.len() - start;
        let smallest = other
            .as_ref()
            .map_or(packed, |bytes| bytes.len().min(packed));
        let coded = if values.len() >= CODED_MIN {
            coded::encode(values, &self.steps, smallest + smallest / CODED_MORE)
        } else {
            None
        };
        let smallest = coded
            .as_ref()
            .map_or(smallest, |bytes| bytes.len().min(smallest));
        if packed <= smallest + smallest / PACKED_MORE {
            return tag;
        }
        let other = other.map(|bytes| (other_tag, bytes));
        let coded = coded.map(|bytes| (CODED, bytes));
        replace(out, start, coded.or(other), tag)
    }

    fn encode_packed(&mut self, values: &[i64], out: &mut Vec<u8>) -> u8 {
        let [by_value, by_step, by_step2] = &mut self.plans;
        let size_values = plan_all(values, by_value);
        let size_steps = plan_all(&self.steps, by_step);
        let size_steps2 = plan_all(&self.steps2, by_step2);
        if size_values <= size_steps.min(size_steps2) {
            encode_all(values, by_value, out);
            return VALUES;
        }
        put_i64(values[0], out);
        if size_steps <= size_steps2 {
            encode_all(&self.steps, by_step, out);
            return STEPS;
        }
        put_i64(self.steps[0], out);
        encode_all(&self.steps2, by_step2, out);
        STEPS2
    }
}

/// By what part of the smallest form a prefix code may be larger, and packed blocks.
const CODED_MORE: usize = 50;
const PACKED_MORE: usize = 25;

/// Puts another form into the place of the one behind `start`; gives its tag.
fn replace(out: &mut Vec<u8>, start: usize, other: Option<(u8, Vec<u8>)>, tag: u8) -> u8 {
    let Some((other_tag, bytes)) = other else {
        return tag;
    };
    out.truncate(start);
    out.extend_from_slice(&bytes);
    other_tag
}

fn steps_of(values: &[i64], steps: &mut Vec<i64>) {
    steps.clear();
    steps.extend(values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
}

fn plan_all(values: &[i64], plans: &mut Vec<Plan>) -> usize {
    plans.clear();
    plans.extend(values.chunks(BLOCK).map(intpack::plan));
    plans.iter().map(|plan| plan.bytes).sum()
}

fn encode_all(values: &[i64], plans: &[Plan], out: &mut Vec<u8>) {
    for (block, plan) in values.chunks(BLOCK).zip(plans) {
        intpack::encode(block, *plan, out);
    }
}

/// Hands the integers at `range` of a sequence of `n` to `sink`, in runs of at
/// most [`BLOCK`] (pco: a page at once).
pub(super) fn decode(
    tag: u8,
    body: &[u8],
    n: usize,
    range: Range<usize>,
    sink: &mut dyn FnMut(&[i64]),
) -> Result<(), Malformed> {
    debug_assert!(range.start <= range.end && range.end <= n);
    let mut reader = Reader::new(body);
    match tag {
        CONST => {
            let first = reader.i64()?;
            generate(range, sink, first, 0);
            Ok(())
        }
        CONST_STEP => {
            let (first, step) = (reader.i64()?, reader.i64()?);
            generate(range, sink, first, step);
            Ok(())
        }
        VALUES => decode_values(reader, n, range, sink),
        STEPS | STEPS2 => decode_steps(tag, reader, n, range, sink),
        CODED => coded::decode(body, n, range.clone(), &mut |run, at| {
            sink_part(run, at, &range, sink);
        }),
        PCO => {
            let mut values = Vec::new();
            pco::decode(body, n, &mut values)?;
            sink(&values[range]);
            Ok(())
        }
        PCO_PAGES => pco::decode_pages(body, n, range.clone(), &mut |run: &[i64], at| {
            sink_part(run, at, &range, sink);
        }),
        _ => Err(Malformed("unknown form")),
    }
}

fn generate(range: Range<usize>, sink: &mut dyn FnMut(&[i64]), first: i64, step: i64) {
    let mut block = [0; BLOCK];
    for start in range.clone().step_by(BLOCK) {
        let run = &mut block[..BLOCK.min(range.end - start)];
        for (offset, slot) in run.iter_mut().enumerate() {
            *slot = first.wrapping_add(step.wrapping_mul((start + offset) as i64));
        }
        sink(run);
    }
}

fn decode_values(
    mut reader: Reader<'_>,
    n: usize,
    range: Range<usize>,
    sink: &mut dyn FnMut(&[i64]),
) -> Result<(), Malformed> {
    let mut block = [0; BLOCK];
    for start in (0..range.end).step_by(BLOCK) {
        let len = BLOCK.min(n - start);
        if start + len <= range.start {
            intpack::skip(&mut reader, len)?;
            continue;
        }
        intpack::decode(&mut reader, &mut block[..len])?;
        sink_part(&block[..len], start, &range, sink);
    }
    Ok(())
}

/// Sums steps (or steps of steps) up from the front; what lies before the range
/// is computed and dropped.
fn decode_steps(
    tag: u8,
    mut reader: Reader<'_>,
    n: usize,
    range: Range<usize>,
    sink: &mut dyn FnMut(&[i64]),
) -> Result<(), Malformed> {
    let second = tag == STEPS2;
    let mut value = reader.i64()?;
    sink_part(&[value], 0, &range, sink);
    let mut step = 0;
    let mut at = 1;
    if second {
        step = reader.i64()?;
        value = value.wrapping_add(step);
        if n > 1 {
            sink_part(&[value], 1, &range, sink);
        }
        at = 2;
    }
    let mut block = [0; BLOCK];
    while at < range.end {
        let run = &mut block[..BLOCK.min(n - at)];
        intpack::decode(&mut reader, run)?;
        if second {
            for slot in run.iter_mut() {
                step = step.wrapping_add(*slot);
                value = value.wrapping_add(step);
                *slot = value;
            }
        } else {
            for slot in run.iter_mut() {
                value = value.wrapping_add(*slot);
                *slot = value;
            }
        }
        sink_part(run, at, &range, sink);
        at += run.len();
    }
    Ok(())
}

/// Hands on what of `run`, which starts at index `at`, lies in the range.
fn sink_part(run: &[i64], at: usize, range: &Range<usize>, sink: &mut dyn FnMut(&[i64])) {
    let from = range.start.clamp(at, at + run.len()) - at;
    let to = range.end.clamp(at, at + run.len()) - at;
    if from < to {
        sink(&run[from..to]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[i64], pco: Pco) -> u8 {
        let mut body = Vec::new();
        let tag = IntEncoder::default().encode(values, pco, &mut body);
        let n = values.len();
        for range in [0..n, n / 3..n, n / 4..n / 2, n.saturating_sub(1)..n, 0..0] {
            let mut back = Vec::new();
            let mut sink = |run: &[i64]| back.extend_from_slice(run);
            decode(tag, &body, n, range.clone(), &mut sink).unwrap();
            assert_eq!(back, values[range]);
        }
        tag
    }

    #[test]
    fn each_shape_gets_its_form() {
        assert_eq!(check(&[], Pco::Never), CONST);
        assert_eq!(check(&[5; 300], Pco::Never), CONST);
        let line: Vec<i64> = (0..300).map(|i| 10 + 7 * i).collect();
        assert_eq!(check(&line, Pco::Never), CONST_STEP);
        let noise: Vec<i64> = (0..300).map(|i| (i * i * i) % 101).collect();
        assert_eq!(check(&noise, Pco::Never), VALUES);
        let mut sum = 0;
        let counter: Vec<i64> = noise.iter().map(|n| (sum += 1_000 + n, sum).1).collect();
        assert_eq!(check(&counter, Pco::Never), STEPS);
        let mut sum = 0;
        let ramp: Vec<i64> = counter.iter().map(|n| (sum += n, sum).1).collect();
        assert_eq!(check(&ramp, Pco::Never), STEPS2);
    }

    #[test]
    fn a_long_noisy_sequence_has_pages_of_its_own() {
        let mut sum = 0;
        let long: Vec<i64> = (0..5_760_i64)
            .map(|i| (sum += 900 + (i * i * 31) % 211 * ((i * 7) % 3), sum).1)
            .collect();
        assert_eq!(check(&long, Pco::PagesOrCoded(8)), PCO_PAGES);
        assert_eq!(check(&long[..480], Pco::WholeOrCoded(8)), PCO);
    }

    proptest! {
        #[test]
        fn any_sequence_comes_back(
            shift in 0u32..64,
            seeds in prop::collection::vec(any::<i64>(), 0..400),
            pco in prop::sample::select(vec![Pco::Never, Pco::WholeOrCoded(4), Pco::PagesOrCoded(4)]),
        ) {
            let values: Vec<i64> = seeds.iter().map(|seed| seed >> shift).collect();
            check(&values, pco);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            tag in prop::sample::select(vec![0u8, 1, 2, 3, 4, 5, 20, 22, 99]),
            body in prop::collection::vec(any::<u8>(), 0..300),
            n in 0usize..1_000,
        ) {
            let mut seen = 0;
            let _ = decode(tag, &body, n, 0..n, &mut |run| seen += run.len());
            prop_assert!(seen <= n);
        }
    }
}
