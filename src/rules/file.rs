//! Rule files as Prometheus writes them, checked as a whole.
//!
//! A file with any mistake is refused with the place of each one. Two rules of
//! one name and the same labels are allowed, as in Prometheus; they are told
//! apart by their expressions, and equal ones by their order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::raw::{RawFile, RawGroup, RawMap, RawRule};
use super::spec::{Alerting, GroupSpec, Kind, RuleSpec, Text, rule_id};
use crate::config::yaml;
use crate::config::{Placed, position};
use crate::gotmpl::{Template, prometheus};
use crate::model::duration;
use crate::promql;

/// A mistake in a rule file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct FileError {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// What is wrong, in Prometheus' words where it has them.
    pub message: String,
}

/// What holds for a group that does not say it itself.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// How often it runs.
    pub interval: Duration,
    /// How far in the past its queries look.
    pub query_offset: Duration,
}

impl Defaults {
    /// Groups run so often and look at the present.
    pub fn every(interval: Duration) -> Defaults {
        Defaults {
            interval,
            query_offset: Duration::ZERO,
        }
    }
}

/// A file without a mistake.
#[derive(Debug)]
pub struct Parsed {
    /// In the order of the file.
    pub groups: Vec<GroupSpec>,
    /// Fields that vmalert knows and Prometheus does not: taken, but told.
    pub extras: Vec<FileError>,
}

/// Parses and checks the text of a file as strictly as Prometheus.
///
/// # Errors
/// With every mistake, in the order of the file. A field of vmalert is one.
pub fn parse(file: &str, text: &str, defaults: Defaults) -> Result<Vec<GroupSpec>, Vec<FileError>> {
    let parsed = parse_lenient(file, text, defaults)?;
    if parsed.extras.is_empty() {
        Ok(parsed.groups)
    } else {
        Err(parsed.extras)
    }
}

/// Parses and checks the text of a file; what only vmalert knows is let through
/// where leaving it out changes no result.
///
/// # Errors
/// With every mistake, in the order of the file.
pub fn parse_lenient(file: &str, text: &str, defaults: Defaults) -> Result<Parsed, Vec<FileError>> {
    let read = yaml::read::<RawFile>(text);
    let mut checker = Checker {
        file,
        text,
        defaults,
        damaged: read.damaged,
        errors: Vec::new(),
        extras: Vec::new(),
    };
    for mistake in read.mistakes {
        checker.errors.push(FileError {
            file: file.to_owned(),
            line: mistake.line,
            column: mistake.column,
            message: mistake.message,
        });
    }
    let checked = checker.groups(read.value.groups.unwrap_or_default());
    if checker.errors.is_empty() {
        Ok(Parsed {
            groups: checked,
            extras: checker.extras,
        })
    } else {
        checker.errors.sort_by_key(|err| (err.line, err.column));
        Err(checker.errors)
    }
}

/// That a text holds a second document, of which nobody reads anything, as by Prometheus.
pub fn second_document(file: &str, text: &str) -> Option<FileError> {
    Some(FileError {
        file: file.to_owned(),
        line: yaml::second_document(text)?,
        column: 1,
        message: "a second document, which is not read".to_owned(),
    })
}

/// Rules that say the same thing twice, as promtool's lint finds them: the same
/// name with the same labels, over all groups of a file.
pub fn duplicates(groups: &[GroupSpec]) -> Vec<String> {
    let mut seen = HashSet::new();
    let rules = groups.iter().flat_map(|group| &group.rules);
    let twice = rules.filter(|rule| !seen.insert((&rule.name, &rule.labels)));
    let shown = twice.map(|rule| {
        let labels = rule.labels.iter();
        let pairs: Vec<String> = labels.map(|(n, v)| format!("{n}={v:?}")).collect();
        format!("{}{{{}}}", rule.name, pairs.join(", "))
    });
    shown.collect()
}

struct Checker<'a> {
    file: &'a str,
    text: &'a str,
    defaults: Defaults,
    /// Where rules stand of which a field could not be read: that one is missing may only
    /// follow from that.
    damaged: HashSet<usize>,
    errors: Vec<FileError>,
    extras: Vec<FileError>,
}

