//! The tracing subscriber: lines on standard error, as text or JSON.

use std::io;
use std::str::FromStr;

use anyhow::Context as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
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
    let targets = Targets::from_str(level).with_context(|| {
        format!(
            "log level {level:?}: expected error, warn, info, debug or trace, or target=level pairs"
        )
    })?;
    Ok(match level.contains("async_nats") {
        true => targets,
        false => quieter(targets),
    })
}

/// The NATS client tells of every attempt, without the name of the source; our own
/// lines tell of every change. Whoever asks for more than `info` gets its lines too.
fn quieter(targets: Targets) -> Targets {
    match targets.default_level() {
        Some(LevelFilter::INFO) => targets.with_target("async_nats", LevelFilter::WARN),
        _ => targets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nats_client_is_quiet_unless_it_is_asked_for() {
        let speaks = |filter: &str, target: &str| {
            let filter = parse_filter(filter).unwrap();
            filter.would_enable(target, &tracing::Level::INFO)
        };
        assert!(speaks("info", "pulse::sources"));
        assert!(!speaks("info", "async_nats"));
        assert!(speaks("debug", "async_nats"));
        assert!(speaks("info,async_nats=info", "async_nats"));
    }

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
