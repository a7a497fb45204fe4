//! `pulse check`: does everything but start. `pulse check rules`: rule files alone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{EXIT_USAGE, complain, read, say, warn};
use crate::config::text;
use crate::rules::file::{self, Defaults};
use crate::rules::{duplicates, packs};

/// Arguments of `pulse check`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CheckArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// The configuration file; without one the built-in defaults are checked.
    #[arg(env = "PULSE_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Check rule files as strictly as Prometheus.
    Rules(RulesArgs),
}

/// Arguments of `pulse check rules`.
#[derive(Args)]
struct RulesArgs {
    /// Rule files, or names of packs such as pack:scaling.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Checks the configuration and every file that it names, or rule files.
pub(super) fn check(args: &CheckArgs) -> ExitCode {
    if let Some(What::Rules(args)) = &args.what {
        return check_rules(&args.files);
    }
    let config = read(args.config.as_deref());
    match config.and_then(|config| Ok(crate::app::check(&config)?)) {
        Ok(report) => {
            for warning in report.warnings.lines() {
                warn(&format!("WARNING: {warning}"));
            }
            say(&report.to_string());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// As `promtool check rules`: every file is looked at; the code is 1 when one is wrong.
fn check_rules(files: &[PathBuf]) -> ExitCode {
    let mut is_good = true;
    for path in files {
        let name = path.display().to_string();
        say(&format!("Checking {name}"));
        match check_file(&name) {
            Ok(text) => say(&text),
            Err(mistakes) => {
                is_good = false;
                warn(&format!("  FAILED:\n{}", mistakes.join("\n")));
            }
        }
        say("");
    }
    match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What there is to say about a good file, or everything that is wrong.
fn check_file(name: &str) -> Result<String, Vec<String>> {
    let text = match name.strip_prefix("pack:") {
        Some(pack) => packs::text(pack)
            .map(str::to_owned)
            .with_context(|| format!("{name}: {pack:?} is not a pack")),
        None => text::read(Path::new(name)),
    };
    let text = text.map_err(|err| vec![format!("{err:#}")])?;
    let defaults = Defaults::every(Duration::from_secs(60));
    let groups = file::parse(name, &text, defaults)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
    let mut report = format!("  SUCCESS: {rules} rules found");
    if let Some(second) = file::second_document(name, &text) {
        report.push_str(&format!("\n  {second}"));
    }
    for duplicate in duplicates(&groups) {
        report.push_str(&format!("\n  duplicate rule: {duplicate}"));
    }
    Ok(report)
}
