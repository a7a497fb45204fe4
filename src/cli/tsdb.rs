//! `pulse tsdb analyze`: where the series of a running process come from.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::backup::DirArgs;
use super::{ended, local};
use crate::store::{Cardinality, Count};

/// Arguments of `pulse tsdb`.
#[derive(Args)]
pub(super) struct TsdbArgs {
    #[command(subcommand)]
    command: TsdbCommand,
}

#[derive(Subcommand)]
enum TsdbCommand {
    /// Show which names, labels, pairs and tenants have most series, and what is new.
    Analyze(AnalyzeArgs),
}

/// Arguments of `pulse tsdb analyze`.
#[derive(Args)]
struct AnalyzeArgs {
    /// How long each list may be.
    #[arg(long, default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    dir: DirArgs,
}

/// Asks the process that has the directory, and prints.
pub(super) fn tsdb(args: &TsdbArgs) -> ExitCode {
    let TsdbCommand::Analyze(args) = &args.command;
    ended(analyze(args))
}

fn analyze(args: &AnalyzeArgs) -> anyhow::Result<String> {
    let dir = args.dir.dir()?;
    let found = local::tsdb(&dir, args.limit)
        .with_context(|| format!("{} has to be in use by a running pulse", dir.display()))?;
    let found: Cardinality = serde_json::from_slice(&found).context("not a report")?;
    Ok(report(&found))
}

fn report(found: &Cardinality) -> String {
    let mut out = format!(
        "{} series, {} label pairs, {} series new within the last hour\n",
        found.series, found.pairs, found.new_series
    );
    list(&mut out, "series by metric name", &found.by_metric);
    list(&mut out, "values by label", &found.values_by_label);
    list(&mut out, "bytes of values by label", &found.bytes_by_label);
    list(&mut out, "series by label pair", &found.by_pair);
    list(&mut out, "series by tenant", &found.by_tenant);
    list(&mut out, "new series by metric name", &found.new_by_metric);
    out.truncate(out.trim_end().len());
    out
}

fn list(out: &mut String, title: &str, counts: &[Count]) {
    writeln!(out, "\n{title}:").expect("a text takes all");
    for (name, count) in counts {
        let name = if name.is_empty() { "(none)" } else { name };
        writeln!(out, "{count:>10}  {name}").expect("a text takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_lined_up_under_their_titles() {
        let found = Cardinality {
            series: 12,
            by_tenant: vec![(String::new(), 9), ("acme".to_owned(), 3)],
            ..Cardinality::default()
        };
        let text = report(&found);
        assert!(text.starts_with("12 series, 0 label pairs"), "{text}");
        assert!(text.contains("\nseries by tenant:\n         9  (none)\n         3  acme\n"));
    }
}
