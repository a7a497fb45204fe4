//! The texts of notifications: the built-in definitions, those of the configured
//! files, and the fields of receivers that use them.
//!
//! Names are Alertmanager's, and so is what they print, so that a field taken from an
//! `alertmanager.yml` says here what it said there.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use super::message::Message;
use crate::config::{Alertmanager, Config, Mistake, glob, text};
use crate::gotmpl::alertmanager::FUNCTIONS;
use crate::gotmpl::{Env, ExecError, Library, Limits, Template, Value};
use crate::model::{Delivery, Timestamp};

/// The definitions that exist without any file.
const DEFAULTS: &str = include_str!("default.tmpl");

/// Definitions that fields may use.
pub(super) struct Templates {
    library: Arc<Library>,
    /// The texts of the files, to notice that one changed.
    pub(super) read: Vec<Vec<u8>>,
}

/// A field's parsed template.
#[derive(Clone)]
pub(super) struct Text(Arc<Template>);

impl Templates {
    /// Reads and parses the files of a tree; beside them what is wrong with which.
    pub(super) fn load(tree: &Alertmanager, config: &Config) -> (Templates, Vec<Mistake>) {
        let mut library = Library::default();
        library
            .add("default.tmpl", DEFAULTS, FUNCTIONS)
            .expect("BUG: the built-in templates are wrong");
        let (mut read, mut wrong) = (Vec::new(), Vec::new());
        for (at, pattern) in tree.templates.iter().enumerate() {
            let unread = |err: anyhow::Error| {
                let path = config.tree_path(&format!("templates[{at}]"));
                Mistake::new(path, format!("{err:#}"))
            };
            let files = matching(&tree.base_dir.join(pattern)).map_err(unread);
            let files = files.unwrap_or_else(|mistake| {
                wrong.push(mistake);
                Vec::new()
            });
            for file in files {
                let text = match text::read(&file) {
                    Ok(text) => text,
                    Err(err) => {
                        wrong.push(unread(err));
                        continue;
                    }
                };
                let name = file.display().to_string();
                if let Err(err) = library.add(&name, &text, FUNCTIONS) {
                    // Go puts this word before the place.
                    let text = err.to_string();
                    let place = text.strip_prefix("template: ").unwrap_or(&text);
                    wrong.push(Mistake::elsewhere(place));
                }
                read.push(text.into_bytes());
            }
        }
        let library = Arc::new(library);
        (Templates { library, read }, wrong)
    }

    /// Parses a field.
    ///
    /// # Errors
    /// With the field and what is wrong.
    pub(super) fn text(&self, field: &str, text: &str) -> anyhow::Result<Text> {
        let template = Template::parse(field, text, FUNCTIONS);
        let template = template.map_err(|err| anyhow!("{field}: {err}"))?;
        Ok(Text(Arc::new(template.with_library(&self.library))))
    }
}

/// The files that a path names. A pattern may fit none, as in Alertmanager; a name
/// without one must exist, or the texts in it would be missed when they are needed.
fn matching(path: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let pattern = path.display().to_string();
    match glob::is_pattern(&pattern) {
        true => glob::find(&pattern).with_context(|| format!("cannot look for {pattern:?}")),
        false => Ok(vec![path.to_owned()]),
    }
}

/// A notification that is being put into words.
pub(super) struct Notice {
    pub(super) message: Message,
    pub(super) event_id: String,
    pub(super) now: Timestamp,
    data: Value,
}

impl Notice {
    pub(super) fn new(message: Message, event_id: &str, now: Timestamp) -> Notice {
        Notice {
            data: message.data(),
            event_id: event_id.to_owned(),
            message,
            now,
        }
    }

    /// The notification in an outbox row, as it was when the row was made: the same in
    /// every attempt.
    ///
    /// # Errors
    /// When the row holds none.
    pub(super) fn of(delivery: &Delivery) -> Result<Notice, String> {
        let message = Message::parse(&delivery.body)?;
        Ok(Notice::new(
            message,
            &delivery.event_id,
            delivery.created_at,
        ))
    }

    /// Expands a field.
    ///
    /// # Errors
    /// In Go's words.
    pub(super) fn render(&self, text: &Text) -> Result<String, String> {
        self.expand(|env| text.0.execute(&self.data, env))
    }

    /// Expands a field that is HTML: values are escaped by their place.
    ///
    /// # Errors
    /// In Go's words.
    pub(super) fn render_html(&self, text: &Text) -> Result<String, String> {
        self.expand(|env| text.0.execute_html(&self.data, env))
    }

    /// Expands a field in which values must not have a meaning of their own.
    ///
    /// # Errors
    /// In Go's words.
    pub(super) fn render_escaped(
        &self,
        text: &Text,
        escape: fn(&str) -> String,
    ) -> Result<String, String> {
        self.expand(|env| text.0.execute_escaped(&self.data, env, escape))
    }

    fn expand(
        &self,
        expand: impl FnOnce(&Env<'_>) -> Result<String, ExecError>,
    ) -> Result<String, String> {
        let no_query = |_: &str| Err("queries are for rules".to_owned());
        let env = Env {
            query: &no_query,
            external_url: &self.message.external_url,
            now: self.now,
            limits: Limits::default(),
        };
        expand(&env).map_err(|err| err.to_string())
    }

    /// The same over all attempts at all messages of a group: the receiver's own
    /// key of the incident.
    pub(super) fn incident(&self) -> String {
        let key = self.message.group_key.as_bytes();
        let digest = ring::digest::digest(&ring::digest::SHA256, key);
        digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
    }
}
