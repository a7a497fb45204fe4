//! The notification tree written as an `alertmanager.yml`.
//!
//! Whichever form it was configured in: amtool reads routes and receivers from it.
//! How a receiver is reached is left out, because that is where the secrets are.

use serde::Serialize;
use serde_json::Value;

use crate::config::intervals::TimeInterval;
use crate::config::routing::RouteNode;
use crate::config::{Alertmanager, Config, Span};
use crate::model::{Matcher, duration};

/// The text; one receiver that tells nobody when there is no tree.
pub(in crate::web) fn shown(config: &Config) -> String {
    let Some(tree) = config.notification_tree() else {
        return "route:\n  receiver: nobody\nreceivers:\n- name: nobody\n".to_owned();
    };
    let file = File::of(&tree, config);
    let file = serde_json::to_value(&file).expect("texts and lists are plain data");
    let mut yaml = String::new();
    write(&mut yaml, &file, 0);
    yaml
}

/// Writes a value behind its key or dash: lists and maps in lines of their own, with
/// texts quoted as in JSON, which YAML reads.
fn write(yaml: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (i, (key, value)) in fields.iter().enumerate() {
                // The first field of a list's item stands behind the dash.
                let before = if i == 0 && yaml.ends_with("- ") {
                    ""
                } else {
                    &indent
                };
                yaml.push_str(&format!("{before}{key}:"));
                behind(yaml, value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                yaml.push_str(&format!("{indent}- "));
                write(yaml, item, depth + 1);
            }
        }
        plain => yaml.push_str(&format!("{plain}\n")),
    }
}

fn behind(yaml: &mut String, value: &Value, depth: usize) {
    let nested = value.as_object().is_some_and(|o| !o.is_empty())
        || value.as_array().is_some_and(|a| !a.is_empty());
    yaml.push(if nested { '\n' } else { ' ' });
    write(yaml, value, depth + 1);
}

#[derive(Serialize)]
struct File {
    global: Global,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Route>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inhibit_rules: Vec<Inhibit>,
    receivers: Vec<Receiver>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    time_intervals: Vec<Intervals>,
    templates: Vec<String>,
}

#[derive(Serialize)]
struct Global {
    resolve_timeout: String,
}

#[derive(Serialize)]
struct Receiver {
    name: String,
}

#[derive(Serialize)]
struct Route {
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    group_by: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    matchers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_wait: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_interval: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mute_time_intervals: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    active_time_intervals: Vec<String>,
    #[serde(rename = "continue")]
    goes_on: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

#[derive(Serialize)]
struct Inhibit {
    source_matchers: Vec<String>,
    target_matchers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    equal: Vec<String>,
}

#[derive(Serialize)]
struct Intervals {
    name: String,
    time_intervals: Vec<Interval>,
}

#[derive(Serialize)]
struct Interval {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    times: Vec<Times>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weekdays: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    days_of_month: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    months: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    years: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
}

#[derive(Serialize)]
struct Times {
    start_time: String,
    end_time: String,
}

impl File {
    fn of(tree: &Alertmanager, config: &Config) -> File {
        let own = tree.receivers.iter().map(|r| r.name.clone());
        let names = own.chain(config.destination.names().cloned());
        let timeout = tree.global.resolve_timeout.unwrap_or(Span::secs(300));
        let inhibit = |rule: &crate::config::routing::InhibitRule| Inhibit {
            source_matchers: texts(&rule.source()),
            target_matchers: texts(&rule.target()),
            equal: rule.equal.clone(),
        };
        let intervals = tree.intervals().map(|named| Intervals {
            name: named.name.clone(),
            time_intervals: named.time_intervals.iter().map(Interval::of).collect(),
        });
        File {
            global: Global {
                resolve_timeout: duration::format(timeout.get()),
            },
            route: tree.route.as_ref().map(Route::of),
            inhibit_rules: tree.inhibit_rules.iter().map(inhibit).collect(),
            receivers: names.map(|name| Receiver { name }).collect(),
            time_intervals: intervals.collect(),
            templates: tree.templates.clone(),
        }
    }
}

fn texts(matchers: &[Matcher]) -> Vec<String> {
    matchers.iter().map(ToString::to_string).collect()
}

impl Route {
    fn of(node: &RouteNode) -> Route {
        let span = |span: Option<Span>| span.map(|span| duration::format(span.get()));
        Route {
            receiver: node.receiver.clone(),
            group_by: node.group_by.0.clone(),
            matchers: texts(&node.conditions()),
            group_wait: span(node.group_wait),
            group_interval: span(node.group_interval),
            repeat_interval: span(node.repeat_interval),
            mute_time_intervals: node.mute_time_intervals.clone(),
            active_time_intervals: node.active_time_intervals.clone(),
            goes_on: node.goes_on,
            routes: node.routes.iter().map(Route::of).collect(),
        }
    }
}

impl Interval {
    fn of(interval: &TimeInterval) -> Interval {
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let zone = &interval.location.0;
        Interval {
            times: interval
                .times
                .iter()
                .map(|t| Times {
                    start_time: clock(t.start),
                    end_time: clock(t.end),
                })
                .collect(),
            weekdays: interval.weekdays.iter().map(ToString::to_string).collect(),
            days_of_month: interval
                .days_of_month
                .iter()
                .map(ToString::to_string)
                .collect(),
            months: interval.months.iter().map(ToString::to_string).collect(),
            years: interval.years.iter().map(ToString::to_string).collect(),
            location: (*zone != jiff::tz::TimeZone::UTC)
                .then(|| zone.iana_name().unwrap_or("Local").to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back_as_the_same_tree() {
        let text = "route:\n  receiver: a\n  group_by: [x]\n  group_wait: 5s\n  routes:\n  \
            - match: {t: '1'}\n    match_re: {u: 'a|b'}\n    continue: true\n    \
            mute_time_intervals: [night]\n  - receiver: b\n    matchers: ['v!~\"x y\"']\n\
            receivers:\n- name: a\n- name: b\n\
            inhibit_rules:\n- source_matchers: [s=1]\n  target_matchers: [s=2]\n  equal: [h]\n\
            time_intervals:\n- name: night\n  time_intervals:\n  \
            - times: [{start_time: '22:00', end_time: '24:00'}]\n    \
            weekdays: ['monday:friday']\n    months: ['may:june']\n    years: [2026]\n    \
            days_of_month: ['-3:-1']\n    location: Europe/Berlin\n";
        let mut config = Config::default();
        let tree = Alertmanager::parse(text, "am.yml").unwrap();
        config.alerting.file = Some(std::sync::Arc::new(tree.clone()));
        let again = Alertmanager::parse(&shown(&config), "shown.yml").unwrap();
        assert_eq!(
            again.intervals().collect::<Vec<_>>(),
            tree.intervals().collect::<Vec<_>>()
        );
        let conditions = |tree: &Alertmanager| -> Vec<Vec<Matcher>> {
            let root = tree.route.as_ref().unwrap();
            root.all().iter().map(|node| node.conditions()).collect()
        };
        assert_eq!(conditions(&again), conditions(&tree));
        assert_eq!(
            again.inhibit_rules[0].source(),
            tree.inhibit_rules[0].source()
        );
        assert_eq!(again.receivers.len(), 2);
    }
}