impl Checker<'_> {
    fn groups(&mut self, raw: Vec<RawGroup>) -> Vec<GroupSpec> {
        let mut names = HashSet::new();
        let mut groups = Vec::with_capacity(raw.len());
        for group in raw {
            let at = group.name.at;
            if group.name.value.is_empty() {
                self.error(at, "groupname must not be empty");
            } else if !names.insert(group.name.value.clone()) {
                let name = &group.name.value;
                let text = format!("groupname: {name:?} is repeated in the same file");
                self.error(at, &text);
            }
            groups.push(self.group(group));
        }
        groups
    }

    fn group(&mut self, raw: RawGroup) -> GroupSpec {
        let interval = self.duration(raw.interval.as_ref());
        let query_offset = self.query_offset(&raw);
        self.group_extras(&raw);
        let name = raw.name.value;
        let group_labels = self.label_map(raw.labels, raw.name.at);
        let mut ordinals = HashMap::new();
        let mut rules = Vec::new();
        for rule in raw.rules.unwrap_or_default() {
            let Some(mut rule) = self.rule(rule, &group_labels) else {
                continue;
            };
            let ordinal = ordinals
                .entry((rule.name.clone(), rule.labels.clone(), rule.query.clone()))
                .or_insert(0);
            rule.id = rule_id(self.file, &name, &rule, &rule.query, *ordinal);
            *ordinal += 1;
            rules.push(rule);
        }
        GroupSpec {
            file: self.file.to_owned(),
            interval: if interval.is_zero() {
                self.defaults.interval
            } else {
                interval
            },
            // As Prometheus: a negative one is none.
            limit: raw
                .limit
                .map_or(0, |limit| usize::try_from(limit).unwrap_or(0)),
            query_offset,
            rules,
            name,
        }
    }

    /// Prometheus' word goes before vmalert's, and both before the default.
    fn query_offset(&mut self, raw: &RawGroup) -> Duration {
        match raw.query_offset.as_ref().or(raw.eval_delay.as_ref()) {
            Some(offset) => self.duration(Some(offset)),
            None => self.defaults.query_offset,
        }
    }

    fn group_extras(&mut self, raw: &RawGroup) {
        for (name, extra) in [
            ("eval_delay", &raw.eval_delay),
            ("eval_offset", &raw.eval_offset),
            ("eval_alignment", &raw.eval_alignment),
            ("concurrency", &raw.concurrency),
            ("debug", &raw.debug),
        ] {
            self.extra(name, extra.as_ref());
        }
        if let Some(language) = &raw.language {
            if language.value != "prometheus" {
                let text = format!("rules of type {:?} are not known", language.value);
                self.error(language.at, &text);
            }
            self.extra("type", Some(language));
        }
    }

    fn extra(&mut self, name: &str, extra: Option<&Placed<String>>) {
        let Some(extra) = extra else { return };
        let taken = match name {
            "eval_delay" => "taken as query_offset",
            _ => "ignored",
        };
        let message = format!("{name} is a field of vmalert, which Prometheus refuses; {taken}");
        self.extras.push(self.mistake(extra.at, message));
    }

    /// A rule without its number; `None` when it has no name or no expression.
    fn rule(
        &mut self,
        raw: Placed<RawRule>,
        group_labels: &BTreeMap<String, String>,
    ) -> Option<RuleSpec> {
        let at = raw.at;
        let raw = raw.value;
        self.extra("debug", raw.debug.as_ref());
        self.extra("update_entries_limit", raw.update_entries_limit.as_ref());
        let mut labels = group_labels.clone();
        let of_labels = places(raw.labels.as_ref());
        let of_annotations = places(raw.annotations.as_ref());
        labels.extend(self.label_map(raw.labels, at));
        let annotations = self.annotation_map(raw.annotations, at);
        let hold = self.duration(raw.hold.as_ref());
        let keep_firing = self.duration(raw.keep_firing_for.as_ref());
        let record = raw.record.filter(|name| !name.value.is_empty());
        let alert = raw.alert.filter(|name| !name.value.is_empty());
        let expr = self.expr(raw.expr, at);
        let (name, kind) = match (record, alert) {
            (Some(second), Some(_)) => {
                self.error(second.at, "only one of 'record' and 'alert' must be set");
                return None;
            }
            (None, None) => {
                self.missing(at, "one of 'record' or 'alert' must be set");
                return None;
            }
            (Some(name), None) => {
                let fields = [
                    ("annotations", !annotations.is_empty()),
                    ("for", !hold.is_zero()),
                    ("keep_firing_for", !keep_firing.is_zero()),
                ];
                for (field, _) in fields.iter().filter(|(_, is_set)| *is_set) {
                    self.error(at, &format!("invalid field '{field}' in recording rule"));
                }
                if !is_metric_name(&name.value) {
                    let text = format!("invalid recording rule name: {}", name.value);
                    self.error(name.at, &text);
                }
                (name.value, Kind::Recording)
            }
            (None, Some(name)) => {
                let alerting = Alerting {
                    hold,
                    keep_firing,
                    label_texts: self.texts(&labels, &name.value, (at, &of_labels)),
                    annotation_texts: self.texts(&annotations, &name.value, (at, &of_annotations)),
                    annotations,
                };
                (name.value, Kind::Alerting(alerting))
            }
        };
        let (expr, query) = expr?;
        Some(RuleSpec {
            name,
            id: 0,
            expr: Arc::new(expr),
            query,
            labels,
            kind,
        })
    }

    fn expr(&mut self, raw: Option<Placed<String>>, rule: usize) -> Option<(promql::Expr, String)> {
        let Some(raw) = raw.filter(|expr| !expr.value.is_empty()) else {
            self.missing(rule, "field 'expr' must be set in rule");
            return None;
        };
        match promql::parse(&raw.value) {
            Ok(expr) => {
                let query = expr.to_string();
                Some((expr, query))
            }
            Err(err) => {
                let text = format!("could not parse expression: {err}");
                self.error(raw.at, &text);
                None
            }
        }
    }

    fn duration(&mut self, raw: Option<&Placed<String>>) -> Duration {
        let Some(raw) = raw else {
            return Duration::ZERO;
        };
        duration::parse(&raw.value).unwrap_or_else(|err| {
            self.error(raw.at, &err.to_string());
            Duration::ZERO
        })
    }

    fn label_map(&mut self, raw: RawMap, rule: usize) -> BTreeMap<String, String> {
        self.map(raw, rule, "label", |name| {
            is_label_name(name) && name != "__name__"
        })
    }

    fn annotation_map(&mut self, raw: RawMap, rule: usize) -> BTreeMap<String, String> {
        self.map(raw, rule, "annotation", is_label_name)
    }

    fn map(
        &mut self,
        raw: RawMap,
        rule: usize,
        what: &str,
        is_valid: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for (name, value) in raw.unwrap_or_default() {
            if !is_valid(&name) {
                let at = value.as_ref().map_or(rule, |value| value.at);
                self.error(at, &format!("invalid {what} name: {name}"));
            }
            map.insert(name, value.map(|value| value.value).unwrap_or_default());
        }
        map
    }

    fn texts(
        &mut self,
        map: &BTreeMap<String, String>,
        rule: &str,
        (at, places): (usize, &BTreeMap<String, usize>),
    ) -> Vec<(String, Text)> {
        let mut texts = Vec::with_capacity(map.len());
        for (name, text) in map {
            let text = template(rule, text).unwrap_or_else(|message| {
                // A label may be the group's.
                let at = places.get(name).copied().unwrap_or(at);
                self.error(at, &format!("field {name:?}: {message}"));
                Text::Plain(String::new())
            });
            texts.push((name.clone(), text));
        }
        texts
    }

    /// What a rule lacks, unless a field of it could not be read.
    fn missing(&mut self, rule: usize, message: &str) {
        if !self.damaged.contains(&rule) {
            self.error(rule, message);
        }
    }

    fn error(&mut self, at: usize, message: &str) {
        let mistake = self.mistake(at, message.to_owned());
        self.errors.push(mistake);
    }

    fn mistake(&self, at: usize, message: String) -> FileError {
        let (line, column) = position(self.text, at);
        FileError {
            file: self.file.to_owned(),
            line,
            column,
            message,
        }
    }
}

