//! Conditions on labels, as in a PromQL selector.

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::labels::Quoted;
use super::{Labels, re2};

/// How a matcher compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// One condition on one label. A label that is not there has the value "".
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// The comparison.
    pub op: MatchOp,
    /// The text or pattern it is compared with.
    pub value: String,
    regex: Option<Regex>,
}

/// A pattern that does not compile, in the words of Prometheus.
#[derive(Debug, thiserror::Error)]
#[error("error parsing regexp: {reason}")]
pub struct InvalidRegex {
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Compiled patterns may not take more memory than this.
const REGEX_BYTES_MAX: usize = 4 << 20;

impl Matcher {
    /// Makes a matcher and compiles its pattern, fully anchored and with `.`
    /// matching newlines: `^(?s:...)$`, as Prometheus 3.
    ///
    /// # Errors
    /// When the pattern does not compile or compiles to more than 4 MiB.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Matcher, InvalidRegex> {
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(anchored(value)?),
        };
        Ok(Matcher {
            name: name.to_owned(),
            op,
            value: value.to_owned(),
            regex,
        })
    }

    /// The matcher `name="value"`.
    pub fn equal(name: &str, value: &str) -> Matcher {
        Matcher {
            name: name.to_owned(),
            op: MatchOp::Equal,
            value: value.to_owned(),
            regex: None,
        }
    }

    /// Whether the label value fulfils the condition.
    pub fn matches(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => self.value == value,
            MatchOp::NotEqual => self.value != value,
            MatchOp::Regex => self.regex_matches(value),
            MatchOp::NotRegex => !self.regex_matches(value),
        }
    }

    /// Whether the series fulfils the condition.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.value(&self.name))
    }

    fn regex_matches(&self, value: &str) -> bool {
        self.regex
            .as_ref()
            .expect("a regex matcher has its pattern")
            .is_match(value)
    }
}

/// Compiles a pattern of RE2's syntax that must match the whole text.
///
/// # Errors
/// When the pattern does not compile or compiles to more than 4 MiB.
pub fn anchored(pattern: &str) -> Result<Regex, InvalidRegex> {
    let invalid = |reason: String| InvalidRegex {
        pattern: pattern.to_owned(),
        reason,
    };
    let translated = re2::translate(pattern).map_err(invalid)?;
    RegexBuilder::new(&format!("^(?s:{translated})$"))
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|err| {
            invalid(match err {
                regex::Error::CompiledTooBig(_) => format!("expression too large: `{pattern}`"),
                err => format!("{}: `{pattern}`", last_line(&err)),
            })
        })
}

/// The reason, without the picture of where it is.
fn last_line(err: &regex::Error) -> String {
    let text = err.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Same label, operator and text.
impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

/// Whether Alertmanager writes a name with this character in quotes.
pub(super) fn is_sign(c: char) -> bool {
    c.is_whitespace() || "{}!=~,\\\"'`".contains(c)
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(is_sign) {
            true => Quoted(&self.name).fmt(f)?,
            false => f.write_str(&self.name)?,
        }
        write!(f, "{}{}", self.op.as_str(), Quoted(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: MatchOp, pattern: &str, value: &str, want: bool) {
        let matcher = Matcher::new("a", op, pattern).unwrap();
        assert_eq!(matcher.matches(value), want, "{matcher} on {value:?}");
    }

    #[test]
    fn regexes_are_anchored_and_dot_matches_newlines() {
        check(MatchOp::Regex, "b|c", "b", true);
        check(MatchOp::Regex, "b|c", "bc", false);
        check(MatchOp::Regex, "b.c", "b\nc", true);
        check(MatchOp::NotRegex, "b.*", "abc", true);
    }

    #[test]
    fn a_missing_label_is_the_empty_text() {
        let labels = Labels::from_pairs([("b", "1")]);
        let not_x = Matcher::new("a", MatchOp::NotEqual, "x").unwrap();
        assert!(not_x.matches_labels(&labels));
        assert!(Matcher::equal("a", "").matches_labels(&labels));
    }

    #[test]
    fn huge_patterns_are_refused() {
        assert!(Matcher::new("a", MatchOp::Regex, "(((a{100}){100}){100})").is_err());
    }
}
