//! `pulse backtest`: what a rule file would have done over the history of a
//! running pulse.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use hyper::body::Bytes;
use serde::Deserialize;

use super::query::post_form;
use super::{ended, in_runtime};

/// Arguments of `pulse backtest`.
#[derive(Args)]
pub(super) struct BacktestArgs {
    /// The rule file; its path decides at which moments its groups run.
    file: PathBuf,
    /// Where to begin (RFC 3339 or Unix seconds).
    #[arg(long)]
    start: String,
    /// Where to end.
    #[arg(long)]
    end: String,
    /// The server whose history is used.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Labels by which notifications are grouped; default: as the server is configured.
    #[arg(long, value_name = "LABEL")]
    group_by: Vec<String>,
    /// How the answer looks.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// A bearer token for the server.
    #[arg(long, env = "PULSE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A summary, for people.
    Table,
    /// The server's answer as it is.
    Json,
}

/// Asks and prints.
pub(super) fn backtest(args: &BacktestArgs) -> ExitCode {
    let printed = ask(args).and_then(|body| match args.format {
        Format::Json => Ok(String::from_utf8_lossy(&body).into_owned()),
        Format::Table => table(&body),
    });
    ended(printed.map(|text| text.trim_end().to_owned()))
}

fn ask(args: &BacktestArgs) -> anyhow::Result<Bytes> {
    let shown = || format!("cannot read rule file {}", args.file.display());
    let rules = std::fs::read_to_string(&args.file).with_context(shown)?;
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("rules", &rules);
    form.append_pair("file", &args.file.display().to_string());
    form.append_pair("start", &args.start);
    form.append_pair("end", &args.end);
    for label in &args.group_by {
        form.append_pair("group_by[]", label);
    }
    in_runtime(post_form(
        &args.url,
        "rules/backtest",
        args.token.as_deref(),
        form.finish(),
    ))
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Report>,
}

#[derive(Deserialize)]
struct Report {
    evaluations: u64,
    failures: u64,
    rules: Vec<Rule>,
    notifications: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    group: String,
    name: String,
    #[serde(default)]
    last_error: Option<String>,
    fired: u64,
    pending_only: u64,
    firing_seconds: f64,
}

fn table(body: &[u8]) -> anyhow::Result<String> {
    let answer: Answer = serde_json::from_slice(body).context("not an answer of pulse")?;
    let Some(report) = answer.data.filter(|_| answer.status == "success") else {
        bail!("{}", answer.error);
    };
    let mut out = format!(
        "{} evaluations, {} failed, {} notifications\n\n{:<24} {:<32} {:>6} {:>13} {:>10}\n",
        report.evaluations,
        report.failures,
        report.notifications.len(),
        "group",
        "rule",
        "fired",
        "only pending",
        "firing s",
    );
    for rule in report.rules {
        let row = writeln!(
            out,
            "{:<24} {:<32} {:>6} {:>13} {:>10}",
            rule.group, rule.name, rule.fired, rule.pending_only, rule.firing_seconds
        );
        row.expect("a text takes everything");
        if let Some(error) = rule.last_error {
            writeln!(out, "    {error}").expect("a text takes everything");
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_a_table_and_an_error_an_error() {
        let body = br#"{"status":"success","data":{"evaluations":9,"failures":0,"rules":[{"group":"g",
            "name":"Hot","type":"alerting","fired":2,"pendingOnly":1,"firingSeconds":30.0,"intervals":[]}],
            "notifications":[{}]}}"#;
        let text = table(body).unwrap();
        assert!(
            text.starts_with("9 evaluations, 0 failed, 1 notifications\n"),
            "{text}"
        );
        let row: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(row, ["g", "Hot", "2", "1", "30"]);
        let err = table(br#"{"status":"error","error":"no"}"#).unwrap_err();
        assert_eq!(err.to_string(), "no");
    }
}
