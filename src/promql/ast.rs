//! The parsed query.
//!
//! Every node knows where it stands in the text, so that an error or an
//! annotation found much later can still point at it. Two expressions are equal
//! when they mean the same text; places do not take part, nor does the order
//! in which the matchers of a selector were written.

use super::length::Length;
use super::signature::Function;
use crate::model::labels::METRIC_NAME;
use crate::model::{Matcher, Timestamp};

/// A place in the query text.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Span {
    /// Byte offset of the first byte.
    pub start: u32,
    /// Byte offset after the last byte.
    pub end: u32,
    /// The line of the first character, counted from 1.
    pub line: u32,
    /// The column of the first character, in characters, counted from 1.
    pub column: u32,
}

impl Span {
    /// From the start of this place to the end of `last`.
    #[must_use]
    pub fn to(self, last: Span) -> Span {
        Span {
            end: last.end,
            ..self
        }
    }

    /// The byte offsets.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// An expression and where it stands.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.kind == other.kind
    }
}

/// The kinds of expression.
#[derive(Clone, PartialEq, Debug)]
pub enum ExprKind {
    /// `1.5`, `Inf`, `5m`
    Number(Number),
    /// `"text"`
    String(String),
    /// `foo{a="b"} @ 5 offset 1m`
    Selector(Box<Selector>),
    /// `foo[5m]`
    Matrix(Box<Matrix>),
    /// `expr[1h:5m]`
    Subquery(Box<Subquery>),
    /// `rate(...)`
    Call(Box<Call>),
    /// `sum by (a) (...)`
    Aggregate(Box<Aggregate>),
    /// `a + b`
    Binary(Box<Binary>),
    /// `-a`
    Unary(Box<Unary>),
    /// `(a)`
    Paren(Box<Expr>),
}

/// A number; durations are numbers of seconds.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// The value; of a duration, its seconds.
    pub value: f64,
    /// Whether it was written as a duration.
    pub duration: bool,
}

/// By bits, except that every NaN equals every other.
impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        let bits = self.value.to_bits() == other.value.to_bits();
        self.duration == other.duration && (bits || self.value.is_nan() && other.value.is_nan())
    }
}

/// An instant selector, also the core of a range selector.
#[derive(Clone, Debug)]
pub struct Selector {
    /// The metric's name when it was written outside a matcher, else empty.
    pub name: String,
    /// All conditions, the one on the name included.
    pub matchers: Vec<Matcher>,
    /// How far back to look; negative is the future.
    pub offset: Length,
    /// The fixed evaluation time.
    pub at: Option<At>,
    /// How the ends of a window are treated.
    pub bounds: Bounds,
}

/// What stands for the values at the ends of a window.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Bounds {
    /// Nothing: only the samples inside count.
    #[default]
    Inside,
    /// `anchored`: the last sample before or at an end.
    Anchored,
    /// `smoothed`: a value between the samples on both sides of an end.
    Smoothed,
}

impl Bounds {
    /// As it is written; `Inside` is not.
    pub fn as_str(self) -> &'static str {
        match self {
            Bounds::Inside => "",
            Bounds::Anchored => "anchored",
            Bounds::Smoothed => "smoothed",
        }
    }
}

impl Selector {
    /// Whether it is only a name and matchers.
    pub fn is_bare(&self) -> bool {
        self.at.is_none() && self.offset.is_none() && self.bounds == Bounds::Inside
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Selector) -> bool {
        let sorted = |s: &Selector| {
            let mut texts: Vec<String> = s.matchers.iter().map(Matcher::to_string).collect();
            texts.sort_unstable();
            texts
        };
        self.name == other.name
            && self.offset == other.offset
            && self.at == other.at
            && self.bounds == other.bounds
            && sorted(self) == sorted(other)
    }
}

/// What stands after `@`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// A fixed time.
    Time(Timestamp),
    /// `start()`: the first step of the whole query.
    Start,
    /// `end()`: the last step of the whole query.
    End,
}

