//! Methods of template values, with Go's names.

use std::sync::Arc;

use super::functions::{Answer, Body, Context, Function, Param, text};
use super::time;
use super::value::{self, Struct, Value};
use crate::model::Timestamp;

/// The method of that name. Its body gets the receiver before the arguments.
pub(super) fn find(receiver: &Value, name: &str) -> Option<&'static Function> {
    let methods = match receiver {
        Value::Time(_) => TIME,
        Value::Duration(_) => DURATION,
        Value::Map(map) if map.is_kv => KV,
        Value::List(list) if list.type_name == value::ALERTS => ALERTS,
        Value::List(list) if list.type_name == value::PAIRS => PAIRS,
        _ => return None,
    };
    methods.iter().find(|method| method.name == name)
}

const fn method(
    name: &'static str,
    params: &'static [Param],
    body: fn(&mut Context<'_, '_>, &[Value]) -> Answer,
) -> Function {
    Function {
        name,
        params,
        variadic: false,
        body: Body::Call(body),
    }
}

/// Of label sets.
static KV: &[Function] = &[
    method("SortedPairs", &[], |_, a| Ok(sorted_pairs(&a[0]))),
    method("Names", &[], |_, a| {
        Ok(column(&sorted_pairs(&a[0]), "Name"))
    }),
    method("Values", &[], |_, a| {
        Ok(column(&sorted_pairs(&a[0]), "Value"))
    }),
    method("Remove", &[Param::Any], |_, a| {
        let (Value::Map(map), Value::List(names)) = (&a[0], &a[1]) else {
            return Err("expected []string".to_owned());
        };
        let is_named = |name: &str| names.items.iter().any(|n| text(n) == name);
        let kept = map.entries.iter().filter(|(name, _)| !is_named(name));
        Ok(Value::kv(kept.map(|(name, v)| (name.as_str(), text(v)))))
    }),
];

/// Of a label set's pairs.
static PAIRS: &[Function] = &[
    method("Names", &[], |_, a| Ok(column(&a[0], "Name"))),
    method("Values", &[], |_, a| Ok(column(&a[0], "Value"))),
];

/// Of a notification's alerts.
static ALERTS: &[Function] = &[
    method("Firing", &[], |_, a| Ok(of_status(&a[0], "firing"))),
    method("Resolved", &[], |_, a| Ok(of_status(&a[0], "resolved"))),
];

/// The pairs of a label set by name, `alertname` first.
fn sorted_pairs(kv: &Value) -> Value {
    let Value::Map(map) = kv else {
        return Value::Nil;
    };
    let mut names: Vec<&String> = map.entries.keys().collect();
    names.sort_unstable_by_key(|name| (*name != "alertname", *name));
    let pair = |name: &String| {
        Value::Struct(Arc::new(Struct {
            type_name: "template.Pair",
            fields: vec![
                ("Name", Value::str(name.as_str())),
                ("Value", map.lookup(name).clone()),
            ],
        }))
    };
    Value::list(value::PAIRS, names.into_iter().map(pair).collect())
}

/// One field of all items.
fn column(pairs: &Value, field: &str) -> Value {
    let of = |item: &Value| match item {
        Value::Struct(pair) => pair.field(field).cloned(),
        _ => None,
    };
    let items = match pairs {
        Value::List(list) => list.items.iter().filter_map(of).collect(),
        _ => Vec::new(),
    };
    Value::list(value::STRINGS, items)
}

fn of_status(alerts: &Value, status: &str) -> Value {
    let has = |item: &&Value| match item {
        Value::Struct(alert) => alert.field("Status").is_some_and(|s| text(s) == status),
        _ => false,
    };
    let items = match alerts {
        Value::List(list) => list.items.iter().filter(has).cloned().collect(),
        _ => Vec::new(),
    };
    Value::list("[]template.Alert", items)
}

static TIME: &[Function] = &[
    method("Format", &[Param::Str], |c, a| {
        let out = time::format(stamp(&a[0]), text(&a[1]));
        c.budget.spend_bytes(out.len())?;
        Ok(Value::str(out))
    }),
    method("UTC", &[], |_, a| Ok(a[0].clone())),
    method("String", &[], |_, a| {
        Ok(Value::str(time::to_string(stamp(&a[0]))))
    }),
    method("Unix", &[], |_, a| {
        Ok(Value::Int(stamp(&a[0]).as_ms().div_euclid(1_000)))
    }),
    method("UnixMilli", &[], |_, a| {
        Ok(Value::Int(stamp(&a[0]).as_ms()))
    }),
    method("UnixNano", &[], |_, a| {
        Ok(Value::Int(stamp(&a[0]).as_ms().wrapping_mul(1_000_000)))
    }),
    method("Year", &[], |_, a| int(time::civil(stamp(&a[0])).year())),
    method("Month", &[], |_, a| {
        Ok(Value::str(time::month(time::civil(stamp(&a[0])))))
    }),
    method("Day", &[], |_, a| int(time::civil(stamp(&a[0])).day())),
    method("YearDay", &[], |_, a| {
        int(time::civil(stamp(&a[0])).day_of_year())
    }),
    method("Weekday", &[], |_, a| {
        Ok(Value::str(time::weekday(time::civil(stamp(&a[0])))))
    }),
    method("Hour", &[], |_, a| int(time::civil(stamp(&a[0])).hour())),
    method(
        "Minute",
        &[],
        |_, a| int(time::civil(stamp(&a[0])).minute()),
    ),
    method(
        "Second",
        &[],
        |_, a| int(time::civil(stamp(&a[0])).second()),
    ),
    method("Nanosecond", &[], |_, a| {
        Ok(Value::Int(i64::from(
            time::civil(stamp(&a[0])).subsec_nanosecond(),
        )))
    }),
    method("IsZero", &[], |_, a| {
        Ok(Value::Bool(stamp(&a[0]).as_ms() == ZERO_TIME_MS))
    }),
];

static DURATION: &[Function] = &[
    method("String", &[], |_, a| {
        Ok(Value::str(time::duration_to_string(nanos(&a[0]))))
    }),
    method("Nanoseconds", &[], |_, a| Ok(Value::Int(nanos(&a[0])))),
    method("Milliseconds", &[], |_, a| {
        Ok(Value::Int(nanos(&a[0]) / 1_000_000))
    }),
    method("Seconds", &[], |_, a| {
        Ok(Value::Float(nanos(&a[0]) as f64 / 1e9))
    }),
    method("Minutes", &[], |_, a| {
        Ok(Value::Float(nanos(&a[0]) as f64 / 6e10))
    }),
    method("Hours", &[], |_, a| {
        Ok(Value::Float(nanos(&a[0]) as f64 / 3.6e12))
    }),
];

/// Go's zero time: the first moment of the year 1.
pub const ZERO_TIME_MS: i64 = -62_135_596_800_000;

fn int(value: impl Into<i64>) -> Answer {
    Ok(Value::Int(value.into()))
}

fn stamp(value: &Value) -> Timestamp {
    match value {
        Value::Time(t) => *t,
        _ => Timestamp::default(),
    }
}

fn nanos(value: &Value) -> i64 {
    match value {
        Value::Duration(nanos) => *nanos,
        _ => 0,
    }
}
