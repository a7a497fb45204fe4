//! `[[ingest.map]]`, compiled: which topics, which fields, which names.
//!
//! Paths of a payload are its keys joined with `.`; a key that holds a `.`
//! itself reads like two levels. A metric's name is made from a path by writing
//! `_` for every character that a name may not hold, and one more in front of a
//! leading digit: `soil.temp °C` becomes `soil_temp__C`.

use anyhow::{Context as _, bail, ensure};

use super::topic::{Template, is_label_name};
use crate::config::{self, PayloadFormat, TimeFormat};
use crate::model::TenantId;
use crate::model::tenant::{TENANT_LABEL, is_reserved};

/// The path of the value when the payload is one number.
pub const NUMBER_FIELD: &str = "value";

/// The message type of a map whose topic has no plain level.
const DEFAULT_MESSAGE_TYPE: &str = "message";

/// One compiled `[[ingest.map]]`.
#[derive(Debug)]
pub struct Map {
    /// Which topics it takes, and the labels that they give.
    pub topic: Template,
    /// The payload's form.
    pub format: PayloadFormat,
    /// The path of the time; `None`: the usual names.
    pub time: Option<String>,
    /// How that time is written.
    pub time_format: TimeFormat,
    /// The tenant that a `tenant_id` label of the map names.
    pub tenant: Option<TenantId>,
    /// Labels with a fixed value.
    pub literals: Vec<(String, String)>,
    /// Labels whose value stands in the payload: name and path.
    pub payload_labels: Vec<(String, String)>,
    name: Vec<NamePart>,
    fields: Fields,
}

#[derive(Debug)]
enum NamePart {
    Text(String),
    Field,
    /// The n-th label of the topic.
    Label(usize),
}

/// Which paths are taken.
#[derive(Debug)]
enum Fields {
    All,
    Globs(Vec<Vec<Glob>>),
}

#[derive(Debug)]
enum Glob {
    Key(String),
    One,
    Any,
}

impl Map {
    /// Compiles a map.
    ///
    /// # Errors
    /// When the topic, a name or a path is not valid; the text says which and why.
    pub fn compile(raw: &config::Map) -> anyhow::Result<Map> {
        let topic = Template::parse(&raw.topic).context("topic")?;
        let name = parse_name(&raw.metric_name, topic.labels())
            .with_context(|| format!("metric_name = {:?}", raw.metric_name))?;
        let fields = parse_fields(&raw.fields).context("fields")?;
        let mut map = Map {
            format: raw.format,
            time: raw.time.clone(),
            time_format: raw.time_format,
            tenant: None,
            literals: Vec::new(),
            payload_labels: Vec::new(),
            topic,
            name,
            fields,
        };
        for (name, value) in &raw.labels {
            map.add_label(name, value)
                .with_context(|| format!("labels.{name} = {value:?}"))?;
        }
        ensure!(
            map.format == PayloadFormat::Json
                || (map.time.is_none() && map.payload_labels.is_empty()),
            "format = \"number\" has no paths, expected no time and only literal labels"
        );
        Ok(map)
    }