/// A range selector.
#[derive(Clone, PartialEq, Debug)]
pub struct Matrix {
    /// What is selected, with its offset and `@`.
    pub selector: Selector,
    /// The length of the window.
    pub range: Length,
}

/// A range over an expression that is evaluated at its own steps.
#[derive(Clone, PartialEq, Debug)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Expr,
    /// The length of the window.
    pub range: Length,
    /// The distance of the steps; `None` is the engine's default.
    pub step: Option<Length>,
    /// How far back to look.
    pub offset: Length,
    /// The fixed evaluation time.
    pub at: Option<At>,
}

/// A function call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function.
    pub function: &'static Function,
    /// Its arguments, of the declared number and types.
    pub args: Vec<Expr>,
}

impl PartialEq for Call {
    fn eq(&self, other: &Call) -> bool {
        self.function.name == other.function.name && self.args == other.args
    }
}

/// An aggregation.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// The first argument of the operators that have two.
    pub param: Option<Expr>,
    /// What is aggregated.
    pub expr: Expr,
    /// Whether `labels` are those that go rather than those that stay.
    pub without: bool,
    /// The labels of `by` or `without`, as written.
    pub labels: Vec<String>,
}

/// The aggregation operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum AggregateOp {
    Avg,
    Bottomk,
    Count,
    CountValues,
    Group,
    LimitRatio,
    Limitk,
    Max,
    Min,
    Quantile,
    Stddev,
    Stdvar,
    Sum,
    Topk,
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [AggregateOp; 14] = [
        AggregateOp::Avg,
        AggregateOp::Bottomk,
        AggregateOp::Count,
        AggregateOp::CountValues,
        AggregateOp::Group,
        AggregateOp::LimitRatio,
        AggregateOp::Limitk,
        AggregateOp::Max,
        AggregateOp::Min,
        AggregateOp::Quantile,
        AggregateOp::Stddev,
        AggregateOp::Stdvar,
        AggregateOp::Sum,
        AggregateOp::Topk,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Avg => "avg",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::Count => "count",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Group => "group",
            AggregateOp::LimitRatio => "limit_ratio",
            AggregateOp::Limitk => "limitk",
            AggregateOp::Max => "max",
            AggregateOp::Min => "min",
            AggregateOp::Quantile => "quantile",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Sum => "sum",
            AggregateOp::Topk => "topk",
        }
    }

    /// Whether Prometheus calls it experimental.
    pub fn is_experimental(self) -> bool {
        matches!(self, AggregateOp::Limitk | AggregateOp::LimitRatio)
    }

    /// The type of its parameter, if it takes one.
    pub fn param_type(self) -> Option<Type> {
        match self {
            AggregateOp::CountValues => Some(Type::String),
            AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio
            | AggregateOp::Quantile => Some(Type::Scalar),
            _ => None,
        }
    }
}

/// A binary operation.
#[derive(Clone, PartialEq, Debug)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// The left side.
    pub lhs: Expr,
    /// The right side.
    pub rhs: Expr,
    /// Whether a comparison gives 0 or 1 instead of filtering.
    pub returns_bool: bool,
    /// How elements of two vectors find each other.
    pub matching: Matching,
    /// A scalar when both sides are, else a vector; kept here so that the type
    /// of a deep tree is known without walking it.
    pub value_type: Type,
}

/// The binary operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    TrimUpper,
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// All of them.
    pub const ALL: [BinaryOp; 18] = [
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Mod,
        BinaryOp::Pow,
        BinaryOp::Atan2,
        BinaryOp::Equal,
        BinaryOp::NotEqual,
        BinaryOp::Greater,
        BinaryOp::Less,
        BinaryOp::GreaterEqual,
        BinaryOp::LessEqual,
        BinaryOp::TrimUpper,
        BinaryOp::TrimLower,
        BinaryOp::And,
        BinaryOp::Or,
        BinaryOp::Unless,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Greater => ">",
            BinaryOp::Less => "<",
            BinaryOp::GreaterEqual => ">=",
            BinaryOp::LessEqual => "<=",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }

    /// Whether it filters by default.
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            BinaryOp::Equal
                | BinaryOp::NotEqual
                | BinaryOp::Greater
                | BinaryOp::Less
                | BinaryOp::GreaterEqual
                | BinaryOp::LessEqual
        )
    }

    /// Whether it takes a side off histograms, and does nothing else.
    pub fn is_trim(self) -> bool {
        matches!(self, BinaryOp::TrimUpper | BinaryOp::TrimLower)
    }

    /// Whether the result is no longer the metric, so that its name goes.
    pub fn drops_name(self) -> bool {
        !self.is_comparison() && !self.is_trim() && !self.is_set()
    }

    /// Whether it works on sets of elements.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// A higher number binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            op if op.is_comparison() || op.is_trim() => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Pow => 6,
            _ => 5,
        }
    }
}

