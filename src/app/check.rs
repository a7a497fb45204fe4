//! Everything that can be found wrong with a configuration before a start.

use std::fmt;

use anyhow::{Context as _, ensure};

use crate::config::{Config, Span};
use crate::{alerting, delivery, ingest, rules, sources, web};

/// What a checked configuration holds, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    sources: usize,
    groups: usize,
    rules: usize,
    destinations: usize,
    routes: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ok: {} sources, {} rules in {} groups, {} destinations, {} routes",
            self.sources, self.rules, self.groups, self.destinations, self.routes
        )
    }
}

/// Does everything but start.
///
/// # Errors
/// With the first mistake: file, line or table, field and what was expected.
pub fn check(config: &Config) -> anyhow::Result<Report> {
    crate::telemetry::logging::parse_filter(&config.server.log_level)
        .context("[server] log_level")?;
    check_values(config)?;
    web::check(config)?;
    ingest::check(config)?;
    sources::check(config)?;
    delivery::check(config)?;
    alerting::check(config)?;
    let (groups, rules) = rules::check(config)?;
    Ok(Report {
        sources: config.source.mqtt.len() + config.source.nats.len(),
        groups,
        rules,
        destinations: config.destination.names().count(),
        routes: config.route.len(),
    })
}

/// The shortest interval at which anything is read or evaluated.
const INTERVAL_MIN: Span = Span::secs(1);

/// The optional views of `[metrics]`.
const VIEWS: [&str; 3] = ["http", "relay", "node"];

/// Values that parse but would be of no use.
fn check_values(config: &Config) -> anyhow::Result<()> {
    for (field, span) in [
        ("[global] scrape_interval", config.global.scrape_interval),
        (
            "[global] evaluation_interval",
            config.global.evaluation_interval,
        ),
        ("[query] timeout", config.query.timeout),
        ("[query] lookback_delta", config.query.lookback_delta),
        ("[store] retention", config.store.retention),
    ] {
        ensure!(
            span >= INTERVAL_MIN,
            "{field} = {span:?}, expected at least 1s"
        );
    }
    for (field, count) in [
        ("[server] connections_max", config.server.connections_max),
        ("[query] concurrency", config.query.concurrency),
        ("[query] samples_max", config.query.samples_max),
        ("[query] series_max", config.query.series_max),
        ("[metrics] max_tenants", config.metrics.max_tenants),
    ] {
        ensure!(count > 0, "{field} = 0, expected at least 1");
    }
    for view in &config.metrics.views {
        let known = VIEWS.contains(&view.as_str());
        ensure!(
            known,
            "[metrics] views: {view:?}, expected some of {VIEWS:?}"
        );
    }
    for name in config.global.external_labels.keys() {
        ensure!(
            is_label_name(name),
            "[global] external_labels: {name:?} is not a label name"
        );
    }
    let url = &config.global.external_url;
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    ensure!(
        url.is_empty() || (is_web && url.parse::<hyper::Uri>().is_ok()),
        "[global] external_url = {url:?}, expected http:// or https:// and a host"
    );
    Ok(())
}

fn is_label_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && name.bytes().all(legal) && !name.as_bytes()[0].is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_no_use_are_refused_by_field() {
        for (text, field) in [
            (
                "[global]\nscrape_interval = \"0s\"",
                "[global] scrape_interval",
            ),
            (
                "[global]\nscrape_interval = \"1ms\"",
                "[global] scrape_interval",
            ),
            ("[query]\nconcurrency = 0", "[query] concurrency"),
            ("[server]\nconnections_max = 0", "[server] connections_max"),
            ("[metrics]\nviews = [\"nod\"]", "[metrics] views"),
            (
                "[global]\nexternal_labels = { \"1x\" = \"a\" }",
                "external_labels",
            ),
            ("[global]\nexternal_url = \"foo\"", "[global] external_url"),
            ("[server]\nlog_level = \"loud\"", "log_level"),
        ] {
            let config = Config::parse(text, "c.toml").unwrap();
            let err = format!("{:#}", check(&config).unwrap_err());
            assert!(err.contains(field), "{text}: {err}");
        }
        assert!(check(&Config::default()).is_ok());
    }
}
