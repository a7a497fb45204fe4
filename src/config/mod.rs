//! `config.toml` as types: what was written, with every default.
//!
//! Owns nothing. One struct per table, each with its own `Default`; every mistake, of
//! whichever part, is told with the line of its field. What a part makes of it (compiled
//! templates, addresses, read secrets) is that part's own checked type.
//!
//! It must never open anything but the configuration file and its `alertmanager.yml`.

pub mod alerting;
pub mod alertmanager;
pub mod alertmanagers;
pub mod destination;
mod document;
pub mod glob;
pub mod intervals;
pub mod limits;
mod mistake;
mod origin;
mod places;
mod reading;
pub mod receivers;
mod references;
pub mod routing;
pub mod secret;
pub mod server;
mod shown;
pub mod source;
pub mod text;
pub mod units;
pub mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Deserialize;

pub use alerting::{Alerting, Rules};
pub use alertmanager::{Alertmanager, AlertmanagerGlobal};
pub use destination::{Address, Destinations, Route, Webhook};
pub use document::{Placed, YamlMistake};
pub use limits::{Feature, Limits, Query, Store, Tenant};
pub use mistake::{Mistake, Mistakes};
pub use origin::Origin;
pub use places::position;
pub use secret::Secret;
pub use server::{Auth, Global, LogFormat, Metrics, Server};
pub use source::{
    Ingest, Map, Mqtt, MqttProtocol, Nats, NatsConsumerType, NatsDeliver, NatsMode, PayloadFormat,
    Sources, TimeFormat, Tls,
};
pub use units::{Size, Span};

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
    /// Where it was written.
    #[serde(skip)]
    pub origin: Arc<Origin>,
}

impl Config {
    /// Reads and parses a file. Relative paths inside it are relative to its folder.
    ///
    /// # Errors
    /// When it cannot be read, and with every mistake in its form and its names: a line
    /// for each with file, line, column, field and what was expected.
    pub fn load(path: &Path) -> anyhow::Result<Config> {
        Config::read(path)?.sound()
    }

    /// As [`Config::load`], but what was written wrong is passed over; the mistakes come
    /// out with those of [`Config::tell`], to be told together.
    ///
    /// # Errors
    /// When it cannot be read or is no TOML.
    pub fn read(path: &Path) -> anyhow::Result<Config> {
        let name = path.display().to_string();
        let text = text::read(path).context("cannot read the configuration")?;
        let mut config = reading::read(&name, &text)?;
        config.base_dir = path.parent().unwrap_or(Path::new("")).to_owned();
        config.load_alertmanager();
        Ok(config)
    }

    /// Parses the text of a file called `name`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, name: &str) -> anyhow::Result<Config> {
        reading::read(name, text)?.sound()
    }

    fn sound(self) -> anyhow::Result<Config> {
        let mistakes = self.tell(Vec::new());
        match mistakes.is_empty() {
            true => Ok(self),
            false => Err(mistakes.into()),
        }
    }

    /// All mistakes with their places: those of form, of names, and `more`.
    pub fn tell(&self, more: Vec<Mistake>) -> Mistakes {
        let mut all = references::mistakes(self);
        all.extend(more);
        self.origin.tell(all)
    }

    /// Notes that a field is set by an argument of the command line.
    pub fn set_by(&mut self, path: &'static str, flag: &'static str) {
        Arc::make_mut(&mut self.origin).set_by(path, flag);
    }

    /// Every option with its value, in the shape of `config.toml` and without secrets; the
    /// notification tree is left out.
    pub fn shown(&self) -> String {
        shown::text(self)
    }

    /// The notification tree in force; `None` when nobody is told.
    pub fn notification_tree(&self) -> Option<Arc<Alertmanager>> {
        self.alerting.tree(&self.base_dir)
    }

    /// The path by which a [`Mistake`] names a field of the tree.
    pub fn tree_path(&self, field: &str) -> String {
        match self.alerting.file {
            Some(_) => mistake::joined(origin::TREE_FILE, field),
            None => mistake::joined("alerting", field),
        }
    }

    fn load_alertmanager(&mut self) {
        let Some(path) = &self.alerting.config_file else {
            return;
        };
        let path = self.resolve(path);
        let origin = Arc::make_mut(&mut self.origin);
        match Alertmanager::read(&path) {
            Ok((tree, written)) => {
                origin.tree = written;
                self.alerting.file = Some(Arc::new(tree));
            }
            Err(mistake) => origin.not_read = Some(mistake),
        }
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

    /// What our own metrics bear as `instance`: host and port of the external URL.
    pub fn instance(&self) -> String {
        let url = self.external_url();
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    }

    /// Whether the optional view of own metrics is switched on.
    pub fn has_view(&self, view: &str) -> bool {
        self.metrics.views.iter().any(|v| v == view)
    }
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
        let lines: Vec<&str> = err.downcast_ref::<Mistakes>().unwrap().lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("c:2:1: [server] x: unknown field `x`"));
        assert!(lines[1].starts_with("c:5:1: [server] z: unknown field `z`"));
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
            &[
                "c.toml:3:",
                "[route[0]] destination: \"nowhere\" is not configured",
            ],
        );
        check_error(
            "[[alerting.receivers]]\nname = \"a\"\n",
            &["c.toml:1:", "[alerting] receivers: nothing leads to them"],
        );
        check_error(
            "[[tenant]]\nid = \"a\"\n[[tenant]]\nid = \"a\"\n",
            &["c.toml:4:", "[tenant[1]] id: tenant id \"a\" is used twice"],
        );
    }
}