/// Where the texts of a map stand.
fn places(raw: Option<&BTreeMap<String, Option<Placed<String>>>>) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    let texts = raw.into_iter().flatten();
    places.extend(texts.filter_map(|(name, text)| Some((name.clone(), text.as_ref()?.at))));
    places
}

/// Parses a label's or annotation's text; most have nothing to expand.
fn template(rule: &str, text: &str) -> Result<Text, String> {
    if !text.contains("{{") {
        return Ok(Text::Plain(text.to_owned()));
    }
    let name = format!("__alert_{rule}");
    let whole = format!("{}{text}", prometheus::PREFIX);
    Template::parse(&name, &whole, prometheus::FUNCTIONS)
        .map(Text::Template)
        .map_err(|err| format!("error parsing template {name}: {err}"))
}

fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let is_letter = |b: u8| b == b'_' || b.is_ascii_alphabetic();
    bytes.next().is_some_and(is_letter) && bytes.all(|b| is_letter(b) || b.is_ascii_digit())
}

fn is_metric_name(name: &str) -> bool {
    is_label_name(&name.replace(':', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let errors = parse("r.yml", text, Defaults::every(Duration::from_secs(15))).unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, [want], "{text:?}");
    }

    #[test]
    fn a_bad_layout_is_called_by_its_name() {
        check(
            "groups:\n\t- name: g\n",
            "r.yml:2:1: a tab in the indentation, expected spaces",
        );
        check(
            "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    labels:\n    \tteam: x\n",
            "r.yml:7:5: a tab in the indentation, expected spaces",
        );
    }

    #[test]
    fn of_several_documents_the_first_is_read() {
        let check = |text: &str, groups: usize, told: Option<usize>| {
            let read = parse("r.yml", text, Defaults::every(Duration::from_secs(15)));
            assert_eq!(read.map(|all| all.len()), Ok(groups), "{text:?}");
            let second = second_document("r.yml", text);
            assert_eq!(second.map(|at| at.line), told, "{text:?}");
        };
        let group = "groups:\n- name: g\n";
        check(&format!("# all\n---\n{group}---\n{group}"), 1, Some(5));
        check(&format!("{group}---\nfoo: [\n"), 1, Some(3));
        check(&format!("{group}--- # end\n"), 1, None);
        check(&format!("{group}...\n# end\n---\n"), 1, None);
        check(&format!("{group}...\r\n}}{{\n"), 1, Some(3));
        check(&format!("--- {{groups: []}}\n---\n{group}"), 0, Some(2));
        check(&format!("---\n---\n{group}"), 0, Some(2));
        let text = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: |-\n      up}\n";
        assert!(second_document("r.yml", text).is_none());
    }

    #[test]
    fn what_a_rule_lacks_is_told_unless_it_could_not_be_read() {
        let file =
            "groups:\n- name: g\n  rules:\n  - alert: A\n  - {alert: [B], expr: up}\n  limit: x\n";
        let errors = parse("r.yml", file, Defaults::every(Duration::from_secs(15))).unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "r.yml:4:5: field 'expr' must be set in rule",
                "r.yml:5:6: alert: invalid type: sequence, expected a string",
                "r.yml:6:3: limit: invalid type: string \"x\", expected i64",
            ]
        );
    }

    #[test]
    fn a_tab_in_a_text_is_not_blamed_for_a_mistake_elsewhere() {
        check(
            "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: |\n      up\n      \t== 0\n\
             - name: [h\n",
            "r.yml:8:9: unclosed bracket '['",
        );
        check(
            "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: |\n      up\n      \t== 0\n    \
             labels:\n    \tteam: x\n",
            "r.yml:9:5: a tab in the indentation, expected spaces",
        );
    }

    #[test]
    fn tabs_in_a_text_and_one_document_with_its_mark_are_fine() {
        let text = "---\ngroups:\n- name: g\n  rules:\n  - alert: A\n    expr: |\n      up\n      \t== 0\n";
        let groups = parse("r.yml", text, Defaults::every(Duration::from_secs(15))).unwrap();
        assert_eq!(groups[0].rules.len(), 1);
    }
}
