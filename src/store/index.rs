//! Labels to series and matchers to series, in memory.
//!
//! Label texts are symbols; a series is its sorted symbol pairs. For each name
//! and value there is the set of series that carry it. All of it is rebuilt from
//! the catalog tables at start, which is quicker than reading stored sets.

mod cardinality;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use ahash::RandomState;
use hashbrown::HashTable;
use roaring::RoaringBitmap;

pub(super) use cardinality::Top;
pub use cardinality::{Cardinality, Count};

use super::catalog;
use super::native;
use super::paged::Paged;
use super::postings::Postings;
use super::symbols::{Hashed, Symbols};
use super::varint::{self, Reader};
use crate::model::labels::METRIC_NAME;
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Labels, MatchOp, Matcher};

/// A map keyed by symbol numbers.
type ById<T> = HashMap<u32, T, RandomState>;

/// The index. The writer alone changes it; readers hold its lock briefly.
#[derive(Debug, Default)]
pub(super) struct Index {
    symbols: Symbols,
    series: Paged<Entry>,
    by_labels: HashTable<Hashed>,
    hasher: RandomState,
    names: ById<ById<Postings>>,
    all: RoaringBitmap,
    tenants: ById<usize>,
    last_ref: u32,
}

/// Name and value symbols, sorted by the name's text, as varints: names are few,
/// so a pair takes 2 to 4 bytes instead of 8.
#[derive(Debug)]
struct Entry(Box<[u8]>);

impl Entry {
    fn pairs(&self) -> Pairs<'_> {
        Pairs(Reader(&self.0))
    }
}

/// The symbol pairs of a series. Ends at the first byte that is none.
#[derive(Clone)]
struct Pairs<'a>(Reader<'a>);

impl Iterator for Pairs<'_> {
    type Item = (u32, u32);

    #[inline]
    fn next(&mut self) -> Option<(u32, u32)> {
        Some((self.0.number32()?, self.0.number32()?))
    }
}

/// What the catalog tables have to get for a new series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Added {
    pub(super) series: u32,
    pub(super) symbols: Vec<(u32, Box<str>)>,
    pub(super) row: Vec<u8>,
}

/// What the catalog tables have to lose.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Removed {
    pub(super) series: Vec<u32>,
    pub(super) symbols: Vec<u32>,
}

impl Index {
    /// The series of these labels.
    pub(super) fn lookup(&self, labels: &Labels) -> Option<u32> {
        let hash = self.hash(labels).spread();
        let found = self.by_labels.find(hash, |e| self.has_labels(e.id, labels));
        found.map(|entry| entry.id)
    }

    fn hash(&self, labels: &Labels) -> Hashed {
        Hashed::new(0, self.hasher.hash_one(labels.as_encoded()))
    }

    fn has_labels(&self, series: u32, labels: &Labels) -> bool {
        let Some(entry) = self.series.get(series) else {
            return false;
        };
        let mut pairs = entry.pairs();
        let same = labels.iter().all(|(name, value)| {
            pairs
                .next()
                .is_some_and(|(n, v)| self.symbols.text(v) == value && self.symbols.text(n) == name)
        });
        same && pairs.next().is_none()
    }

    /// Adds a series that is not there; `first_seen_s` goes to its catalog row.
    pub(super) fn add(&mut self, labels: &Labels, first_seen_s: u64) -> Added {
        let mut symbols = Vec::new();
        let mut take = |text: &str, all: &mut Symbols| {
            let (id, new) = all.take(text);
            if new {
                symbols.push((id, text.into()));
            }
            id
        };
        let mut pairs = Vec::with_capacity(64);
        for (name, value) in labels {
            varint::put(&mut pairs, take(name, &mut self.symbols).into());
            varint::put(&mut pairs, take(value, &mut self.symbols).into());
        }
        let series = self.last_ref + 1;
        let entry = Entry(pairs.as_slice().into());
        let head = (self.tenant_of(&entry), first_seen_s);
        let row = catalog::encode(series, head, &pairs, labels);
        self.link(series, entry, labels);
        Added {
            series,
            symbols,
            row,
        }
    }

    /// The value of `tenant_id`, 0 for the operator's own series.
    fn tenant_of(&self, entry: &Entry) -> u32 {
        let label = self.symbols.get(TENANT_LABEL);
        let pair = entry.pairs().find(|(n, _)| Some(*n) == label);
        pair.map_or(0, |(_, value)| value)
    }

