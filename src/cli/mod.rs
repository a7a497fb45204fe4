//! The command line: arguments, one file for each sub-command, exit codes.
//!
//! Owns nothing; it hands a checked configuration to `app`.
//!
//! It must never start anything before the whole configuration was checked.

mod backtest;
mod backup;
mod check;
mod import;
mod local;
mod plot;
mod query;
mod run;
mod test;
mod tsdb;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Mistakes, Span};
use crate::model::duration;

/// The exit code of a mistake in the configuration or the arguments.
const EXIT_USAGE: u8 = 2;

/// One process that collects, stores, watches and shows: MQTT, NATS and HTTP in;
/// dashboards, alerts, the Prometheus API and /metrics out.
///
/// Without arguments it serves http://127.0.0.1:8080 and keeps its data in ./data.
#[derive(Parser)]
#[command(name = "pulse", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Start the monitor (the default).
    Run(RunArgs),
    /// Check a configuration with all files that it names, without starting.
    Check(check::CheckArgs),
    /// Run unit tests for rules.
    Test(test::TestArgs),
    /// Show what a rule file would have done over the history of a running pulse.
    Backtest(backtest::BacktestArgs),
    /// Ask a running pulse, or any Prometheus, a PromQL question.
    Query(query::QueryArgs),
    /// Write the whole data directory into one file, while it is in use or not.
    Backup(backup::BackupArgs),
    /// Put a backup into an empty data directory.
    Restore(backup::RestoreArgs),
    /// Walk every checksum of a data directory or a backup; say what is wrong where.
    Verify(backup::VerifyArgs),
    /// Store history from files in a data directory that is not in use.
    Import(import::ImportArgs),
    /// Look into the store of a running pulse.
    Tsdb(tsdb::TsdbArgs),
}

/// What `run` can be told; it goes before the configuration file.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// The configuration file; without one the built-in defaults hold.
    #[arg(long, alias = "config.file", env = "PULSE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the store lives [default: ./data].
    #[arg(long, alias = "storage.tsdb.path", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// An address to listen on; may be repeated [default: 127.0.0.1:8080].
    #[arg(long, alias = "web.listen-address", value_name = "ADDRESS")]
    pub listen: Vec<SocketAddr>,
    /// How long samples are kept [default: 30d].
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = parse_span)]
    pub retention: Option<Span>,
    /// Let /api/v1/admin/tsdb/... answer: delete_series, clean_tombstones, snapshot, compact.
    #[arg(long = "web.enable-admin-api")]
    pub enable_admin_api: bool,
    /// Write nothing: queries and pages only, as on a medium that takes no writes.
    #[arg(long)]
    pub read_only: bool,
    /// error, warn, info, debug or trace, or target=level pairs [default: info].
    #[arg(long, alias = "log.level", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

fn parse_span(text: &str) -> Result<Span, String> {
    let ms = duration::parse_ms(text).map_err(|err| err.to_string())?;
    Ok(Span::ms(ms))
}

impl RunArgs {
    /// The configuration file with these arguments on top. Its mistakes are told by
    /// [`crate::app::check`], together with those that only that one finds.
    ///
    /// # Errors
    /// When the file cannot be read or is no TOML.
    pub fn load(&self) -> anyhow::Result<Config> {
        let mut config = read(self.config.as_deref())?;
        if let Some(dir) = &self.data_dir {
            config.server.data_dir = std::path::absolute(dir).context("no working folder")?;
            config.set_by("server.data_dir", "--data-dir");
        }
        if !self.listen.is_empty() {
            config.server.listen.clone_from(&self.listen);
            config.set_by("server.listen", "--listen");
        }
        if let Some(retention) = self.retention {
            config.store.retention = retention;
            config.set_by("store.retention", "--storage.tsdb.retention.time");
        }
        config.server.enable_admin_api |= self.enable_admin_api;
        config.store.read_only |= self.read_only;
        if let Some(level) = &self.log_level {
            config.server.log_level.clone_from(level);
            config.set_by("server.log_level", "--log-level");
        }
        Ok(config)
    }
}

/// Runs the command line. The code is 0 for a clean end, 2 for a mistake in the
/// configuration or the arguments, 1 for everything else.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Test(args) => test::test(&args),
        Command::Backtest(args) => backtest::backtest(&args),
        Command::Query(args) => query::query(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Verify(args) => backup::verify(&args),
        Command::Import(args) => import::import(&args),
        Command::Tsdb(args) => tsdb::tsdb(&args),
    }
}

/// What a configuration file says, for [`crate::app::check`]; without one the defaults.
fn read(file: Option<&Path>) -> anyhow::Result<Config> {
    file.map_or_else(|| Ok(Config::default()), Config::read)
}

/// Says how it went: a text for standard output, or an error.
fn ended(done: anyhow::Result<String>) -> ExitCode {
    match done {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the one thing that a command waits for.
fn in_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

/// Says on standard error what went wrong, with its causes. Mistakes of a
/// configuration begin with their place, as editors read it.
fn complain(error: &anyhow::Error) {
    match error.downcast_ref::<Mistakes>() {
        Some(mistakes) if std::io::stderr().is_terminal() => warn(&mistakes.with_pictures()),
        Some(mistakes) => warn(&mistakes.to_string()),
        None => warn(&format!("pulse: {error:#}")),
    }
}

/// Says something on standard error.
#[expect(clippy::print_stderr, reason = "this is the command line's own voice")]
fn warn(text: &str) {
    eprintln!("{text}");
}

/// Says something on standard output; a closed pipe is not an error.
fn say(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"));
    drop(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Config {
        let cli = Cli::try_parse_from([&["pulse"], args].concat()).unwrap();
        let Command::Run(run) = cli.command.unwrap_or(Command::Run(cli.run)) else {
            panic!("not a run");
        };
        run.load().unwrap()
    }

    #[test]
    fn run_is_the_default_and_takes_prometheus_flags() {
        let plain = parse(&[]);
        assert_eq!(plain, Config::default());
        let named = parse(&[
            "run",
            "--listen",
            "127.0.0.1:1",
            "--listen",
            "127.0.0.1:2",
            "--storage.tsdb.path",
            "/d",
            "--storage.tsdb.retention.time",
            "15d",
            "--web.enable-admin-api",
            "--read-only",
        ]);
        assert!(named.store.read_only && !plain.store.read_only);
        assert!(named.server.enable_admin_api);
        assert_eq!(named.server.listen.len(), 2);
        assert_eq!(named.server.data_dir, PathBuf::from("/d"));
        assert_eq!(named.store.retention, Span::secs(15 * 86_400));
        assert_eq!(parse(&["--log-level", "debug"]).server.log_level, "debug");
    }

    #[test]
    fn config_file_is_an_alias_as_in_prometheus() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "[store]\nretention = \"2d\"\n").unwrap();
        let config = parse(&["--config.file", file.to_str().unwrap()]);
        assert_eq!(config.store.retention, Span::secs(2 * 86_400));
    }
}
