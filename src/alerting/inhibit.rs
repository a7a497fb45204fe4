//! Inhibition: alerts that make others quiet while they fire.
//!
//! As in Alertmanager: a target is quiet while a source fires that has the same
//! values of the rule's `equal` labels. A target that could be a source itself is
//! made quiet only by sources that are not targets too, so that no alert silences
//! itself and no two silence each other.

use std::collections::HashMap;

use crate::config::routing;
use crate::model::{Labels, Matcher};

/// A rule of the configuration.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Rule {
    source: Vec<Matcher>,
    target: Vec<Matcher>,
    equal: Vec<String>,
}

impl Rule {
    pub(super) fn new(rule: &routing::InhibitRule) -> Rule {
        Rule {
            source: rule.source(),
            target: rule.target(),
            equal: rule.equal.clone(),
        }
    }

    fn equal_values(&self, labels: &Labels) -> Vec<String> {
        let values = self.equal.iter().map(|name| labels.value(name).to_owned());
        values.collect()
    }
}

fn fulfils(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|m| m.matches_labels(labels))
}

/// The sources that fire, by the values that targets must share.
pub(super) struct Inhibitor<'a> {
    rules: Vec<(&'a Rule, HashMap<Vec<String>, Sources>)>,
}

/// Sources with the same values: one of each kind is enough.
#[derive(Default)]
struct Sources {
    /// The smallest fingerprint of those that are no targets.
    one_sided: Option<u64>,
    /// The smallest fingerprint of those that are.
    two_sided: Option<u64>,
}

impl<'a> Inhibitor<'a> {
    /// Sorts the firing alerts into the rules.
    pub(super) fn new<'l>(
        rules: &'a [Rule],
        firing: impl Iterator<Item = &'l Labels> + Clone,
    ) -> Inhibitor<'a> {
        let sources = |rule: &'a Rule| {
            let mut by_values: HashMap<Vec<String>, Sources> = HashMap::new();
            for labels in firing.clone().filter(|l| fulfils(&rule.source, l)) {
                let sources = by_values.entry(rule.equal_values(labels)).or_default();
                let smallest = if fulfils(&rule.target, labels) {
                    &mut sources.two_sided
                } else {
                    &mut sources.one_sided
                };
                let fingerprint = labels.fingerprint();
                *smallest = Some(smallest.map_or(fingerprint, |f| f.min(fingerprint)));
            }
            (rule, by_values)
        };
        Inhibitor {
            rules: rules.iter().map(sources).collect(),
        }
    }

    /// The fingerprint of an alert that makes this one quiet.
    pub(super) fn by(&self, labels: &Labels) -> Option<u64> {
        self.rules.iter().find_map(|(rule, by_values)| {
            if !fulfils(&rule.target, labels) {
                return None;
            }
            let sources = by_values.get(&rule.equal_values(labels))?;
            if fulfils(&rule.source, labels) {
                sources.one_sided
            } else {
                [sources.one_sided, sources.two_sided]
                    .into_iter()
                    .flatten()
                    .min()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        Rule::new(&toml::from_str::<routing::InhibitRule>(text).unwrap())
    }

    fn check(rule: &Rule, firing: &[&[(&str, &str)]], of: &[(&str, &str)], want: Option<usize>) {
        let firing: Vec<Labels> = firing
            .iter()
            .map(|pairs| Labels::from_pairs(pairs.iter().copied()))
            .collect();
        let rules = std::slice::from_ref(rule);
        let inhibitor = Inhibitor::new(rules, firing.iter());
        let got = inhibitor.by(&Labels::from_pairs(of.iter().copied()));
        assert_eq!(got, want.map(|at| firing[at].fingerprint()));
    }

    #[test]
    fn a_source_makes_targets_with_the_same_values_quiet() {
        let rule = rule(
            "source_matchers = [\"alertname=LinkDown\"]\n\
             target_matchers = [\"alertname=DeviceSilent\"]\nequal = [\"gateway\"]",
        );
        let link = &[("alertname", "LinkDown"), ("gateway", "g1")][..];
        let device = [("alertname", "DeviceSilent"), ("gateway", "g1")];
        check(&rule, &[link], &device, Some(0));
        check(&rule, &[], &device, None);
        check(&rule, &[link], &[("alertname", "DeviceSilent")], None);
        // A label that both lack is equal.
        check(
            &rule,
            &[&[("alertname", "LinkDown")]],
            &[("alertname", "DeviceSilent")],
            Some(0),
        );
        check(
            &rule,
            &[link],
            &[("alertname", "Other"), ("gateway", "g1")],
            None,
        );
    }

    #[test]
    fn no_alert_makes_itself_or_its_equal_quiet() {
        let rule = rule(
            "source_matchers = [\"severity=~crit|warn\"]\n\
             target_matchers = [\"severity=warn\"]\nequal = [\"host\"]",
        );
        let warn = &[("host", "a"), ("severity", "warn")][..];
        let other = &[("host", "a"), ("severity", "warn"), ("x", "1")][..];
        check(&rule, &[warn, other], warn, None);
        let crit = &[("host", "a"), ("severity", "crit")][..];
        check(&rule, &[warn, crit], warn, Some(1));
        check(&rule, &[warn, crit], crit, None);
    }
}
