//! The tracing subscriber: lines on standard error, as text or JSON.

use std::io;
use std::str::FromStr;

use anyhow::Context as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Starts logging. `level` is a filter as in `info` or `pulse=debug,warn`.
///
/// # Errors
/// When the filter cannot be parsed or logging was started before.
pub fn init(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = parse_filter(level)?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => registry.with(layer.with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
    .context("cannot start logging")
}

/// Parses a log filter.
///
/// # Errors
/// When it is not of the form.
pub fn parse_filter(level: &str) -> anyhow::Result<Targets> {
    Targets::from_str(level).with_context(|| {
        format!(
            "log level {level:?}: expected error, warn, info, debug or trace, or target=level pairs"
        )
    })
}
