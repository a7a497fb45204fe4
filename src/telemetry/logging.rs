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
    // A bare word that is no level would be taken as a target, and silence all others.
    let is_known = |part: &str| part.contains('=') || part.trim().parse::<tracing::Level>().is_ok();
    if !level.split(',').all(|part| is_known(part) || part == "off") {
        anyhow::bail!(
            "log level {level:?}: expected error, warn, info, debug or trace, or target=level pairs"
        );
    }
    Targets::from_str(level).with_context(|| {
        format!(
            "log level {level:?}: expected error, warn, info, debug or trace, or target=level pairs"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in ["info", "warn,pulse=debug", "off"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["loud", "pulse=loud", "", "info,loud"] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }
}
