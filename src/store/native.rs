//! Native histograms as series of floats.
//!
//! A histogram is stored as its numbers, each in a series of its own: count, sum,
//! zero bucket and every bucket. They go through log, head, seal, rewrite, backup,
//! retention and deletion as any float does, in the columns that are made for
//! counters; no format knows of histograms, and nothing but this module does.
//!
//! Such a part carries the labels of the histogram with three changes: its metric
//! is [`METRIC`], the metric's own name is in [`NAME`], and [`PART`] says what it
//! is. Two kinds of parts:
//!
//! - `layout`: at every time of a histogram a number that names the layout of its
//!   buckets, and the reset hint. It says that there is a histogram, and which.
//! - `c/LAYOUT`, `s/LAYOUT`, `z/LAYOUT`, `p3/LAYOUT`, `n-2/LAYOUT`: the numbers. The
//!   layout lists schema, zero threshold, custom bounds and the indexes that have
//!   buckets, so what belongs to a histogram is known before it is read; empty
//!   buckets in the range are stored as zeros. Ranges begin and end at multiples of
//!   [`GRAIN`], so that a layout lasts.
//!
//! That makes a histogram whole or absent, and the first of two at one time stays,
//! as with floats: another one with the same layout changes no part, and one with
//! another layout has parts that no stored `layout` names. A histogram of which a
//! part was refused (a limit of series, say) is not read.
//!
//! The price is that every part counts as a series and a sample of its own.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::{Row, SeriesKey};
use crate::model::histogram::{Bucket, CUSTOM, ResetHint};
use crate::model::labels::METRIC_NAME;
use crate::model::{Histogram, HistogramSample, Labels, Matcher, Sample};
use crate::promql::HistogramSeries;

/// The metric of all parts.
pub(super) const METRIC: &str = "__native_histogram__";
/// The label with the histogram's own name.
const NAME: &str = "__native_metric__";
/// The label that says what a part is.
const PART: &str = "__native_part__";
/// The part that every histogram has one sample of.
const LAYOUT: &str = "layout";

/// Ranges of buckets are this many or a multiple.
const GRAIN: i32 = 4;
/// A histogram with a wider range of buckets is not stored. Senders keep below 200.
const BUCKETS_MAX: i64 = 1024;

/// Whether a label is one of those that make a part.
pub(super) fn is_part_label(name: &str) -> bool {
    name == NAME || name == PART
}

/// Whether a pair stands for the parts of native histograms in the store, so that
/// nobody may send it as a label.
pub fn is_own_label(name: &str, value: &str) -> bool {
    is_part_label(name) || (name == METRIC_NAME && value == METRIC)
}

/// The rows that store a histogram; `None` when its buckets are spread too wide.
pub fn rows(labels: &Labels, sample: &HistogramSample) -> Option<Vec<Row>> {
    let layout = Layout::of(&sample.h)?;
    let text = layout.text();
    let h = &sample.h;
    let row = |part: &str, v| Row {
        series: SeriesKey::Labels(part_labels(labels, part)),
        t: sample.t,
        v,
    };
    let mut rows = vec![row(LAYOUT, marker(&text, h.hint))];
    let parts = layout.parts().into_iter();
    rows.extend(parts.map(|part| row(&format!("{}/{text}", part.text()), part.of(h))));
    Some(rows)
}

/// The labels of a part of the histogram with these labels.
fn part_labels(labels: &Labels, part: &str) -> Labels {
    let mut builder = labels.to_builder();
    builder.set(NAME, labels.value(METRIC_NAME));
    builder.set(METRIC_NAME, METRIC);
    builder.set(PART, part);
    builder.build()
}

/// The labels of the histogram that a part belongs to.
fn own_labels(part: &Labels) -> Labels {
    let mut builder = part.to_builder();
    builder.set(METRIC_NAME, part.value(NAME));
    builder.remove(NAME);
    builder.remove(PART);
    builder.build()
}

/// The labels by which a series is known outside: a part is shown as its histogram.
pub(super) fn shown(labels: Labels) -> Labels {
    if labels.value(METRIC_NAME) == METRIC {
        own_labels(&labels)
    } else {
        labels
    }
}

/// What selects the parts of the histograms that `matchers` select.
pub(super) fn part_matchers(matchers: &[Matcher]) -> Vec<Matcher> {
    let mut translated: Vec<Matcher> = matchers.to_vec();
    for matcher in &mut translated {
        if matcher.name == METRIC_NAME {
            NAME.clone_into(&mut matcher.name);
        }
    }
    translated.push(Matcher::equal(METRIC_NAME, METRIC));
    translated
}

