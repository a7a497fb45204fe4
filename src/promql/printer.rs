//! An expression back to text: one line, in the canonical form of Prometheus.
//!
//! Parsing the text again gives the same expression. Parentheses are kept as
//! they were written, so none have to be invented.

use std::fmt;

use super::ast::{
    Aggregate, At, Binary, BinaryOp, Bounds, Call, Card, Expr, ExprKind, Fill, Matrix, Selector,
    Subquery,
};
use super::length::Length;
use super::literal::{Duration, GoFloat, GoQuoted};
use crate::model::labels::METRIC_NAME;
use crate::model::{MatchOp, Matcher};

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(number) => number.fmt(f),
            ExprKind::String(text) => GoQuoted(text).fmt(f),
            ExprKind::Selector(selector) => selector.fmt(f),
            ExprKind::Matrix(matrix) => matrix.fmt(f),
            ExprKind::Subquery(subquery) => subquery.fmt(f),
            ExprKind::Call(call) => call.fmt(f),
            ExprKind::Aggregate(aggregate) => aggregate.fmt(f),
            ExprKind::Binary(binary) => binary.fmt(f),
            ExprKind::Unary(unary) => {
                write!(
                    f,
                    "{}{}",
                    if unary.negative { "-" } else { "+" },
                    unary.expr
                )
            }
            ExprKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_core(self, f)?;
        write_bounds(self.bounds, f)?;
        write_modifiers(self.at, &self.offset, f)
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_core(&self.selector, f)?;
        write!(f, "[{}]", self.range)?;
        write_bounds(self.selector.bounds, f)?;
        write_modifiers(self.selector.at, &self.selector.offset, f)
    }
}

impl fmt::Display for Subquery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}:", self.expr, self.range)?;
        if let Some(step) = &self.step {
            step.fmt(f)?;
        }
        f.write_str("]")?;
        write_modifiers(self.at, &self.offset, f)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head().fmt(f)?;
        match &self.param {
            Some(param) => write!(f, "({param}, {})", self.expr),
            None => write!(f, "({})", self.expr),
        }
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.raises_infinity() {
            f.write_str(INFINITY)?;
        } else {
            self.lhs.fmt(f)?;
        }
        write!(f, " {} {}", self.operator(), self.rhs)
    }
}

/// Infinity without the sign that it is printed with.
pub(super) const INFINITY: &str = "Inf";

impl Binary {
    /// Whether this is a power of infinity, whose sign would be read as one of the
    /// whole power.
    pub(super) fn raises_infinity(&self) -> bool {
        let is_infinity = |kind: &ExprKind| matches!(kind, ExprKind::Number(number) if number.value == f64::INFINITY);
        self.op == BinaryOp::Pow && is_infinity(&self.lhs.kind)
    }
}

impl Aggregate {
    /// What comes before the parenthesis.
    pub(super) fn head(&self) -> impl fmt::Display {
        AggregateHead(self)
    }
}

struct AggregateHead<'a>(&'a Aggregate);

impl fmt::Display for AggregateHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aggregate = self.0;
        f.write_str(aggregate.op.as_str())?;
        if aggregate.without {
            write!(f, " without {} ", LabelList(&aggregate.labels))
        } else if aggregate.labels.is_empty() {
            Ok(())
        } else {
            write!(f, " by {} ", LabelList(&aggregate.labels))
        }
    }
}

impl Binary {
    /// The operator with its modifiers.
    pub(super) fn operator(&self) -> impl fmt::Display {
        Operator(self)
    }
}

struct Operator<'a>(&'a Binary);

impl fmt::Display for Operator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operator(binary) = self;
        f.write_str(binary.op.as_str())?;
        if binary.returns_bool {
            f.write_str(" bool")?;
        }
        let matching = &binary.matching;
        let group = match matching.card {
            Card::ManyToOne => Some("left"),
            Card::OneToMany => Some("right"),
            Card::OneToOne | Card::ManyToMany => None,
        };
        if matching.on || !matching.labels.is_empty() || group.is_some() {
            let tag = if matching.on { "on" } else { "ignoring" };
            write!(f, " {tag} {}", LabelList(&matching.labels))?;
        }
        if let Some(group) = group {
            write!(f, " group_{group} {}", LabelList(&matching.include))?;
        }
        write_fill(matching.fill, f)
    }
}

