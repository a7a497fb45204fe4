//! One job's families as rows: series ids are looked up once and then cached.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::proto::{Metric, MetricFamily};
use xxhash_rust::xxh3::xxh3_128;

use crate::codec::exposition::{FlatSample, for_each_sample, scraped_labels, type_name};
use crate::model::{Labels, Timestamp, stale_nan};
use crate::sources::metadata::Metadata;
use crate::store::{
    Item, ItemOutcome, Refusal, Row, SeriesId, SeriesKey, StateOp, Store, Table, WriteBatch,
};
use crate::telemetry::metrics::FamilyBuilder;

/// The series of one job as they were in the last collection.
pub(super) struct Job {
    name: &'static str,
    instance: String,
    round: u64,
    /// By the hash of name, labels and bound. 128 bits do not collide by chance.
    known: HashMap<u128, Known, ahash::RandomState>,
    /// Series of this round whose id is not known yet.
    new: Vec<(u128, Labels)>,
    /// What was written of each metric.
    metadata: HashMap<String, Metadata, ahash::RandomState>,
    text: Vec<u8>,
}

struct Known {
    id: SeriesId,
    /// The round in which it was last there.
    seen: u64,
}

impl Job {
    pub(super) fn new(name: &'static str, instance: &str) -> Job {
        Job {
            name,
            instance: instance.to_owned(),
            round: 0,
            known: HashMap::default(),
            new: Vec::new(),
            metadata: HashMap::default(),
            text: Vec::new(),
        }
    }

    /// Adds an item with the families' samples, what a scrape says of itself,
    /// staleness markers and changed metadata. Says how many samples were gathered.
    pub(super) fn push(
        &mut self,
        families: &[MetricFamily],
        took: Duration,
        at: Timestamp,
        store: &Store,
        batch: &mut WriteBatch,
    ) -> u64 {
        self.round += 1;
        self.new.clear();
        let mut rows = Vec::with_capacity(self.known.len() + 16);
        for family in families {
            self.push_family(family, at, &mut rows);
        }
        let samples = rows.len() as f64;
        for family in report(took, samples, self.new.len() as f64) {
            self.push_family(&family, at, &mut rows);
        }
        self.push_stale(at, &mut rows);
        let always = self.changed_metadata(families, store);
        let count = rows.len() as u64;
        batch.push(
            rows,
            Item {
                always,
                ..Item::default()
            },
        );
        count
    }

    /// Takes the ids of new series from the index.
    pub(super) fn learn(&mut self, store: &Store, outcome: &ItemOutcome) {
        if outcome.refusal == Some(Refusal::UnknownSeries) {
            // Retention took an idle series away; all are looked up again.
            self.known.clear();
        }
        for (hash, labels) in self.new.drain(..) {
            if let Some(id) = store.resolve(&labels) {
                let seen = self.round;
                self.known.insert(hash, Known { id, seen });
            }
        }
    }

    fn push_family(&mut self, family: &MetricFamily, at: Timestamp, rows: &mut Vec<Row>) {
        for metric in family.get_metric() {
            for_each_sample(family, metric, |sample| {
                let series = self.key_of(family, metric, &sample);
                rows.push(Row {
                    series,
                    t: at,
                    v: sample.value,
                });
            });
        }
    }

    fn key_of(&mut self, family: &MetricFamily, metric: &Metric, sample: &FlatSample) -> SeriesKey {
        let hash = self.hash_of(family, metric, sample);
        if let Some(known) = self.known.get_mut(&hash) {
            known.seen = self.round;
            return SeriesKey::Id(known.id);
        }
        let labels = scraped_labels(self.name, &self.instance, family, metric, sample);
        self.new.push((hash, labels.clone()));
        SeriesKey::Labels(labels)
    }

    fn hash_of(&mut self, family: &MetricFamily, metric: &Metric, sample: &FlatSample) -> u128 {
        let text = &mut self.text;
        text.clear();
        let mut put = |part: &str| {
            text.extend_from_slice(part.as_bytes());
            // No UTF-8 text holds this byte.
            text.push(0xff);
        };
        put(family.name());
        put(sample.suffix);
        for label in metric.get_label() {
            put(label.name());
            put(label.value());
        }
        if let Some((_, bound)) = sample.extra {
            text.extend_from_slice(&bound.to_bits().to_le_bytes());
        }
        xxh3_128(text)
    }

    fn push_stale(&mut self, at: Timestamp, rows: &mut Vec<Row>) {
        let round = self.round;
        self.known.retain(|_, known| {
            if known.seen != round {
                rows.push(Row {
                    series: SeriesKey::Id(known.id),
                    t: at,
                    v: stale_nan(),
                });
            }
            known.seen == round
        });
    }

    /// The rows of metrics whose type or help is not the stored one.
    fn changed_metadata(&mut self, families: &[MetricFamily], store: &Store) -> Vec<StateOp> {
        let mut changed = Vec::new();
        for family in families {
            let kind = type_name(family.get_field_type());
            let same = |m: &Metadata| m.kind == kind && m.help == family.help();
            if self.metadata.get(family.name()).is_some_and(same) {
                continue;
            }
            let metadata = Metadata {
                kind: kind.to_owned(),
                help: family.help().to_owned(),
                unit: String::new(),
            };
            let name = family.name();
            let stored = store.get(Table::Metadata, name.as_bytes()).ok().flatten();
            let stored = stored.and_then(|row| Metadata::decode(name.as_bytes(), &row));
            if stored.is_none_or(|(_, stored)| stored != metadata) {
                changed.push(metadata.put(name));
            }
            self.metadata.insert(name.to_owned(), metadata);
        }
        changed
    }
}

/// What a scrape says of itself.
fn report(took: Duration, samples: f64, added: f64) -> impl Iterator<Item = MetricFamily> {
    let families = [
        ("up", 1.0),
        ("scrape_duration_seconds", took.as_secs_f64()),
        ("scrape_samples_scraped", samples),
        ("scrape_samples_post_metric_relabeling", samples),
        ("scrape_series_added", added),
    ];
    families
        .into_iter()
        .filter_map(|(name, value)| FamilyBuilder::gauge(name, "").with(&[], value).build())
}