/// What selects one series for each of those histograms.
pub(super) fn layout_matchers(matchers: &[Matcher]) -> Vec<Matcher> {
    let mut translated = part_matchers(matchers);
    translated.push(Matcher::equal(PART, LAYOUT));
    translated
}

/// Whether a selector names the parts themselves.
pub(super) fn asks_for_parts(matchers: &[Matcher]) -> bool {
    let parts = Matcher::equal(METRIC_NAME, METRIC);
    let same = |m: &Matcher| m.op == parts.op && m.name == parts.name && m.value == parts.value;
    matchers.iter().any(same)
}

/// Puts parts together again.
#[derive(Default)]
pub(super) struct Assembly {
    series: BTreeMap<Labels, Parts>,
}

/// The parts of one histogram series.
#[derive(Default)]
struct Parts {
    layouts: Vec<Sample>,
    /// By the layout's number: the layout, and the samples of each part of it.
    numbers: HashMap<u64, (Layout, HashMap<Part, Vec<Sample>>)>,
}

impl Assembly {
    /// Takes a part. What is none is left out.
    pub(super) fn add(&mut self, labels: &Labels, samples: Vec<Sample>) {
        let part = labels.value(PART).to_owned();
        let parts = self.series.entry(own_labels(labels)).or_default();
        if part == LAYOUT {
            parts.layouts = samples;
            return;
        }
        let Some((part, text)) = part.split_once('/') else {
            return;
        };
        let (Some(part), Some(layout)) = (Part::parse(part), Layout::parse(text)) else {
            return;
        };
        let numbers = parts.numbers.entry(number(text));
        let (_, numbers) = numbers.or_insert_with(|| (layout, HashMap::new()));
        numbers.insert(part, samples);
    }

    /// The histograms that are whole.
    pub(super) fn finish(self) -> Vec<HistogramSeries> {
        let all = self.series.into_iter();
        all.map(|(labels, parts)| HistogramSeries {
            labels,
            samples: parts.histograms(),
        })
        .filter(|series| !series.samples.is_empty())
        .collect()
    }
}

impl Parts {
    fn histograms(&self) -> Vec<HistogramSample> {
        let mut samples = Vec::with_capacity(self.layouts.len());
        for layout in &self.layouts {
            samples.extend(self.histogram(*layout));
        }
        samples
    }

    fn histogram(&self, marked: Sample) -> Option<HistogramSample> {
        let (number, hint) = read_marker(marked.v)?;
        let (layout, numbers) = self.numbers.get(&number)?;
        let mut h = layout.empty(hint);
        for part in layout.parts() {
            let samples = numbers.get(&part)?;
            let at = samples.binary_search_by_key(&marked.t, |s| s.t).ok()?;
            part.put(&mut h, samples[at].v);
        }
        Some(HistogramSample {
            t: marked.t,
            h: h.into(),
        })
    }
}

/// The number that stands for a layout: 50 bits of a hash of its text.
fn number(text: &str) -> u64 {
    xxh3_64(text.as_bytes()) >> 14
}

/// A layout's number and a hint as a float: a whole number below 2^52.
fn marker(text: &str, hint: ResetHint) -> f64 {
    let hint = match hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    (number(text) << 2 | hint) as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was checked"
)]
fn read_marker(v: f64) -> Option<(u64, ResetHint)> {
    if !(0.0..2.0_f64.powi(52)).contains(&v) {
        return None;
    }
    let bits = v as u64;
    let hint = match bits & 3 {
        0 => ResetHint::Unknown,
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        _ => ResetHint::Gauge,
    };
    Some((bits >> 2, hint))
}

/// What a histogram is made of, but for its numbers.
#[derive(Clone, PartialEq, Debug)]
struct Layout {
    schema: i8,
    zero_threshold: f64,
    /// The first index and how many follow, on each side.
    positive: (i32, i32),
    negative: (i32, i32),
    bounds: Vec<f64>,
}

impl Layout {
    fn of(h: &Histogram) -> Option<Layout> {
        Some(Layout {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            positive: range(&h.positive)?,
            negative: range(&h.negative)?,
            bounds: h.bounds.to_vec(),
        })
    }

