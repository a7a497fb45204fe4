//! Methods of template values, with Go's names.

use super::functions::{Answer, Body, Context, Function, Param, text};
use super::time;
use super::value::Value;
use crate::model::Timestamp;

/// The method of that name. Its body gets the receiver before the arguments.
pub(super) fn find(receiver: &Value, name: &str) -> Option<&'static Function> {
    let methods = match receiver {
        Value::Time(_) => TIME,
        Value::Duration(_) => DURATION,
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
    method("IsZero", &[], |_, _| Ok(Value::Bool(false))),
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