/// How elements of two vectors find each other.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Matching {
    /// Whether only `labels` count rather than all others.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// How many elements of each side may belong together.
    pub card: Card,
    /// Labels of the one side that go to the result.
    pub include: Vec<String>,
    /// What stands for elements that find none on the other side.
    pub fill: Fill,
}

impl Matching {
    /// Whether a label takes part.
    pub fn compares(&self, name: &str) -> bool {
        let listed = self.labels.iter().any(|label| label == name);
        if self.on {
            listed
        } else {
            !listed && name != METRIC_NAME
        }
    }
}

/// Values in place of missing elements; `None` leaves out their matches too.
#[derive(Clone, Copy, Default, Debug)]
pub struct Fill {
    /// For elements that the left side misses.
    pub left: Option<f64>,
    /// For elements that the right side misses.
    pub right: Option<f64>,
}

impl Fill {
    /// Whether nothing is filled in.
    pub fn is_none(self) -> bool {
        self.left.is_none() && self.right.is_none()
    }
}

/// By bits, except that every NaN equals every other.
impl PartialEq for Fill {
    fn eq(&self, other: &Fill) -> bool {
        let bits = |v: Option<f64>| v.map(|v| if v.is_nan() { u64::MAX } else { v.to_bits() });
        bits(self.left) == bits(other.left) && bits(self.right) == bits(other.right)
    }
}

/// How many elements of each side may belong together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Card {
    /// One of each side.
    #[default]
    OneToOne,
    /// `group_left`: many of the left side.
    ManyToOne,
    /// `group_right`: many of the right side.
    OneToMany,
    /// The set operators.
    ManyToMany,
}

/// A sign before an expression that is not a plain number.
#[derive(Clone, PartialEq, Debug)]
pub struct Unary {
    /// Whether the sign is a minus.
    pub negative: bool,
    /// What is signed.
    pub expr: Expr,
}

/// The types of PromQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// One number for each step.
    Scalar,
    /// One text.
    String,
    /// Elements with one value for each step.
    Vector,
    /// Elements with a window of values for each step.
    Matrix,
}

impl Type {
    /// As Prometheus' documentation and messages call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Scalar => "scalar",
            Type::String => "string",
            Type::Vector => "instant vector",
            Type::Matrix => "range vector",
        }
    }

    /// As the HTTP API calls it.
    pub fn api_name(self) -> &'static str {
        match self {
            Type::Scalar => "scalar",
            Type::String => "string",
            Type::Vector => "vector",
            Type::Matrix => "matrix",
        }
    }
}

impl Expr {
    /// The type of its value. Walks down at most one path.
    pub fn value_type(&self) -> Type {
        match &self.kind {
            ExprKind::Number(_) => Type::Scalar,
            ExprKind::String(_) => Type::String,
            ExprKind::Selector(_) | ExprKind::Aggregate(_) => Type::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => Type::Matrix,
            ExprKind::Call(call) => call.function.returns,
            ExprKind::Binary(binary) => binary.value_type,
            ExprKind::Unary(unary) => unary.expr.value_type(),
            ExprKind::Paren(inner) => inner.value_type(),
        }
    }

    /// The expression inside any parentheses.
    pub fn without_parens(&self) -> &Expr {
        match &self.kind {
            ExprKind::Paren(inner) => inner.without_parens(),
            _ => self,
        }
    }
}
