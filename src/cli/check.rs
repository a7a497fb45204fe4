//! `pulse check`: does everything but start.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{EXIT_USAGE, checked, complain, say};
use crate::config::Config;

/// Arguments of `pulse check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// The configuration file; without one the built-in defaults are checked.
    #[arg(env = "PULSE_CONFIG")]
    config: Option<PathBuf>,
}

/// Checks the configuration and every file that it names.
pub(super) fn check(args: &CheckArgs) -> ExitCode {
    let report = load(args).and_then(|config| checked(&config, args.config.as_deref()));
    match report {
        Ok(report) => {
            say(&report.to_string());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn load(args: &CheckArgs) -> anyhow::Result<Config> {
    match &args.config {
        Some(path) => Config::load(path),
        None => Ok(Config::default()),
    }
}
