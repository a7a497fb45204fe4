//! `config.toml` as types: what was written, with every default.
//!
//! Owns nothing. One struct per table, each with its own `Default`; unknown
//! fields are refused at their own line. What a part makes of it (compiled
//! templates, addresses, read secrets) is that part's own checked type.
//!
//! It must never open anything but the configuration file itself.

pub mod alerting;
pub mod alertmanager;
pub mod destination;
pub mod intervals;
pub mod limits;
pub mod receivers;
pub mod routing;
pub mod secret;
pub mod server;
pub mod source;
pub mod units;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Deserialize;

pub use alerting::{Alerting, Rules};
pub use alertmanager::{Alertmanager, AlertmanagerGlobal};
pub use destination::{Address, Destinations, Route, Webhook};
pub use limits::{Feature, Limits, Query, Store, Tenant};
pub use secret::Secret;
pub use server::{Auth, Global, LogFormat, Metrics, Server};
pub use source::{
    Ingest, Map, Mqtt, MqttProtocol, Nats, NatsConsumerType, NatsDeliver, NatsMode, PayloadFormat,
    Sources, TimeFormat, Tls,
};
pub use units::{Size, Span};

/// Mistakes of one file that are named at once.
const MISTAKES_MAX: usize = 50;

/// The whole configuration.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[global]`
    pub global: Global,
    /// `[store]`
    pub store: Store,
    /// `[limits]`
    pub limits: Limits,
    /// `[query]`
    pub query: Query,
    /// `[rules]`
    pub rules: Rules,
    /// `[alerting]`
    pub alerting: Alerting,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[auth]`
    pub auth: Auth,
    /// `[[source.KIND]]`
    pub source: Sources,
    /// `[ingest]` with `[[ingest.map]]`
    pub ingest: Ingest,
    /// `[[destination.KIND]]`
    pub destination: Destinations,
    /// `[[route]]`
    pub route: Vec<Route>,
    /// `[[tenant]]`
    pub tenant: Vec<Tenant>,
    /// The folder that relative paths in the file are relative to.
    #[serde(skip)]
    pub base_dir: PathBuf,
}

impl Config {
    /// Reads and parses a file. Relative paths inside it are relative to its folder.
    ///
    /// # Errors
    /// When it cannot be read or parsed; the text names file, line, field and
    /// what was expected of every mistake that can be told apart.
    pub fn load(path: &Path) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read configuration {}", path.display()))?;
        let mut config = Config::parse(&text, &path.display().to_string())?;
        config.base_dir = path.parent().unwrap_or(Path::new("")).to_owned();
        config.load_alertmanager().with_context(|| {
            let line = line_of(&text, "config_file");
            format!("{}:{line}: [alerting] config_file", path.display())
        })?;
        Ok(config)
    }

    /// Parses the text of a file called `name`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, name: &str) -> anyhow::Result<Config> {
        let (config, mut mistakes) = read(text, name);
        for (needle, message) in config.iter().flat_map(Config::bad_references) {
            let line = line_of(text, &needle);
            mistakes.push(format!("{name}:{line}: {message}"));
        }
        let tree = config.iter().filter_map(|config| config.check_tree().err());
        for mistake in tree {
            let line = mistake.line_in(text);
            mistakes.push(format!("{name}:{line}: {}", mistake.message));
        }
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(anyhow::anyhow!("{}", mistakes.join("\n"))),
        }
    }

    /// The notification tree in force; `None` when nobody is told.
    pub fn notification_tree(&self) -> Option<Arc<Alertmanager>> {
        self.alerting.tree(&self.base_dir)
    }

    fn load_alertmanager(&mut self) -> anyhow::Result<()> {
        if let Some(path) = &self.alerting.config_file {
            let file = Alertmanager::load(&self.resolve(path))?;
            self.alerting.file = Some(Arc::new(file));
        }
        Ok(())
    }

    /// A path of the configuration, made absolute or relative to the working folder.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.base_dir.join(path)
    }

    /// The address under which people reach us, without a slash at the end.
    pub fn external_url(&self) -> String {
        let configured = self.global.external_url.trim_end_matches('/');
        if !configured.is_empty() {
            return configured.to_owned();
        }
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let port = self.server.listen.first().map_or(8080, |at| at.port());
        format!("http://{host}:{port}")
    }

    /// Whether the optional view of own metrics is switched on.
    pub fn has_view(&self, view: &str) -> bool {
        self.metrics.views.iter().any(|v| v == view)
    }

    /// What a tree under `[alerting]` says of itself and of the destinations.
    fn check_tree(&self) -> Result<(), alertmanager::Mistake> {
        match self.notification_tree() {
            Some(tree) if self.alerting.route.is_some() => {
                tree.check(&self.destination.names().map(String::as_str).collect())
            }
            _ => Ok(()),
        }
    }

    /// Names that must be unique, and names that must exist. Of each mistake a text
    /// to find the line by, and the message.
    fn bad_references(&self) -> Vec<(String, String)> {
        let sources = self.source.mqtt.iter().map(|s| &s.name);
        let sources = sources.chain(self.source.nats.iter().map(|s| &s.name));
        let mut bad = repeated("source name", sources);
        bad.extend(repeated("destination name", self.destination.names()));
        bad.extend(repeated("route name", self.route.iter().map(|r| &r.name)));
        let tenants = self.tenant.iter().map(|t| t.id.as_str());
        bad.extend(repeated("tenant id", tenants));
        let known: Vec<&str> = self.destination.names().map(String::as_str).collect();
        bad.extend(self.alerting.check_form().err().map(|field| {
            let message = "not beside the tree of [alerting.route] or config_file";
            (field.to_owned(), format!("[alerting] {field}: {message}"))
        }));
        let wanted = self.route.iter().map(|r| ("destination", &r.destination));
        for (field, name) in wanted.chain(self.alerting.receiver.iter().map(|r| ("receiver", r))) {
            if !known.contains(&name.as_str()) {
                bad.push((
                    format!("{field} = \"{name}\""),
                    format!("{field} {name:?} is not configured, expected one of {known:?}"),
                ));
            }
        }
        bad
    }
}

/// Reads the text. After a mistake it goes on without its line, so that all are
/// found at once; `None` when that leads nowhere, as after a field that is missing.
fn read(text: &str, name: &str) -> (Option<Config>, Vec<String>) {
    let mut rest = text.to_owned();
    let mut mistakes = Vec::new();
    while mistakes.len() < MISTAKES_MAX {
        let err = match toml::from_str(&rest) {
            Ok(config) => return (Some(config), mistakes),
            Err(err) => err,
        };
        let is_syntax = rest.parse::<toml::Table>().is_err();
        if is_syntax && !mistakes.is_empty() {
            // Not the file's own mistake: the line that was left out was not a whole one.
            break;
        }
        mistakes.push(located(name, &rest, &err));
        match err.span() {
            Some(place) if !is_syntax && leave_out(&mut rest, &place) => {}
            _ => break,
        }
    }
    (None, mistakes)
}

/// Blanks the lines of a place; not the head of a table, whose fields would then
/// belong to another one.
fn leave_out(text: &mut String, place: &std::ops::Range<usize>) -> bool {
    let from = text[..place.start].rfind('\n').map_or(0, |at| at + 1);
    let to = text[place.end..].find('\n');
    let to = to.map_or(text.len(), |at| place.end + at);
    if text[from..to].trim_start().starts_with('[') {
        return false;
    }
    let blank = text[from..to].replace(|c| c != '\n', " ");
    text.replace_range(from..to, &blank);
    true
}

fn repeated<T: AsRef<str>>(what: &str, names: impl Iterator<Item = T>) -> Vec<(String, String)> {
    let mut seen = std::collections::HashSet::new();
    let mut bad = Vec::new();
    for name in names {
        let name = name.as_ref();
        if !seen.insert(name.to_owned()) {
            bad.push((
                format!("\"{name}\""),
                format!("{what} {name:?} is used twice, expected unique names"),
            ));
        }
    }
    bad
}

/// The last line that holds `needle`, counted from 1; 1 when none does.
fn line_of(text: &str, needle: &str) -> usize {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.contains(needle))
        .last()
        .map_or(1, |(i, _)| i + 1)
}

/// `FILE:LINE:COLUMN: message` and the parser's own picture of the place.
fn located(name: &str, text: &str, err: &toml::de::Error) -> String {
    let start = err.span().map_or(0, |span| span.start);
    let before = &text[..start.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{name}:{line}:{column}: {}\n{err}", err.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, wanted: &[&str]) {
        let err = format!("{:#}", Config::parse(text, "c.toml").unwrap_err());
        for part in wanted {
            assert!(err.contains(part), "{part:?} not in {err}");
        }
    }

    #[test]
    fn a_typo_names_file_line_field_and_the_allowed_ones() {
        check_error(
            "[server]\nlisten = [\"127.0.0.1:1\"]\nlisen = 1\n",
            &["c.toml:3:1", "unknown field `lisen`", "`listen`"],
        );
        check_error(
            "[[source.mqtt]]\nname = \"a\"\nurl = \"mqtt://h\"\ntopic = \"x\"\n",
            &["c.toml:4:1", "unknown field `topic`", "`topics`"],
        );
    }

    #[test]
    fn all_mistakes_of_a_file_are_named_at_once() {
        let text = "[server]\nlisen = 1\nlog_level = 7\n[store]\nretention = \"30 days\"\n\
            [limits]\nlabels_max = [\n1,\n2]\n\
            [[route]]\nname = \"r\"\ndestination = \"nowhere\"\n";
        check_error(
            text,
            &[
                "c.toml:2:1",
                "c.toml:3:",
                "c.toml:5:",
                "c.toml:7:",
                "c.toml:12:",
            ],
        );
        // What is left out breaks nothing that was whole.
        let err = Config::parse("[server]\nx = \"\"\"\ny\n\"\"\"\nz = 1\n", "c").unwrap_err();
        assert!(err.to_string().starts_with("c:2:1: unknown field `x`"));
        assert!(!err.to_string().contains("c:3"));
        // A field that is missing ends it.
        check_error("[[source.mqtt]]\nname = \"a\"\n", &["c.toml:1:1", "`url`"]);
    }

    #[test]
    fn a_bad_unit_names_its_line() {
        check_error(
            "[store]\nretention = \"30 days\"\n",
            &["c.toml:2:", "not a valid duration"],
        );
        check_error(
            "[limits]\npayload_max = \"1 mega\"\n",
            &["c.toml:2:", "not a valid size"],
        );
    }

    #[test]
    fn references_are_checked() {
        check_error(
            "[[route]]\nname = \"r\"\ndestination = \"nowhere\"\n",
            &["c.toml:3:", "\"nowhere\" is not configured"],
        );
        check_error(
            "[[tenant]]\nid = \"a\"\n[[tenant]]\nid = \"a\"\n",
            &["c.toml:4:", "tenant id \"a\" is used twice"],
        );
    }
}
