//! Topics: templates that give labels, and filters that say yes or no.
//!
//! Both are MQTT topic filters: `+` stands for one level, `#` at the end for
//! the rest (the parent included), and neither matches a first level that
//! begins with `$` (the broker's own topics). A template has one more form,
//! `{label}`, which stands for one level and gives its text to a label. The text
//! becomes part of a series' identity, so it has to be a plain name
//! ([`is_valid_name`]); it is never pasted into a query or a label list.

use crate::model::tenant::{TENANT_LABEL, is_valid_name};

/// The longest topic that is looked at, in bytes. MQTT allows 65,535; every
/// known series keeps its topic in memory.
pub const TOPIC_BYTES_MAX: usize = 1_024;

/// The label of the device that sent a message.
pub const DEVICE_LABEL: &str = "device_id";

/// A compiled topic template or filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    levels: Vec<Level>,
    /// Whether it ends in `#`.
    open: bool,
    names: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Level {
    Text(String),
    Any,
    Label,
}

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing to match.
    #[error("an empty topic")]
    Empty,
    /// `#` before the end.
    #[error("`#` is only allowed as the last level")]
    OpenInside,
    /// `+`, `#`, `{` or `}` beside other text in a level.
    #[error("level {0:?} mixes text and a wildcard, expected text, `+`, `#` or `{{label}}`")]
    Mixed(String),
    /// A label name that cannot be one.
    #[error("{0:?} is not a label name, expected letters, digits and `_`, no leading `__`")]
    Label(String),
    /// One label from two levels.
    #[error("label {0:?} stands twice")]
    Twice(String),
    /// A label in a filter, which gives none.
    #[error("a filter cannot have {{labels}}")]
    LabelInFilter,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is empty, mixes text and wildcards in a level, or names a label
    /// badly or twice.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut template = Template {
            levels: Vec::new(),
            open: false,
            names: Vec::new(),
        };
        for level in text.split('/') {
            if template.open {
                return Err(TemplateError::OpenInside);
            }
            template.push(level)?;
        }
        Ok(template)
    }

    /// Compiles a filter: a template without labels.
    ///
    /// # Errors
    /// As [`Template::parse`], and when there is a `{label}`.
    pub fn filter(text: &str) -> Result<Template, TemplateError> {
        let template = Template::parse(text)?;
        if template.names.is_empty() {
            Ok(template)
        } else {
            Err(TemplateError::LabelInFilter)
        }
    }

    fn push(&mut self, level: &str) -> Result<(), TemplateError> {
        match level {
            "#" => self.open = true,
            "+" => self.levels.push(Level::Any),
            _ => match level.strip_prefix('{').and_then(|l| l.strip_suffix('}')) {
                Some(name) => self.push_label(name)?,
                None if level.contains(['+', '#', '{', '}']) => {
                    return Err(TemplateError::Mixed(level.to_owned()));
                }
                None => self.levels.push(Level::Text(level.to_owned())),
            },
        }
        Ok(())
    }

    fn push_label(&mut self, name: &str) -> Result<(), TemplateError> {
        if !is_label_name(name) {
            return Err(TemplateError::Label(name.to_owned()));
        }
        if self.names.iter().any(|n| n == name) {
            return Err(TemplateError::Twice(name.to_owned()));
        }
        self.names.push(name.to_owned());
        self.levels.push(Level::Label);
        Ok(())
    }

    /// The labels that a matching topic gives, in the order of its levels.
    pub fn labels(&self) -> &[String] {
        &self.names
    }

    /// Whether the topic has this form. Says nothing about the labels' values.
    pub fn matches(&self, topic: &str) -> bool {
        self.walk(topic, |_| {})
    }

    /// As [`Template::matches`], and appends the levels that become labels, in
    /// the order of [`Template::labels`]. Clears `values` first.
    pub fn capture<'t>(&self, topic: &'t str, values: &mut Vec<&'t str>) -> bool {
        values.clear();
        self.walk(topic, |value| values.push(value))
    }

    /// The last level that is plain text: what kind of message the topic carries.
    pub fn last_text(&self) -> Option<&str> {
        self.levels.iter().rev().find_map(|level| match level {
            Level::Text(text) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        })
    }

    fn walk<'t>(&self, topic: &'t str, mut label: impl FnMut(&'t str)) -> bool {
        let first_is_wild = !matches!(self.levels.first(), Some(Level::Text(_)));
        if first_is_wild && topic.starts_with('$') {
            return false;
        }
        let mut rest = topic.split('/');
        for level in &self.levels {
            let Some(text) = rest.next() else {
                return false;
            };
            match level {
                Level::Text(wanted) if wanted != text => return false,
                Level::Text(_) | Level::Any => {}
                Level::Label => label(text),
            }
        }
        self.open || rest.next().is_none()
    }
}

