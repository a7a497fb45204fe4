//! `pulse import openmetrics FILE`: history into a data directory that no process has.
//!
//! The file is read to its end before anything is stored: samples go into an
//! unlinked file beside the data, apart by day ([`spill`]), so a mistake in the last
//! line stores nothing, and memory holds a buffer and the series, however long the
//! file is and in whatever order it comes. Then it is stored a day at a time
//! ([`load`]), sealed and rewritten, so that nothing waits in memory or in the log.
//! `promtool tsdb create-blocks-from openmetrics`, which this stands in for, reads
//! the file once for each two hours.
//!
//! It must never store a part of a file that is wrong, nor leave a sample out
//! without saying how many and why.

mod load;
mod read;
mod spill;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use self::load::{Outcome, REFUSALS};
use self::read::Taken;
use super::{EXIT_USAGE, complain, in_runtime, parse_span, say, warn};
use crate::config::{Config, Span};
use crate::model::{Clock, TenantId, Timestamp, clock};
use crate::store::{DirLock, Options, Store};
use crate::telemetry::{Metrics, logging};

/// Arguments of `pulse import`.
#[derive(Args)]
pub(super) struct ImportArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Store the samples of an OpenMetrics text in a data directory that is not in use.
    ///
    /// Every sample needs a time, and the text ends with "# EOF", as for "promtool tsdb
    /// create-blocks-from openmetrics". It may be gzipped, of any length and in any order. A
    /// mistake anywhere stores nothing. Samples may be as old as [store] retention;
    /// [store] max_late does not matter here. What is stored already has no effect, so an import
    /// that was cut short can be run again. The exit code is 0 when every sample is stored, 1
    /// when some are refused (all others are stored) or the file is wrong.
    #[command(verbatim_doc_comment)]
    Openmetrics(OpenMetricsArgs),
}

/// Arguments of `pulse import openmetrics`.
#[derive(Args)]
struct OpenMetricsArgs {
    /// The text, or - for standard input.
    file: PathBuf,
    /// The configuration file that names the data directory, the retention and the limits.
    #[arg(long, env = "PULSE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory; made when it is missing [default: ./data].
    #[arg(long, alias = "storage.tsdb.path", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How old samples may be, as in `pulse run` [default: 30d].
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = parse_span)]
    retention: Option<Span>,
    /// Give every series this tenant; one that names another is a mistake.
    #[arg(long, value_name = "TENANT", value_parser = tenant)]
    tenant: Option<TenantId>,
}

fn tenant(text: &str) -> Result<TenantId, String> {
    match crate::model::tenant::is_reserved(text) {
        true => Err("names that begin with __ are ours".to_owned()),
        false => TenantId::new(text).map_err(|err| err.to_string()),
    }
}

/// Reads all of it, then stores all of it.
pub(super) fn import(args: &ImportArgs) -> ExitCode {
    let What::Openmetrics(args) = &args.what;
    let config = match args.prepare() {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(args, config) {
        Ok(done) => {
            say(&done.to_string());
            ExitCode::from(u8::from(done.is_short()))
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

impl OpenMetricsArgs {
    fn prepare(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        if let Some(dir) = &self.data_dir {
            config.server.data_dir = std::path::absolute(dir).context("no working folder")?;
        }
        if let Some(retention) = self.retention {
            config.store.retention = retention;
        }
        config.store.max_late = config.store.retention;
        logging::init("warn", config.server.log_format)?;
        Ok(config)
    }
}

fn run(args: &OpenMetricsArgs, config: Config) -> anyhow::Result<Done> {
    let dir = config.server.data_dir.clone();
    let input = read::Input::open(&args.file)?;
    // Held from here on, so that an hour of reading is not for nothing.
    let lock = DirLock::take(&dir).context("an import needs the directory for itself")?;
    let retention = config.store.retention;
    let options = Options {
        dir: dir.clone(),
        store: config.store,
        limits: config.limits,
        tenants: config.tenant,
    };
    let series_max = options.limits.series_max;
    let clock = Clock::System.guarded(clock::build_date(), config.global.trust_clock);
    let store = Store::open_held(lock, options, clock, Metrics::new())?;
    let rules = read::Rules {
        accepted: store.accepted(),
        tenant: args.tenant.clone(),
        series_max,
    };
    let imported = in_runtime(async {
        let imported = transfer(&store, &dir, input, &rules).await;
        store.close().await;
        imported
    });
    let (taken, outcome) = imported?;
    Ok(Done {
        file: args.file.clone(),
        dir,
        retention,
        outcome,
        taken,
    })
}

async fn transfer(
    store: &Store,
    dir: &Path,
    input: read::Input,
    rules: &read::Rules,
) -> anyhow::Result<(Taken, Outcome)> {
    let (taken, spill) =
        read::read(input, rules, spill::Spill::new(dir)?).context("nothing is stored")?;
    let outcome = load::load(store, &taken, spill).await?;
    Ok((taken, outcome))
}

/// What an import came to.
struct Done {
    file: PathBuf,
    dir: PathBuf,
    retention: Span,
    taken: Taken,
    outcome: Outcome,
}

impl Done {
    /// Whether samples are left out.
    fn is_short(&self) -> bool {
        let late = self.taken.too_old.count + self.taken.too_new.count;
        late + self.outcome.refused() > 0
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Done { taken, outcome, .. } = self;
        write!(
            f,
            "{} into {}: {} samples of {} series",
            self.file.display(),
            self.dir.display(),
            taken.samples,
            taken.series.len()
        )?;
        if let Some((first, last)) = taken.span {
            write!(f, ", {} to {}", time(first), time(last))?;
        }
        let (added, before) = (outcome.added, outcome.duplicates);
        write!(f, "\n{added} stored, {before} there before")?;
        let mut refused = String::new();
        for (what, some) in [
            ("older than the retention", &taken.too_old),
            ("in the future", &taken.too_new),
        ] {
            if let Some((first, last)) = some.span {
                let (first, last) = (time(first), time(last));
                write!(
                    refused,
                    "\n{} refused: {what}, {first} to {last}",
                    some.count
                )?;
            }
        }
        for (count, what) in outcome.refusals.iter().zip(REFUSALS) {
            if *count > 0 {
                write!(refused, "\n{count} refused: {what}")?;
            }
        }
        f.write_str(&refused)?;
        if taken.too_old.count > 0 {
            let days = self.retention.as_ms() / 86_400_000;
            write!(
                f,
                "\nThe retention is {days} days: [store] retention, or --storage.tsdb.retention.time"
            )?;
        }
        if taken.too_new.count > 0 {
            f.write_str("\nTimes are seconds in OpenMetrics, not milliseconds")?;
        }
        if taken.exemplars > 0 {
            write!(f, "\n{} exemplars are left out", taken.exemplars)?;
        }
        Ok(())
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_ms(ms).to_rfc3339()
}

/// Tells how far it is, at most every few seconds.
struct Progress(std::time::Instant);

impl Progress {
    /// How often.
    const EVERY: std::time::Duration = std::time::Duration::from_secs(5);

    fn new() -> Progress {
        Progress(std::time::Instant::now())
    }

    fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.0.elapsed() >= Progress::EVERY {
            *self = Progress::new();
            warn(&text());
        }
    }
}
