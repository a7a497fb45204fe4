//! A pushed body to one batch of rows, and what was refused of it.
//!
//! Nothing is stored of a body that cannot be read to its end. Of one that can,
//! a series or sample that may not be stored is counted with its reason, and the
//! others go on.

use crate::codec::remote_write::{self, Part, Request};
use crate::codec::{histogram, text};
use crate::config::Limits;
use crate::ingest::Ingest;
use crate::model::labels::METRIC_NAME;
use crate::model::tenant::{TENANT_LABEL, is_valid_name};
use crate::model::{Labels, Sample, TenantId, is_stale_nan};
use crate::sources::metadata::Metadata;
use crate::store::{Row, SeriesId, SeriesKey, Store, histogram_rows, is_own_label};
use crate::telemetry::metrics::PushReason;

use super::known::{Cursor, Key, Keys, Known, Scope};

/// For whom a request may write.
pub(super) struct Writer {
    /// Every series gets this tenant; one that names another is refused.
    pub(super) tenant: Option<TenantId>,
    /// Tenants that it may not write for.
    pub(super) foreign: Vec<TenantId>,
    /// What its keys have in common with those of others who may do the same.
    pub(super) scope: Scope,
}

/// What a body is judged by.
pub(super) struct Judge<'a> {
    pub(super) store: &'a Store,
    pub(super) limits: Limits,
    pub(super) writer: &'a Writer,
    pub(super) keys: &'a Keys,
    /// Samples without a time get this one.
    pub(super) now_ms: i64,
    /// Later ones are refused.
    pub(super) latest_ms: i64,
}

/// What a body came to.
#[derive(Default)]
pub(super) struct Collected {
    /// The rows to store.
    pub(super) rows: Vec<Row>,
    /// Series whose id was looked up.
    pub(super) learned: Vec<(Key, SeriesId)>,
    /// What metrics are, as the body says.
    pub(super) metadata: Vec<(String, Metadata)>,
    /// Samples that may not be stored.
    pub(super) refused: Refused,
    /// Samples in the body.
    pub(super) samples: u64,
}

/// How many samples were refused, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Refused([u64; PushReason::ALL.len()]);

impl Refused {
    /// Counts some.
    pub(super) fn add(&mut self, reason: PushReason, count: usize) {
        self.0[reason as usize] += count as u64;
    }

    /// The reasons that there were, with their counts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PushReason, u64)> {
        let counts = PushReason::ALL.into_iter().zip(self.0);
        counts.filter(|(_, count)| *count > 0)
    }
}

/// One body on its way to rows.
pub(super) struct Collector<'a> {
    judge: &'a Judge<'a>,
    known: &'a Known,
    cursor: Cursor,
    out: Collected,
}

impl<'a> Collector<'a> {
    /// Looks series up in `known` first.
    pub(super) fn new(judge: &'a Judge<'a>, known: &'a Known) -> Collector<'a> {
        Collector {
            judge,
            known,
            cursor: Cursor::default(),
            out: Collected::default(),
        }
    }

    /// Reads an unpacked remote_write message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn remote_write(mut self, message: &[u8]) -> Result<Collected, String> {
        // A sample of a series with its labels takes about 200 bytes.
        self.out.rows.reserve(message.len() / 256);
        let mut request = Request::new(message);
        let mut samples = Vec::new();
        loop {
            let part = request.next_part(&mut samples);
            match part.map_err(|err| err.to_string())? {
                None => return Ok(self.out),
                Some(Part::Series(series)) => {
                    let refused = &mut self.out.refused;
                    refused.add(PushReason::Exemplar, series.exemplars);
                    let labels = &series.labels;
                    self.series(labels, &samples, |judge| {
                        let pairs: Result<Vec<_>, _> = remote_write::labels(labels).collect();
                        Ok(judge.labels(pairs.map_err(|err| err.to_string())?))
                    })?;
                    if !series.histograms.is_empty() {
                        self.histograms(labels, &series.histograms)?;
                    }
                }
                Some(Part::Metadata(said)) => {
                    let metadata = Metadata {
                        kind: said.kind.to_owned(),
                        help: said.help.to_owned(),
                        unit: said.unit.to_owned(),
                    };
                    let metric = said.metric.to_owned();
                    self.out.metadata.push((metric, metadata));
                }
            }
        }
    }

