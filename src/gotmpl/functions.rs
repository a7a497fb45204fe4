//! What a template function is, and the functions that Go itself brings.

use std::sync::Arc;

use super::printf;
use super::value::{List, Value};
use super::{Budget, Env};

/// A function with its parameters.
pub struct Function {
    /// How templates call it.
    pub name: &'static str,
    /// The types of its fixed parameters.
    pub(super) params: &'static [Param],
    /// Whether any number of arguments of any type may follow.
    pub(super) variadic: bool,
    /// What it does.
    pub(super) body: Body,
}

/// The type of a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Param {
    /// Any value.
    Any,
    /// `string`
    Str,
    /// An element of a query's result.
    Sample,
    /// A query's result.
    QueryResult,
}

/// A function's answer; the error is its text.
pub(super) type Answer = Result<Value, String>;

/// What a function does.
pub(super) enum Body {
    /// `and`: evaluates arguments up to the first false one.
    And,
    /// `or`: evaluates arguments up to the first true one.
    Or,
    /// An ordinary function.
    Call(fn(&mut Context<'_, '_>, &[Value]) -> Answer),
}

/// What a function may use besides its arguments.
pub(super) struct Context<'a, 'e> {
    /// What the caller gave.
    pub(super) env: &'a Env<'e>,
    /// How much may still be done.
    pub(super) budget: &'a mut Budget,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Param {
    /// As Go names the type.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Param::Any => "interface {}",
            Param::Str => "string",
            Param::Sample => super::value::SAMPLE,
            Param::QueryResult => super::value::QUERY_RESULT,
        }
    }

    /// Whether a value of this type may be nothing.
    pub(super) fn can_be_nil(self) -> bool {
        self != Param::Str
    }

    /// Whether the value has the type.
    pub(super) fn accepts(self, value: &Value) -> bool {
        self == Param::Any || value.type_name() == self.type_name()
    }
}

/// The function of that name: one of `more`, or one of Go's.
pub(super) fn find(more: &'static [Function], name: &str) -> Option<&'static Function> {
    more.iter()
        .chain(BUILTINS)
        .find(|function| function.name == name)
}

const ANY: &[Param] = &[Param::Any];

/// An ordinary function; `variadic` lets more arguments follow.
pub(super) const fn plain(
    name: &'static str,
    params: &'static [Param],
    variadic: bool,
    body: fn(&mut Context<'_, '_>, &[Value]) -> Answer,
) -> Function {
    Function {
        name,
        params,
        variadic,
        body: Body::Call(body),
    }
}

/// Go's own functions.
static BUILTINS: &[Function] = &[
    Function {
        name: "and",
        params: ANY,
        variadic: true,
        body: Body::And,
    },
    Function {
        name: "or",
        params: ANY,
        variadic: true,
        body: Body::Or,
    },
    plain("not", ANY, false, |_, a| Ok(Value::Bool(!a[0].is_true()))),
    plain("eq", ANY, true, |_, a| equal_any(a)),
    plain("ne", &[Param::Any, Param::Any], false, |_, a| {
        Ok(Value::Bool(!equal(&a[0], &a[1])?))
    }),
    plain("lt", &[Param::Any, Param::Any], false, |_, a| {
        Ok(Value::Bool(less(&a[0], &a[1])?))
    }),
    plain("le", &[Param::Any, Param::Any], false, |_, a| {
        Ok(Value::Bool(less_or_equal(&a[0], &a[1])?))
    }),
    // As Go: the negation of `le`, so NaN is greater than everything.
    plain("gt", &[Param::Any, Param::Any], false, |_, a| {
        Ok(Value::Bool(!less_or_equal(&a[0], &a[1])?))
    }),
    plain("ge", &[Param::Any, Param::Any], false, |_, a| {
        Ok(Value::Bool(!less(&a[0], &a[1])?))
    }),
    plain("len", ANY, false, |_, a| length(&a[0])),
    plain("index", ANY, true, |_, a| index(a)),
    plain("slice", ANY, true, |_, a| slice(a)),
    plain("print", &[], true, |c, a| {
        printf::print(a, c.budget).map(Value::str)
    }),
    plain("println", &[], true, |c, a| {
        printf::println(a, c.budget).map(Value::str)
    }),
    plain("printf", &[Param::Str], true, |c, a| {
        printf::printf(text(&a[0]), &a[1..], c.budget).map(Value::str)
    }),
    plain("html", &[], true, |c, a| escaped(c, a, escape_html)),
    plain("js", &[], true, |c, a| escaped(c, a, escape_js)),
    plain("urlquery", &[], true, |c, a| escaped(c, a, escape_query)),
    plain("call", ANY, true, |_, a| match &a[0] {
        Value::Nil => Err("call of nil".to_owned()),
        other => Err(format!("non-function of type {}", other.type_name())),
    }),
];

/// The text of an argument whose parameter is [`Param::Str`].
pub(super) fn text(value: &Value) -> &str {
    match value {
        Value::Str(text) => text,
        _ => "",
    }
}

/// The kinds that can be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Basic {
    Bool,
    Int,
    Float,
    Str,
    Other,
}

