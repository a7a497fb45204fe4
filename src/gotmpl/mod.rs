//! Go templates as rule files and notifications use them: text to text.
//!
//! Owns nothing; pure. A small engine of our own, because the words of rule
//! authors depend on Go's types: whole floats stay floats, a missing label is
//! the empty text, comparing a float with an integer is an error, numbers print
//! in Go's shortest form. The crates that were tried differ in one of these
//! each. Error texts are Go's too, since a failed expansion becomes the text of
//! the annotation. Known differences: pointers print what they point to, and
//! hexadecimal floats (`%x`, `%b`) are refused.
//!
//! It must never do I/O or read a clock, and it must end soon whatever the
//! template says: steps, output bytes and the depth of calls are bounded.

pub mod alertmanager;
mod ast;
mod escape;
mod eval;
mod exec;
mod functions;
mod html;
mod json;
mod lexer;
mod methods;
mod number;
mod parser;
mod pipes;
mod printf;
pub mod prometheus;
mod quote;
#[cfg(test)]
mod tests;
mod time;
pub mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use functions::{Function, escape_query};
pub use methods::ZERO_TIME_MS;
pub use value::Value;

use crate::model::{Labels, Timestamp};

/// A template that does not parse, in Go's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// An expansion that failed, in Go's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExecError(String);

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
    root: Vec<ast::Node>,
    defined: BTreeMap<String, Vec<ast::Node>>,
    library: Option<Arc<Library>>,
}

/// Definitions that many templates share.
#[derive(Debug, Default)]
pub struct Library {
    texts: Vec<String>,
    /// Each with the index of its text.
    defined: BTreeMap<String, (usize, Vec<ast::Node>)>,
}

impl Library {
    /// Adds the definitions of a text; a later one of the same name counts.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn add(
        &mut self,
        name: &str,
        text: &str,
        functions: &'static [Function],
    ) -> Result<(), ParseError> {
        let parsed = parser::parse(name, text, functions)?;
        let at = self.texts.len();
        self.texts.push(text.to_owned());
        for (name, list) in parsed.defined {
            self.defined.insert(name, (at, list));
        }
        Ok(())
    }
}

/// Runs a query for a template: the elements, or the error's text.
pub type QueryFn<'e> = dyn Fn(&str) -> Result<Vec<(Labels, f64)>, String> + 'e;

/// What functions see of the world.
pub struct Env<'e> {
    /// Runs `query`.
    pub query: &'e QueryFn<'e>,
    /// The address under which people reach us.
    pub external_url: &'e str,
    /// The evaluation time.
    pub now: Timestamp,
    /// How much one expansion may do.
    pub limits: Limits,
}

/// How much one expansion may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Evaluated words and statements.
    pub steps_max: u64,
    /// Bytes of the output and of all texts made on the way.
    pub bytes_max: usize,
    /// Nested blocks, parentheses and calls of templates.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            steps_max: 100_000,
            bytes_max: 1 << 20,
            depth_max: 120,
        }
    }
}

impl Template {
    /// Parses a template; `functions` are known besides Go's own.
    ///
    /// # Errors
    /// With line and reason in Go's words.
    pub fn parse(
        name: &str,
        text: &str,
        functions: &'static [Function],
    ) -> Result<Template, ParseError> {
        let parsed = parser::parse(name, text, functions)?;
        Ok(Template {
            name: name.to_owned(),
            text: text.to_owned(),
            root: parsed.root,
            defined: parsed.defined,
            library: None,
        })
    }

    /// The same template with more definitions; its own count first.
    #[must_use]
    pub fn with_library(mut self, library: &Arc<Library>) -> Template {
        self.library = Some(Arc::clone(library));
        self
    }

    /// A definition with the text that its places are counted in.
    fn definition(&self, name: &str) -> Option<(&str, &str, &[ast::Node])> {
        if let Some((name, list)) = self.defined.get_key_value(name) {
            return Some((name, &self.text, list));
        }
        let library = self.library.as_deref()?;
        let (name, (at, list)) = library.defined.get_key_value(name)?;
        Some((name, &library.texts[*at], list))
    }

    /// Expands the template over `data`.
    ///
    /// # Errors
    /// As Go would fail, and when a limit is passed.
    pub fn execute(&self, data: &Value, env: &Env<'_>) -> Result<String, ExecError> {
        exec::execute(self, data, env, None)
    }

    /// Expands a template that is HTML: values are escaped by their place.
    ///
    /// # Errors
    /// As [`Template::execute`].
    pub fn execute_html(&self, data: &Value, env: &Env<'_>) -> Result<String, ExecError> {
        let escape = escape::Escape::Html(html::Html::new());
        exec::execute(self, data, env, Some(escape))
    }

    /// Expands a template whose values must not have a meaning of their own, such as
    /// a topic: each printed value goes through `escape`.
    ///
    /// # Errors
    /// As [`Template::execute`].
    pub fn execute_escaped(
        &self,
        data: &Value,
        env: &Env<'_>,
        escape: fn(&str) -> String,
    ) -> Result<String, ExecError> {
        exec::execute(self, data, env, Some(escape::Escape::Each(escape)))
    }
}

/// How much of the limits is left.
#[derive(Debug)]
pub struct Budget {
    steps: u64,
    bytes: usize,
}

impl Budget {
    fn new(limits: Limits) -> Budget {
        Budget {
            steps: limits.steps_max,
            bytes: limits.bytes_max,
        }
    }

    /// Takes one step.
    ///
    /// # Errors
    /// With the text of the error when none is left.
    pub fn spend_step(&mut self) -> Result<(), String> {
        self.steps = self
            .steps
            .checked_sub(1)
            .ok_or("template takes too many steps")?;
        Ok(())
    }

    /// Takes room for a text.
    ///
    /// # Errors
    /// With the text of the error when there is not enough left.
    pub fn spend_bytes(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or("template makes too much text")?;
        Ok(())
    }
}
