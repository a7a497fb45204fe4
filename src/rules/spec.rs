//! Rules as they are checked: what a file says, ready to be evaluated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::gotmpl::Template;
use crate::model::Timestamp;
use crate::promql::Expr;

/// A rule group.
#[derive(Debug)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// The file it stands in, as the configuration names it.
    pub file: String,
    /// How often it runs.
    pub interval: Duration,
    /// How many results a rule may have; 0 is no limit.
    pub limit: usize,
    /// How far in the past its queries look.
    pub query_offset: Duration,
    /// In order.
    pub rules: Vec<RuleSpec>,
}

/// A rule.
#[derive(Debug)]
pub struct RuleSpec {
    /// The alert's or the recorded metric's name.
    pub name: String,
    /// The same over restarts and reloads: the file, the group, the name, the
    /// labels, the expression, whether it alerts, and which of equal ones it is.
    pub id: u64,
    /// The expression.
    pub expr: Arc<Expr>,
    /// The expression in its printed form.
    pub query: String,
    /// Not expanded; those of the group included.
    pub labels: BTreeMap<String, String>,
    /// What it does.
    pub kind: Kind,
}

/// What a rule does.
#[derive(Debug)]
pub enum Kind {
    /// Stores its result under the rule's name.
    Recording,
    /// Raises alerts.
    Alerting(Alerting),
}

/// What only alerting rules have.
#[derive(Debug)]
pub struct Alerting {
    /// How long a result has to last.
    pub hold: Duration,
    /// How long an alert goes on firing without a result.
    pub keep_firing: Duration,
    /// Not expanded.
    pub annotations: BTreeMap<String, String>,
    /// The labels' templates, in their order.
    pub label_texts: Vec<(String, Text)>,
    /// The annotations' templates, in their order.
    pub annotation_texts: Vec<(String, Text)>,
}

/// A text that may be a template.
#[derive(Debug)]
pub enum Text {
    /// Nothing to expand.
    Plain(String),
    /// Parsed, with the variables of rules in front.
    Template(Template),
}

impl GroupSpec {
    /// Prometheus' name of a group in metrics.
    pub fn key(&self) -> String {
        format!("{};{}", self.file, self.name)
    }

    /// A number that changes with everything that the group says.
    pub fn definition(&self) -> u64 {
        let mut hash = Xxh3::new();
        let numbers = [self.interval, self.query_offset].map(|d| d.as_millis().to_le_bytes());
        hash.update(&numbers.concat());
        hash.update(&self.limit.to_le_bytes());
        for rule in &self.rules {
            hash.update(&rule.id.to_le_bytes());
            for text in [&rule.name, &rule.query] {
                update_text(&mut hash, text);
            }
            update_map(&mut hash, &rule.labels);
            if let Kind::Alerting(alerting) = &rule.kind {
                let times = [alerting.hold, alerting.keep_firing];
                hash.update(&times.map(|d| d.as_millis().to_le_bytes()).concat());
                update_map(&mut hash, &alerting.annotations);
            }
        }
        hash.digest()
    }

    /// Where in its interval the group runs: spread over all groups by a hash.
    pub fn offset_ms(&self) -> i64 {
        let mut hash = Xxh3::new();
        update_text(&mut hash, &self.file);
        update_text(&mut hash, &self.name);
        let interval = self.interval_ms().unsigned_abs();
        i64::try_from(hash.digest() % interval).expect("less than an interval")
    }

    /// The first slot at or after `t`.
    pub fn first_slot(&self, t: Timestamp) -> Timestamp {
        let (offset, interval) = (self.offset_ms(), self.interval_ms());
        let slot = t.minus_ms(offset).floor_to(interval).plus_ms(offset);
        if slot < t {
            slot.plus_ms(interval)
        } else {
            slot
        }
    }

    /// The interval in milliseconds, at least 1.
    pub fn interval_ms(&self) -> i64 {
        i64::try_from(self.interval.as_millis())
            .unwrap_or(i64::MAX)
            .max(1)
    }
}

/// A rule's number with another expression than its own, if that is `query`; `ordinal`
/// counts rules of the group that are equal in the rest.
pub(super) fn rule_id(file: &str, group: &str, rule: &RuleSpec, query: &str, ordinal: u64) -> u64 {
    let mut hash = Xxh3::new();
    for text in [file, group, &rule.name, query] {
        update_text(&mut hash, text);
    }
    update_map(&mut hash, &rule.labels);
    hash.update(&[u8::from(matches!(rule.kind, Kind::Recording))]);
    hash.update(&ordinal.to_le_bytes());
    hash.digest()
}

fn update_map(hash: &mut Xxh3, map: &BTreeMap<String, String>) {
    hash.update(&map.len().to_le_bytes());
    for (name, value) in map {
        update_text(hash, name);
        update_text(hash, value);
    }
}

fn update_text(hash: &mut Xxh3, text: &str) {
    hash.update(&text.len().to_le_bytes());
    hash.update(text.as_bytes());
}