    fn link(&mut self, series: u32, entry: Entry, labels: &Labels) {
        for (name, value) in entry.pairs() {
            let values = self.names.entry(name).or_default();
            values.entry(value).or_default().insert(series);
        }
        let hashed = self.hash(labels).with_id(series);
        self.by_labels
            .insert_unique(hashed.spread(), hashed, |hashed| hashed.spread());
        let tenant = self.tenant_of(&entry);
        *self.tenants.entry(tenant).or_default() += 1;
        self.all.insert(series);
        self.series.get_or_insert_with(series, || entry);
        self.last_ref = self.last_ref.max(series);
    }

    /// Puts a stored symbol back.
    pub(super) fn restore_symbol(&mut self, id: u32, text: &str) {
        self.symbols.restore(id, text);
    }

    /// Puts a stored series back; its symbols must be there. `None` when the row or one
    /// of its symbols is damaged; its number is not given again.
    pub(super) fn restore_series(&mut self, series: u32, row: &[u8]) -> Option<()> {
        self.last_ref = self.last_ref.max(series);
        let entry = Entry(catalog::pairs(row)?.into());
        let labels = entry
            .pairs()
            .map(|(n, v)| (self.symbols.text(n), self.symbols.text(v)));
        if !catalog::is_right(series, row, labels) {
            return None;
        }
        for (name, value) in entry.pairs() {
            self.symbols.use_once_more(name);
            self.symbols.use_once_more(value);
        }
        let labels = self.labels_of(&entry);
        self.link(series, entry, &labels);
        Some(())
    }

    /// Takes out the symbols that no series uses. When all is well there are none.
    pub(super) fn drop_unused_symbols(&mut self) {
        self.symbols.drop_unused();
    }

    /// Never gives a ref or a symbol number up to these again.
    pub(super) fn skip_to(&mut self, last_ref: u32, last_symbol: u32) {
        self.last_ref = self.last_ref.max(last_ref);
        self.symbols.skip_to(last_symbol);
    }

    /// The last ref and the last symbol number that were given.
    pub(super) fn last(&self) -> (u32, u32) {
        (self.last_ref, self.symbols.last())
    }

    /// Removes series, and the symbols that nothing uses any more.
    pub(super) fn remove(&mut self, series: &RoaringBitmap) -> Removed {
        let mut removed = Removed::default();
        for id in series {
            let Some(labels) = self.labels(id) else {
                continue;
            };
            let hash = self.hash(&labels).spread();
            if let Ok(entry) = self.by_labels.find_entry(hash, |entry| entry.id == id) {
                entry.remove();
            }
            let entry = self.series.remove(id).expect("it has labels");
            if let Some(count) = self.tenants.get_mut(&self.tenant_of(&entry)) {
                *count -= 1;
            }
            for (name, value) in entry.pairs() {
                self.unlink(name, value, id);
                removed.symbols.extend(
                    [name, value]
                        .into_iter()
                        .filter(|s| self.symbols.release(*s)),
                );
            }
            self.all.remove(id);
            removed.series.push(id);
        }
        self.tenants.retain(|_, count| *count > 0);
        removed
    }

    fn unlink(&mut self, name: u32, value: u32, series: u32) {
        let Some(values) = self.names.get_mut(&name) else {
            return;
        };
        if values.get_mut(&value).is_some_and(|p| p.remove(series)) {
            values.remove(&value);
        }
        if values.is_empty() {
            self.names.remove(&name);
        }
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether the series is known.
    pub(super) fn contains(&self, series: u32) -> bool {
        self.series.get(series).is_some()
    }

    /// How many series the tenant of these labels has.
    pub(super) fn tenant_series(&self, labels: &Labels) -> usize {
        let tenant = labels.get(TENANT_LABEL);
        let symbol = tenant.map_or(Some(0), |text| self.symbols.get(text));
        symbol
            .and_then(|symbol| self.tenants.get(&symbol))
            .copied()
            .unwrap_or(0)
    }

    /// The labels of a series.
    pub(super) fn labels(&self, series: u32) -> Option<Labels> {
        let entry = self.series.get(series)?;
        Some(self.labels_of(entry))
    }

    fn labels_of(&self, entry: &Entry) -> Labels {
        let text = |symbol| self.symbols.text(symbol);
        Labels::from_sorted(entry.pairs().map(|(n, v)| (text(n), text(v))))
    }

    /// The symbol of a series' metric name; 0 when it has none.
    pub(super) fn metric_symbol(&self, series: u32) -> u32 {
        self.symbol_of(series, self.symbols.get(METRIC_NAME))
    }

    /// The series of a set, each with the symbol of its metric name in front.
    pub(super) fn metric_symbols(&self, set: &RoaringBitmap) -> Vec<(u32, u32)> {
        let name = self.symbols.get(METRIC_NAME);
        set.iter()
            .map(|id| (self.symbol_of(id, name), id))
            .collect()
    }

    fn symbol_of(&self, series: u32, name: Option<u32>) -> u32 {
        let entry = self.series.get(series);
        let mut pairs = entry.into_iter().flat_map(Entry::pairs);
        pairs
            .find(|(n, _)| Some(*n) == name)
            .map_or(0, |(_, value)| value)
    }

    /// A number that series of one device or scraped instance share: they were
    /// probably measured together.
    pub(super) fn group(&self, series: u32) -> u32 {
        let wanted = ["device_id", "instance"].map(|name| self.symbols.get(name));
        let entry = self.series.get(series);
        let mut pairs = entry.into_iter().flat_map(Entry::pairs);
        pairs
            .find(|(name, _)| wanted.contains(&Some(*name)))
            .map_or(0, |(_, value)| value)
    }

    /// The series that are parts of native histograms.
    pub(super) fn native_parts(&self) -> RoaringBitmap {
        let mut set = RoaringBitmap::new();
        if let Some(postings) = self.postings(METRIC_NAME, native::METRIC) {
            set |= postings;
        }
        set
    }

    /// All series.
    pub(super) fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// The series that fulfil every matcher.
    pub(super) fn matching(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let (optional, required): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|m| m.matches(""));
        let mut set: Option<RoaringBitmap> = None;
        for matcher in required {
            set = Some(self.narrowed(set, matcher));
        }
        let mut set = set.unwrap_or_else(|| self.all.clone());
        for matcher in optional {
            set -= self.carrying(matcher, false);
        }
        set
    }