    /// Reads a text exposition.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub(super) fn text(mut self, body: &str) -> Result<Collected, String> {
        let mut reader = text::Reader::new(body);
        while let Some(line) = reader.next_line().map_err(|err| err.to_string())? {
            match line {
                text::Line::Sample(sample) => {
                    let t_ms = sample.t_ms.unwrap_or(self.judge.now_ms);
                    let samples = [Sample::new(t_ms, sample.v)];
                    let key = sample.series.as_bytes();
                    let taken = self.series(key, &samples, |judge| {
                        let mut pairs = Vec::new();
                        text::series(sample.series, &mut pairs)?;
                        let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
                        Ok(judge.labels(pairs.collect()))
                    });
                    taken.map_err(|what| reader.error(what).to_string())?;
                }
                text::Line::Help { metric, help } => {
                    self.metadata_of(metric).help = help.into_owned();
                }
                text::Line::Type { metric, kind } => {
                    kind.clone_into(&mut self.metadata_of(metric).kind);
                }
            }
        }
        Ok(self.out)
    }

    /// Help and type of a metric stand one after the other.
    fn metadata_of(&mut self, metric: &str) -> &mut Metadata {
        let all = &mut self.out.metadata;
        if all.last().is_none_or(|(last, _)| last != metric) {
            let unknown = Metadata {
                kind: "unknown".to_owned(),
                help: String::new(),
                unit: String::new(),
            };
            all.push((metric.to_owned(), unknown));
        }
        let (_, metadata) = all.last_mut().expect("it was just pushed");
        metadata
    }

    /// Takes the samples of one series. `labels` is asked when its bytes are not
    /// known.
    #[inline]
    fn series(
        &mut self,
        bytes: &[u8],
        samples: &[Sample],
        labels: impl FnOnce(&Judge<'_>) -> Result<Result<Labels, PushReason>, String>,
    ) -> Result<(), String> {
        self.out.samples += samples.len() as u64;
        let key = self.judge.keys.key(self.judge.writer.scope, bytes);
        let series = match self.known.get(key, &mut self.cursor) {
            Some(id) => SeriesKey::Id(id),
            None => match labels(self.judge)? {
                Ok(labels) => self.look_up(key, labels),
                Err(reason) => {
                    self.out.refused.add(reason, samples.len());
                    return Ok(());
                }
            },
        };
        for sample in samples {
            if sample.t.as_ms() > self.judge.latest_ms {
                self.out.refused.add(PushReason::Timestamp, 1);
                continue;
            }
            self.out.rows.push(Row {
                series: series.clone(),
                t: sample.t,
                v: sample.v,
            });
        }
        Ok(())
    }

    /// Takes the native histograms of one series.
    fn histograms(&mut self, labels: &[u8], all: &[&[u8]]) -> Result<(), String> {
        self.out.samples += all.len() as u64;
        let pairs: Result<Vec<_>, _> = remote_write::labels(labels).collect();
        let labels = match self.judge.labels(pairs.map_err(|err| err.to_string())?) {
            Ok(labels) => labels,
            Err(reason) => {
                self.out.refused.add(reason, all.len());
                return Ok(());
            }
        };
        for message in all {
            let sample = histogram::read(message).map_err(|err| err.to_string())?;
            let Some(sample) = sample else {
                self.out.refused.add(PushReason::Histogram, 1);
                continue;
            };
            if sample.t.as_ms() > self.judge.latest_ms {
                self.out.refused.add(PushReason::Timestamp, 1);
            } else if is_stale_nan(sample.h.sum) {
                // The end of a series is told among its floats.
                self.out.rows.push(Row {
                    series: self.judge.key_of(labels.clone()),
                    t: sample.t,
                    v: sample.h.sum,
                });
            } else {
                match histogram_rows(&labels, &sample) {
                    Some(rows) => self.out.rows.extend(rows.into_iter().map(|row| Row {
                        series: match row.series {
                            SeriesKey::Labels(labels) => self.judge.key_of(labels),
                            id @ SeriesKey::Id(_) => id,
                        },
                        ..row
                    })),
                    None => self.out.refused.add(PushReason::Histogram, 1),
                }
            }
        }
        Ok(())
    }

    fn look_up(&mut self, key: Key, labels: Labels) -> SeriesKey {
        match self.judge.store.resolve(&labels) {
            Some(id) => {
                self.out.learned.push((key, id));
                SeriesKey::Id(id)
            }
            None => SeriesKey::Labels(labels),
        }
    }
}

impl Judge<'_> {
    /// The id of a series that the store has, else its labels.
    fn key_of(&self, labels: Labels) -> SeriesKey {
        let id = self.store.resolve(&labels);
        id.map_or(SeriesKey::Labels(labels), SeriesKey::Id)
    }

    /// The label set of pairs in any order, or why it may not be stored. As in
    /// Prometheus 3: any text may be a name, an empty value is no label, a metric
    /// needs a name.
    fn labels<'p>(&'p self, mut pairs: Vec<(&'p str, &'p str)>) -> Result<Labels, PushReason> {
        pairs.sort_unstable_by_key(|(name, _)| *name);
        if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(PushReason::Labels);
        }
        pairs.retain(|(_, value)| !value.is_empty());
        let limits = &self.limits;
        let is_long = |(name, value): &(&str, &str)| {
            name.len() > limits.label_name_bytes_max || value.len() > limits.label_value_bytes_max
        };
        let has = |wanted| pairs.binary_search_by_key(&wanted, |(name, _)| *name);
        if has(METRIC_NAME).is_err()
            || has("").is_ok()
            || pairs.len() > limits.labels_max
            || pairs.iter().any(is_long)
            || pairs.iter().any(|(name, value)| is_own_label(name, value))
        {
            return Err(PushReason::Labels);
        }
        let place = has(TENANT_LABEL);
        let said = place.ok().map(|at| pairs[at].1);
        match (&self.writer.tenant, said) {
            (Some(tenant), Some(said)) if said != tenant.as_str() => Err(PushReason::Tenant),
            (None, Some(said)) if !is_valid_name(said) || self.writer.is_foreign(said) => {
                Err(PushReason::Tenant)
            }
            (Some(tenant), None) => {
                let at = place.unwrap_or_else(|at| at);
                pairs.insert(at, (TENANT_LABEL, tenant.as_str()));
                Ok(Labels::from_sorted(pairs))
            }
            _ => Ok(Labels::from_sorted(pairs)),
        }
    }
}

impl Writer {
    /// Who writes for a tenant, or as one who may keep what series bring. Somebody
    /// without a credential may not write for a tenant that has a token.
    pub(super) fn new(
        tenant: Option<TenantId>,
        has_credential: bool,
        protocol: &str,
        ingest: &Ingest,
        keys: &Keys,
    ) -> Writer {
        let foreign = match has_credential || tenant.is_some() {
            true => Vec::new(),
            false => ingest.token_holders(),
        };
        let scope = keys.scope((protocol, &tenant, &foreign));
        Writer {
            tenant,
            foreign,
            scope,
        }
    }

    fn is_foreign(&self, tenant: &str) -> bool {
        self.foreign.iter().any(|held| held.as_str() == tenant)
    }
}
