//! The first pass: every line is read and judged, and nothing is stored.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use xxhash_rust::xxh3::xxh3_128;

use super::Progress;
use super::spill::{Record, Spill};
use crate::codec::{openmetrics, text};
use crate::model::tenant::{TENANT_LABEL, is_valid_name};
use crate::model::{Labels, TenantId};
use crate::sources::metadata::Metadata;
use crate::store::is_own_label;

/// The longest line.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Metrics whose help and type are kept.
const METADATA_MAX: usize = 20_000;

/// How gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where the text comes from.
pub(super) struct Input {
    path: PathBuf,
    lines: Box<dyn BufRead>,
    /// Bytes that were read, as they come.
    read: Arc<AtomicU64>,
    /// Bytes that there are, when that is known.
    all: Option<u64>,
}

impl Input {
    /// Opens a file, or standard input for `-`, and looks whether it is gzip.
    pub(super) fn open(path: &Path) -> anyhow::Result<Input> {
        let cannot = || format!("cannot read {}", path.display());
        let (input, all): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).with_context(cannot)?;
            let meta = file.metadata().with_context(cannot)?;
            ensure!(!meta.is_dir(), "{} is a directory", path.display());
            (Box::new(file), meta.is_file().then_some(meta.len()))
        };
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted(input, Arc::clone(&read));
        let mut plain = BufReader::with_capacity(1 << 18, counted);
        let is_gzip = plain.fill_buf().with_context(cannot)?.starts_with(&GZIP);
        let lines: Box<dyn BufRead> = match is_gzip {
            true => Box::new(BufReader::with_capacity(
                1 << 18,
                MultiGzDecoder::new(plain),
            )),
            false => Box::new(plain),
        };
        Ok(Input {
            path: path.to_owned(),
            lines,
            read,
            all,
        })
    }

    /// How far it is, for people.
    fn place(&self) -> String {
        let read = self.read.load(Ordering::Relaxed);
        match self.all {
            Some(all) if all > 0 => format!("{} %", read.saturating_mul(100) / all),
            _ => format!("{} MB", read / 1_000_000),
        }
    }
}

/// Counts what is read through it.
struct Counted(Box<dyn Read>, Arc<AtomicU64>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// What samples are judged by.
pub(super) struct Rules {
    /// Times that are taken, in ms.
    pub(super) accepted: RangeInclusive<i64>,
    /// Every series gets this tenant.
    pub(super) tenant: Option<TenantId>,
    /// More series than this cannot be stored.
    pub(super) series_max: usize,
}

/// What the text holds.
#[derive(Default)]
pub(super) struct Taken {
    /// Its series; samples name them by their places.
    pub(super) series: Vec<Labels>,
    /// What it says of metrics.
    pub(super) metadata: BTreeMap<String, Metadata>,
    /// All samples.
    pub(super) samples: u64,
    /// Exemplars, which are left out.
    pub(super) exemplars: u64,
    /// The earliest and the latest time that is taken.
    pub(super) span: Option<(i64, i64)>,
    /// Samples from before the times that are taken.
    pub(super) too_old: Group,
    /// Samples from after them.
    pub(super) too_new: Group,
}

/// Samples that are told together: how many, and of which times.
#[derive(Default)]
pub(super) struct Group {
    pub(super) count: u64,
    pub(super) span: Option<(i64, i64)>,
}

impl Group {
    fn add(&mut self, t_ms: i64) {
        self.count += 1;
        widen(&mut self.span, t_ms);
    }
}

fn widen(span: &mut Option<(i64, i64)>, t_ms: i64) {
    let (first, last) = span.unwrap_or((t_ms, t_ms));
    *span = Some((first.min(t_ms), last.max(t_ms)));
}

/// Reads the text to its end.
///
/// # Errors
/// The first mistake, with its line and what was expected.
pub(super) fn read(
    mut input: Input,
    rules: &Rules,
    spill: Spill,
) -> anyhow::Result<(Taken, Spill)> {
    let mut reader = Reader {
        rules,
        spill,
        known: HashMap::default(),
        taken: Taken::default(),
        has_ended: false,
    };
    let mut progress = Progress::new();
    let mut line = Vec::new();
    for number in 1_u64.. {
        let place = || format!("{}:{number}", input.path.display());
        line.clear();
        let mut some = (&mut input.lines).take(LINE_BYTES_MAX + 1);
        let read = some.read_until(b'\n', &mut line).with_context(place)?;
        if read == 0 {
            ensure!(
                reader.has_ended,
                "{}: expected \"# EOF\" at the end",
                place()
            );
            return Ok((reader.taken, reader.spill));
        }
        if read as u64 > LINE_BYTES_MAX {
            bail!("{}: expected a line of at most 1 MiB", place());
        }
        reader.line(&line).with_context(place)?;
        progress.tell(|| {
            let samples = reader.taken.samples;
            format!(
                "{}: {} read, {samples} samples",
                input.path.display(),
                input.place()
            )
        });
    }
    unreachable!("the lines of a file are far below 2^64")
}

struct Reader<'a> {
    rules: &'a Rules,
    spill: Spill,
    /// The places of series by a hash of their text.
    known: HashMap<u128, u32, ahash::RandomState>,
    taken: Taken,
    has_ended: bool,
}