    /// Floats have the digits that read back as the same bits.
    fn text(&self) -> String {
        let ((p, ps), (n, ns)) = (self.positive, self.negative);
        let bounds: Vec<String> = self.bounds.iter().map(|v| format!("{v:e}")).collect();
        let (schema, zero, bounds) = (self.schema, self.zero_threshold, bounds.join(","));
        format!("{schema};{zero:e};{p}+{ps};{n}+{ns};{bounds}")
    }

    fn parse(text: &str) -> Option<Layout> {
        let fields: Vec<&str> = text.split(';').collect();
        let [schema, zero, positive, negative, bounds] = fields.as_slice() else {
            return None;
        };
        let range = |text: &str| {
            let (first, count) = text.split_once('+')?;
            let (first, count): (i32, i32) = (first.parse().ok()?, count.parse().ok()?);
            let fits = (0..=BUCKETS_MAX).contains(&count.into());
            fits.then_some(())?;
            first.checked_add(count)?;
            Some((first, count))
        };
        let bounds: Result<Vec<f64>, _> = match *bounds {
            "" => Ok(Vec::new()),
            list => list.split(',').map(str::parse).collect(),
        };
        Some(Layout {
            schema: schema.parse().ok()?,
            zero_threshold: zero.parse().ok()?,
            positive: range(positive)?,
            negative: range(negative)?,
            bounds: bounds.ok()?,
        })
    }

    /// All parts of a histogram with this layout.
    fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Count, Part::Sum];
        if self.schema != CUSTOM {
            parts.push(Part::Zero);
        }
        let (first, count) = self.positive;
        parts.extend((first..first + count).map(Part::Positive));
        let (first, count) = self.negative;
        parts.extend((first..first + count).map(Part::Negative));
        parts
    }

    fn empty(&self, hint: ResetHint) -> Histogram {
        Histogram {
            schema: self.schema,
            hint,
            zero_threshold: self.zero_threshold,
            bounds: self.bounds.as_slice().into(),
            ..Histogram::default()
        }
    }
}

/// The range of the buckets, widened to whole grains; `None` when it is too wide.
fn range(buckets: &[Bucket]) -> Option<(i32, i32)> {
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
        return Some((0, 0));
    };
    let grain = i64::from(GRAIN);
    let first = i64::from(first.index).div_euclid(grain) * grain;
    let end = (i64::from(last.index).div_euclid(grain) + 1) * grain;
    if end - first > BUCKETS_MAX {
        return None;
    }
    let first = i32::try_from(first).ok()?;
    i32::try_from(end).ok()?;
    Some((first, i32::try_from(end - i64::from(first)).ok()?))
}

/// A number of a histogram.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Part {
    Count,
    Sum,
    Zero,
    Positive(i32),
    Negative(i32),
}

impl Part {
    fn text(self) -> String {
        match self {
            Part::Count => "c".to_owned(),
            Part::Sum => "s".to_owned(),
            Part::Zero => "z".to_owned(),
            Part::Positive(index) => format!("p{index}"),
            Part::Negative(index) => format!("n{index}"),
        }
    }

    fn parse(text: &str) -> Option<Part> {
        Some(match text {
            "c" => Part::Count,
            "s" => Part::Sum,
            "z" => Part::Zero,
            _ => match text.split_at_checked(1)? {
                ("p", index) => Part::Positive(index.parse().ok()?),
                ("n", index) => Part::Negative(index.parse().ok()?),
                _ => return None,
            },
        })
    }

    fn of(self, h: &Histogram) -> f64 {
        let count = |buckets: &[Bucket], index: i32| {
            let at = buckets.binary_search_by_key(&index, |b| b.index);
            at.map_or(0.0, |at| buckets[at].count)
        };
        match self {
            Part::Count => h.count,
            Part::Sum => h.sum,
            Part::Zero => h.zero_count,
            Part::Positive(index) => count(&h.positive, index),
            Part::Negative(index) => count(&h.negative, index),
        }
    }

    /// Parts come in the order of [`Layout::parts`], so buckets stay sorted.
    fn put(self, h: &mut Histogram, v: f64) {
        match self {
            Part::Count => h.count = v,
            Part::Sum => h.sum = v,
            Part::Zero => h.zero_count = v,
            Part::Positive(_) | Part::Negative(_) if v == 0.0 => {}
            Part::Positive(index) => h.positive.push(Bucket { index, count: v }),
            Part::Negative(index) => h.negative.push(Bucket { index, count: v }),
        }
    }
}

#[cfg(test)]
mod tests;