    fn narrowed(&self, set: Option<RoaringBitmap>, matcher: &Matcher) -> RoaringBitmap {
        match (set, matcher.op) {
            (Some(mut set), MatchOp::Equal) => {
                match self.postings(&matcher.name, &matcher.value) {
                    Some(postings) => postings.intersect_into(&mut set),
                    None => set.clear(),
                }
                set
            }
            (Some(set), _) => set & self.carrying(matcher, true),
            (None, _) => self.carrying(matcher, true),
        }
    }

    /// The series that carry the label with a value for which the matcher says `want`.
    fn carrying(&self, matcher: &Matcher, want: bool) -> RoaringBitmap {
        if let Some(values) = listed_values(matcher, want) {
            let mut set = RoaringBitmap::new();
            for value in values.filter(|value| !value.is_empty()) {
                if let Some(postings) = self.postings(&matcher.name, value) {
                    set |= postings;
                }
            }
            return set;
        }
        let mut set = RoaringBitmap::new();
        for (value, postings) in self.values(&matcher.name) {
            if matcher.matches(self.symbols.text(*value)) == want {
                set |= postings;
            }
        }
        set
    }

    fn postings(&self, name: &str, value: &str) -> Option<&Postings> {
        let values = self.names.get(&self.symbols.get(name)?)?;
        values.get(&self.symbols.get(value)?)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = (&u32, &Postings)> {
        let id = self.symbols.get(name);
        id.and_then(|id| self.names.get(&id)).into_iter().flatten()
    }

    /// The label names that the series of `set` carry, unsorted.
    pub(super) fn names_in(&self, set: &RoaringBitmap) -> Vec<String> {
        let used = |values: &ById<Postings>| values.values().any(|postings| postings.meets(set));
        self.names
            .iter()
            .filter(|(_, values)| used(values))
            .map(|(name, _)| self.symbols.text(*name).to_owned())
            .collect()
    }

    /// The values that the series of `set` have for a label, unsorted.
    pub(super) fn values_in(&self, name: &str, set: &RoaringBitmap) -> Vec<String> {
        self.values(name)
            .filter(|(_, postings)| postings.meets(set))
            .map(|(value, _)| self.symbols.text(*value).to_owned())
            .collect()
    }
}

/// The values that decide a matcher without looking at all values of the label:
/// of `=`, of `!=` when the others are wanted, and of a pattern that is a plain
/// list such as `a|b`.
fn listed_values(matcher: &Matcher, want: bool) -> Option<impl Iterator<Item = &str>> {
    let positive = match matcher.op {
        MatchOp::Equal => true,
        MatchOp::NotEqual => false,
        MatchOp::Regex | MatchOp::NotRegex => {
            let special = |c: char| "\\.+*?()[]{}^$".contains(c);
            if matcher.value.contains(special) {
                return None;
            }
            matcher.op == MatchOp::Regex
        }
    };
    let is_list = matches!(matcher.op, MatchOp::Regex | MatchOp::NotRegex);
    let values = matcher.value.split(move |c| is_list && c == '|');
    (positive == want).then_some(values)
}
