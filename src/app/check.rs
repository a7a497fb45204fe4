//! Everything that can be found wrong with a configuration before a start.

use std::fmt;

use crate::config::routing::is_label_name;
use crate::config::{Config, Mistake, Mistakes, Size, Span};
use crate::{alerting, delivery, ingest, rules, sources, web};

/// What a checked configuration holds, in numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    sources: usize,
    groups: usize,
    rules: usize,
    destinations: usize,
    routes: usize,
    /// What is let through though it is not safe, each with its place.
    pub warnings: Mistakes,
}

impl Report {
    /// Tells the warnings to the log.
    pub fn log(&self) {
        for warning in self.warnings.lines() {
            tracing::warn!(warning, "configuration is not safe");
        }
    }
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
/// With every mistake, a line for each: file, line, column, field and what was
/// expected; those too that were passed over when the file was read.
pub fn check(config: &Config) -> Result<Report, Mistakes> {
    let mut found = Vec::new();
    mistaken_values(config, &mut found);
    found.extend(web::mistakes(config));
    found.extend(ingest::mistakes(config));
    found.extend(sources::mistakes(config));
    found.extend(delivery::mistakes(config));
    found.extend(alerting::mistakes(config));
    let (groups, rules) = rules::check(config).unwrap_or_else(|of_rules| {
        found.extend(of_rules);
        (0, 0)
    });
    let mistakes = config.tell(found);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(Report {
        sources: config.source.mqtt.len() + config.source.nats.len(),
        groups,
        rules,
        destinations: config.destination.names().count(),
        routes: config.route.len(),
        warnings: config.tell(delivery::warnings(config)),
    })
}

/// The shortest interval at which anything is read or evaluated.
const INTERVAL_MIN: Span = Span::secs(1);

/// The optional views of `[metrics]`.
const VIEWS: [&str; 3] = ["http", "relay", "node"];

/// Values that parse but would be of no use.
fn mistaken_values(config: &Config, found: &mut Vec<Mistake>) {
    let filter = crate::telemetry::logging::parse_filter(&config.server.log_level);
    if let Err(err) = filter {
        found.push(Mistake::new("server.log_level", format!("{err:#}")));
    }
    let data_dir = &config.server.data_dir;
    if data_dir.exists() && !data_dir.is_dir() {
        let text = format!("{} is not a directory", data_dir.display());
        found.push(Mistake::new("server.data_dir", text));
    }
    let (global, query, store) = (&config.global, &config.query, &config.store);
    for (field, span) in [
        ("global.scrape_interval", global.scrape_interval),
        ("global.evaluation_interval", global.evaluation_interval),
        ("query.timeout", query.timeout),
        ("query.lookback_delta", query.lookback_delta),
        ("store.retention", store.retention),
    ] {
        if span < INTERVAL_MIN {
            let text = format!("{span:?}, expected at least 1s");
            found.push(Mistake::new(field, text));
        }
    }
    for (field, count) in [
        ("server.connections_max", config.server.connections_max),
        ("query.concurrency", query.concurrency),
        ("query.samples_max", query.samples_max),
        ("query.series_max", query.series_max),
        ("metrics.max_tenants", config.metrics.max_tenants),
    ] {
        if count == 0 {
            found.push(Mistake::new(field, "0, expected at least 1"));
        }
    }
    for (field, size, least, is_off_at_0) in [
        (
            "store.memory_limit",
            store.memory_limit,
            Size::mib(64),
            true,
        ),
        (
            "store.write_budget",
            store.write_budget,
            Size::mib(100),
            true,
        ),
        ("store.free_min", store.free_min, Size::mib(1), true),
        ("store.reserve", store.reserve, Size::mib(1), true),
        ("store.head_max", store.head_max, Size::mib(1), false),
    ] {
        if size < least && !(is_off_at_0 && size.get() == 0) {
            let or_off = if is_off_at_0 { "0B or " } else { "" };
            let text = format!("{size:?}, expected {or_off}at least {least:?}");
            found.push(Mistake::new(field, text));
        }
    }
    for (at, view) in config.metrics.views.iter().enumerate() {
        if !VIEWS.contains(&view.as_str()) {
            let text = format!("{view:?}, expected some of {VIEWS:?}");
            found.push(Mistake::new(format!("metrics.views[{at}]"), text));
        }
    }
    for name in global.external_labels.keys() {
        if !is_label_name(name) {
            let path = format!("global.external_labels.{name}");
            found.push(Mistake::new(path, format!("{name:?} is not a label name")));
        }
    }
    let url = &global.external_url;
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    let is_url = is_web && url.parse::<hyper::Uri>().is_ok();
    if !(url.is_empty() || is_url) {
        let text = format!("{url:?}, expected http:// or https:// and a host");
        found.push(Mistake::new("global.external_url", text));
    }
}

#[cfg(test)]
mod tests;
