//! `toJson`: a value as Go's encoder writes it, so that a label cannot break out of
//! the text of a body.

use super::value::Value;
use crate::model::Timestamp;

/// Structs whose fields Go writes with a small first letter.
const TAGGED: [&str; 2] = ["*template.Data", "template.Alert"];

/// Writes a value.
///
/// # Errors
/// In Go's words, for numbers that JSON does not have.
pub(super) fn write(value: &Value, out: &mut String) -> Result<(), String> {
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(n) | Value::Duration(n) => out.push_str(&n.to_string()),
        Value::Float(f) if f.is_finite() => out.push_str(&f.to_string()),
        Value::Float(f) => return Err(format!("json: unsupported value: {f}")),
        Value::Str(text) => write_text(text, out),
        Value::Time(at) => write_text(&rfc3339(*at), out),
        Value::List(list) => {
            out.push('[');
            for (i, item) in list.items.iter().enumerate() {
                comma(i, out);
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (i, (name, value)) in map.entries.iter().enumerate() {
                comma(i, out);
                write_field(name, value, out)?;
            }
            out.push('}');
        }
        Value::Struct(fields) => {
            out.push('{');
            let is_tagged = TAGGED.contains(&fields.type_name);
            for (i, (name, value)) in fields.fields.iter().enumerate() {
                comma(i, out);
                let mut name = (*name).to_owned();
                if is_tagged {
                    name[..1].make_ascii_lowercase();
                }
                write_field(&name, value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn comma(at: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
}

fn write_field(name: &str, value: &Value, out: &mut String) -> Result<(), String> {
    write_text(name, out);
    out.push(':');
    write(value, out)
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Without zeros at the end of the fraction.
fn rfc3339(at: Timestamp) -> String {
    if at.as_ms() == super::ZERO_TIME_MS {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    let whole = at.to_rfc3339();
    let digits = whole.trim_end_matches('Z').trim_end_matches('0');
    format!("{}Z", digits.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_go_does() {
        let check = |value: Value, want: &str| {
            let mut out = String::new();
            write(&value, &mut out).unwrap();
            assert_eq!(out, want);
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&out);
            assert!(parsed.is_ok(), "{out}");
        };
        check(Value::Nil, "null");
        check(Value::Int(-1), "-1");
        check(Value::Float(1.5), "1.5");
        check(
            Value::str("a\"b\\c\n<&>\u{1}"),
            r#""a\"b\\c\n\u003c\u0026\u003e\u0001""#,
        );
        check(Value::kv([("b", "2"), ("a", "1")]), r#"{"a":"1","b":"2"}"#);
        check(
            Value::Time(Timestamp::from_ms(1_500)),
            r#""1970-01-01T00:00:01.5Z""#,
        );
        check(
            Value::Time(Timestamp::from_ms(super::super::ZERO_TIME_MS)),
            r#""0001-01-01T00:00:00Z""#,
        );
        assert!(write(&Value::Float(f64::NAN), &mut String::new()).is_err());
    }
}
