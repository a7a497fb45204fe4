//! The sorted name-value pairs that identify a series.
//!
//! A label set is one shared allocation: names and values, each behind its
//! length, in name order. Lengths are written in base 64 with bytes below 0x80,
//! so the whole buffer is valid UTF-8 and slicing needs no checks beyond the
//! character boundary. Equality, hashing and cloning touch that one buffer.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Most label sets take no more.
const USUAL_BYTES: usize = 256;

/// An immutable set of labels, sorted by name, without empty values.
///
/// Cloning costs one reference count.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Default for Labels {
    fn default() -> Labels {
        Labels(Arc::from(""))
    }
}

impl Labels {
    /// No labels at all.
    pub fn empty() -> Labels {
        Labels::default()
    }

    /// From pairs in any order. A pair with an empty value is left out, as an
    /// empty value means "not there"; of equal names the last one wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Labels {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// From pairs that are already sorted by name, unique and not empty.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
        let mut buffer = String::with_capacity(USUAL_BYTES);
        let mut previous: Option<&str> = None;
        for (name, value) in pairs {
            debug_assert!(previous.is_none_or(|p| p < name) && !value.is_empty());
            previous = Some(name);
            push_text(&mut buffer, name);
            push_text(&mut buffer, value);
        }
        Labels(Arc::from(buffer))
    }

    /// The value of `name`; `None` when the label is not there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .take_while(|(n, _)| *n <= name)
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v)
    }

    /// The value of `name`, or the empty string, as matchers see it.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// A copy as a map, for JSON.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        map.extend(self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())));
        map
    }

    /// The metric's name, or the empty string.
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// The metric's name, if no other label comes before it.
    pub fn leading_metric(&self) -> Option<&str> {
        let (name, metric) = self.iter().next()?;
        (name == METRIC_NAME).then_some(metric)
    }

    /// The pairs in name order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.0 }
    }

    /// How many labels there are. Walks the set.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A builder that starts from these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder {
            pairs: self
                .iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect(),
        }
    }

    /// These labels without `name`.
    #[must_use]
    pub fn without(&self, name: &str) -> Labels {
        if self.get(name).is_none() {
            return self.clone();
        }
        Labels::from_sorted(self.iter().filter(|(n, _)| *n != name))
    }

    /// A fast 64-bit hash of the encoded form; not stable across versions.
    pub fn hash64(&self) -> u64 {
        xxh3_64(self.0.as_bytes())
    }

    /// Alertmanager's fingerprint: FNV-1a over `name 0xff value 0xff` in name order.
    pub fn fingerprint(&self) -> u64 {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut eat = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for (name, value) in self.iter() {
            eat(name.as_bytes());
            eat(&[0xff]);
            eat(value.as_bytes());
            eat(&[0xff]);
        }
        hash
    }

    /// The encoded form: equal sets have equal bytes. For hashing and equality only.
    pub fn as_encoded(&self) -> &str {
        &self.0
    }
}

/// Appends a length and the text, as in the encoded form: what is joined in this way
/// can be told apart. A length digit holds 6 bits; bit 6 says "more".
pub fn push_text(buffer: &mut String, text: &str) {
    let mut len = text.len();
    loop {
        let digit = u8::try_from(len & 0x3f).expect("masked to 6 bits");
        len >>= 6;
        if len == 0 {
            buffer.push(char::from(digit));
            break;
        }
        buffer.push(char::from(digit | 0x40));
    }
    buffer.push_str(text);
}

/// Splits one length-prefixed text off the front.
#[inline]
fn take_text<'a>(rest: &mut &'a str) -> &'a str {
    let (start, end) = text_at(rest.as_bytes(), 0);
    let text = &rest[start..end];
    *rest = &rest[end..];
    text
}

