//! How values are made harmless where the text is more than text.

use super::html::Html;

/// What is done to the values that a template prints; its own text stays.
#[derive(Debug)]
pub(super) enum Escape {
    /// Escaped by their place in an HTML text.
    Html(Html),
    /// Each for itself.
    Each(fn(&str) -> String),
}

impl Escape {
    /// The template's own text as it is to be written.
    pub(super) fn text(&mut self, text: &str) -> String {
        match self {
            Escape::Html(html) => html.text(text),
            Escape::Each(_) => text.to_owned(),
        }
    }

    /// A value as it is to be written. `last` is the function that gave it.
    pub(super) fn value(&mut self, value: &str, last: Option<&str>) -> String {
        match self {
            Escape::Html(html) => html.value(value, last),
            Escape::Each(escape) => escape(value),
        }
    }
}