/// The name and the matchers.
fn write_core(selector: &Selector, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let bare = is_metric_name(&selector.name) && !is_reserved(&selector.name);
    if bare {
        f.write_str(&selector.name)?;
    }
    let is_name = |m: &&Matcher| {
        !selector.name.is_empty()
            && m.name == METRIC_NAME
            && m.op == MatchOp::Equal
            && m.value == selector.name
    };
    let mut texts: Vec<String> = selector
        .matchers
        .iter()
        .filter(|m| !is_name(m))
        .map(|m| {
            let value = GoQuoted(&m.value);
            let name = LabelName {
                name: &m.name,
                in_braces: true,
            };
            format!("{name}{}{value}", m.op.as_str())
        })
        .collect();
    texts.sort_unstable();
    if !bare && !selector.name.is_empty() {
        texts.insert(0, GoQuoted(&selector.name).to_string());
    }
    if texts.is_empty() {
        return Ok(());
    }
    write!(f, "{{{}}}", texts.join(","))
}

fn write_fill(fill: Fill, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let both = Fill {
        left: fill.right,
        ..fill
    };
    if let (Some(v), true) = (fill.left, fill == both) {
        return write!(f, " fill ({})", GoFloat(v));
    }
    for (side, v) in [("left", fill.left), ("right", fill.right)] {
        if let Some(v) = v {
            write!(f, " fill_{side} ({})", GoFloat(v))?;
        }
    }
    Ok(())
}

fn write_bounds(bounds: Bounds, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match bounds {
        Bounds::Inside => Ok(()),
        bounds => write!(f, " {}", bounds.as_str()),
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expr {
            Some(expr) => expr.fmt(f),
            None => Duration(self.ms).fmt(f),
        }
    }
}

fn write_modifiers(at: Option<At>, offset: &Length, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match at {
        Some(At::Time(t)) => write_seconds(t.as_ms(), f)?,
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        None => {}
    }
    if !offset.is_none() {
        write!(f, " offset {offset}")?;
    }
    Ok(())
}

/// Seconds with three digits, without going through a float that may round.
fn write_seconds(ms: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    write!(f, " @ {sign}{}.{:03}", ms / 1000, ms % 1000)
}

/// `(a, b)`
struct LabelList<'a>(&'a [String]);

impl fmt::Display for LabelList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (i, label) in self.0.iter().enumerate() {
            let name = LabelName {
                name: label,
                in_braces: false,
            };
            write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

/// A label's name, in quotes when it needs them.
struct LabelName<'a> {
    name: &'a str,
    /// Outside braces a word may also be a number.
    in_braces: bool,
}

impl fmt::Display for LabelName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        let number = NUMBER_WORDS.iter().any(|w| w.eq_ignore_ascii_case(name));
        if is_metric_name(name) && !name.contains(':') && (self.in_braces || !number) {
            f.write_str(name)
        } else {
            GoQuoted(name).fmt(f)
        }
    }
}

/// Words that are numbers wherever they stand outside braces.
const NUMBER_WORDS: [&str; 2] = ["inf", "nan"];

/// Whether a word cannot name a metric without quotes.
fn is_reserved(word: &str) -> bool {
    let words = [
        "atan2",
        "bool",
        "group_left",
        "group_right",
        "ignoring",
        "on",
    ];
    let mut all = words.iter().chain(&NUMBER_WORDS);
    all.any(|w| w.eq_ignore_ascii_case(word))
}

/// Whether a name can stand without quotes, as far as its characters go.
fn is_metric_name(name: &str) -> bool {
    let word = |b: u8| b == b'_' || b == b':' || b.is_ascii_alphanumeric();
    !name.is_empty() && name.bytes().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
}
