//! `pulse test rules`: promtool's unit tests, with our engine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{say, warn};
use crate::rules::unit;

/// Arguments of `pulse test`.
#[derive(Args)]
pub(super) struct TestArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run promtool unit-test files for rules.
    Rules(RulesArgs),
}

/// Arguments of `pulse test rules`.
#[derive(Args)]
struct RulesArgs {
    /// Test files; rule files in them are relative to them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Runs the tests. As promtool: 0 when all hold, 1 when one does not.
pub(super) fn test(args: &TestArgs) -> ExitCode {
    let What::Rules(args) = &args.what;
    let mut is_good = true;
    for path in &args.files {
        say(&format!("Unit Testing:  {}", path.display()));
        let outcome = unit::run(path);
        for warning in &outcome.warnings {
            warn(&format!("  WARNING: {warning}"));
        }
        if outcome.failures.is_empty() {
            say("  SUCCESS");
        } else {
            is_good = false;
            warn("  FAILED:");
            for failure in &outcome.failures {
                warn(failure);
            }
        }
        say("");
    }
    match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