impl Reader<'_> {
    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).context("expected UTF-8")?;
        let Some(said) = openmetrics::line(line).map_err(anyhow::Error::msg)? else {
            return Ok(());
        };
        ensure!(!self.has_ended, "expected nothing behind \"# EOF\"");
        match said {
            openmetrics::Line::End => self.has_ended = true,
            openmetrics::Line::Help { metric, help } => {
                self.of(metric, |of| of.help = help.into_owned());
            }
            openmetrics::Line::Type { metric, kind } => {
                self.of(metric, |of| kind.clone_into(&mut of.kind));
            }
            openmetrics::Line::Unit { metric, unit } => {
                self.of(metric, |of| unit.clone_into(&mut of.unit));
            }
            openmetrics::Line::Sample {
                series,
                v,
                t_ms,
                has_exemplar,
            } => {
                let t_ms = t_ms.context(
                    "expected a time in seconds behind the value, found the end of the line",
                )?;
                self.taken.exemplars += u64::from(has_exemplar);
                self.sample(series, t_ms, v)?;
            }
        }
        Ok(())
    }

    fn of(&mut self, metric: &str, set: impl FnOnce(&mut Metadata)) {
        let all = &mut self.taken.metadata;
        if all.len() < METADATA_MAX || all.contains_key(metric) {
            set(all.entry(metric.to_owned()).or_insert_with(|| Metadata {
                kind: "unknown".to_owned(),
                help: String::new(),
                unit: String::new(),
            }));
        }
    }

    fn sample(&mut self, series: &str, t_ms: i64, v: f64) -> anyhow::Result<()> {
        // A series that cannot be read is a mistake at any time.
        let series = self.place_of(series)?;
        let taken = &mut self.taken;
        taken.samples += 1;
        if t_ms < *self.rules.accepted.start() {
            taken.too_old.add(t_ms);
        } else if t_ms > *self.rules.accepted.end() {
            taken.too_new.add(t_ms);
        } else {
            widen(&mut taken.span, t_ms);
            let record = Record { series, t_ms, v };
            self.spill.push(record).context("cannot set it aside")?;
        }
        Ok(())
    }

    fn place_of(&mut self, text: &str) -> anyhow::Result<u32> {
        let key = xxh3_128(text.as_bytes());
        if let Some(place) = self.known.get(&key) {
            return Ok(*place);
        }
        let labels = self.labels(text).map_err(anyhow::Error::msg)?;
        let max = self.rules.series_max;
        ensure!(
            self.taken.series.len() < max,
            "expected at most {max} series, as [limits] series_max says"
        );
        let place = u32::try_from(self.taken.series.len()).context("too many series")?;
        self.taken.series.push(labels);
        self.known.insert(key, place);
        Ok(place)
    }

    fn labels(&self, text: &str) -> Result<Labels, String> {
        let mut pairs = Vec::new();
        text::series(text, &mut pairs)?;
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if let Some(two) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(format!(
                "expected each label once, found {:?} twice",
                two[0].0
            ));
        }
        if let Some((name, value)) = pairs.iter().find(|(name, value)| is_own_label(name, value)) {
            return Err(format!(
                "expected no name of our own, found {name}={value:?}"
            ));
        }
        let labels = Labels::from_pairs(pairs);
        let said = labels.get(TENANT_LABEL);
        if let Some(said) = said.filter(|said| !is_valid_name(said)) {
            return Err(format!(
                "expected 1 to 128 characters of [A-Za-z0-9._:-] as tenant_id, found {said:?}"
            ));
        }
        let Some(tenant) = &self.rules.tenant else {
            return Ok(labels);
        };
        match said {
            None => Ok(labels
                .to_builder()
                .set(TENANT_LABEL, tenant.as_str())
                .build()),
            Some(said) if said == tenant.as_str() => Ok(labels),
            Some(said) => Err(format!("expected tenant {tenant}, found {said:?}")),
        }
    }
}
