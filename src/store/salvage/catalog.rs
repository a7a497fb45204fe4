//! The catalog, from what is left of it and from the sealed files: the labels of a series
//! are in each file that has samples of it.
//!
//! A row whose hash goes with the labels that a file knows says which texts its symbols
//! stand for, so a lost text comes back for all other series too. A series of which only
//! the files know gets a row with its old number, and its metric's name the old symbol: the
//! pages are sorted by it.

use std::collections::{BTreeMap, HashMap, HashSet};

use ahash::RandomState;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::super::catalog::{encode, is_right, pairs};
use super::super::days::Days;
use super::super::disk::causes;
use super::super::tables::{SERIES, SYMBOLS};
use super::super::varint::{self, Reader};
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;
use crate::model::tenant::TENANT_LABEL;

/// What the sealed files know.
pub(super) struct Known {
    /// The number of the store.
    pub(super) store: u64,
    /// Metric symbol and labels by the series' number.
    series: BTreeMap<u32, (u32, Labels)>,
}

/// Asks the sealed files, those of this store; of most of them, if it is 0.
pub(super) fn known(days: &Days, store: u64) -> Known {
    let files = days.all_kinds();
    let store_of = |day| days.with_file(day, |file| file.store()).flatten();
    let stores: Vec<u64> = files.iter().map(|day| store_of(day).unwrap_or(0)).collect();
    let count = |store: &u64| stores.iter().filter(|other| *other == store).count();
    let own = match store {
        0 => stores
            .iter()
            .filter(|s| **s != 0)
            .max_by_key(|s| count(s))
            .copied(),
        store => Some(store),
    };
    let mut known = Known {
        store: own.unwrap_or(0),
        series: BTreeMap::new(),
    };
    for (day, _) in files
        .iter()
        .zip(&stores)
        .filter(|(_, s)| **s == 0 || Some(**s) == own)
    {
        match days.with_file(day, |file| file.series()).flatten() {
            Ok(all) => {
                let all = all
                    .into_iter()
                    .map(|(id, metric, labels)| (id, (metric, labels)));
                known.series.extend(all);
            }
            Err(err) => {
                let (path, error) = (day.path.display(), causes(&err));
                tracing::error!(%path, error, "the labels of its series cannot be read");
            }
        }
    }
    known
}

/// Takes wrong rows out and puts those in that the files know. Gives how many series
/// are lost, and the last series and symbol.
///
/// # Errors
/// When the database cannot be read or written.
pub(super) fn complete(db: &Database, known: &Known) -> Result<(u64, (u32, u32)), redb::Error> {
    let mut work = Work::read(db)?;
    work.learn(known);
    let lost = work.drop_wrong(known);
    work.add(known);
    work.write(db)?;
    let last = (
        known.series.keys().chain(work.rows.keys()).max().copied(),
        work.texts.keys().max().copied(),
    );
    Ok((lost, (last.0.unwrap_or(0), last.1.unwrap_or(0))))
}

type ById<T> = HashMap<u32, T, RandomState>;

struct Work {
    texts: ById<String>,
    rows: ById<Vec<u8>>,
    /// Those that were there.
    before: (Vec<u32>, Vec<u32>),
}

impl Work {
    fn read(db: &Database) -> Result<Work, redb::Error> {
        let read = db.begin_read()?;
        let (mut texts, mut rows) = (ById::default(), ById::default());
        for row in read.open_table(SYMBOLS)?.iter()? {
            let (id, text) = row?;
            texts.insert(id.value(), text.value().to_owned());
        }
        for row in read.open_table(SERIES)?.iter()? {
            let (id, row) = row?;
            rows.insert(id.value(), row.value().to_vec());
        }
        let before = (
            rows.keys().copied().collect(),
            texts.keys().copied().collect(),
        );
        Ok(Work {
            texts,
            rows,
            before,
        })
    }

