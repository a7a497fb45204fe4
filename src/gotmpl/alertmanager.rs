//! The functions that Alertmanager gives to the templates of notifications.

use super::functions::{Answer, Body, Context, Function, Param, text};
use super::prometheus::{humanize_duration, humanized, regex, title};
use super::time;
use super::value::{self, Value};

const STR: &[Param] = &[Param::Str];
const TWO: &[Param] = &[Param::Str, Param::Str];
const ANY: &[Param] = &[Param::Any];

const fn function(
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

/// All of them: those of 0.25, and of the later ones what works on times in UTC.
pub static FUNCTIONS: &[Function] = &[
    function("toUpper", STR, false, |_, a| {
        Ok(Value::str(text(&a[0]).to_uppercase()))
    }),
    function("toLower", STR, false, |_, a| {
        Ok(Value::str(text(&a[0]).to_lowercase()))
    }),
    function("title", STR, false, |_, a| {
        Ok(Value::str(title(text(&a[0]))))
    }),
    function("trimSpace", STR, false, |_, a| {
        Ok(Value::str(text(&a[0]).trim()))
    }),
    function("join", &[Param::Str, Param::Any], false, |c, a| {
        let Value::List(list) = &a[1] else {
            return Err(format!(
                "wrong type for value; expected []string; got {}",
                a[1].type_name()
            ));
        };
        let parts: Vec<&str> = list.items.iter().map(text).collect();
        let out = parts.join(text(&a[0]));
        c.budget.spend_bytes(out.len())?;
        Ok(Value::str(out))
    }),
    function("match", TWO, false, |_, a| {
        Ok(Value::Bool(regex(text(&a[0]))?.is_match(text(&a[1]))))
    }),
    function("safeHtml", STR, false, |_, a| Ok(a[0].clone())),
    function("safeUrl", STR, false, |_, a| Ok(a[0].clone())),
    function(
        "reReplaceAll",
        &[Param::Str, Param::Str, Param::Str],
        false,
        |c, a| {
            let pattern = regex(text(&a[0]))?;
            let out = pattern.replace_all(text(&a[2]), text(&a[1]));
            c.budget.spend_bytes(out.len())?;
            Ok(Value::str(out.as_ref()))
        },
    ),
    function("stringSlice", &[], true, |_, a| {
        Ok(Value::list(value::STRINGS, a.to_vec()))
    }),
    function("date", &[Param::Str, Param::Any], false, |c, a| {
        let Value::Time(t) = &a[1] else {
            return Err(format!(
                "wrong type for value; expected time.Time; got {}",
                a[1].type_name()
            ));
        };
        let out = time::format(*t, text(&a[0]));
        c.budget.spend_bytes(out.len())?;
        Ok(Value::str(out))
    }),
    function("since", ANY, false, |c, a| match &a[0] {
        Value::Time(t) => {
            let ms = c.env.now.ms_since(*t);
            Ok(Value::Duration(ms.saturating_mul(1_000_000)))
        }
        other => Err(format!(
            "wrong type for value; expected time.Time; got {}",
            other.type_name()
        )),
    }),
    function("humanizeDuration", ANY, false, |_, a| {
        humanized(a, humanize_duration)
    }),
];