    fn add_label(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        ensure!(is_label_name(name), "not a label name");
        ensure!(
            !self.topic.labels().iter().any(|l| l == name),
            "the topic gives this label already"
        );
        let path = value.strip_prefix('{').and_then(|v| v.strip_suffix('}'));
        match path {
            Some(_) if name == TENANT_LABEL => {
                bail!(
                    "the tenant comes from the topic, the credential or a literal, never from the payload"
                )
            }
            Some(path) => {
                ensure!(!path.is_empty(), "an empty path");
                self.payload_labels.push((name.to_owned(), path.to_owned()));
            }
            None if name == TENANT_LABEL && is_reserved(value) => {
                bail!("a tenant's name must not begin with __")
            }
            None if name == TENANT_LABEL => self.tenant = Some(TenantId::new(value)?),
            None => {
                ensure!(
                    !value.contains(['{', '}']),
                    "expected a literal or one {{path}}"
                );
                self.literals.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }

    /// What kind of message this is, for the families of document 3.
    pub fn message_type(&self) -> &str {
        self.topic.last_text().unwrap_or(DEFAULT_MESSAGE_TYPE)
    }

    /// Whether the value at `path` is taken.
    pub fn takes(&self, path: &str) -> bool {
        match &self.fields {
            Fields::All => true,
            Fields::Globs(globs) => globs.iter().any(|glob| glob_matches(glob, Some(path))),
        }
    }

    /// Appends the metric's name of a path to `out`; `topic_labels` are the
    /// values that the topic gives.
    pub fn metric_name(&self, path: &str, topic_labels: &[&str], out: &mut String) {
        let start = out.len();
        for part in &self.name {
            let text = match part {
                NamePart::Text(text) => text,
                NamePart::Field => path,
                NamePart::Label(at) => topic_labels[*at],
            };
            for c in text.chars() {
                if out.len() == start && c.is_ascii_digit() {
                    out.push('_');
                }
                let is_legal = c.is_ascii_alphanumeric() || c == '_' || c == ':';
                out.push(if is_legal { c } else { '_' });
            }
        }
        if out.len() == start {
            out.push('_');
        }
    }
}

fn parse_name(text: &str, labels: &[String]) -> anyhow::Result<Vec<NamePart>> {
    ensure!(!text.is_empty(), "an empty name");
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        if !before.is_empty() {
            parts.push(NamePart::Text(before.to_owned()));
        }
        let close = after.find('}').context("a `{` without its `}`")?;
        parts.push(match &after[1..close] {
            "field" => NamePart::Field,
            name => match labels.iter().position(|l| l == name) {
                Some(at) => NamePart::Label(at),
                None => bail!("{{{name}}} is neither {{field}} nor a label of the topic"),
            },
        });
        rest = &after[close + 1..];
    }
    if !rest.is_empty() {
        parts.push(NamePart::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn parse_fields(texts: &[String]) -> anyhow::Result<Fields> {
    ensure!(!texts.is_empty(), "expected at least one path");
    if texts.iter().any(|text| text == "**") {
        return Ok(Fields::All);
    }
    texts
        .iter()
        .map(|text| {
            text.split('.')
                .map(|key| match key {
                    "" => bail!("{text:?} has an empty level"),
                    "*" => Ok(Glob::One),
                    "**" => Ok(Glob::Any),
                    _ => Ok(Glob::Key(key.to_owned())),
                })
                .collect::<anyhow::Result<Vec<Glob>>>()
        })
        .collect::<anyhow::Result<Vec<_>>>()
        .map(Fields::Globs)
}

/// `path` is `None` behind the last key.
fn glob_matches(glob: &[Glob], path: Option<&str>) -> bool {
    let Some((first, rest)) = glob.split_first() else {
        return path.is_none();
    };
    let (key, after) = match path {
        None => return matches!(first, Glob::Any) && glob_matches(rest, None),
        Some(path) => match path.split_once('.') {
            Some((key, after)) => (key, Some(after)),
            None => (path, None),
        },
    };
    match first {
        Glob::Key(wanted) => wanted == key && glob_matches(rest, after),
        Glob::One => glob_matches(rest, after),
        Glob::Any => glob_matches(rest, path) || glob_matches(glob, after),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(change: impl FnOnce(&mut config::Map)) -> anyhow::Result<Map> {
        let mut raw = config::Map::default();
        change(&mut raw);
        Map::compile(&raw)
    }

    fn check_fields(fields: &[&str], path: &str, want: bool) {
        let map = with(|m| m.fields = fields.iter().map(|&f| f.to_owned()).collect()).unwrap();
        assert_eq!(map.takes(path), want, "{fields:?} on {path}");
    }

    #[test]
    fn fields_are_chosen_by_path() {
        check_fields(&["**"], "a.b.c", true);
        check_fields(&["metrics.*"], "metrics.t", true);
        check_fields(&["metrics.*"], "metrics", false);
        check_fields(&["metrics.*"], "metrics.t.u", false);
        check_fields(&["metrics.**"], "metrics.t.u", true);
        check_fields(&["metrics.**"], "metrics", true);
        check_fields(&["**.t"], "t", true);
        check_fields(&["**.t"], "a.b.t", true);
        check_fields(&["**.t"], "a.b.u", false);
        check_fields(&["a", "b.c"], "b.c", true);
    }

    fn check_name(template: &str, path: &str, want: &str) {
        let map = with(|m| m.metric_name = template.to_owned()).unwrap();
        let mut name = String::new();
        map.metric_name(path, &["acme", "d-1"], &mut name);
        assert_eq!(name, want);
    }

    #[test]
    fn names_are_made_legal() {
        check_name("{field}", "temperature", "temperature");
        check_name("{field}", "soil.temp °C", "soil_temp__C");
        check_name("{field}", "1m", "_1m");
        check_name("{field}", "", "_");
        check_name("iot_{field}_{device_id}", "a", "iot_a_d_1");
        check_name("{field}", "x\0\"}", "x___");
    }

    #[test]
    fn bad_maps_say_what_is_wrong() {
        let check = |change: &dyn Fn(&mut config::Map), want: &str| {
            let err = format!("{:#}", with(|m| change(m)).unwrap_err());
            assert!(err.contains(want), "{want:?} not in {err}");
        };
        check(&|m| m.topic = "a/#/b".into(), "topic: `#` is only");
        check(&|m| m.metric_name = "{feld}".into(), "{feld} is neither");
        check(&|m| m.metric_name = "x{field".into(), "without its `}`");
        check(&|m| m.fields = vec![], "at least one path");
        check(&|m| m.fields = vec!["a..b".into()], "empty level");
        let label = |name: &'static str, value: &'static str| {
            move |m: &mut config::Map| {
                m.labels.insert(name.into(), value.into());
            }
        };
        check(&label("a-b", "x"), "labels.a-b = \"x\": not a label name");
        check(&label("__name__", "x"), "not a label name");
        check(&label("device_id", "x"), "gives this label already");
        check(&label("tenant_id", "{t}"), "gives this label already");
        check(
            &|m| {
                m.topic = "x".into();
                label("tenant_id", "{t}")(m);
            },
            "never from the payload",
        );
        check(
            &|m| {
                m.format = PayloadFormat::Number;
                label("site", "{s}")(m);
            },
            "has no paths",
        );
    }

    proptest! {
        #[test]
        fn every_name_is_legal(path in ".{0,20}") {
            let map = with(|_| {}).unwrap();
            let mut name = String::new();
            map.metric_name(&path, &["a", "b"], &mut name);
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            prop_assert!(!name.is_empty() && name.chars().all(legal));
            prop_assert!(!name.starts_with(|c: char| c.is_ascii_digit()));
        }

        #[test]
        fn globs_never_panic(globs in prop::collection::vec("[a*.]{1,8}", 1..4), path in "[a.]{0,12}") {
            if let Ok(map) = with(|m| m.fields = globs) {
                map.takes(&path);
            }
        }
    }
}