/// The values of a topic's labels that matter to everyone: whose, and which device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Subject<'t> {
    /// The tenant level, when the template has one.
    pub tenant: Option<&'t str>,
    /// The device level, when the template has one.
    pub device: Option<&'t str>,
    /// The first value that is not a plain name.
    pub bad: Option<&'t str>,
}

impl Template {
    /// What the topic says. `None` when it has another form.
    pub fn subject<'t>(&self, topic: &'t str) -> Option<Subject<'t>> {
        let mut subject = Subject::default();
        let mut names = self.names.iter();
        let fits = self.walk(topic, |value| {
            match names.next().map(String::as_str) {
                Some(TENANT_LABEL) => subject.tenant = Some(value),
                Some(DEVICE_LABEL) => subject.device = Some(value),
                _ => {}
            }
            if subject.bad.is_none() && !is_valid_name(value) {
                subject.bad = Some(value);
            }
        });
        fits.then_some(subject)
    }
}

/// Whether `name` may be a label that the configuration adds: a Prometheus label
/// name that is not reserved.
pub fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let head = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    head && !name.starts_with("__") && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_match(filter: &str, topic: &str, want: bool) {
        let got = Template::filter(filter).unwrap().matches(topic);
        assert_eq!(got, want, "{filter} on {topic}");
    }

    #[test]
    fn filters_match_as_mqtt_says() {
        // The examples of the MQTT 5 specification, section 4.7.
        check_match("sport/tennis/player1/#", "sport/tennis/player1", true);
        check_match("sport/tennis/player1/#", "sport/tennis/player1/a/b", true);
        check_match("sport/#", "sport", true);
        check_match("#", "a/b", true);
        check_match("#", "$SYS/x", false);
        check_match("+/monitor", "$SYS/monitor", false);
        check_match("$SYS/#", "$SYS/monitor", true);
        check_match("sport/tennis/+", "sport/tennis/p", true);
        check_match("sport/tennis/+", "sport/tennis/p/q", false);
        check_match("sport/+", "sport", false);
        check_match("sport/+", "sport/", true);
        check_match("+/+", "/finance", true);
        check_match("/+", "/finance", true);
        check_match("+", "/finance", false);
        check_match("a/b", "a/b", true);
        check_match("a/b", "a/B", false);
    }

    #[test]
    fn a_template_gives_the_levels_it_names() {
        let template = Template::parse("tenants/{tenant_id}/+/{device_id}/telemetry").unwrap();
        let mut values = Vec::new();
        assert!(template.capture("tenants/acme/x/d-1/telemetry", &mut values));
        assert_eq!(values, ["acme", "d-1"]);
        assert_eq!(template.labels(), ["tenant_id", "device_id"]);
        assert_eq!(template.last_text(), Some("telemetry"));
        let topic = "tenants/acme/x/d-1/telemetry";
        let subject = template.subject(topic).unwrap();
        assert_eq!((subject.tenant, subject.bad), (Some("acme"), None));
        assert_eq!(template.subject("tenants/acme/x/d-1"), None);
    }

    #[test]
    fn hostile_values_are_found() {
        let template = Template::parse("t/{tenant_id}/{device_id}").unwrap();
        let long = format!("t/a/{}", "x".repeat(129));
        for (topic, bad) in [
            ("t//d", ""),
            ("t/a/d\"},x{", "d\"},x{"),
            ("t/a b/d", "a b"),
            ("t/a/\0", "\0"),
            ("t/a/gerät", "gerät"),
            (&long, &long[4..]),
        ] {
            let subject = template.subject(topic).unwrap();
            assert_eq!(subject.bad, Some(bad), "{topic:?}");
        }
    }

    #[test]
    fn bad_templates_are_refused() {
        let check = |text: &str, want| assert_eq!(Template::parse(text), Err(want), "{text}");
        check("", TemplateError::Empty);
        check("a/#/b", TemplateError::OpenInside);
        check("a/b+", TemplateError::Mixed("b+".into()));
        check("a/x{b}", TemplateError::Mixed("x{b}".into()));
        check("a/{}", TemplateError::Label(String::new()));
        check("a/{b-c}", TemplateError::Label("b-c".into()));
        check("a/{__name__}", TemplateError::Label("__name__".into()));
        check("{a}/{a}", TemplateError::Twice("a".into()));
        assert_eq!(Template::filter("a/{b}"), Err(TemplateError::LabelInFilter));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_compiler_or_the_matcher(text in ".{0,40}", topic in ".{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                let fits = template.matches(&topic);
                prop_assert_eq!(fits, template.subject(&topic).is_some());
                let mut values = Vec::new();
                if template.capture(&topic, &mut values) {
                    prop_assert_eq!(values.len(), template.labels().len());
                }
            }
        }

        #[test]
        fn a_topic_without_wildcards_matches_itself(topic in "[a-z$]{1,5}(/[a-z]{0,5}){0,4}") {
            prop_assert!(Template::filter(&topic).unwrap().matches(&topic));
        }
    }
}
