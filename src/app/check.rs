//! Everything that can be found wrong with a configuration before a start.

use std::fmt;

use anyhow::Context as _;

use crate::config::Config;
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
