//! Everything that can be found wrong with a configuration before a start.

use std::fmt;

use anyhow::{Context as _, anyhow};

use crate::config::{Config, Size, Span};
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
/// With every mistake, a line for each: file, line or table, field and what was
/// expected.
pub fn check(config: &Config) -> anyhow::Result<Report> {
    let mut mistakes = Vec::new();
    let filter = crate::telemetry::logging::parse_filter(&config.server.log_level);
    mistakes.extend(filter.context("[server] log_level").err());
    mistakes.extend(mistaken_values(config));
    mistakes.extend(web::mistakes(config));
    mistakes.extend(ingest::mistakes(config));
    mistakes.extend(sources::mistakes(config));
    mistakes.extend(delivery::mistakes(config));
    mistakes.extend(alerting::check(config).err());
    let rules = rules::check(config).map_err(|err| mistakes.push(err));
    let (Ok((groups, rules)), true) = (rules, mistakes.is_empty()) else {
        let lines: Vec<String> = mistakes.iter().map(|err| format!("{err:#}")).collect();
        return Err(anyhow!("{}", lines.join("\n")));
    };
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
fn mistaken_values(config: &Config) -> Vec<anyhow::Error> {
    let mut mistakes = Vec::new();
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
        if span < INTERVAL_MIN {
            mistakes.push(anyhow!("{field} = {span:?}, expected at least 1s"));
        }
    }
    for (field, count) in [
        ("[server] connections_max", config.server.connections_max),
        ("[query] concurrency", config.query.concurrency),
        ("[query] samples_max", config.query.samples_max),
        ("[query] series_max", config.query.series_max),
        ("[metrics] max_tenants", config.metrics.max_tenants),
    ] {
        if count == 0 {
            mistakes.push(anyhow!("{field} = 0, expected at least 1"));
        }
    }
    let store = &config.store;
    for (field, size, least) in [
        ("[store] memory_limit", store.memory_limit, Size::mib(64)),
        ("[store] write_budget", store.write_budget, Size::mib(100)),
        ("[store] free_min", store.free_min, Size::mib(1)),
        ("[store] reserve", store.reserve, Size::mib(1)),
    ] {
        if size.get() > 0 && size < least {
            let text = format!("{field} = {size:?}, expected 0B or at least {least:?}");
            mistakes.push(anyhow!(text));
        }
    }
    if store.head_max < Size::mib(1) {
        let head_max = store.head_max;
        mistakes.push(anyhow!(
            "[store] head_max = {head_max:?}, expected at least 1MiB"
        ));
    }
    for view in &config.metrics.views {
        if !VIEWS.contains(&view.as_str()) {
            let text = format!("[metrics] views: {view:?}, expected some of {VIEWS:?}");
            mistakes.push(anyhow!(text));
        }
    }
    for name in config.global.external_labels.keys() {
        if !is_label_name(name) {
            let text = format!("[global] external_labels: {name:?} is not a label name");
            mistakes.push(anyhow!(text));
        }
    }
    let url = &config.global.external_url;
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    let is_url = is_web && url.parse::<hyper::Uri>().is_ok();
    if !(url.is_empty() || is_url) {
        let text =
            format!("[global] external_url = {url:?}, expected http:// or https:// and a host");
        mistakes.push(anyhow!(text));
    }
    mistakes
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
            ("[store]\nmemory_limit = \"1MiB\"", "[store] memory_limit"),
            ("[store]\nwrite_budget = \"1MiB\"", "[store] write_budget"),
            ("[store]\nhead_max = \"1B\"", "[store] head_max"),
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

    #[test]
    fn all_mistakes_are_named_at_once() {
        let text = "[query]\ntimeout = \"0s\"\nconcurrency = 0\n\
            [server]\nlisten = [\"0.0.0.0:1\"]\nallowed_hosts = [\"a/b\"]\n\
            [limits]\ndepth_max = 0\n\
            [[ingest.map]]\ntopic = \"a/#/b\"\n[[ingest.map]]\ntopic = \"\"\n\
            [[source.mqtt]]\nname = \"one\"\nurl = \"x\"\n\
            [[source.nats]]\nname = \"two\"\nurl = \"x\"\n\
            [[destination.webhook]]\nname = \"hook\"\nurl = \"x\"\n\
            [[route]]\nname = \"r\"\ntopic = \"##\"\ndestination = \"hook\"\n\
            [rules]\nfiles = [\"/nowhere/x.yml\"]\n";
        let config = Config::parse(text, "c.toml").unwrap();
        let err = check(&config).unwrap_err().to_string();
        for wanted in [
            "[query] timeout",
            "[query] concurrency",
            "listen",
            "allowed_hosts",
            "depth_max",
            "[[ingest.map]] 1",
            "[[ingest.map]] 2",
            "\"one\"",
            "\"two\"",
            "\"hook\"",
            "[[route]] \"r\"",
            "/nowhere/x.yml",
        ] {
            let named = err.lines().filter(|line| line.contains(wanted)).count();
            assert!(named >= 1, "{wanted} not in\n{err}");
        }
        assert_eq!(err.lines().count(), 12, "{err}");
    }
}
