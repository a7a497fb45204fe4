//! Finds, reads and checks all rule files of a configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::file::{self, Defaults, FileError};
use super::packs;
use super::spec::GroupSpec;
use crate::config::{Config, Mistake, glob, text};
use crate::promql::{Engine, Features, engine};

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
    /// The label `instance` of our own metrics: host name and port.
    pub instance: String,
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
    load_all(config).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

fn load_all(config: &Config) -> Result<Loaded, Vec<Mistake>> {
    let defaults = defaults(config);
    let mut groups = Vec::new();
    let mut warnings = Vec::new();
    let mut in_files = Vec::new();
    let mut take = |file: &str, text: &str| match file::parse_lenient(file, text, defaults) {
        Ok(found) => {
            groups.extend(found.groups.into_iter().map(Arc::new));
            warnings.extend(found.extras);
            warnings.extend(file::second_document(file, text));
        }
        Err(errors) => in_files.extend(errors),
    };
    let mut mistakes = Vec::new();
    for (at, name) in config.rules.packs.iter().enumerate() {
        let Some(text) = packs::text(name) else {
            let known: Vec<&str> = packs::names().collect();
            let text = format!("{name:?} is not a pack, expected some of {known:?}");
            mistakes.push(Mistake::new(format!("rules.packs[{at}]"), text));
            continue;
        };
        take(&packs::file(name), text);
    }
    for (at, path) in files(config, &mut mistakes) {
        match read(&path) {
            Ok(text) => take(&path.display().to_string(), &text),
            Err(err) => mistakes.push(in_list(at, &err)),
        }
    }
    let in_files = in_files.iter().map(ToString::to_string);
    mistakes.extend(in_files.map(Mistake::elsewhere));
    if !mistakes.is_empty() {
        return Err(mistakes);
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
/// As [`load`], one by one.
pub fn check(config: &Config) -> Result<(usize, usize), Vec<Mistake>> {
    let loaded = load_all(config)?;
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
                ..engine::Options::default()
            },
            ..Engine::default()
        },
        external_labels: config.global.external_labels.clone(),
        external_url: config.external_url(),
        instance: config.instance(),
        timeout: config.query.timeout.get(),
        for_grace_period: config.rules.for_grace_period.get(),
        for_outage_tolerance: config.rules.for_outage_tolerance.get(),
        resend_delay: config.rules.resend_delay.get(),
    }
}

/// The files that the configured paths and globs name, each once, in order; beside it
/// which of them named it.
fn files(config: &Config, mistakes: &mut Vec<Mistake>) -> Vec<(usize, PathBuf)> {
    let mut found: Vec<(usize, PathBuf)> = Vec::new();
    for (at, pattern) in config.rules.rule_files.iter().enumerate() {
        let path = config.resolve(Path::new(pattern));
        let pattern = path.display().to_string();
        let named = match glob::is_pattern(&pattern) {
            true => glob::find(&pattern).with_context(|| format!("cannot look for {pattern:?}")),
            false => Ok(vec![path]),
        };
        match named {
            Ok(named) => {
                for file in named {
                    if !found.iter().any(|(_, known)| *known == file) {
                        found.push((at, file));
                    }
                }
            }
            Err(err) => mistakes.push(in_list(at, &err)),
        }
    }
    found
}

fn in_list(at: usize, err: &anyhow::Error) -> Mistake {
    Mistake::new(format!("rules.rule_files[{at}]"), format!("{err:#}"))
}

/// Reads a rule file.
///
/// # Errors
/// When it cannot be read, is no text or is too large.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    text::read(path)
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
        let mut mistakes = Vec::new();
        let found = files(&config_with(dir.path(), &["b.yml", "*.yml"]), &mut mistakes);
        assert!(mistakes.is_empty());
        let names = found.iter().map(|(_, f)| f.file_name().unwrap().to_str());
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
        assert!(format!("{err:#}").contains("cannot read"), "{err:#}");
    }
}