/// Iterates over the pairs of a label set.
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        if self.rest.is_empty() {
            return None;
        }
        let name = take_text(&mut self.rest);
        let value = take_text(&mut self.rest);
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Pair by pair, a shorter set first: the order of Prometheus' results.
///
/// Sets that are compared mostly begin alike, so the first byte that differs is
/// looked for, and the texts in which it lies decide.
impl Ord for Labels {
    fn cmp(&self, other: &Labels) -> Ordering {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let Some(differs) = first_difference(a, b) else {
            return a.len().cmp(&b.len());
        };
        let mut at = 0;
        loop {
            let (start, end) = text_at(a, at);
            if differs < end {
                let (other_start, other_end) = text_at(b, at);
                return a[start..end].cmp(&b[other_start..other_end]);
            }
            at = end;
        }
    }
}

/// Where two encoded sets differ first; none when one begins with all of the other.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    let same = a_words.iter().zip(b_words).take_while(|(a, b)| a == b);
    let from = same.count() * 8;
    let mut rest = a[from..].iter().zip(&b[from..]);
    rest.position(|(a, b)| a != b).map(|at| from + at)
}

/// Where the text begins whose length stands at `at`, and where it ends.
fn text_at(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let (mut len, mut shift) = (0, 0);
    loop {
        let digit = bytes[at];
        at += 1;
        len |= usize::from(digit & 0x3f) << shift;
        shift += 6;
        if digit & 0x40 == 0 {
            return (at, at + len);
        }
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Labels) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As Prometheus prints a series: `name{a="b", c="d"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        f.write_str(name)?;
        let mut rest = self.iter().filter(|(n, _)| *n != METRIC_NAME).peekable();
        if rest.peek().is_none() && !name.is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, (n, v)) in rest.enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{n}={}", Quoted(v))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text in double quotes with the escapes of PromQL and the text exposition.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Changes a label set; sorted at all times.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut LabelsBuilder {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) if value.is_empty() => {
                self.pairs.remove(at);
            }
            Ok(at) => value.clone_into(&mut self.pairs[at].1),
            Err(_) if value.is_empty() => {}
            Err(at) => self.pairs.insert(at, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) -> &mut LabelsBuilder {
        self.set(name, "")
    }

    /// Keeps only the labels for which `keep` says yes.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) -> &mut LabelsBuilder {
        self.pairs.retain(|(n, v)| keep(n, v));
        self
    }

    /// The current value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .ok()
            .map(|at| self.pairs[at].1.as_str())
    }

    /// The finished set.
    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_come_back_sorted_and_without_empty_values() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", "")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(labels.get("b"), Some("2"));
        assert_eq!(labels.get("c"), None);
        assert_eq!(labels.len(), 2);
    }

    #[test]
    fn long_and_multibyte_texts_survive() {
        let long = "ü".repeat(5_000);
        let labels = Labels::from_pairs([("x", long.as_str()), ("y", "€")]);
        assert_eq!(labels.get("x"), Some(long.as_str()));
        assert_eq!(labels.get("y"), Some("€"));
    }

    #[test]
    fn prints_as_prometheus_does() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a\"b\n")]);
        assert_eq!(labels.to_string(), "up{job=\"a\\\"b\\n\"}");
        assert_eq!(Labels::empty().to_string(), "{}");
        assert_eq!(Labels::from_pairs([("__name__", "up")]).to_string(), "up");
    }

    #[test]
    fn fingerprint_is_alertmanagers() {
        // FNV-1a of nothing is its offset basis.
        assert_eq!(Labels::empty().fingerprint(), 0xcbf2_9ce4_8422_2325);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_pairs(
            a in prop::collection::btree_map("[ab]{1,2}", "[ab]{1,70}", 0..4),
            b in prop::collection::btree_map("[ab]{1,2}", "[ab]{1,70}", 0..4),
        ) {
            let (x, y) = (Labels::from_pairs(&a), Labels::from_pairs(&b));
            prop_assert_eq!(x.cmp(&y), a.iter().cmp(b.iter()));
        }
    }

    #[test]
    fn builder_changes_and_removes() {
        let mut builder = Labels::from_pairs([("a", "1"), ("b", "2")]).to_builder();
        builder.set("a", "9").remove("b").set("c", "3");
        assert_eq!(builder.build().to_string(), "{a=\"9\", c=\"3\"}");
    }
}