fn basic(value: &Value) -> Basic {
    match value {
        Value::Bool(_) => Basic::Bool,
        // A Go duration is a kind of int64, but only behind its pointer.
        Value::Int(_) => Basic::Int,
        Value::Float(_) => Basic::Float,
        Value::Str(_) => Basic::Str,
        _ => Basic::Other,
    }
}

const BAD_TYPE: &str = "invalid type for comparison";
const INCOMPATIBLE: &str = "incompatible types for comparison";

fn equal_any(args: &[Value]) -> Answer {
    if args.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in &args[1..] {
        if equal(&args[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Nil, Value::Nil) => true,
        (Value::List(_) | Value::Map(_), _) => return Err(uncomparable(a)),
        (_, Value::List(_) | Value::Map(_)) if basic(a) == Basic::Other => {
            return Err(uncomparable(b));
        }
        (Value::Struct(a), Value::Struct(b)) => Arc::ptr_eq(a, b),
        _ if basic(a) == basic(b) => false,
        _ => return Err(INCOMPATIBLE.to_owned()),
    })
}

fn uncomparable(value: &Value) -> String {
    let shown = printf::display(value);
    format!("non-comparable type {shown}: {}", value.type_name())
}

fn less(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a < b),
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        (Value::Str(a), Value::Str(b)) => Ok(a < b),
        (Value::Bool(_), Value::Bool(_)) => Err(BAD_TYPE.to_owned()),
        _ if basic(a) == Basic::Other || basic(b) == Basic::Other => Err(BAD_TYPE.to_owned()),
        _ => Err(INCOMPATIBLE.to_owned()),
    }
}

fn less_or_equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(less(a, b)? || equal(a, b)?)
}

fn length(value: &Value) -> Answer {
    let len = match value {
        Value::Str(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        Value::Nil => return Err("len of nil pointer".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

fn index(args: &[Value]) -> Answer {
    let mut item = args[0].clone();
    if matches!(item, Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    for key in &args[1..] {
        item = match &item {
            Value::Map(map) => match key {
                Value::Str(key) => map.lookup(key).clone(),
                Value::Nil => return Err("value is nil; should be of type string".to_owned()),
                other => {
                    let name = other.type_name();
                    return Err(format!("value has type {name}; should be string"));
                }
            },
            Value::List(list) => list.items[position(key, list.items.len())?].clone(),
            Value::Str(text) => {
                let byte = text.as_bytes()[position(key, text.len())?];
                Value::Int(i64::from(byte))
            }
            Value::Nil => return Err("index of nil pointer".to_owned()),
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

/// An index that must be inside.
fn position(key: &Value, len: usize) -> Result<usize, String> {
    match key {
        Value::Int(i) => usize::try_from(*i)
            .ok()
            .filter(|i| *i < len)
            .ok_or_else(|| format!("index out of range: {i}")),
        Value::Nil => Err("cannot index slice/array with nil".to_owned()),
        other => {
            let name = other.type_name();
            Err(format!("cannot index slice/array with type {name}"))
        }
    }
}

fn slice(args: &[Value]) -> Answer {
    if args.len() > 4 {
        return Err(format!("too many slice indexes: {}", args.len() - 1));
    }
    let len = match &args[0] {
        Value::Str(_) if args.len() == 4 => {
            return Err("cannot 3-index slice a string".to_owned());
        }
        Value::Str(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Nil => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, len, len];
    for (bound, key) in bounds.iter_mut().zip(&args[1..]) {
        *bound = position(key, len + 1)?;
    }
    let [from, to, _] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match &args[0] {
        Value::List(list) => Value::List(Arc::new(List {
            type_name: list.type_name,
            items: list.items[from..to].to_vec(),
        })),
        other => {
            let bytes = &text(other).as_bytes()[from..to];
            Value::str(String::from_utf8_lossy(bytes).as_ref())
        }
    })
}

fn escaped(c: &mut Context<'_, '_>, args: &[Value], escape: fn(&str) -> String) -> Answer {
    let text = printf::print(args, c.budget)?;
    let text = escape(&text);
    c.budget.spend_bytes(text.len())?;
    Ok(Value::str(text))
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' => out.push_str("\\u003C"),
            '>' => out.push_str("\\u003E"),
            '&' => out.push_str("\\u0026"),
            '=' => out.push_str("\\u003D"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// As Go's `url.QueryEscape`: a space becomes `+`.
pub fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
