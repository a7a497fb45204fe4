//! The functions that Alertmanager gives to the templates of notifications.

use super::functions::{Function, Param, plain, text};
use super::json;
use super::prometheus::{
    HUMANIZE_DURATION, MATCH, RE_REPLACE_ALL, SAFE_HTML, TITLE, TO_LOWER, TO_UPPER,
};
use super::time;
use super::value::{self, Value};

const STR: &[Param] = &[Param::Str];
const ANY: &[Param] = &[Param::Any];

/// All of them: those of 0.25, and of the later ones what works on times in UTC.
pub static FUNCTIONS: &[Function] = &[
    TO_UPPER,
    TO_LOWER,
    TITLE,
    plain("trimSpace", STR, false, |_, a| {
        Ok(Value::str(text(&a[0]).trim()))
    }),
    plain("join", &[Param::Str, Param::Any], false, |c, a| {
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
    MATCH,
    SAFE_HTML,
    plain("safeUrl", STR, false, |_, a| Ok(a[0].clone())),
    RE_REPLACE_ALL,
    plain("stringSlice", &[], true, |_, a| {
        Ok(Value::list(value::STRINGS, a.to_vec()))
    }),
    plain("date", &[Param::Str, Param::Any], false, |c, a| {
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
    plain("since", ANY, false, |c, a| match &a[0] {
        Value::Time(t) => {
            let ms = c.env.now.ms_since(*t);
            Ok(Value::Duration(ms.saturating_mul(1_000_000)))
        }
        other => Err(format!(
            "wrong type for value; expected time.Time; got {}",
            other.type_name()
        )),
    }),
    HUMANIZE_DURATION,
    plain("toJson", ANY, false, |c, a| {
        let mut out = String::new();
        json::write(&a[0], &mut out)?;
        c.budget.spend_bytes(out.len())?;
        Ok(Value::str(out))
    }),
];