    /// Takes over the texts of symbols in rows that go with what the files know.
    fn learn(&mut self, known: &Known) {
        for (id, (metric, labels)) in &known.series {
            if let Some(name) = labels.get(METRIC_NAME).filter(|_| *metric != 0) {
                self.texts.entry(*metric).or_insert_with(|| name.to_owned());
            }
            let Some(row) = self.rows.get(id).filter(|row| is_right(*id, row, labels)) else {
                continue;
            };
            let mut symbols = Reader(pairs(row).unwrap_or_default());
            for text in labels.iter().flat_map(|(name, value)| [name, value]) {
                if let Some(symbol) = symbols.number32() {
                    self.texts.entry(symbol).or_insert_with(|| text.to_owned());
                }
            }
        }
    }

    /// Takes the rows out that do not go with their texts; gives how many of them nobody
    /// knows.
    fn drop_wrong(&mut self, known: &Known) -> u64 {
        let texts = &self.texts;
        let mut lost = 0;
        self.rows.retain(|id, row| {
            let labels = labels_of(texts, row);
            let is_right = labels.is_some_and(|labels| is_right(*id, row, labels));
            lost += u64::from(!is_right && !known.series.contains_key(id));
            is_right
        });
        lost
    }

    /// Adds the series that only the files know. Of two with the same labels the later
    /// one was the series, and the other one was deleted.
    fn add(&mut self, known: &Known) {
        let labels = self
            .rows
            .values()
            .filter_map(|row| labels_of(&self.texts, row));
        let mut taken: HashSet<Labels, RandomState> = labels.map(Labels::from_pairs).collect();
        let ids = self.texts.iter().map(|(id, text)| (text.clone(), *id));
        let mut ids: HashMap<String, u32, RandomState> = ids.collect();
        let mut last = self.texts.keys().max().copied().unwrap_or(0);
        for (id, (metric, labels)) in known.series.iter().rev() {
            let name = labels.get(METRIC_NAME).unwrap_or_default();
            let is_its = *metric == 0 || ids.get(name) == Some(metric);
            if self.rows.contains_key(id) || labels.is_empty() || !is_its {
                continue;
            }
            if !taken.insert(labels.clone()) {
                continue;
            }
            let mut symbols = Vec::new();
            for text in labels.iter().flat_map(|(name, value)| [name, value]) {
                let symbol = *ids.entry(text.to_owned()).or_insert_with(|| {
                    last += 1;
                    self.texts.insert(last, text.to_owned());
                    last
                });
                varint::put(&mut symbols, symbol.into());
            }
            let tenant = labels.get(TENANT_LABEL).map_or(0, |text| ids[text]);
            self.rows
                .insert(*id, encode(*id, (tenant, 0), &symbols, labels));
        }
    }

    fn write(&self, db: &Database) -> Result<(), redb::Error> {
        let txn = db.begin_write()?;
        {
            let mut series = txn.open_table(SERIES)?;
            let mut symbols = txn.open_table(SYMBOLS)?;
            for id in self
                .before
                .0
                .iter()
                .filter(|id| !self.rows.contains_key(id))
            {
                series.remove(id)?;
            }
            for (id, row) in &self.rows {
                series.insert(id, row.as_slice())?;
            }
            for (id, text) in &self.texts {
                symbols.insert(id, text.as_str())?;
            }
        }
        Ok(txn.commit()?)
    }
}

/// The labels that a row's symbols stand for; `None` when one of them has no text.
fn labels_of<'a>(texts: &'a ById<String>, row: &[u8]) -> Option<Vec<(&'a str, &'a str)>> {
    let mut symbols = Reader(pairs(row)?);
    let mut labels = Vec::new();
    while let (Some(name), Some(value)) = (symbols.number32(), symbols.number32()) {
        labels.push((texts.get(&name)?.as_str(), texts.get(&value)?.as_str()));
    }
    Some(labels)
}
