//! Finds, reads and checks all rule files of a configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::file::{self, Defaults, FileError};
use super::spec::GroupSpec;
use super::{glob, packs};
use crate::config::Config;
use crate::promql::{Engine, Features, engine};

/// The largest rule file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A subquery without a step runs as often as Prometheus' default evaluation.
const SUBQUERY_STEP_MIN: Duration = Duration::from_secs(1);

/// Rules that are fit to run, with the settings that they run under.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// In the order of the files and of the groups in them.
    pub groups: Vec<Arc<GroupSpec>>,
    /// What was let through though Prometheus would not.
    pub warnings: Vec<FileError>,
    /// What holds for all of them.
    pub settings: Arc<Settings>,
}

/// What holds for all rules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Evaluates expressions.
    pub engine: Engine,
    /// `$externalLabels`
    pub external_labels: BTreeMap<String, String>,
    /// `$externalURL`
    pub external_url: String,
    /// How long one query may run.
    pub timeout: Duration,
    /// See `[rules] for_grace_period`.
    pub for_grace_period: Duration,
    /// See `[rules] for_outage_tolerance`.
    pub for_outage_tolerance: Duration,
    /// See `[rules] resend_delay`.
    pub resend_delay: Duration,
}

/// Reads and checks the configured rule files.
///
/// # Errors
/// When a file cannot be found or read, and with every mistake in any of them:
/// one line for each, with file, line and column.
pub fn load(config: &Config) -> anyhow::Result<Loaded> {
    let defaults = defaults(config);
    let mut groups = Vec::new();
    let mut warnings = Vec::new();
    let mut mistakes = Vec::new();
    let mut take = |file: &str, text: &str| match file::parse_lenient(file, text, defaults) {
        Ok(found) => {
            groups.extend(found.groups.into_iter().map(Arc::new));
            warnings.extend(found.extras);
        }
        Err(errors) => mistakes.extend(errors.iter().map(ToString::to_string)),
    };
    for name in &config.rules.packs {
        let text = packs::text(name).with_context(|| {
            let known: Vec<&str> = packs::names().collect();
            format!("[rules] packs: {name:?} is not a pack, expected some of {known:?}")
        })?;
        take(&packs::file(name), text);
    }
    for path in files(config)? {
        take(&path.display().to_string(), &read(&path)?);
    }
    if !mistakes.is_empty() {
        anyhow::bail!("{}", mistakes.join("\n"));
    }
    Ok(Loaded {
        groups,
        warnings,
        settings: Arc::new(settings(config)),
    })
}

/// Checks the configured rule files; gives the number of groups and of rules.
///
/// # Errors
/// As [`load`].
pub fn check(config: &Config) -> anyhow::Result<(usize, usize)> {
    let loaded = load(config)?;
    let rules = loaded.groups.iter().map(|group| group.rules.len()).sum();
    Ok((loaded.groups.len(), rules))
}

/// What a configuration says about groups that do not say it themselves.
pub fn defaults(config: &Config) -> Defaults {
    Defaults {
        interval: config.global.evaluation_interval.get(),
        query_offset: config.global.rule_query_offset.get(),
    }
}

/// What a configuration says about all rules.
pub fn settings(config: &Config) -> Settings {
    let interval = config.global.evaluation_interval.get();
    Settings {
        engine: Engine {
            options: engine::Options {
                lookback: config.query.lookback_delta.get(),
                subquery_step: interval.max(SUBQUERY_STEP_MIN),
                samples_max: config.query.samples_max,
                series_max: config.query.series_max,
                features: Features::of(&config.query.features),
            },
            ..Engine::default()
        },
        external_labels: config.global.external_labels.clone(),
        external_url: config.external_url(),
        timeout: config.query.timeout.get(),
        for_grace_period: config.rules.for_grace_period.get(),
        for_outage_tolerance: config.rules.for_outage_tolerance.get(),
        resend_delay: config.rules.resend_delay.get(),
    }
}

/// The files that the configured paths and globs name, each once, in order.
fn files(config: &Config) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pattern in &config.rules.rule_files {
        let path = config.resolve(Path::new(pattern));
        let pattern = path.display().to_string();
        let shown = || format!("cannot look for rule files {pattern:?}");
        let named = if glob::is_pattern(&pattern) {
            glob::find(&pattern).with_context(shown)?
        } else {
            vec![path]
        };
        for file in named {
            if !found.contains(&file) {
                found.push(file);
            }
        }
    }
    Ok(found)
}

/// Reads a rule file.
///
/// # Errors
/// When it cannot be read or is too large.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let shown = || format!("cannot read rule file {}", path.display());
    let bytes = std::fs::metadata(path).with_context(shown)?.len();
    if bytes > FILE_BYTES_MAX {
        anyhow::bail!("rule file {} is larger than 16 MiB", path.display());
    }
    std::fs::read_to_string(path).with_context(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_with(dir: &Path, files: &[&str]) -> Config {
        let mut config = Config {
            base_dir: dir.to_owned(),
            ..Config::default()
        };
        config.rules.rule_files = files.iter().map(|&f| f.to_owned()).collect();
        config
    }

    #[test]
    fn files_are_found_once_and_relative_to_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yml", "c.txt"] {
            std::fs::write(dir.path().join(name), "groups: []\n").unwrap();
        }
        let found = files(&config_with(dir.path(), &["b.yml", "*.yml"])).unwrap();
        let names = found.iter().map(|f| f.file_name().unwrap().to_str());
        assert_eq!(names.flatten().collect::<Vec<_>>(), ["b.yml", "a.yml"]);
    }

    #[test]
    fn every_mistake_of_every_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yml"), "grups: []\n").unwrap();
        std::fs::write(dir.path().join("b.yml"), "groups:\n- name: ''\n").unwrap();
        let err = load(&config_with(dir.path(), &["*.yml"])).unwrap_err();
        let text = format!("{err:#}");
        assert!(text.contains("a.yml:1:1:"), "{text}");
        assert!(
            text.contains("b.yml:2:9: groupname must not be empty"),
            "{text}"
        );
        let err = load(&config_with(dir.path(), &["none.yml"])).unwrap_err();
        assert!(
            format!("{err:#}").contains("cannot read rule file"),
            "{err:#}"
        );
    }
}
